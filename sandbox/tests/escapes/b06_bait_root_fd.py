# b06_bait_root_fd: the bait below a descriptor of the root
# layer: os. Harmless probe: it proves its way out by the least that shows it.
proof = None
try:
    import os
    root = os.open("/", os.O_PATH)
    proof = os.read(os.open(context["file"].lstrip("/"), os.O_RDONLY, dir_fd=root), 99)
except BaseException as _e:
    print('BLOCKED:', repr(_e)[:140])
else:
    if proof is not None: print('ESCAPED:', repr(proof)[:120])
    else: print('DONE: judged by the supervisor')
