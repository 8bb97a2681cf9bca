//! The launcher: builds a jail around itself and becomes the interpreter in it.
//!
//! The service starts it as `… sandbox-init`: its own program, or another one that calls [`init`]
//! first. It is a process of its own because it must have one thread: a fork of the service would
//! inherit locks of threads that do not exist in it. It reads a [`Spec`] from standard input,
//! remains the parent of the program, and exits with it. When the service closes its end, the
//! launcher kills the program. Meanwhile it answers the system calls that tasks may not make
//! themselves.
//!
//! Invariant: the interpreter starts only when every wall stands; whatever fails on the way is
//! printed and ends the launcher.

use std::{
    convert::Infallible,
    ffi::{CString, OsStr},
    fs,
    io::{self, Read as _, Seek as _, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    process,
    sync::atomic::{AtomicBool, Ordering},
};

use nix::{
    fcntl::{OFlag, openat},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        memfd::{MFdFlags, memfd_create},
        resource::{Resource, getrlimit, setrlimit},
        stat::Mode,
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Gid, Pid, Uid, execve, setgroups, setresgid, setresuid},
};

use super::{
    channel, filter,
    ids::{Ids, JAIL_ID},
    kernel,
    launch_error::{LaunchError, context},
    mounts::TASK,
    namespaces,
    spec::{ProgramKind, Spec, take_frame},
    syscall_handler::SyscallHandler,
};

/// The argument by which a program is asked to be the launcher.
pub const INIT_COMMAND: &str = "sandbox-init";

/// Descriptors of the zygote.
const BLOB_FD: i32 = 3;
const CONTROL_FD: i32 = 4;
const RULES_FD: i32 = 5;

/// Threads and processes of one jail together.
const PROCESSES_MAX: u64 = 256;
/// The limit of the zygote; tasks have a lower one. The kernel counts descriptors in transit
/// against the limit of the next sender, so this limit must be out of reach of other tasks.
const OPEN_FILES_MAX: u64 = 4096;
const STACK_BYTES: u64 = 8 << 20;

static CALLED: AtomicBool = AtomicBool::new(false);

/// True when this program can be started again as the launcher.
pub(crate) fn is_available() -> bool {
    CALLED.load(Ordering::Relaxed)
}

/// Turns the process into the launcher of a jail when it was started as one; else it returns at
/// once. Call it at the very beginning of `main`, before any thread is started.
///
/// ```
/// gleitzeit_sandbox::init();
/// // the program
/// ```
pub fn init() {
    CALLED.store(true, Ordering::Relaxed);
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().as_deref() != Some(OsStr::new(INIT_COMMAND)) {
        return;
    }
    let error = match launch() {
        Ok(code) => process::exit(code),
        Err(error) => error,
    };
    // The service reads it from the pipe that it made of this stream.
    let _ = writeln!(io::stderr(), "{error}");
    process::exit(125);
}

/// Reads the spec, builds the jail, starts the program, and waits for its end.
fn launch() -> Result<i32, LaunchError> {
    let mut input = fs::File::from(kernel::inherited(0));
    let read = context("read what to launch");
    let mut next = || take_frame(&mut input);
    let spec: Spec = next()
        .and_then(|frame| serde_json::from_slice(&frame).map_err(Into::into))
        .map_err(read)?;
    let blob = match spec.program_kind {
        ProgramKind::Zygote => {
            Some(blob(&mut input).map_err(context("keep the program's frames"))?)
        }
        ProgramKind::Probe | ProgramKind::Check => None,
    };
    for cgroup in &spec.cgroups {
        // Each group limits by itself. The service sets the limits and knows whether it may.
        fs::write(cgroup, "0").map_err(context(format!("join `{}`", cgroup.display())))?;
    }
    // Before the fork: the namespace of processes takes effect with the next child only.
    let ids = namespaces::enter()?;
    let rules = super::mounts::build(&spec, &ids)?;
    let line = namespaces::UserMapHandshake::new()?;
    let (questions, asks) = channel::pair().map_err(context("make a socket"))?;
    let Some(child) = kernel::fork().map_err(context("fork"))? else {
        drop(questions);
        let program = JailedProgram { spec: &spec, ids: &ids, line, asks, blob, rules };
        let Err(error) = program.become_it(&input);
        let _ = writeln!(io::stderr(), "{error}");
        process::exit(125);
    };
    // A copy of the child's end would keep the wait for its listener from ending with the child.
    drop(asks);
    if ids.is_root() {
        line.serve(&ids, child)?;
    } else {
        drop(line);
    }
    drop((rules, blob));
    // The service reads the end of the control socket when the program exits; a copy here would
    // keep it open.
    let null = fs::OpenOptions::new().read(true).write(true).open("/dev/null");
    let null = null.map_err(context("open /dev/null"))?;
    kernel::set_descriptor(&null, 1).map_err(context("close the control socket"))?;
    let mut handler = match spec.program_kind {
        ProgramKind::Zygote => SyscallHandler::new(&questions, ids, &spec)
            .map_err(context("receive the listener of the program"))?,
        ProgramKind::Probe | ProgramKind::Check => None,
    };
    drop(questions);
    watch(child, spec.program_kind, &input, handler.as_mut())
        .map_err(context("wait for the program"))
}

