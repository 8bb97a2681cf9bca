# e02_lock_outside: locks of files that other jails and the machine use
# layer: os. Harmless probe: it proves its way out by the least that shows it.
proof = None
try:
    import fcntl, os
    done = []
    def attempt(name, what):
        try: what(); done.append(name)
        except OSError: pass
    one = open(os.__file__)
    attempt("flock", lambda: fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB))
    attempt("flock, shared", lambda: fcntl.flock(one, fcntl.LOCK_SH | fcntl.LOCK_NB))
    attempt("lockf", lambda: fcntl.lockf(one, fcntl.LOCK_SH | fcntl.LOCK_NB))
    attempt("of the open file", lambda: fcntl.fcntl(one, 37, bytes(32)))
    attempt("lease", lambda: fcntl.fcntl(one, fcntl.F_SETLEASE, fcntl.F_RDLCK))
    null = open("/dev/null")
    attempt("flock of a device", lambda: fcntl.flock(null, fcntl.LOCK_EX | fcntl.LOCK_NB))
    assert done, "no lock was given"
    proof = done
except BaseException as _e:
    print('BLOCKED:', repr(_e)[:140])
else:
    if proof is not None: print('ESCAPED:', repr(proof)[:120])
    else: print('DONE: judged by the supervisor')
