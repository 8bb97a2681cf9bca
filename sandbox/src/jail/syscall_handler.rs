//! Answers, in the launcher, the system calls that tasks may not make by themselves: locks of files,
//! and with network, connections.
//!
//! A filter cannot inspect what a descriptor refers to. The launcher can. It performs an allowed
//! call itself, with a descriptor and an address that the task cannot change any more: nothing is
//! checked and then left to the task.
//!
//! Invariant: a task locks no file but those in its own directory.

use std::{
    fs,
    io::{self, Read as _},
    os::fd::{AsFd as _, OwnedFd},
};

use nix::{
    fcntl::{OFlag, openat},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::stat::{Mode, fstat, stat},
    unistd::Pid,
};

use super::{
    channel,
    connect::TaskConnector,
    ids::Ids,
    kernel::{self, ForwardedCall},
    mounts::TASK,
    spec::Spec,
};

/// A lock that another one stands in the way of is tried again so often: both are of one task.
const LOCK_AGAIN_MS: u8 = 10;

/// A call that is answered later.
struct WaitingLock {
    id: u64,
    file: OwnedFd,
    operation: i32,
}

/// Answers forwarded system calls.
pub(crate) struct SyscallHandler {
    questions: OwnedFd,
    ids: Ids,
    /// The device that the task's directory is.
    own: u64,
    locks: Vec<WaitingLock>,
    connector: Option<TaskConnector>,
}

impl SyscallHandler {
    /// Waits on `line` for the listener of forwarded calls; `None` if the program has ended before.
    pub(crate) fn new(line: &OwnedFd, ids: Ids, spec: &Spec) -> io::Result<Option<Self>> {
        let mut ready = [PollFd::new(line.as_fd(), PollFlags::POLLIN)];
        while poll(&mut ready, PollTimeout::NONE) == Err(nix::errno::Errno::EINTR) {}
        let Some(message) = channel::receive(line.as_fd())? else { return Ok(None) };
        let questions = message.descriptors.into_iter().next();
        let questions = questions.ok_or_else(|| io::Error::other("it sent no descriptor"))?;
        let own = stat(TASK)?.st_dev;
        let connector = spec.network.then(|| TaskConnector::new(spec));
        Ok(Some(Self { questions, ids, own, locks: Vec::new(), connector }))
    }

    /// Adds what is to be waited for; the first of it is a question.
    pub(crate) fn add_events<'a>(
        &'a self,
        events: &mut Vec<PollFd<'a>>,
        timeout: &mut PollTimeout,
    ) {
        events.push(PollFd::new(self.questions.as_fd(), PollFlags::POLLIN));
        if let Some(connector) = &self.connector {
            connector.add_events(events);
        }
        if !self.locks.is_empty() {
            *timeout = LOCK_AGAIN_MS.into();
        }
    }

    /// Answers the next question, and those that had to wait.
    pub(crate) fn handle(&mut self, is_asked: bool) {
        self.lock_again();
        if let Some(connector) = &mut self.connector {
            connector.advance(self.questions.as_fd());
        }
        if !is_asked {
            return;
        }
        if let Ok(Some(question)) = kernel::next_question(self.questions.as_fd()) {
            let result = match question.call {
                libc::SYS_fcntl => self.lock_range(&question).map(Some),
                libc::SYS_flock => self.lock_file(&question),
                libc::SYS_connect => self.connect(&question),
                _ => Err(io::Error::from_raw_os_error(libc::EPERM)),
            };
            let result = match result {
                Ok(None) => return,
                Ok(Some(())) => Ok(()),
                Err(error) => Err(error.raw_os_error().unwrap_or(libc::EPERM)),
            };
            kernel::answer(self.questions.as_fd(), question.id, result);
        }
    }

    /// A record lock belongs to a process, and only the task has its files open: there is no other
    /// process to lock against.
    fn lock_range(&self, question: &ForwardedCall) -> io::Result<()> {
        self.own_file(question).map(drop)
    }

    /// A lock of an open file is taken as the task would take it. `None` if the task has to wait.
    fn lock_file(&mut self, question: &ForwardedCall) -> io::Result<Option<()>> {
        let file = self.own_file(question)?;
        // The kernel reads the low half alone, too.
        let [low, ..] = question.arguments[1].to_le_bytes();
        let operation = i32::from(low);
        match kernel::lock_file(file.as_fd(), operation) {
            Err(error)
                if error.kind() == io::ErrorKind::WouldBlock && operation & libc::LOCK_NB == 0 =>
            {
                self.locks.push(WaitingLock { id: question.id, file, operation });
                Ok(None)
            }
            result => result.map(Some),
        }
    }

    fn lock_again(&mut self) {
        let questions = self.questions.as_fd();
        self.locks.retain(|lock| {
            if !kernel::is_asking(questions, lock.id) {
                return false;
            }
            let result = match kernel::lock_file(lock.file.as_fd(), lock.operation) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                result => result.map_err(|error| error.raw_os_error().unwrap_or(libc::EPERM)),
            };
            kernel::answer(questions, lock.id, result);
            false
        });
    }

    fn connect(&mut self, question: &ForwardedCall) -> io::Result<Option<()>> {
        let socket = self.file(question)?;
        let Some(connector) = &mut self.connector else {
            return Err(io::Error::from_raw_os_error(libc::EPERM));
        };
        connector.connect(self.questions.as_fd(), question, &socket)
    }

    /// The file that the call names, if it is the task's own.
    fn own_file(&self, question: &ForwardedCall) -> io::Result<OwnedFd> {
        let file = self.file(question)?;
        if fstat(&file)?.st_dev != self.own {
            return Err(io::Error::from_raw_os_error(libc::EPERM));
        }
        Ok(file)
    }

    /// The file of the descriptor in the first argument.
    fn file(&self, question: &ForwardedCall) -> io::Result<OwnedFd> {
        let process = kernel::open_process(question.thread)
            .or_else(|_| kernel::open_process(self.process_of(question.thread)?))?;
        let file = kernel::descriptor_of(process.as_fd(), question.arguments[0])?;
        if !kernel::is_asking(self.questions.as_fd(), question.id) {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        Ok(file)
    }

    /// The process of a thread.
    fn process_of(&self, thread: Pid) -> io::Result<Pid> {
        let path = format!("{thread}/status");
        let opened = openat(self.ids.proc(), &*path, OFlag::O_RDONLY, Mode::empty())?;
        let mut result = String::new();
        fs::File::from(opened).take(4096).read_to_string(&mut result)?;
        result
            .lines()
            .find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok())
            .map(Pid::from_raw)
            .ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))
    }
}