/// All that is left to read until the frames end, in memory that a descriptor stands for.
fn blob(input: &mut fs::File) -> io::Result<OwnedFd> {
    let mut frames = take_frame(input)?;
    let mut memory =
        fs::File::from(memfd_create("zygote", MFdFlags::MFD_CLOEXEC).map_err(io::Error::from)?);
    memory.write_all(&frames)?;
    frames.clear();
    memory.rewind()?;
    Ok(memory.into())
}

/// Waits for the end of the program, and kills it when the service goes away. Meanwhile its tasks'
/// questions are answered.
fn watch(
    child: Pid,
    kind: ProgramKind,
    input: &fs::File,
    mut handler: Option<&mut SyscallHandler>,
) -> io::Result<i32> {
    let process = kernel::open_process(child)?;
    loop {
        let mut events = vec![PollFd::new(process.as_fd(), PollFlags::POLLIN)];
        // A question's input is its own to read, and may end before it does.
        if kind == ProgramKind::Zygote {
            events.push(PollFd::new(input.as_fd(), PollFlags::POLLIN));
        }
        let others = events.len();
        let mut timeout = PollTimeout::NONE;
        if let Some(handler) = &handler {
            handler.add_events(&mut events, &mut timeout);
        }
        match poll(&mut events, timeout) {
            Ok(_) => {}
            Err(nix::errno::Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
        }
        let happened = |at: usize| events.get(at).is_some_and(|event| event.any() == Some(true));
        if happened(0) {
            return match waitpid(child, Some(WaitPidFlag::empty()))? {
                WaitStatus::Exited(_, code) => Ok(code),
                WaitStatus::Signaled(_, signal, _) => Ok(128 + signal as i32),
                _ => Ok(125),
            };
        }
        if kind == ProgramKind::Zygote && happened(1) && (&*input).read(&mut [0; 64])? == 0 {
            // Killing the first process of a namespace kills all of them.
            kernel::kill_process(process.as_fd())?;
        }
        let is_asked = happened(others);
        drop(events);
        if let Some(handler) = &mut handler {
            handler.handle(is_asked);
        }
    }
}

/// The parts from which the first process of the new namespace is made.
struct JailedProgram<'a> {
    spec: &'a Spec,
    ids: &'a Ids,
    line: namespaces::UserMapHandshake,
    /// The socket over which the launcher receives the listener of forwarded calls.
    asks: OwnedFd,
    blob: Option<OwnedFd>,
    rules: Option<OwnedFd>,
}

