# e06_descriptors_of_a_thread: more descriptors than a task may have, by tables of its threads' own
# layer: os. Harmless probe: it proves its way out by the least that shows it.
proof = None
try:
    import ctypes, os, threading
    C = ctypes.CDLL(None, use_errno=True)
    C.syscall.restype = ctypes.c_long
    long = ctypes.c_long
    done = []
    if C.syscall(long(436), long(1000), long(1001), long(2)) == 0: done.append("close_range")
    clone = {"x86_64": 56, "aarch64": 220}[os.uname().machine]
    # A thread in all but its descriptors: it would begin on no stack, and is refused before that.
    flags = 0x3D0F00 & ~0x400
    ctypes.set_errno(0)
    if C.syscall(long(clone), long(flags), long(0), long(0), long(0), long(0)) >= 0 or ctypes.get_errno() != 1:
        done.append("clone")
    got = []
    def fill():
        k = 0
        try:
            while True: os.eventfd(0) if hasattr(os, "eventfd") else os.pipe(); k += 1
        except OSError: pass
        got.append(k)
    threads = [threading.Thread(target=fill) for _ in range(4)]
    for one in threads: one.start()
    for one in threads: one.join()
    if sum(got) > 64: done.append(sum(got))
    assert done, f"{sum(got)} descriptors in all"
    proof = done
except BaseException as _e:
    print('BLOCKED:', repr(_e)[:140])
else:
    if proof is not None: print('ESCAPED:', repr(proof)[:120])
    else: print('DONE: judged by the supervisor')
