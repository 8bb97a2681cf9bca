# d20_core_pattern: a program that the kernel starts
# layer: os. Harmless probe: it proves its way out by the least that shows it.
proof = None
try:
    open("/proc/sys/kernel/core_pattern", "w").write("|/bin/true"); proof = "set"
except BaseException as _e:
    print('BLOCKED:', repr(_e)[:140])
else:
    if proof is not None: print('ESCAPED:', repr(proof)[:120])
    else: print('DONE: judged by the supervisor')
