# d16_real_time: the whole processor, before everyone else
# layer: os. Harmless probe: it proves its way out by the least that shows it.
proof = None
try:
    import os
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)); proof = "set"
except BaseException as _e:
    print('BLOCKED:', repr(_e)[:140])
else:
    if proof is not None: print('ESCAPED:', repr(proof)[:120])
    else: print('DONE: judged by the supervisor')
