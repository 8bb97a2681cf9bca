# d15_sparse_file: a file as large as a disk
# layer: os. Harmless probe: it proves its way out by the least that shows it.
proof = None
try:
    import os
    fd = os.open("sparse", os.O_CREAT | os.O_WRONLY)
    os.ftruncate(fd, 1 << 40); proof = "made"
except BaseException as _e:
    print('BLOCKED:', repr(_e)[:140])
else:
    if proof is not None: print('ESCAPED:', repr(proof)[:120])
    else: print('DONE: judged by the supervisor')
