# b19_open_descriptors: descriptors that nobody closed: all but the standard ones and the result pipe
# layer: os. Harmless probe: it proves its way out by the least that shows it.
proof = None
try:
    import os
    found = []
    for fd in range(4, 256):
        try: os.fstat(fd); found.append(fd)
        except OSError: pass
    assert found, "none"
    proof = found
except BaseException as _e:
    print('BLOCKED:', repr(_e)[:140])
else:
    if proof is not None: print('ESCAPED:', repr(proof)[:120])
    else: print('DONE: judged by the supervisor')
