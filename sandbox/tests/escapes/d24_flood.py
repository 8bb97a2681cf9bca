# d24_flood: output without end
# layer: os. Harmless probe: it proves its way out by the least that shows it.
proof = None
try:
    import os
    while True: os.write(1, b"x" * 65536)
except BaseException as _e:
    print('BLOCKED:', repr(_e)[:140])
else:
    if proof is not None: print('ESCAPED:', repr(proof)[:120])
    else: print('DONE: judged by the supervisor')
