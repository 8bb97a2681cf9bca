# d17_terminal: keystrokes for whoever has the terminal
# layer: os. Harmless probe: it proves its way out by the least that shows it.
proof = None
try:
    import fcntl, os
    for name in ("/dev/tty", "/dev/console", "/dev/pts/0"):
        try: fd = os.open(name, os.O_RDWR); break
        except OSError: pass
    else: fd = 0
    fcntl.ioctl(fd, 0x5412, b"x"); proof = "typed"
except BaseException as _e:
    print('BLOCKED:', repr(_e)[:140])
else:
    if proof is not None: print('ESCAPED:', repr(proof)[:120])
    else: print('DONE: judged by the supervisor')
