"""The zygote: warm, with one thread, and the first process of its jail. It forks one child a task.

Started by the launcher. Descriptor 3 holds its frames, 4 is the control line to the service, 5 the
rules of Landlock, where there are some. On the control line, a message each:

    service -> zygote   b"fork"                    make a child and tell of it
    service -> zygote   b"task 12"                 child 12 gets a task; make the next child
    zygote -> service   {"child": pid} and two descriptors: its process, and its own line
    zygote -> service   {"ended": pid, ...}        how it ended and what it took, as the kernel says

A child shuts itself in and then waits on its line for one message with its descriptors. It makes no
difference to a task whether its child was made before it came or after.

Invariants: no line of a task's code runs in the zygote, and nothing of one task is left when the
next one begins. Which child has a task is what the service says, before the task can begin. A
zygote that cannot tell the service of a child has killed that child, and ends.
"""

CONTROL_FD = 4
RULES_FD = 5
LINE_FD = 3  # in a child; later its result pipe
TASK_DIR = "/task"
# First byte of the result pipe: from here on the task's own code runs.
BEGAN = b"!"
# Exit statuses of a child whose task has not begun.
NOT_EMPTY = 123
NO_TASK = 124
NOT_BEGUN = 125
PR_SET_DUMPABLE = 4
PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2
SYS_LANDLOCK_RESTRICT_SELF = 446
SYS_PIDFD_OPEN = 434
PART_BYTES = 64 << 10
DEPTH_OF_FILES_MAX = 200
# Of a task, its first one included. The kernel counts those of the zygote, of the next child and of
# an ordinary user's launcher with them.
THREADS_MAX = 64
# The service, which has to stop tasks in time, goes before them.
NICENESS = 5
# While a task has all the threads that there may be, no child can be made.
RETRY_MS = 10
RETRIES_MAX = 500
# CPython 3.11 learns for the first eight calls or so, and in a second step for some more.
REHEARSALS = 20


class Kernel:
    """The few calls that Python has no function for."""

    def __init__(self):
        import ctypes

        self.ctypes = ctypes
        library = ctypes.CDLL(None, use_errno=True)
        library.syscall.restype = ctypes.c_long
        self.library = library
        self.syscall = library.syscall
        self.prctl = library.prctl

    def check(self, result, what):
        if result < 0:
            raise OSError(self.ctypes.get_errno(), what)
        return result

    def open_process(self, pid):
        long = self.ctypes.c_long
        return self.check(self.syscall(long(SYS_PIDFD_OPEN), long(pid), long(0)), "pidfd_open")

    def release_unused(self):
        """Gives back to the system what the start has left unused, where the C library can."""
        try:
            self.library.malloc_trim(self.ctypes.c_size_t(0))
        except AttributeError:
            pass

    def obey(self, rules):
        """Landlock, from here on, for this process and its threads."""
        long = self.ctypes.c_long
        told = self.syscall(long(SYS_LANDLOCK_RESTRICT_SELF), long(rules), long(0))
        self.check(told, "landlock_restrict_self")

    def filter(self, program):
        """The filter of system calls, from here on."""
        mode = self.ctypes.c_ulong(SECCOMP_MODE_FILTER)
        told = self.ctypes.byref(program.told)
        self.check(self.prctl(PR_SET_SECCOMP, mode, told), "seccomp")


