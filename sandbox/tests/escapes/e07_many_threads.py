# e07_many_threads: more threads than neighbours could bear
# layer: os. Harmless probe: it proves its way out by the least that shows it.
proof = None
try:
    import threading
    threading.stack_size(64 << 10)
    gate, count = threading.Event(), 0
    try:
        for _ in range(80):
            threading.Thread(target=gate.wait, args=(10,), daemon=True).start()
            count += 1
    except (RuntimeError, MemoryError): pass
    gate.set()
    assert count > 66, f"{count} threads"
    proof = f"{count} threads"
except BaseException as _e:
    print('BLOCKED:', repr(_e)[:140])
else:
    if proof is not None: print('ESCAPED:', repr(proof)[:120])
    else: print('DONE: judged by the supervisor')
