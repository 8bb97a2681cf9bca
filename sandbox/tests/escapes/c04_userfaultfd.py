# c04_userfaultfd: holding up the kernel
# layer: os. Harmless probe: it proves its way out by the least that shows it.
proof = None
try:
    import ctypes, os
    C = ctypes.CDLL(None, use_errno=True)
    def call(x86, arm, *rest):
        number = {"x86_64": x86, "aarch64": arm}[os.uname().machine]
        told = C.syscall(ctypes.c_long(number), *rest)
        if told < 0: raise OSError(ctypes.get_errno(), "refused")
        return told
    proof = "told %d" % call(323, 282, 0)
except BaseException as _e:
    print('BLOCKED:', repr(_e)[:140])
else:
    if proof is not None: print('ESCAPED:', repr(proof)[:120])
    else: print('DONE: judged by the supervisor')