class Program:
    """A filter in memory, laid out as the kernel reads it."""

    def __init__(self, ctypes, steps, placeholder):
        self.steps = ctypes.create_string_buffer(steps, len(steps))

        class Told(ctypes.Structure):
            _fields_ = [("length", ctypes.c_ushort), ("steps", ctypes.c_void_p)]

        self.told = Told(len(steps) // 8, ctypes.addressof(self.steps))
        # The last four bytes of a step are its number.
        self.places = [
            at + 4
            for at in range(0, len(steps), 8)
            if steps[at + 4 : at + 8] == placeholder
        ]

    def name_owner(self, own):
        """Puts the number of the process into its places."""
        for at in self.places:
            self.steps[at : at + 4] = own


class Zygote:
    """What children are made of."""

    def __init__(self, stream):
        import _socket
        import resource

        told = decode(read_frame(stream).decode("utf-8"))
        # A task that asks for no other environment finds it set.
        give_environment(told["environment"])
        self.kernel = Kernel()
        placeholder = told["own_pid"].to_bytes(4, sys.byteorder)

        def program():
            return Program(self.kernel.ctypes, read_frame(stream), placeholder)

        self.network = told["network"]
        # What a child waits behind, and with network what its task gets besides: it is not known
        # before whether the task may use it.
        self.filters = [program()]
        self.final = {True: program(), False: program()} if self.network else {}
        self.rules = RULES_FD if told["landlock"] else None
        self.socket = _socket
        self.resource = resource
        family, kind = _socket.AF_UNIX, _socket.SOCK_SEQPACKET
        self.control = _socket.socket(family, kind, 0, CONTROL_FD)
        self.send = _socket.socket.sendmsg
        if not self.network:
            forget_sendmsg(self.kernel.ctypes)
        self.children = {}
        # The child that has a task.
        self.working = None
        self.is_wanted = False
        self.retries = 0
        self.is_leaving = False
        # A crash is not written down by a program of the host's, with root's rights, and no process
        # of the same user may look into this one or its children.
        self.kernel.prctl(PR_SET_DUMPABLE, 0)

    def serve(self):
        import gc
        import select

        poll = select.poll()
        poll.register(CONTROL_FD, select.POLLIN)
        gc.collect()
        gc.freeze()
        # What a child does not find in memory is neither given to it nor taken from it again.
        self.kernel.release_unused()
        while True:
            ready = [fd for fd, _ in poll.poll(RETRY_MS if self.is_wanted else None)]
            # Before any end: that a child has a task was said before it could begin.
            if CONTROL_FD in ready:
                self.hear()
            for fd in ready:
                if fd != CONTROL_FD:
                    poll.unregister(fd)
                    self.bury(fd)
            if self.is_leaving and self.working is None:
                posix._exit(1)
            if self.is_wanted and not self.is_leaving:
                process = self.fork()
                if process is not None:
                    poll.register(process, select.POLLIN)

    def hear(self):
        """Takes in what the service says."""
        said = self.control.recv(32)
        if said.startswith(b"task "):
            pid = int(said[5:])
            if pid in self.children.values():
                self.working = pid
        elif said != b"fork":
            posix._exit(0)  # the service went away, or has lost its mind
        self.is_wanted = True
        self.retries = 0

    def fork(self):
        """Makes a child; a descriptor that is readable when it has ended. `None` when there is none."""
        try:
            ours, theirs = self.socket.socketpair(
                self.socket.AF_UNIX, self.socket.SOCK_SEQPACKET, 0
            )
            pid = posix.fork()
        except OSError as error:
            # A task has all the threads that there may be: later then.
            self.retries += 1
            if self.retries > RETRIES_MAX and self.working is None:
                self.leave(f"no child can be made: {message_of(error)}")
            return None
        if pid == 0:
            try:
                self.become_task(theirs)
            except BaseException as error:
                say(f"the task could not begin: {name_of(error)}: {message_of(error)}\n")
            posix._exit(NOT_BEGUN)
        self.is_wanted = False
        process = None
        try:
            process = self.kernel.open_process(pid)
            given = number(process) + number(ours.fileno())
            self.tell(b'{"child":%d}' % pid, given)
            self.children[process] = pid
            return process
        except OSError as error:
            # Nobody knows of it, so that nobody would ever end it.
            posix.kill(pid, SIGKILL)
            posix.waitpid(pid, 0)
            if process is not None:
                posix.close(process)
            self.leave(f"a child cannot be handed over: {message_of(error)}")
            return None
        finally:
            ours.close()
            theirs.close()

    def leave(self, reason):
        """Ends this zygote, after the task that runs; the service puts another one in its place."""
        say(f"{reason}\n")
        self.is_leaving = True
        self.is_wanted = False

    def tell(self, message, descriptors=b""):
        """Sends a message as JSON, which the callers format: `encode` would write to many pages
        that the next child shares, and each of them is copied then."""
        extra = []
        if descriptors:
            extra.append((self.socket.SOL_SOCKET, self.socket.SCM_RIGHTS, descriptors))
        self.send(self.control, [message], extra)

    def bury(self, process):
        """Tells how a child ended, with nothing of it left."""
        pid = self.children.pop(process)
        posix.close(process)
        _, status, usage = posix.wait4(pid, 0)
        if pid == self.working:
            self.working = None
        # The files of a task that runs are not touched when another child ends.
        clean = self.working is not None or clear_directory()
        try:
            own = self.resource.getrusage(self.resource.RUSAGE_SELF)
            self.tell(
                b'{"ended":%d,"status":%d,"cpu_seconds":%r,"peak_bytes":%d,"own_bytes":%d,"clean":%s}'
                % (
                    pid,
                    status,
                    usage.ru_utime + usage.ru_stime,
                    usage.ru_maxrss * 1024,
                    own.ru_maxrss * 1024,
                    b"true" if clean else b"false",
                )
            )
        except OSError as error:
            self.leave(f"the end of a child cannot be told: {message_of(error)}")

    def become_task(self, line):
        """In the child: shuts itself in, waits for its task, runs it. Never returns."""
        line = line.detach()
        posix.dup2(line, LINE_FD)
        # It stands in the task directory since it was forked: a task that runs by now may have
        # closed that to everyone.
        if self.rules is not None:
            self.kernel.obey(self.rules)
        posix.closerange(LINE_FD + 1, 256)
        posix.nice(NICENESS)
        own = number(posix.getpid())
        for program in self.filters + list(self.final.values()):
            program.name_owner(own)
        for program in self.filters:
            self.kernel.filter(program)
        job, source = self.wait_for_task()
        # `prepare` takes the smaller one where the zygote's own limit is lower.
        job["limits"]["RLIMIT_NPROC"] = THREADS_MAX + 3
        prepare(job)
        if job["network"]:
            # Names are asked for over connections, as nothing else leads out. For the C library
            # alone: it is no variable of the task's.
            posix.putenv(b"RES_OPTIONS", b"use-vc")
        job["memory"] = peak_so_far()
        posix.write(LINE_FD, BEGAN)
        mode = validate if job["mode"] == "validate" else execute
        finish(Pipe(LINE_FD), job, *mode(job, source))

    def wait_for_task(self):
        """`(job, source)`; by then 0, 1 and 2 are the task's, and 3 is the pipe of its result."""
        socket = self.socket
        line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, LINE_FD)
        _, extra, _, _ = line.recvmsg(1, socket.CMSG_SPACE(5 * 4))
        line.detach()
        if not extra:
            posix._exit(NO_TASK)
        packed = extra[0][2]
        given = [
            int.from_bytes(packed[at : at + 4], sys.byteorder) for at in range(0, len(packed), 4)
        ]
        # In this order: no number is given away while it is still to be read.
        memory, stdout, stderr, result = given[:4]
        for fd, place in zip(given[1:], (1, 2, LINE_FD, 0)):
            posix.dup2(fd, place, True)
        job, source = read_job(memory)
        posix.closerange(LINE_FD + 1, 64)
        if not is_fresh():
            posix._exit(NOT_EMPTY)
        if self.network:
            if not job["network"]:
                forget_sendmsg(self.kernel.ctypes)
            self.kernel.filter(self.final[job["network"]])
        if not job["is_file"]:
            source = source.decode("utf-8")
        return job, source


