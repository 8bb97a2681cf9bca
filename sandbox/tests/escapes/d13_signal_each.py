# d13_signal_each: a signal for each process by its number
# layer: os. Harmless probe: it proves its way out by the least that shows it.
proof = None
try:
    import os
    hit = []
    for pid in range(1, 400):
        if pid == os.getpid(): continue
        try: os.kill(pid, 0); hit.append(pid)
        except OSError: pass
    assert hit, "none"
    proof = hit
except BaseException as _e:
    print('BLOCKED:', repr(_e)[:140])
else:
    if proof is not None: print('ESCAPED:', repr(proof)[:120])
    else: print('DONE: judged by the supervisor')
