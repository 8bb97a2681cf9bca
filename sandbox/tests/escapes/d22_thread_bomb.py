# d22_thread_bomb: threads without end; at the end of its time nothing is left
# layer: os. Harmless probe: it proves its way out by the least that shows it.
proof = None
try:
    import threading, time
    while True:
        try: threading.Thread(target=time.sleep, args=(60,)).start()
        except (RuntimeError, MemoryError): time.sleep(0.01)
except BaseException as _e:
    print('BLOCKED:', repr(_e)[:140])
else:
    if proof is not None: print('ESCAPED:', repr(proof)[:120])
    else: print('DONE: judged by the supervisor')
