# d14_limits_of_parent: limits of the parent
# layer: os. Harmless probe: it proves its way out by the least that shows it.
proof = None
try:
    import os, resource
    resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE, (3, 3)); proof = "set"
except BaseException as _e:
    print('BLOCKED:', repr(_e)[:140])
else:
    if proof is not None: print('ESCAPED:', repr(proof)[:120])
    else: print('DONE: judged by the supervisor')
