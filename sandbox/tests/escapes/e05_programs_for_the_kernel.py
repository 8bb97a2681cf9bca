# e05_programs_for_the_kernel: filters of its own: programs and records in the kernel
# layer: os. Harmless probe: it proves its way out by the least that shows it.
proof = None
try:
    import ctypes, socket, struct
    C = ctypes.CDLL(None, use_errno=True)
    done = []
    def program(*steps):
        made = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
        return made, ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(steps), ctypes.addressof(made)))
    kept, told = program((0x06, 0, 0, 0x7FFF0000))
    if C.prctl(22, 2, told, 0, 0) == 0: done.append("prctl")
    number = {"x86_64": 317, "aarch64": 277}[__import__("os").uname().machine]
    if C.syscall(ctypes.c_long(number), 1, 0, told) == 0: done.append("seccomp")
    a, b = socket.socketpair()
    kept, told = program((0x06, 0, 0, 0xFFFF))
    for name, option, value in (("SO_ATTACH_FILTER", 26, told.raw[:16]), ("SO_ATTACH_BPF", 50, bytes(4)),
                                ("SO_LOCK_FILTER", 44, b"\1\0\0\0"), ("SO_PASSCRED", 16, b"\1\0\0\0"),
                                ("SO_MARK", 36, b"\1\0\0\0"), ("SO_PRIORITY", 12, b"\6\0\0\0"),
                                ("SO_SNDBUF", 7, b"\0\0\x10\0"), ("SO_BINDTODEVICE", 25, b"lo\0")):
        try: a.setsockopt(1, option, value); done.append(name)
        except OSError: pass
    assert not C.prctl(4, 1, 0, 0, 0) == 0, "can be traced again"
    assert done, "no program is taken"
    proof = done
except BaseException as _e:
    print('BLOCKED:', repr(_e)[:140])
else:
    if proof is not None: print('ESCAPED:', repr(proof)[:120])
    else: print('DONE: judged by the supervisor')
