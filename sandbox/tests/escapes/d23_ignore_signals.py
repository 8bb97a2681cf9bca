# d23_ignore_signals: a task that does not want to end
# layer: os. Harmless probe: it proves its way out by the least that shows it.
proof = None
try:
    import signal, time
    for n in range(1, 65):
        try: signal.signal(n, signal.SIG_IGN)
        except (OSError, ValueError): pass
    while True:
        try: time.sleep(60)
        except BaseException: pass
except BaseException as _e:
    print('BLOCKED:', repr(_e)[:140])
else:
    if proof is not None: print('ESCAPED:', repr(proof)[:120])
    else: print('DONE: judged by the supervisor')
