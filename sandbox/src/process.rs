//! One process a job: started, fed, watched, killed.
//!
//! Invariants:
//! - the job ends with its process: with its wait status, and not with the end of a pipe, which a
//!   child of it may hold open;
//! - nothing of its process group outlives it, nor the future that runs it, nor the service.

use std::{
    io,
    os::{fd::OwnedFd, unix::process::ExitStatusExt as _},
    path::PathBuf,
    pin::pin,
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::{
    io::AsyncWriteExt as _,
    net::UnixStream,
    process::{Child, ChildStderr, ChildStdout, Command},
};

use crate::{
    Interpreter, Job, Level, Mode, Outcome, Policy, SandboxError, Status,
    capture::{Budget, Capture, Flooded},
    outcome::{Diagnostic, Failure, ResultType, Stream},
    reply::{Reply, read_reply},
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
/// What was printed before the end is read for at most this long after it.
const DRAIN: Duration = Duration::from_millis(200);
/// A killed process is gone within this, or stuck in the kernel.
const REAP: Duration = Duration::from_secs(2);

/// What holds for every job of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Jobs get their directories below this one.
    pub work_root: PathBuf,
}

impl Default for Settings {
    fn default() -> Self {
        Self { work_root: std::env::temp_dir() }
    }
}

/// Runs jobs with one interpreter, each in a process of its own.
///
/// At [`Level::None`] a job runs with the rights of the service. Limits, the policy and the killing
/// of its process group protect from accidents: code that means harm can read the service's files,
/// use its network, and leave a process behind that has left the group.
#[derive(Debug, Clone)]
pub struct Sandbox {
    interpreter: Interpreter,
    settings: Settings,
}

impl Sandbox {
    /// Makes one, and clears away what a killed predecessor left below the work root.
    pub fn new(interpreter: Interpreter, settings: Settings) -> Self {
        workdir::sweep(&settings.work_root);
        Self { interpreter, settings }
    }

    /// The interpreter.
    pub fn interpreter(&self) -> &Interpreter {
        &self.interpreter
    }

    /// How far jobs are kept from the machine.
    pub const fn level(&self) -> Level {
        Level::None
    }

    /// Runs a job to its end. Whatever the code does is an outcome.
    ///
    /// Dropping the future kills the process and all its children at once.
    ///
    /// # Errors
    /// [`SandboxError`] when the job is refused or no process could be started.
    pub async fn run(&self, job: Job) -> Result<Outcome, SandboxError> {
        job.check()?;
        let (mut process, mut control) = self.start(&job)?;
        let started = Instant::now();
        let budget = Budget::new(job.limits.output_max_bytes);
        let mut stdout = Capture::new(job.limits.output_kept_bytes);
        let mut stderr = Capture::new(job.limits.output_kept_bytes);
        let mut reply = Ok(None);
        let lines = process.lines.take();
        let talk = async {
            let Some(Lines { stdout: out, stderr: err }) = lines else { return Ok(()) };
            let converse = async {
                reply = converse(&mut control, &self.frames(&job), &job).await;
                Ok(())
            };
            let prints = (stdout.read(out, &budget), stderr.read(err, &budget));
            tokio::try_join!(converse, prints.0, prints.1).map(|_| ())
        };
        let (status, ending) = watch(&mut process, talk, job.limits.timeout).await?;
        let execution_time = started.elapsed();
        Ok(Ended { status, ending, reply, execution_time }.outcome(
            job.mode,
            stdout.into_stream(),
            stderr.into_stream(),
        ))
    }

    fn start(&self, job: &Job) -> Result<(Running, UnixStream), SandboxError> {
        let dir = WorkDir::create(&self.settings.work_root)
            .map_err(SandboxError::system("make a directory for the task"))?;
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()
            .map_err(SandboxError::system("make a socket"))?;
        ours.set_nonblocking(true).map_err(SandboxError::system("set up a socket"))?;
        let control = UnixStream::from_std(ours).map_err(SandboxError::system("watch a socket"))?;
        tracing::trace!(mode = ?job.mode, bytes = job.source.bytes.len(), "starting Python");
        let mut child = Command::new(self.interpreter.path())
            .args(["-I", "-S", "-E", "-B", "-X", "utf8", "-c", BOOTSTRAP])
            .env_clear()
            // Each arena would take 64 MiB of the address space that the job may use.
            .env("MALLOC_ARENA_MAX", "2")
            .current_dir(dir.path())
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(SandboxError::system("start the Python interpreter"))?;
        let lines = match (child.stdout.take(), child.stderr.take()) {
            (Some(stdout), Some(stderr)) => Some(Lines { stdout, stderr }),
            _ => None,
        };
        let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        Ok((Running { child: Some(child), dir: Some(dir), group, lines }, control))
    }

    /// All that the process is told, as it goes over the line.
    fn frames(&self, job: &Job) -> Vec<u8> {
        let header = Header {
            mode: match job.mode {
                Mode::Execute => "execute",
                Mode::Validate => "validate",
            },
            filename: &job.source.filename,
            is_file: job.source.is_file,
            stdin: &job.stdin,
            environment: &job.environment,
            imports: &job.imports,
            globals: &job.globals,
            policy: &job.policy,
            limits: job.limits.resource_limits(),
            result_max_bytes: job.limits.result_max_bytes,
            search_path: self.interpreter.search_path(),
        };
        // Maps with text keys only: there is nothing in it that cannot be written.
        let header = serde_json::to_vec(&header).unwrap_or_default();
        let mut frames = Vec::new();
        for part in [self.interpreter.harness(), &header, &job.source.bytes] {
            let length = u32::try_from(part.len()).unwrap_or(u32::MAX);
            frames.extend_from_slice(&length.to_be_bytes());
            frames.extend_from_slice(part);
        }
        frames
    }
}

#[derive(Serialize)]
struct Header<'a> {
    mode: &'static str,
    filename: &'a str,
    is_file: bool,
    stdin: &'a str,
    environment: &'a std::collections::BTreeMap<String, String>,
    imports: &'a [String],
    globals: &'a Map<String, Value>,
    policy: &'a Policy,
    limits: std::collections::BTreeMap<&'static str, u64>,
    result_max_bytes: usize,
    search_path: &'a [String],
}

