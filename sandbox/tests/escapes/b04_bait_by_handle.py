# b04_bait_by_handle: the bait by a file handle, which knows no mounts
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
    handle = ctypes.create_string_buffer(136); handle[0] = 128
    mount = ctypes.c_int()
    proof = call(303, 264, -100, b"/task", handle, ctypes.byref(mount), 0)
except BaseException as _e:
    print('BLOCKED:', repr(_e)[:140])
else:
    if proof is not None: print('ESCAPED:', repr(proof)[:120])
    else: print('DONE: judged by the supervisor')
