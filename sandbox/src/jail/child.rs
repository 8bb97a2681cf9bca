//! A child of a zygote, on the service's side: it waits for one task, and ends with it.
//!
//! Invariant: it is dead when this value is dropped, used or not.

use std::{
    fs::File,
    io::{self, Seek as _, Write as _},
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use nix::{
    fcntl::{FcntlArg, OFlag, SealFlag, fcntl},
    sys::memfd::{MFdFlags, memfd_create},
    unistd::pipe2,
};
use tokio::{io::AsyncReadExt as _, net::unix::pipe, sync::oneshot};

use super::{
    cgroup::ControlGroup,
    channel::{self, Channel},
    kernel,
};
use crate::{
    Interpreter, Job, SandboxError, frames,
    reply::read_reply,
    watch::{self, EndCause, Ended, Exit},
};

/// What the user of a child reports to the child's zygote slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Note {
    /// The child of this number gets a task.
    Taken(u64),
    /// It could not begin it.
    NotBegun(u64),
}

pub(crate) type Notes = tokio::sync::mpsc::UnboundedSender<Note>;

/// Exit statuses by which the harness explains why a task has not begun.
const NOT_EMPTY: i32 = 123;
const NO_TASK: i32 = 124;

/// Why there is no outcome.
#[derive(Debug)]
pub(crate) enum RunError {
    /// Nothing of the task's code has run: another child can have it.
    NotBegun(io::Error),
    /// It is unknown how much of the task has run.
    Failed(SandboxError),
}

impl From<SandboxError> for RunError {
    fn from(error: SandboxError) -> Self {
        Self::Failed(error)
    }
}

/// A child that waits, or works.
#[derive(Debug)]
pub(crate) struct Child {
    /// The process id of the child within its jail.
    pub(crate) pid: u64,
    process: OwnedFd,
    line: OwnedFd,
    /// To its zygote.
    control: Arc<Channel>,
    ended: oneshot::Receiver<Exit>,
    notes: Notes,
    group: Option<Arc<ControlGroup>>,
    is_over: bool,
}

impl Child {
    pub(crate) fn new(
        (pid, process, line): (u64, OwnedFd, OwnedFd),
        control: Arc<Channel>,
        ended: oneshot::Receiver<Exit>,
        notes: Notes,
        group: Option<Arc<ControlGroup>>,
    ) -> Self {
        Self { pid, process, line, control, ended, notes, group, is_over: false }
    }

    /// Runs a job to its end.
    ///
    /// # Errors
    /// [`RunError::NotBegun`] if no line of its code has run.
    pub(crate) async fn run(
        mut self,
        interpreter: &Interpreter,
        job: &Job,
    ) -> Result<Ended, RunError> {
        let _ = self.notes.send(Note::Taken(self.pid));
        let ended = self.try_run(interpreter, job).await;
        if matches!(ended, Err(RunError::NotBegun(_))) {
            let _ = self.notes.send(Note::NotBegun(self.pid));
        }
        ended
    }

