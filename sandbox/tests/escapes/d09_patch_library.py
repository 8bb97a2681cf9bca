# d09_patch_library: code for the next task: a file of the library written over
# layer: os. Harmless probe: it proves its way out by the least that shows it.
proof = None
try:
    import os
    open(os.__file__, "a").write("x"); proof = "written"
except BaseException as _e:
    print('BLOCKED:', repr(_e)[:140])
else:
    if proof is not None: print('ESCAPED:', repr(proof)[:120])
    else: print('DONE: judged by the supervisor')