def number(value):
    """As the kernel reads it."""
    return value.to_bytes(4, sys.byteorder)


def read_job(fd):
    """`(job, source)` of two frames. A stream would write to more of the shared pages."""
    given = b"".join(iter(lambda: posix.read(fd, PART_BYTES), b""))
    at = 4 + int.from_bytes(given[:4], "big")
    return decode(given[4:at].decode("utf-8")), given[at + 4 :]


class Pipe:
    """The pipe of the result."""

    def __init__(self, fd):
        self.fd = fd

    def send(self, frame):
        data = len(frame).to_bytes(4, "big") + frame
        try:
            while data:
                data = data[posix.write(self.fd, data) :]
        except OSError:
            pass  # the user's code closed it; the exit status still tells


def forget_sendmsg(ctypes):
    """Takes `sendmsg` away from sockets: the filter refuses it, and libraries that see that there
    is none use `send`. Where it cannot be taken away it fails when it is called."""
    import _socket
    import gc

    try:
        (names,) = gc.get_referents(_socket.socket.__dict__)
        del names["sendmsg"]
        ctypes.pythonapi.PyType_Modified(ctypes.py_object(_socket.socket))
    except (AttributeError, KeyError, TypeError, ValueError):
        pass


def is_fresh():
    """True when the task's directory is as no task has ever seen it; asked by its child."""
    posix.chmod(TASK_DIR, 0o700)
    if posix.listdir(TASK_DIR):
        return False
    # Its times would be a message from one task to the next.
    posix.utime(TASK_DIR)
    return True


