# d11_chmod_library: rights on the library
# layer: os. Harmless probe: it proves its way out by the least that shows it.
proof = None
try:
    import os
    os.chmod(os.__file__, 0o777); proof = "changed"
except BaseException as _e:
    print('BLOCKED:', repr(_e)[:140])
else:
    if proof is not None: print('ESCAPED:', repr(proof)[:120])
    else: print('DONE: judged by the supervisor')
