//! Watches a task to its end, and ends it if a limit is exceeded.
//!
//! Invariant: a task ends with its process, as the kernel reports it, and not with the end of a
//! pipe, which another process may hold open.

use std::{
    io,
    pin::pin,
    process::ExitStatus,
    time::{Duration, Instant},
};

use tokio::io::AsyncRead;

use crate::{
    Job, SandboxError,
    capture::{Capture, Flooded, OutputBudget},
    outcome::Stream,
    reply::Reply,
};

/// The time after the end in which remaining output is read.
const DRAIN: Duration = Duration::from_millis(200);
/// A killed process is gone within this, or stuck in the kernel.
const REAP: Duration = Duration::from_secs(2);

/// The exit of a process, as the kernel reports it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Exit {
    pub(crate) status: ExitStatus,
    /// Processor time; `None` if only the task itself could report it.
    pub(crate) cpu_time: Option<Duration>,
    /// Most memory resident at once.
    pub(crate) peak_bytes: Option<u64>,
    /// The kernel killed something for want of the memory that the task may have.
    pub(crate) out_of_memory: bool,
}

/// A process that runs a task.
pub(crate) trait WatchedProcess {
    /// A killed one is gone within this.
    const REAP: Duration = REAP;

    /// Waits for its end; may be asked again when it was not waited out.
    fn wait(&mut self) -> impl Future<Output = io::Result<Exit>>;
    /// Kills it at once, with all that belongs to it. One that has ended is no error.
    fn kill(&mut self);
}

/// Why a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndCause {
    /// By itself, or by someone else.
    Own,
    /// We killed it: its time was up.
    Timeout,
    /// We killed it: it printed too much.
    Flooded,
}

/// All that is known of a task that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) exit: Exit,
    pub(crate) ending: EndCause,
    pub(crate) reply: Result<Option<Reply>, String>,
    pub(crate) stdout: Stream,
    pub(crate) stderr: Stream,
    /// Wall clock from its start to its end.
    pub(crate) execution_time: Duration,
}

/// Runs `process` to its end, reading its streams and what `converse` makes of its line.
pub(crate) async fn watch(
    process: &mut impl WatchedProcess,
    job: &Job,
    streams: (impl AsyncRead + Unpin, impl AsyncRead + Unpin),
    converse: impl Future<Output = Result<Option<Reply>, String>>,
) -> Result<Ended, SandboxError> {
    let started = Instant::now();
    // One budget for both streams: with one each, a task could print twice the limit.
    let budget = OutputBudget::new(job.limits.output_max_bytes);
    let mut stdout = Capture::new(job.limits.output_kept_bytes);
    let mut stderr = Capture::new(job.limits.output_kept_bytes);
    let mut reply = Ok(None);
    let talk = async {
        let converse = async {
            reply = converse.await;
            Ok(())
        };
        let prints = (stdout.read(streams.0, &budget), stderr.read(streams.1, &budget));
        tokio::try_join!(converse, prints.0, prints.1).map(|_| ())
    };
    let (exit, ending) = end_of(process, talk, job.limits.timeout).await?;
    let execution_time = started.elapsed();
    let (stdout, stderr) = (stdout.into_stream(), stderr.into_stream());
    Ok(Ended { exit, ending, reply, stdout, stderr, execution_time })
}

async fn end_of(
    process: &mut impl WatchedProcess,
    talk: impl Future<Output = Result<(), Flooded>>,
    timeout: Duration,
) -> Result<(Exit, EndCause), SandboxError> {
    let mut talk = pin!(talk);
    let mut deadline = pin!(tokio::time::sleep(timeout));
    let mut talking = true;
    let (mut exit, mut ending) = (None, EndCause::Own);
    while exit.is_none() && ending == EndCause::Own {
        tokio::select! {
            ended = process.wait() => {
                exit = Some(ended.map_err(SandboxError::system("wait for Python"))?);
            }
            result = &mut talk, if talking => {
                talking = false;
                if result == Err(Flooded) {
                    ending = EndCause::Flooded;
                }
            }
            () = &mut deadline => ending = EndCause::Timeout,
        }
    }
    // Even after an exit of its own: the children that it left must be killed, too.
    process.kill();
    let exit = match exit {
        Some(exit) => exit,
        None => wait_for_end(process).await.map_err(SandboxError::system("wait for Python"))?,
    };
    // Bounded: another process may hold the pipes open, and then they never end.
    if talking {
        match tokio::time::timeout(DRAIN, talk).await {
            Ok(Err(Flooded)) if ending == EndCause::Own => ending = EndCause::Flooded,
            _ => {}
        }
    }
    Ok((exit, ending))
}

async fn wait_for_end<P: WatchedProcess>(process: &mut P) -> io::Result<Exit> {
    tokio::time::timeout(P::REAP, process.wait())
        .await
        .unwrap_or_else(|_| Err(io::Error::other("process still running after SIGKILL")))
}