def clear_directory():
    """Removes all that a task left; false where something stays."""
    posix.chmod(TASK_DIR, 0o700)
    left = posix.listdir(TASK_DIR)
    if not left:
        return True
    # By names relative to where it stands: a task can nest deeper than a path can be long.
    try:
        return clear_here(TASK_DIR, 0)
    except OSError:
        return False
    finally:
        posix.chdir(TASK_DIR)


def clear_here(path, depth):
    posix.chdir(path)
    for name in posix.listdir("."):
        try:
            posix.unlink(name)
        except OSError:
            if depth >= DEPTH_OF_FILES_MAX:
                return False
            posix.chmod(name, 0o700)
            if not clear_here(name, depth + 1):
                return False
            posix.chdir("..")
            posix.rmdir(name)
    return True


def warm():
    """Imports once what tasks and the harness need most."""
    import ast, collections, datetime, fcntl, functools, json, linecache, math, os, re, resource
    import time, traceback


def rehearse():
    """Runs a small task some times: what the interpreter learns of the way, it learns once.

    Until it has, it leaves marks in the code that it comes through and in what it looks up, and
    each child would make them anew, in pages of its own.
    """
    job = {
        "filename": HARNESS,
        "is_file": False,
        "globals": {},
        "imports": [],
        "policy": {"blocked_modules": [], "allowed_modules": None, "blocked_calls": []},
        "result_max_bytes": 1024,
        "result_as_repr": False,
        "modules": [],
        "hooks": [],
        "environment": {},
        "search_path": sys.path[:],
        # It is 0 in a jail, so that the rehearsal changes nothing.
        "limits": {"RLIMIT_CORE": 0},
    }
    reader, writer = posix.pipe()
    for _ in range(REHEARSALS):
        prepare(job)
        job["memory"] = peak_so_far()
        told = decode(encode(job, 1 << 20).decode("utf-8"))
        code, reply, result = execute(told, "import math\n[1, 2.5]")
        if code:
            raise RuntimeError(f"the rehearsal failed: {reply}")
        answer(Pipe(writer), job, reply, result)
        posix.read(reader, 1 << 10)
    posix.close(reader)
    posix.close(writer)
    sys.modules["__main__"].__dict__.clear()


def serve(stream):
    warm()
    atexit._clear()
    # What is the same for every task is done once.
    give_streams()
    rehearse()
    Zygote(stream).serve()
