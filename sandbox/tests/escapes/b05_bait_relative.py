# b05_bait_relative: the bait by going up from the library, further than there is
# layer: os. Harmless probe: it proves its way out by the least that shows it.
proof = None
try:
    import os
    up = os.path.dirname(os.__file__) + "/.." * 40
    proof = open(up + context["file"]).read()
except BaseException as _e:
    print('BLOCKED:', repr(_e)[:140])
else:
    if proof is not None: print('ESCAPED:', repr(proof)[:120])
    else: print('DONE: judged by the supervisor')
