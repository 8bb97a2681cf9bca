# d03_exec_interpreter: the one program that is there
# layer: os. Harmless probe: it proves its way out by the least that shows it.
proof = None
try:
    import os, sys
    os.execv(sys.executable, [sys.executable, "-c", "print('ESCAPED: a program')"])
except BaseException as _e:
    print('BLOCKED:', repr(_e)[:140])
else:
    if proof is not None: print('ESCAPED:', repr(proof)[:120])
    else: print('DONE: judged by the supervisor')
