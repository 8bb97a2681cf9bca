# d06_hard_link: a file of the library by another name
# layer: os. Harmless probe: it proves its way out by the least that shows it.
proof = None
try:
    import os
    os.link(os.__file__, "copy.py"); proof = "linked"
except BaseException as _e:
    print('BLOCKED:', repr(_e)[:140])
else:
    if proof is not None: print('ESCAPED:', repr(proof)[:120])
    else: print('DONE: judged by the supervisor')
