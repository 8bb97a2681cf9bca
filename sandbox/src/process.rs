//! One process a job, without a jail: started, fed, killed.
//!
//! Invariant: nothing of its process group outlives it, nor the future that runs it, nor the
//! service.

use std::{io, os::fd::OwnedFd, path::PathBuf, process::Stdio};

use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use tokio::{
    io::AsyncWriteExt as _,
    net::UnixStream,
    process::{Child, ChildStderr, ChildStdout, Command},
};

use crate::{
    Interpreter, Job, SandboxError, frames,
    reply::{Reply, read_reply},
    watch::{self, Ended, Exit},
    workdir::{self, WorkDir},
};

/// Reads the harness from the control socket, which is descriptor 0, and hands over to it.
const BOOTSTRAP: &str = "\
import marshal
stream = open(0, 'rb', closefd=False)
harness = {'__name__': 'gleitzeit'}
exec(marshal.loads(stream.read(int.from_bytes(stream.read(4), 'big'))), harness)
harness['main'](stream)
";

/// Runs jobs with the rights of the service.
///
/// Limits, the policy and the killing of its process group protect from accidents: code that means
/// harm can read the service's files, use its network, and leave a process behind that has left the
/// group.
#[derive(Debug, Clone)]
pub(crate) struct Unjailed {
    work_root: PathBuf,
}

impl Unjailed {
    /// Makes one, and clears away what a killed predecessor left below the work root.
    pub(crate) fn new(work_root: PathBuf) -> Self {
        workdir::sweep(&work_root);
        Self { work_root }
    }

    /// Runs a job to its end.
    pub(crate) async fn run(
        &self,
        interpreter: &Interpreter,
        job: &Job,
    ) -> Result<Ended, SandboxError> {
        let (mut process, mut control) = self.start(interpreter)?;
        let (stdout, stderr) = process.lines.take().ok_or_else(|| {
            SandboxError::system("read the output of Python")(io::ErrorKind::BrokenPipe.into())
        })?;
        let frames = frames::with_harness(interpreter, job);
        let converse = converse(&mut control, &frames, job);
        watch::watch(&mut process, job, (stdout, stderr), converse).await
    }

    fn start(
        &self,
        interpreter: &Interpreter,
    ) -> Result<(RunningProcess, UnixStream), SandboxError> {
        let dir = WorkDir::create(&self.work_root).map_err(SandboxError::system(
            "make a directory for the task below TMPDIR, or /tmp where it is not set",
        ))?;
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()
            .map_err(SandboxError::system("make a socket"))?;
        ours.set_nonblocking(true).map_err(SandboxError::system("set up a socket"))?;
        let control = UnixStream::from_std(ours).map_err(SandboxError::system("watch a socket"))?;
        let mut child = Command::new(interpreter.path())
            .args(["-I", "-S", "-E", "-B", "-X", "utf8", "-c", BOOTSTRAP])
            // Variables of the service may hold secrets.
            .env_clear()
            // Each arena would take 64 MiB of the address space that the job may use.
            .env("MALLOC_ARENA_MAX", "2")
            .current_dir(dir.path())
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A group of its own, so that killing it reaches all children and not the service.
            .process_group(0)
            .spawn()
            .map_err(SandboxError::system("start the Python interpreter"))?;
        let lines = child.stdout.take().zip(child.stderr.take());
        let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        Ok((RunningProcess { child: Some(child), dir: Some(dir), group, lines }, control))
    }
}

/// Sends the job and reads the reply. The socket stays open while the process runs: closing it
/// kills the process.
async fn converse(
    control: &mut UnixStream,
    frames: &[u8],
    job: &Job,
) -> Result<Option<Reply>, String> {
    let (from, mut to) = control.split();
    // A write error is ignored: a process that died is judged by its exit.
    let _ = to.write_all(frames).await;
    read_reply(from, job.limits.result_max_bytes).await
}

/// A process on its way, with its directory. Dropped early, it is killed with its whole group and
/// reaped in the background.
struct RunningProcess {
    child: Option<Child>,
    dir: Option<WorkDir>,
    group: Option<Pid>,
    lines: Option<(ChildStdout, ChildStderr)>,
}

impl watch::WatchedProcess for RunningProcess {
    async fn wait(&mut self) -> io::Result<Exit> {
        let Some(child) = &mut self.child else {
            return Err(io::Error::other("its process is gone"));
        };
        let status = child.wait().await?;
        Ok(Exit { status, cpu_time: None, peak_bytes: None, out_of_memory: false })
    }

    /// Kills the whole group at once, with SIGKILL.
    fn kill(&mut self) {
        let Some(group) = self.group.take() else { return };
        // An error means that the group has ended. Its id cannot belong to another group yet: ids
        // are assigned in order, and this one was in use a moment ago.
        let _ = killpg(group, Signal::SIGKILL);
        // By its id, too: code may have moved itself to another group. Only before it is reaped, because
        // the id may belong to another process afterwards.
        if self.child.as_ref().is_some_and(|child| child.id().is_some()) {
            let _ = kill(group, Signal::SIGKILL);
        }
    }
}

impl Drop for RunningProcess {
    fn drop(&mut self) {
        watch::WatchedProcess::kill(self);
        let (Some(mut child), dir) = (self.child.take(), self.dir.take()) else { return };
        if child.id().is_none() {
            return; // reaped; its directory goes now
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let _ = child.wait().await;
                drop(dir);
            });
        }
    }
}
