"""The process around the code: what it finds, what it may take, what it took."""

MFD_CLOEXEC_AND_SEALING = 3
F_ADD_SEALS = 1033
ALL_SEALS = 0xF


def give_stdin(text):
    """Descriptor 0 becomes what the call gives, or nothing."""
    if text:
        import fcntl

        fd = posix.memfd_create("stdin", MFD_CLOEXEC_AND_SEALING)
        data = text.encode("utf-8")
        while data:
            data = data[posix.write(fd, data) :]
        posix.lseek(fd, 0, 0)
        # It is memory that no limit counts: it does not grow.
        fcntl.fcntl(fd, F_ADD_SEALS, ALL_SEALS)
    else:
        fd = posix.open("/dev/null", posix.O_RDONLY)
    posix.dup2(fd, 0, True)
    posix.close(fd)


def give_environment(names):
    """The environment is exactly `names`, whatever the interpreter was started with."""
    for name in list(posix.environ):
        posix.unsetenv(name)
    posix.environ.clear()
    for name, value in names.items():
        name, value = name.encode("utf-8"), value.encode("utf-8")
        posix.putenv(name, value)
        posix.environ[name] = value


def set_limits(limits):
    import resource

    for name, value in limits.items():
        kind = getattr(resource, name)
        most = resource.getrlimit(kind)[1]
        hard = value + RESERVE_BYTES if name == "RLIMIT_AS" else value
        if most != resource.RLIM_INFINITY:
            hard = min(hard, most)
        resource.setrlimit(kind, (min(value, hard), hard))


def open_reserve():
    try:
        import resource

        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    except Exception:
        pass


def leave(code=None):
    raise SystemExit(code)


def give_streams():
    sys.stdout.reconfigure(errors="backslashreplace", line_buffering=True)
    # `site` would have given these two.
    builtins.exit = builtins.quit = leave


def prepare(job):
    give_environment(job["environment"])
    sys.path[:] = job["search_path"]
    sys.argv[:] = [job["filename"]]
    set_limits(job["limits"])


def namespace(job):
    """The one dictionary of globals, which is `__main__`'s own."""
    names = sys.modules["__main__"].__dict__
    names.clear()
    names.update(job["globals"])
    names["__name__"] = "__main__"
    names["__builtins__"] = builtins
    names["__doc__"] = None
    if job["is_file"]:
        names["__file__"] = job["filename"]
    return names


def usage():
    """Processor seconds and peak memory in bytes of this process and the children it waited for."""
    children = posix.times()
    seconds = time.process_time() + children[2] + children[3]
    try:
        # Not `ru_maxrss`, which a new program inherits from the one that started it.
        with open("/proc/self/status", "rb") as status:
            peak = int(status.read().split(b"VmHWM:")[1].split()[0]) * 1024
    except Exception:
        peak = None
    return seconds, peak