    async fn try_run(&mut self, interpreter: &Interpreter, job: &Job) -> Result<Ended, RunError> {
        // The zygote knows who works before the work begins, and makes its next child meanwhile,
        // also where something fails from here on.
        let sent = self.control.send(format!("task {}", self.pid).as_bytes());
        sent.map_err(RunError::NotBegun)?;
        if let Some(group) = &self.group {
            // The limit includes the task's files, which are in memory and have a limit of their
            // own.
            let bytes = job.limits.memory_bytes.saturating_add(job.limits.file_bytes);
            group
                .limit_memory(bytes)
                .map_err(SandboxError::system("limit the memory of a task"))?;
        }
        // The limit must be set before the task gets its descriptors: it could allocate at once.
        let pipes = Pipes::new().map_err(SandboxError::system("make the pipes of a task"))?;
        let (ours, theirs) = pipes.split()?;
        let input = TaskInput::new(interpreter, job)
            .map_err(SandboxError::system("put a task into memory"))?;
        let [stdout, stderr, result] = &theirs;
        let mut descriptors =
            vec![input.job.as_fd(), stdout.as_fd(), stderr.as_fd(), result.as_fd()];
        descriptors.extend(input.stdin.as_ref().map(OwnedFd::as_fd));
        channel::send(&self.line, b"!", &descriptors).map_err(RunError::NotBegun)?;
        // Copies of the pipes' ends here would keep them open after the task has exited.
        drop((theirs, input));
        let [stdout, stderr, mut result] = ours;
        let mut has_begun = false;
        let converse = async {
            // The harness writes one byte before it runs the code; without it another child may run
            // the task.
            has_begun = result.read_u8().await.is_ok();
            if !has_begun {
                return Ok(None);
            }
            read_reply(result, job.limits.result_max_bytes).await
        };
        let ended = watch::watch(self, job, (stdout, stderr), converse).await?;
        if has_begun || ended.ending != EndCause::Own || ended.exit.out_of_memory {
            return Ok(ended);
        }
        Err(RunError::NotBegun(not_begun(&ended)))
    }

    fn process(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }
}

impl watch::WatchedProcess for Child {
    async fn wait(&mut self) -> io::Result<Exit> {
        let exit = (&mut self.ended).await;
        self.is_over = true;
        exit.map_err(|_| io::Error::other("its jail failed"))
    }

    fn kill(&mut self) {
        if !self.is_over {
            // An error means that the process has ended with its jail.
            let _ = kernel::kill_process(self.process());
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        watch::WatchedProcess::kill(self);
    }
}

/// Why a task has not begun, by how its child ended.
fn not_begun(ended: &Ended) -> io::Error {
    io::Error::other(match ended.exit.status.code() {
        Some(NO_TASK) => "no task came to its process".to_owned(),
        Some(NOT_EMPTY) => "files of another task were left in its directory".to_owned(),
        _ => {
            let stderr = ended.stderr.text.trim_end();
            format!("its process ended with {}: {stderr}", ended.exit.status)
        }
    })
}

/// The input of a task, in memory that descriptors refer to.
struct TaskInput {
    job: OwnedFd,
    stdin: Option<OwnedFd>,
}

impl TaskInput {
    fn new(interpreter: &Interpreter, job: &Job) -> io::Result<Self> {
        let stdin = (!job.stdin.is_empty()).then(|| memory(job.stdin.as_bytes())).transpose()?;
        Ok(Self { job: memory(&frames::of_job(interpreter, job))?, stdin })
    }
}

/// Sealed memory: bytes that a task added to it would count against no limit.
fn memory(bytes: &[u8]) -> io::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut file = File::from(memfd_create("task", flags)?);
    file.write_all(bytes)?;
    file.rewind()?;
    fcntl(&file, FcntlArg::F_ADD_SEALS(SealFlag::all()))?;
    Ok(file.into())
}

/// The pipes of a task: what it prints, what it prints to the error stream, and its reply.
struct Pipes([(OwnedFd, OwnedFd); 3]);

impl Pipes {
    fn new() -> io::Result<Self> {
        let pipe = || pipe2(OFlag::O_CLOEXEC);
        Ok(Self([pipe()?, pipe()?, pipe()?]))
    }

    /// Our ends, watched, and theirs.
    fn split(self) -> Result<([pipe::Receiver; 3], [OwnedFd; 3]), SandboxError> {
        let [(out_read, out), (err_read, err), (result_read, result)] = self.0;
        let watched =
            |end| pipe::Receiver::from_owned_fd(end).map_err(SandboxError::system("watch a pipe"));
        Ok(([watched(out_read)?, watched(err_read)?, watched(result_read)?], [out, err, result]))
    }
}

/// A processor time in seconds as a duration; `None` if the number is invalid.
pub(crate) fn seconds(sent: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(sent).ok()
}
