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
    fcntl::OFlag,
    sys::memfd::{MFdFlags, memfd_create},
    unistd::pipe2,
};
use tokio::{net::unix::pipe, sync::oneshot};

use super::{cgroup::Group, channel, kernel};
use crate::{
    Interpreter, Job, SandboxError, frames,
    reply::read_reply,
    watch::{self, Ended, Exit},
};

/// What a zygote hears of a child of its own from whoever uses it.
pub(crate) type Notes = tokio::sync::mpsc::UnboundedSender<u64>;

/// A child that waits, or works.
#[derive(Debug)]
pub(crate) struct Child {
    /// Its number within its jail.
    pub(crate) pid: u64,
    process: OwnedFd,
    line: Option<OwnedFd>,
    ended: oneshot::Receiver<Exit>,
    notes: Notes,
    group: Option<Arc<Group>>,
    is_over: bool,
}

impl Child {
    pub(crate) fn new(
        pid: u64,
        process: OwnedFd,
        line: OwnedFd,
        ended: oneshot::Receiver<Exit>,
        notes: Notes,
        group: Option<Arc<Group>>,
    ) -> Self {
        Self { pid, process, line: Some(line), ended, notes, group, is_over: false }
    }

    /// Runs a job to its end.
    pub(crate) async fn run(
        mut self,
        interpreter: &Interpreter,
        job: &Job,
    ) -> Result<Ended, SandboxError> {
        // The zygote makes its next child while this one works.
        let _ = self.notes.send(self.pid);
        let line = self.line.take();
        if let Some(group) = &self.group {
            // Its files are in memory, too, and have a limit of their own.
            let bytes = job.limits.memory_bytes.saturating_add(job.limits.file_bytes);
            group
                .limit_memory(bytes)
                .map_err(SandboxError::system("limit the memory of a task"))?;
        }
        let pipes = Pipes::new().map_err(SandboxError::system("make the pipes of a task"))?;
        let (ours, theirs) = pipes.split()?;
        let given =
            Given::new(interpreter, job).map_err(SandboxError::system("put a task into memory"))?;
        let [stdout, stderr, result] = &theirs;
        let mut descriptors =
            vec![given.job.as_fd(), stdout.as_fd(), stderr.as_fd(), result.as_fd()];
        descriptors.extend(given.stdin.as_ref().map(OwnedFd::as_fd));
        // A child that has died since is judged by how it died.
        if let Some(line) = line {
            let _ = channel::send(&line, b"!", &descriptors);
        }
        drop((theirs, given));
        let [stdout, stderr, result] = ours;
        let converse = read_reply(result, job.limits.result_max_bytes);
        watch::watch(&mut self, job, (stdout, stderr), converse).await
    }

    fn process(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }
}

impl watch::Process for Child {
    async fn wait(&mut self) -> io::Result<Exit> {
        let exit = (&mut self.ended).await;
        self.is_over = true;
        exit.map_err(|_| io::Error::other("its jail broke down"))
    }

    fn kill(&mut self) {
        if !self.is_over {
            // An error is a process that is gone with its jail.
            let _ = kernel::kill_process(self.process());
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        watch::Process::kill(self);
    }
}

/// What a task is told, in memory that descriptors stand for.
struct Given {
    job: OwnedFd,
    stdin: Option<OwnedFd>,
}

impl Given {
    fn new(interpreter: &Interpreter, job: &Job) -> io::Result<Self> {
        let stdin = (!job.stdin.is_empty()).then(|| memory(job.stdin.as_bytes())).transpose()?;
        Ok(Self { job: memory(&frames::of_job(interpreter, job))?, stdin })
    }
}

fn memory(bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create("task", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(bytes)?;
    file.rewind()?;
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

/// How long a task took in processor time, where the number makes sense.
pub(crate) fn seconds(told: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(told).ok()
}
