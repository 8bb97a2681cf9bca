# d21_cgroup: a control group without limits
# layer: os. Harmless probe: it proves its way out by the least that shows it.
proof = None
try:
    open("/sys/fs/cgroup/cgroup.procs", "w").write("0"); proof = "left"
except BaseException as _e:
    print('BLOCKED:', repr(_e)[:140])
else:
    if proof is not None: print('ESCAPED:', repr(proof)[:120])
    else: print('DONE: judged by the supervisor')
