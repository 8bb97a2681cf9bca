# d05_exec_loader: the loader of programs, told to load one
# layer: os. Harmless probe: it proves its way out by the least that shows it.
proof = None
try:
    import ctypes, os
    import glob
    loaders = glob.glob("/lib64/ld-linux*") + glob.glob("/lib/ld-*")
    os.execv(loaders[0] if loaders else "/lib64/ld-linux-x86-64.so.2", ["ld", "/bin/true"])
except BaseException as _e:
    print('BLOCKED:', repr(_e)[:140])
else:
    if proof is not None: print('ESCAPED:', repr(proof)[:120])
    else: print('DONE: judged by the supervisor')
