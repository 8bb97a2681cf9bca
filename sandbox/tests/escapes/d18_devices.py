# d18_devices: the memory and the disks of the machine
# layer: os. Harmless probe: it proves its way out by the least that shows it.
proof = None
try:
    import os
    found = []
    for name in ("mem", "kmsg", "sda", "vda", "fuse", "kvm", "shm/x", "ptmx", "net/tun", "loop0"):
        try: open("/dev/" + name, "rb"); found.append(name)
        except OSError: pass
    assert found, "none"
    proof = found
except BaseException as _e:
    print('BLOCKED:', repr(_e)[:140])
else:
    if proof is not None: print('ESCAPED:', repr(proof)[:120])
    else: print('DONE: judged by the supervisor')
