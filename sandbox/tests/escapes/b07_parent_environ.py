# b07_parent_environ: the variables of the parent and of every other process
# layer: os. Harmless probe: it proves its way out by the least that shows it.
proof = None
try:
    import os
    found = []
    for pid in ["self", "thread-self"] + list(range(1, 300)):
        try: found.append(open("/proc/%s/environ" % pid, "rb").read())
        except OSError: pass
    assert found, "no /proc"
    proof = found
except BaseException as _e:
    print('BLOCKED:', repr(_e)[:140])
else:
    if proof is not None: print('ESCAPED:', repr(proof)[:120])
    else: print('DONE: judged by the supervisor')
