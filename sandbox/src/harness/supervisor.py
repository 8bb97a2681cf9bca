"""The supervisor: the first process of a container. It makes one child, which runs one task.

Started by the engine, with the service at the other end of its standard streams. In come frames:
settings, the filter of system calls; later the time limit, the job and its source. Out go messages
of a mark, a length of four bytes, and so many bytes:

    r  ready for a task                      o, e  what the task printed
    a  a part of its reply                   x     how it ended, as the kernel says; the last one

Invariant: the task has none of these streams, and its process cannot reach this one: what is said
of its end is the supervisor's word. When the service goes away, so does the container.
"""

PART_BYTES = 32 << 10
# After the child's end: nobody is left who could write, so that this is only a backstop.
DRAIN_MS = 200
# The service stops a task in time; this is for a task whose service cannot.
GRACE_SECONDS = 5
KILLS = ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")


def speak(mark, data=b""):
    message = mark + len(data).to_bytes(4, "big") + data
    while message:
        message = message[posix.write(1, message) :]


def end_all(number=None, frame=None):
    """Kills all processes of the container, this one last."""
    try:
        posix.kill(-1, SIGKILL)
    except OSError:
        pass  # there is no other
    if number is not None:
        posix._exit(0)


def kernel_has_killed():
    """True when something here was killed for want of memory."""
    for path in KILLS:
        try:
            fd = posix.open(path, posix.O_RDONLY)
        except OSError:
            continue
        told = posix.read(fd, 4096).split()
        posix.close(fd)
        return b"oom_kill" in told and told[told.index(b"oom_kill") + 1] != b"0"
    return False


def first_to_go():
    """Where memory runs out, the task goes, and not who is to tell of it."""
    try:
        fd = posix.open("/proc/self/oom_score_adj", posix.O_WRONLY)
        posix.write(fd, b"1000")
        posix.close(fd)
    except OSError:
        pass


class Supervisor:
    """One task: its child, and the pipes to it."""

    def __init__(self, stream):
        import _signal

        self.signal = _signal
        told = decode(read_frame(stream).decode("utf-8"))
        self.kernel = Kernel()
        placeholder = told["own_pid"].to_bytes(4, sys.byteorder)
        self.filter = Program(self.kernel.ctypes, read_frame(stream), placeholder)
        # Nobody but root may look into this process from now on.
        self.kernel.prctl(PR_SET_DUMPABLE, 0)
        forget_sendmsg(self.kernel.ctypes)
        for number in (_signal.SIGTERM, _signal.SIGINT, _signal.SIGALRM):
            _signal.signal(number, end_all)
        self.woken, waker = posix.pipe()
        for fd in (self.woken, waker):
            posix.set_blocking(fd, False)
        _signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        _signal.signal(_signal.SIGCHLD, lambda number, frame: None)

    def serve(self, stream):
        import gc

        gc.collect()
        gc.freeze()
        speak(b"r")
        if not stream.peek(1):
            posix._exit(NO_TASK)
        limit = int.from_bytes(read_frame(stream), "big") / 1000
        job, source = read_frame(stream), read_frame(stream)
        pipes = [posix.pipe() for _ in range(3)]
        child = posix.fork()
        if child == 0:
            try:
                self.become_task(job, source, [ends[1] for ends in pipes])
            except BaseException as error:
                say(f"the task could not begin: {name_of(error)}: {message_of(error)}\n")
            posix._exit(NOT_BEGUN)
        for _, theirs in pipes:
            posix.close(theirs)
        self.signal.setitimer(self.signal.ITIMER_REAL, limit + GRACE_SECONDS)
        status, usage = self.relay(child, {ends[0]: mark for ends, mark in zip(pipes, (b"o", b"e", b"a"))})
        report = {
            "status": status,
            "cpu_seconds": usage.ru_utime + usage.ru_stime,
            "peak_bytes": usage.ru_maxrss * 1024,
            "out_of_memory": kernel_has_killed(),
        }
        speak(b"x", encode(report, 4096))
        posix._exit(0)

    def relay(self, child, marks):
        """Passes on what the child writes; `(status, usage)` once it has ended and all is said."""
        import select

        poll = select.poll()
        for fd in (0, self.woken, *marks):
            poll.register(fd, select.POLLIN)
        ended = None
        while marks or ended is None:
            events = poll.poll(None if ended is None else DRAIN_MS)
            if not events:
                break
            for fd, _ in events:
                if fd == 0:
                    end_all(SIGKILL)  # the service went away, or has lost its mind
                elif fd == self.woken:
                    posix.read(fd, 512)
                    ended = ended or self.reap(child)
                else:
                    data = posix.read(fd, PART_BYTES)
                    if data:
                        speak(marks[fd], data)
                    else:
                        poll.unregister(fd)
                        del marks[fd]
        return ended

    def reap(self, child):
        """The end of the child, if it is that; other processes end with it."""
        ended = None
        try:
            while True:
                pid, status, usage = posix.wait4(-1, posix.WNOHANG)
                if pid == 0:
                    break
                if pid == child:
                    ended = (status, usage)
                    end_all()
        except ChildProcessError:
            pass
        return ended

    def become_task(self, job, source, ends):
        """In the child: shuts itself in and runs the task. Never returns."""
        self.signal.set_wakeup_fd(-1)
        for number in (self.signal.SIGTERM, self.signal.SIGALRM, self.signal.SIGCHLD):
            self.signal.signal(number, self.signal.SIG_DFL)
        self.signal.signal(self.signal.SIGINT, self.signal.default_int_handler)
        # In this order: no number is given away while it is still to be used.
        for fd, place in zip(ends, (1, 2, LINE_FD)):
            posix.dup2(fd, place, place != LINE_FD)
        posix.closerange(LINE_FD + 1, 256)
        self.kernel.prctl(PR_SET_DUMPABLE, 1)
        first_to_go()
        job = decode(job.decode("utf-8"))
        give_stdin(job["stdin"])
        posix.chdir(TASK_DIR)
        self.filter.name_owner(posix.getpid().to_bytes(4, sys.byteorder))
        self.kernel.filter(self.filter)
        if not job["is_file"]:
            source = source.decode("utf-8")
        prepare(job)
        mode = validate if job["mode"] == "validate" else execute
        job["memory"] = peak_so_far()
        finish(Pipe(LINE_FD), job, *mode(job, source))


def supervise(stream):
    warm()
    atexit._clear()
    give_environment({})
    give_streams()
    Supervisor(stream).serve(stream)
