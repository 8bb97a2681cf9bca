# Tries a few ways out, each harmless where it works. `context` names a file and a port of the
# machine that must be out of reach, and says whether what is shown is shared with others.
import _socket, ctypes, errno, os, resource

C = ctypes.CDLL(None, use_errno=True)
SYS_IO_URING_SETUP, SYS_UNSHARE = 425, {"x86_64": 272, "aarch64": 97}.get(os.uname().machine, -1)
SYS_CLOSE_RANGE = 436


def host_files():
    open(context["file"]).read()


def network():
    # Not by `socket`, whose import takes longer than all the attempts.
    line = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
    line.settimeout(1)
    line.connect(("127.0.0.1", context["port"]))


def new_process():
    if os.fork() == 0:
        os._exit(0)


def new_program():
    os.execv("/proc/self/exe", ["python3"])


def other_processes():
    os.kill(os.getppid(), 0)


def tracing():
    refused(C.ptrace(0x4206, os.getppid(), 0, 0))


def writing():
    for place in ("/outside", "/usr/outside", "/dev/shm/outside", "/tmp/outside"):
        try:
            open(place, "w").close()
            return
        except OSError:
            pass
    raise OSError("nowhere")


def links():
    os.symlink(context["file"], "link")


def namespaces():
    refused(C.syscall(SYS_UNSHARE, 0x10000000))


def rings():
    refused(C.syscall(SYS_IO_URING_SETUP, 1, 0))


def limits():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard + 1, hard + 1))


def environment():
    if set(os.environ) <= {"HOME", "USER", "LOGNAME"} and os.getuid() >= 1000:
        raise OSError("nothing of the service's, and nobody")


def locks():
    import fcntl
    fcntl.flock(open(os.__file__), fcntl.LOCK_SH | fcntl.LOCK_NB)


def notices():
    import fcntl
    fcntl.fcntl(os.open(os.path.dirname(os.__file__), os.O_RDONLY), fcntl.F_NOTIFY, 1)


def signals_by_descriptor():
    import fcntl
    read, _ = os.pipe()
    fcntl.fcntl(read, fcntl.F_SETOWN, 1)


def descriptors_in_messages():
    one, _ = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    # Without a message: what is refused is the call itself.
    ctypes.set_errno(0)
    C.sendmsg(one.fileno(), None, 0)
    if ctypes.get_errno() == errno.EPERM:
        raise OSError("refused")


def filters():
    # Without a program: what is refused is the call itself.
    ctypes.set_errno(0)
    C.prctl(22, 2, None, 0, 0)
    if ctypes.get_errno() == errno.EPERM:
        raise OSError("refused")


def descriptors_of_a_thread():
    refused(C.syscall(SYS_CLOSE_RANGE, 1000, 1001, 2))


def socket_programs():
    one, _ = _socket.socketpair()
    one.setsockopt(_socket.SOL_SOCKET, 44, 1)


def crash_dumps():
    refused(C.prctl(4, 1, 0, 0, 0))


def refused(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")


def held(attempt):
    try:
        attempt()
        return False
    except (OSError, ValueError):
        return True


attempts = (
    host_files, network, new_process, new_program, other_processes, tracing, writing, links,
    namespaces, rings, limits, environment, locks, notices, signals_by_descriptor,
    descriptors_in_messages, filters, descriptors_of_a_thread, socket_programs, crash_dumps,
)
if not context["shares_files"]:
    attempts = tuple(attempt for attempt in attempts if attempt is not locks)
result = [[attempt.__name__.replace("_", " "), held(attempt)] for attempt in attempts]
