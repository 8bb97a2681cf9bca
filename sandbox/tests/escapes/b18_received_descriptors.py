# b18_received_descriptors: descriptors that lie ready in a line
# layer: os. Harmless probe: it proves its way out by the least that shows it.
proof = None
try:
    import os, socket, stat
    taken = []
    for fd in range(3, 256):
        try:
            if stat.S_ISSOCK(os.fstat(fd).st_mode): taken.append(fd)
        except OSError: pass
    proof = taken or None
except BaseException as _e:
    print('BLOCKED:', repr(_e)[:140])
else:
    if proof is not None: print('ESCAPED:', repr(proof)[:120])
    else: print('DONE: judged by the supervisor')
