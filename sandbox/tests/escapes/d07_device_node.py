# d07_device_node: a device of its own
# layer: os. Harmless probe: it proves its way out by the least that shows it.
proof = None
try:
    import os, stat
    os.mknod("null", stat.S_IFCHR | 0o666, os.makedev(1, 3)); proof = "made"
except BaseException as _e:
    print('BLOCKED:', repr(_e)[:140])
else:
    if proof is not None: print('ESCAPED:', repr(proof)[:120])
    else: print('DONE: judged by the supervisor')
