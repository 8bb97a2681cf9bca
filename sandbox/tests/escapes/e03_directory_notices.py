# e03_directory_notices: notices of what others do with shared directories
# layer: os. Harmless probe: it proves its way out by the least that shows it.
proof = None
try:
    import fcntl, os
    fd = os.open(os.path.dirname(os.__file__), os.O_RDONLY)
    fcntl.fcntl(fd, fcntl.F_NOTIFY, 0x3F)
    proof = "is told of what others do in that directory"
except BaseException as _e:
    print('BLOCKED:', repr(_e)[:140])
else:
    if proof is not None: print('ESCAPED:', repr(proof)[:120])
    else: print('DONE: judged by the supervisor')
