# d12_signal_everyone: a signal for every process there is
# layer: os. Harmless probe: it proves its way out by the least that shows it.
proof = None
try:
    import os, signal
    os.kill(-1, 0); proof = "sent"
except BaseException as _e:
    print('BLOCKED:', repr(_e)[:140])
else:
    if proof is not None: print('ESCAPED:', repr(proof)[:120])
    else: print('DONE: judged by the supervisor')
