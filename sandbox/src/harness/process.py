"""The process around the code: what it finds, what it may take, what it took."""

MFD_CLOEXEC_AND_SEALING = 3
F_ADD_SEALS = 1033
ALL_SEALS = 0xF

# The names that `give_environment` has set; `None` before its first call.
environment = None


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
    global environment
    if names == environment:
        return
    for name in list(posix.environ):
        posix.unsetenv(name)
    posix.environ.clear()
    for name, value in names.items():
        name, value = name.encode("utf-8"), value.encode("utf-8")
        posix.putenv(name, value)
        posix.environ[name] = value
    environment = names


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
    if job["hooks"]:
        sys.meta_path.append(Hooks(job["hooks"]))
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


def peak_so_far():
    """Most memory so far, in bytes; not of what started this program, where it is a fork."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


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


class Hooks:
    """Runs the lines of code in `.pth` files once an import finds nothing otherwise.

    An editable install and some other packages can be imported only after such a line. Most tasks
    need none of them, and do not pay for it.
    """

    def __init__(self, hooks):
        self.hooks = hooks

    def find_spec(self, name, path=None, target=None):
        hooks, self.hooks = self.hooks, ()
        if not hooks:
            return None
        for hook in hooks:
            try:
                exec(hook["line"], {})
            except Exception as error:
                say(f"{hook['file']}: {name_of(error)}: {message_of(error)}\n")
        for finder in list(sys.meta_path):
            find = getattr(finder, "find_spec", None)
            spec = find(name, path, target) if find and finder is not self else None
            if spec is not None:
                return spec
        return None


class Beside:
    """The modules beside a script, which the service has read with it.

    They come before all others that are not loaded yet, as the directory of a script does where
    Python itself starts it.
    """

    def __init__(self, job, joined):
        sizes = job["modules"]
        at = len(joined) - sum(size for _, size in sizes)
        self.script = joined[:at]
        self.policy = job["policy"]
        self.files = {}
        for file, size in sizes:
            self.files[file] = joined[at : at + size]
            at += size
        self.root = job["filename"].rpartition("/")[0]
        self.root += "/" if self.root else ""
        # Before the finder of all paths, and after those of what is built in.
        names = [getattr(finder, "__name__", "") for finder in sys.meta_path]
        at = names.index("PathFinder") if "PathFinder" in names else len(names)
        sys.meta_path.insert(at, self)

    def find_spec(self, name, path=None, target=None):
        at = name.replace(".", "/")
        make = sys.modules["_frozen_importlib"].ModuleSpec
        for file, is_package in ((at + "/__init__.py", True), (at + ".py", False)):
            if file in self.files:
                spec = make(name, self, origin=self.root + file, is_package=is_package)
                spec.has_location = True
                if is_package:
                    spec.submodule_search_locations = [self.root + at]
                return spec
        if any(file.startswith(at + "/") for file in self.files):
            spec = make(name, None, is_package=True)
            spec.submodule_search_locations = [self.root + at]
            return spec
        return None

    def create_module(self, spec):
        return None

    def source_of(self, name):
        at = name.replace(".", "/")
        source = self.files.get(at + ".py")
        return self.files.get(at + "/__init__.py") if source is None else source

    def exec_module(self, module):
        source, file = self.source_of(module.__name__), module.__spec__.origin
        found = policy_findings(parse(source, file), self.policy, lines_of(source))
        if found:
            raise ImportError(f"{file}:{found[0]['line']}: {found[0]['message']}")
        exec(compile(source, file, "exec", dont_inherit=True), module.__dict__)

    def get_source(self, name):
        return "\n".join(lines_of(self.source_of(name)))