impl JailedProgram<'_> {
    /// In the first process of the new namespace: takes its place and turns into the program.
    fn become_it(self, input: &fs::File) -> Result<Infallible, LaunchError> {
        let spec = self.spec;
        // Not available everywhere, and no security boundary. It must run before the user changes:
        // only the owner of `/proc/self` may write there.
        let _ = go_first(self.ids);
        // Before the user changes: only root may make a network namespace by itself.
        namespaces::leave_network()?;
        // A session has no terminal. If the kernel schedules by sessions, it also has a processor
        // share of its own.
        nix::unistd::setsid().map_err(context("begin a session"))?;
        if self.ids.is_root() {
            become_mapped_user(self.line)?;
        }
        // After the user has changed: the kernel clears the death signal when credentials change.
        kernel::die_with_parent().map_err(context("tie the program to the launcher"))?;
        for (limit, most) in [
            (Resource::RLIMIT_CORE, 0),
            (Resource::RLIMIT_NPROC, PROCESSES_MAX),
            (Resource::RLIMIT_NOFILE, OPEN_FILES_MAX),
            (Resource::RLIMIT_STACK, STACK_BYTES),
            (Resource::RLIMIT_MEMLOCK, 0),
            (Resource::RLIMIT_MSGQUEUE, 0),
        ] {
            // A limit of the service that is lower already cannot be raised.
            let set = getrlimit(limit).and_then(|(_, hard)| {
                let most = most.min(hard);
                setrlimit(limit, most, most)
            });
            set.map_err(context(format!("set {limit:?}")))?;
        }
        // After the limits and the user: both need capabilities.
        kernel::drop_capabilities().map_err(context("drop capabilities"))?;
        // Before the filter: without privileges the kernel accepts none otherwise.
        kernel::no_new_privileges().map_err(context("refuse new privileges"))?;
        nix::unistd::chdir(TASK).map_err(context("enter /task"))?;
        let descriptors = match spec.program_kind {
            ProgramKind::Zygote => {
                let asked = kernel::filter_and_listen(&filter::asking(spec.network))
                    .and_then(|questions| channel::send(&self.asks, b"?", &[questions.as_fd()]));
                asked.map_err(context("send the listener to the launcher"))?;
                drop(self.asks);
                zygote_descriptors(self.blob, self.rules)
            }
            ProgramKind::Probe => kernel::set_descriptor(input, 0).map(|()| BLOB_FD),
            ProgramKind::Check => process::exit(0),
        };
        let first_unused = descriptors.map_err(context("arrange the program's descriptors"))?;
        // Every inherited descriptor left open would lead out of the jail.
        kernel::close_from(first_unused.unsigned_abs())
            .map_err(context("close what is not the program's"))?;
        execute(spec)
    }
}

/// If the machine runs out of memory, the kernel kills processes of a jail before the service and
/// its neighbours.
fn go_first(ids: &Ids) -> io::Result<()> {
    let file = openat(ids.proc(), "self/oom_score_adj", OFlag::O_WRONLY, Mode::empty())?;
    fs::File::from(file).write_all(b"1000")
}

/// Waits until the launcher has mapped the user of this process, and changes to it.
fn become_mapped_user(line: namespaces::UserMapHandshake) -> Result<(), LaunchError> {
    setgroups(&[]).map_err(context("leave all groups"))?;
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER)
        .map_err(context("make a user namespace"))?;
    line.ask()?;
    let (user, group) = (Uid::from_raw(JAIL_ID), Gid::from_raw(JAIL_ID));
    setresgid(group, group, group).map_err(context("change the group"))?;
    setresuid(user, user, user).map_err(context("change the user"))
}

/// Descriptor 0 is empty; 1 and 2 are the log, 3 the frames, 4 the control socket, 5 the Landlock
/// rules. Returns the first unused number.
fn zygote_descriptors(blob: Option<OwnedFd>, rules: Option<OwnedFd>) -> io::Result<i32> {
    // The descriptors must move above all target numbers first, or `set_descriptor` would close one
    // of them.
    let control = above(kernel::inherited(1))?;
    let blob = blob.map(above).transpose()?;
    let rules = rules.map(above).transpose()?;
    let null = above(fs::OpenOptions::new().read(true).open("/dev/null")?.into())?;
    kernel::set_descriptor(&null, 0)?;
    kernel::set_descriptor(io::stderr(), 1)?;
    if let Some(blob) = blob {
        kernel::set_descriptor(&blob, BLOB_FD)?;
    }
    kernel::set_descriptor(&control, CONTROL_FD)?;
    let Some(rules) = rules else { return Ok(RULES_FD) };
    kernel::set_descriptor(&rules, RULES_FD)?;
    Ok(RULES_FD + 1)
}

/// The same, with a number that no descriptor of the program has.
fn above(fd: OwnedFd) -> io::Result<OwnedFd> {
    let number = nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(32))?;
    drop(fd);
    Ok(kernel::received(number))
}

fn execute(spec: &Spec) -> Result<Infallible, LaunchError> {
    let text =
        |text: &[u8]| CString::new(text).map_err(|_| io::Error::other("a NUL character in it"));
    let program = spec.program.as_os_str().as_bytes();
    let start = || -> io::Result<Infallible> {
        let mut arguments = vec![text(program)?];
        for argument in &spec.arguments {
            arguments.push(text(argument.as_bytes())?);
        }
        let environment = spec
            .environment
            .iter()
            .map(|variable| text(variable.as_bytes()))
            .collect::<io::Result<Vec<_>>>()?;
        Ok(execve(&arguments[0], &arguments, &environment)?)
    };
    start().map_err(context(format!("start `{}`", spec.program.display())))
}
