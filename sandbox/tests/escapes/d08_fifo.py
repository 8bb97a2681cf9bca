# d08_fifo: a pipe with a name
# layer: os. Harmless probe: it proves its way out by the least that shows it.
proof = None
try:
    import os
    os.mkfifo("pipe"); proof = "made"
except BaseException as _e:
    print('BLOCKED:', repr(_e)[:140])
else:
    if proof is not None: print('ESCAPED:', repr(proof)[:120])
    else: print('DONE: judged by the supervisor')