/// What it prints to.
struct Lines {
    stdout: ChildStdout,
    stderr: ChildStderr,
}

/// Tells the job and hears the reply. The line itself stays open for as long as the process runs:
/// its closing kills the process.
async fn converse(
    control: &mut UnixStream,
    frames: &[u8],
    job: &Job,
) -> Result<Option<Reply>, String> {
    let (from, mut to) = control.split();
    // A process that dies while it is told something is judged by how it died.
    let _ = to.write_all(frames).await;
    read_reply(from, job.limits.result_max_bytes).await
}

/// Why the process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// By itself, or by someone else.
    Own,
    /// We killed it: its time was up.
    Timeout,
    /// We killed it: it printed too much.
    Flooded,
}

/// Waits for the end of the process, brings it about where a limit is passed, and reads what is
/// left in the pipes.
async fn watch(
    process: &mut Running,
    talk: impl Future<Output = Result<(), Flooded>>,
    timeout: Duration,
) -> Result<(ExitStatus, Ending), SandboxError> {
    let mut talk = pin!(talk);
    let mut deadline = pin!(tokio::time::sleep(timeout));
    let mut talking = true;
    let (mut status, mut ending) = (None, Ending::Own);
    while status.is_none() && ending == Ending::Own {
        tokio::select! {
            ended = process.wait() => status = Some(ended.map_err(SandboxError::system("wait for Python"))?),
            said = &mut talk, if talking => {
                talking = false;
                if said == Err(Flooded) {
                    ending = Ending::Flooded;
                }
            }
            () = &mut deadline => ending = Ending::Timeout,
        }
    }
    // Also after an end of its own: children it left behind go with it.
    process.kill();
    let status = match status {
        Some(status) => status,
        None => tokio::time::timeout(REAP, process.wait())
            .await
            .unwrap_or_else(|_| Err(io::Error::other("it does not die of SIGKILL")))
            .map_err(SandboxError::system("wait for Python"))?,
    };
    if talking {
        match tokio::time::timeout(DRAIN, talk).await {
            Ok(Err(Flooded)) if ending == Ending::Own => ending = Ending::Flooded,
            _ => {}
        }
    }
    Ok((status, ending))
}

/// A process on its way, with its directory. Dropped early, it is killed with its whole group and
/// reaped in the background.
struct Running {
    child: Option<Child>,
    dir: Option<WorkDir>,
    group: Option<Pid>,
    lines: Option<Lines>,
}

impl Running {
    async fn wait(&mut self) -> io::Result<ExitStatus> {
        match &mut self.child {
            Some(child) => child.wait().await,
            None => Err(io::Error::other("its process is gone")),
        }
    }

