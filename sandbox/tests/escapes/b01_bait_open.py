# b01_bait_open: the bait by name
# layer: os. Harmless probe: it proves its way out by the least that shows it.
proof = None
try:
    proof = open(context["file"]).read()
except BaseException as _e:
    print('BLOCKED:', repr(_e)[:140])
else:
    if proof is not None: print('ESCAPED:', repr(proof)[:120])
    else: print('DONE: judged by the supervisor')