    /// At once and without a courtesy, the whole group.
    fn kill(&mut self) {
        let Some(group) = self.group.take() else { return };
        // An error is a group that is gone already. Its number cannot mean another group by now:
        // numbers are given out in turn, and this one was in use a moment ago.
        let _ = killpg(group, Signal::SIGKILL);
        // By its number too, as code may have moved itself to another group; but only while it is
        // not reaped, so that the number is still its own.
        if self.child.as_ref().is_some_and(|child| child.id().is_some()) {
            let _ = kill(group, Signal::SIGKILL);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
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

/// What is known of a process that has ended.
struct Ended {
    status: ExitStatus,
    ending: Ending,
    reply: Result<Option<Reply>, String>,
    execution_time: Duration,
}

impl Ended {
    fn outcome(self, mode: Mode, stdout: Stream, stderr: Stream) -> Outcome {
        let Self { status: exit, ending, reply, execution_time } = self;
        let signal = exit.signal();
        let mut outcome = Outcome {
            status: Status::Ok,
            result: Value::Null,
            result_type: ResultType::Stdout,
            stdout,
            stderr,
            exit_code: exit.code().or(signal.map(|signal| -signal)).unwrap_or(-1),
            signal,
            execution_time,
            cpu_time: None,
            max_rss_bytes: None,
            error: None,
            diagnostics: Vec::new(),
            sandbox: Level::None,
        };
        match ending {
            Ending::Own => outcome.take_reply(reply, mode),
            Ending::Timeout => {
                outcome.exit_code = -1;
                outcome.signal = None;
                outcome.fail(
                    Status::Timeout,
                    "Timeout",
                    format!("stopped after {execution_time:.1?}"),
                );
            }
            Ending::Flooded => {
                let total = outcome.stdout.total_bytes + outcome.stderr.total_bytes;
                let message = format!("stopped after it had printed {total} bytes; print less");
                outcome.fail(Status::OutputLimit, "OutputLimit", message);
            }
        }
        outcome
    }
}

/// The error of a job that the policy did not let run.
fn refusal(status: Status, diagnostics: &[Diagnostic]) -> Option<Failure> {
    let first = diagnostics.first().filter(|_| status == Status::PolicyViolation)?;
    let message = match diagnostics.len() - 1 {
        0 => first.to_string(),
        more => format!("{first} (and {more} more)"),
    };
    Some(Failure {
        kind: "PolicyViolation".to_owned(),
        message,
        traceback: String::new(),
        line: Some(first.line),
    })
}

impl Outcome {
    /// Fills in what the process said of itself, as far as the kernel does not say otherwise.
    fn take_reply(&mut self, reply: Result<Option<Reply>, String>, mode: Mode) {
        let (reply, broken) = match reply {
            Ok(reply) => (reply, None),
            Err(reason) => (None, Some(reason)),
        };
        if let Some(reply) = reply {
            self.cpu_time = reply.cpu_seconds.and_then(|s| Duration::try_from_secs_f64(s).ok());
            self.max_rss_bytes = reply.peak_bytes;
            self.diagnostics = reply.diagnostics;
            if self.signal.is_none() {
                self.status = reply.status;
                self.error = reply.error.or_else(|| refusal(reply.status, &self.diagnostics));
                self.result_type = reply.result_type;
                self.result = reply.result;
            }
        } else if mode == Mode::Validate && self.exit_code == 0 {
            self.fail(Status::Error, "NoReply", "the process ended without an answer".to_owned());
        }
        self.judge(broken);
        if self.status != Status::Ok {
            self.result = Value::Null;
            self.result_type = ResultType::default();
        } else if self.result_type == ResultType::Stdout {
            self.result = Value::String(self.stdout.text.clone());
        }
    }

    /// Lets the kernel's word stand over the process's own.
    fn judge(&mut self, broken: Option<String>) {
        if let Some(signal) = self.signal {
            let name = Signal::try_from(signal).map_or("an unknown signal", Signal::as_str);
            self.fail(Status::Killed, "Killed", format!("ended by {name} (signal {signal})"));
        } else if self.exit_code != 0 && self.status == Status::Ok {
            let message = format!("exited with status {}", self.exit_code);
            self.fail(Status::Error, "SystemExit", message);
        } else if let Some(reason) = broken {
            self.fail(Status::Error, "BrokenReply", reason);
        }
    }

    fn fail(&mut self, status: Status, kind: &str, message: String) {
        self.status = status;
        self.error = Some(Failure { kind: kind.to_owned(), message, ..Failure::default() });
    }
}
