//! One container: started, warmed, given its task, gone.
//!
//! Invariant: it is killed when this value is dropped, used or not; the engine removes it then.

use std::{
    io,
    os::unix::process::ExitStatusExt as _,
    path::Path,
    pin::Pin,
    process::{ExitStatus, Output},
    sync::Arc,
    time::Duration,
};

use bollard::{container::LogOutput, errors::Error, models::ContainerCreateBody};
use futures_util::{Stream, StreamExt as _};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt as _, DuplexStream},
    sync::{oneshot, watch as channel},
    task::AbortHandle,
};

use super::{
    config::{ContainerConfig, ContainerCount, ContainerGuard},
    engine::Engine,
    line::{Decoder, Frame, FrameKind, Report},
    profile,
    settings::DockerSettings,
};
use crate::{
    Interpreter, Job, SandboxError, frames,
    interpreter::{DOCKER_HARNESS, PROBE, PROBE_SWITCHES},
    reply::read_reply,
    watch::{self, Ended, Exit},
};

/// Reads the harness from standard input and hands over to it.
const BOOTSTRAP: &str = "\
import marshal
stream = open(0, 'rb', closefd=False)
harness = {'__name__': 'gleitzeit'}
exec(marshal.loads(stream.read(int.from_bytes(stream.read(4), 'big'))), harness)
harness['supervise'](stream)
";
/// A cold start on a machine that starts others at the same time is within it.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// The number of bytes kept of the error stream of a container that does not start.
const COMPLAINT_MAX_BYTES: usize = 4096;
/// The read-ahead buffer of each stream of a task.
const STREAM_BYTES: usize = 64 << 10;
/// The number of attempts to remove a container, and the pause between them. The engine may be
/// restarting.
const REMOVALS_MAX: u32 = 360;
const REMOVAL_PAUSE: Duration = Duration::from_secs(5);
/// A busy engine takes its time to kill, too.
const KILL_TIMEOUT: Duration = Duration::from_secs(20);

type ContainerOutput = Pin<Box<dyn Stream<Item = Result<LogOutput, Error>> + Send>>;
type ContainerInput = Pin<Box<dyn AsyncWrite + Send>>;

/// A container of the engine; removed when dropped.
#[derive(Debug)]
struct Container {
    engine: Engine,
    id: String,
    alive: Option<ContainerGuard>,
}

impl Container {
    /// Makes and starts one.
    async fn start(
        engine: &Engine,
        containers: &ContainerCount,
        body: ContainerCreateBody,
    ) -> Result<(Self, ContainerOutput, ContainerInput), SandboxError> {
        let engine = engine.clone();
        // The container is counted before it exists, so that `until_none` cannot return while it is
        // being made.
        let alive = Some(containers.one_more());
        // The start runs to its end even if the caller is dropped: a container whose id is never
        // read could not be removed.
        let started = tokio::spawn(async move {
            let id = engine.create(body).await?;
            let container = Self { engine, id, alive };
            let streams = container.engine.attach(&container.id).await?;
            container.engine.start(&container.id).await?;
            Ok((container, streams.output, streams.input))
        });
        started.await.unwrap_or(Err(SandboxError::Closed))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // Without a runtime, it ends with our connection.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (engine, id, alive) =
            (self.engine.clone(), std::mem::take(&mut self.id), self.alive.take());
        runtime.spawn(async move {
            let mut removed = engine.remove(&id).await;
            // A waiting `stop` must not wait for an engine that does not answer.
            drop(alive);
            if let Err(error) = &removed {
                tracing::warn!(container = id, %error, "container removal failed; trying again");
            }
            for _ in 0..REMOVALS_MAX {
                if removed.is_ok() {
                    break;
                }
                tokio::time::sleep(REMOVAL_PAUSE).await;
                removed = engine.remove(&id).await;
            }
        });
    }
}

/// Asks the interpreter at `path` of the image, in a container that ends with the answer.
pub(super) async fn probe(
    engine: &Engine,
    settings: &DockerSettings,
    owner: &str,
    path: &Path,
    containers: &ContainerCount,
) -> Result<Interpreter, SandboxError> {
    let unusable = |why: String| SandboxError::Interpreter {
        path: path.to_owned(),
        reason: format!("image `{}`: {why}", settings.image),
    };
    let mut command = vec![path.display().to_string()];
    command.extend(PROBE_SWITCHES.iter().chain(&["-c", PROBE]).map(ToString::to_string));
    let mut body = profile::container(settings, owner, command);
    // With `auto_remove` the exit status is lost. Dropping the container removes it.
    body.host_config.get_or_insert_default().auto_remove = None;
    let asked = async {
        let (container, mut output, mut input) = Container::start(engine, containers, body)
            .await
            .map_err(|error| unusable(error.to_string()))?;
        // A write error is ignored: the exit status of a program that reads nothing says more.
        let _ = input.write_all(DOCKER_HARNESS.as_bytes()).await;
        let _ = input.shutdown().await;
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        while let Some(Ok(part)) = output.next().await {
            match part {
                LogOutput::StdOut { message } => stdout.extend_from_slice(&message),
                other => stderr.extend_from_slice(&other.into_bytes()),
            }
        }
        let code = engine.exit_code(&container.id).await?;
        let status = ExitStatus::from_raw(i32::try_from(code).unwrap_or(255) << 8);
        Ok(Output { status, stdout, stderr })
    };
    let output = tokio::time::timeout(START_TIMEOUT, asked)
        .await
        .map_err(|_| unusable(format!("no answer within {START_TIMEOUT:?}")))??;
    Interpreter::read(path, &output)
}

/// A container that waits for its task.
#[derive(Debug)]
pub(super) struct IdleContainer {
    container: Container,
    input: ContainerStdin,
    streams: [DuplexStream; 3],
    end: oneshot::Receiver<Report>,
    /// Closed when its line is.
    line: channel::Receiver<()>,
    /// Dropped when a task gets it.
    taken: channel::Sender<()>,
    reader_task: ReaderTask,
}

/// The container's standard input.
struct ContainerStdin(ContainerInput);

impl std::fmt::Debug for ContainerStdin {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("OutputStream")
    }
}

/// The task that reads the output of a container; aborted when this is dropped.
#[derive(Debug)]
struct ReaderTask(AbortHandle);

impl Drop for ReaderTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl IdleContainer {
    /// Starts a container and waits until it is warm.
    pub(super) async fn start(config: &Arc<ContainerConfig>) -> Result<Self, SandboxError> {
        let path = config.interpreter.path().display().to_string();
        let mut command = vec![path];
        command.extend(["-I", "-S", "-E", "-B", "-X", "utf8", "-c", BOOTSTRAP].map(str::to_owned));
        let body = profile::container(&config.settings, &config.owner, command);
        let warmed = async {
            let (container, output, mut input) =
                Container::start(&config.engine, &config.containers, body).await?;
            // One that has ended is judged by its complaints.
            let _ = input.write_all(&config.boot_frames).await;
            let _ = input.flush().await;
            let (ready, is_ready) = oneshot::channel();
            let (reported, end) = oneshot::channel();
            let (open, line) = channel::channel(());
            let (ours, theirs): (Vec<_>, Vec<_>) =
                (0..3).map(|_| tokio::io::duplex(STREAM_BYTES)).unzip();
            let reader = OutputReader { ready: Some(ready), streams: theirs, end: Some(reported) };
            let reading = tokio::spawn(async move {
                reader.read_all(output).await;
                drop(open);
            });
            let reader_task = ReaderTask(reading.abort_handle());
            let streams = ours.try_into().map_err(|_| SandboxError::Closed)?;
            let (input, taken) = (ContainerStdin(input), channel::Sender::new(()));
            let warm = Self { container, input, streams, end, line, taken, reader_task };
            match is_ready.await {
                Ok(Ok(())) => Ok(warm),
                Ok(Err(complaint)) => Err(SandboxError::unavailable(format!(
                    "a container of image `{}` did not get ready: {complaint}",
                    config.settings.image
                ))),
                Err(_) => Err(SandboxError::Closed),
            }
        };
        tokio::time::timeout(START_TIMEOUT, warmed).await.unwrap_or_else(|_| {
            Err(SandboxError::unavailable(format!(
                "a container of image `{}` is not ready within {START_TIMEOUT:?}",
                config.settings.image
            )))
        })
    }

    /// Closed, without being kept from it, when it has ended, and when a task has got it.
    pub(super) fn lines(&self) -> (channel::Receiver<()>, channel::Receiver<()>) {
        (self.line.clone(), self.taken.subscribe())
    }

    /// False once it has ended.
    pub(super) fn is_alive(&self) -> bool {
        self.line.has_changed().is_ok()
    }

    /// Runs a job to its end.
    pub(super) async fn run(
        self,
        config: &ContainerConfig,
        job: &Job,
    ) -> Result<Ended, SandboxError> {
        // From here on the stock cannot withdraw the container, and its slot is free.
        let Self { container, input: ContainerStdin(mut input), streams, end, reader_task, .. } =
            self;
        let memory = profile::memory_bytes(&job.limits);
        if memory != profile::memory_bytes(&config.settings.usual) {
            container.engine.limit_memory(&container.id, memory).await?;
        }
        let mut running = RunningContainer { container, end: Some(end), _listener: reader_task };
        let frames = frames::with_limit(&config.interpreter, job);
        let [stdout, stderr, reply] = streams;
        let converse = async {
            // A write error is ignored: a container that died is judged by its exit.
            let _ = input.write_all(&frames).await;
            let _ = input.flush().await;
            read_reply(reply, job.limits.result_max_bytes).await
        };
        let ended = watch::watch(&mut running, job, (stdout, stderr), converse).await;
        ended.map_err(|error| match error {
            SandboxError::System { what, source } => SandboxError::Engine {
                what,
                address: config.engine.address().to_owned(),
                reason: source.to_string(),
            },
            other => other,
        })
    }
}

/// A container whose task is under way.
struct RunningContainer {
    container: Container,
    end: Option<oneshot::Receiver<Report>>,
    /// Held for its end.
    _listener: ReaderTask,
}

impl watch::WatchedProcess for RunningContainer {
    const REAP: Duration = KILL_TIMEOUT;

    async fn wait(&mut self) -> io::Result<Exit> {
        if let Some(end) = &mut self.end {
            let report = end.await;
            self.end = None;
            if let Ok(report) = report {
                return Ok(Exit {
                    status: ExitStatus::from_raw(report.status),
                    cpu_time: Duration::try_from_secs_f64(report.cpu_seconds).ok(),
                    peak_bytes: Some(report.peak_bytes),
                    out_of_memory: report.out_of_memory,
                });
            }
        }
        // The output ended without a report: the engine is asked for the exit status.
        let (status, out_of_memory) = self.container.engine.end_of(&self.container.id).await?;
        Ok(Exit { status, cpu_time: None, peak_bytes: None, out_of_memory })
    }

    fn kill(&mut self) {
        // A container that reported the end of its task exits by itself.
        if self.end.is_none() {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (engine, id) = (self.container.engine.clone(), self.container.id.clone());
        runtime.spawn(async move {
            if let Err(error) = engine.kill(&id).await {
                tracing::warn!(container = id, %error, "container kill failed");
            }
        });
    }
}

/// Forwards the output of a container to its readers.
struct OutputReader {
    ready: Option<oneshot::Sender<Result<(), String>>>,
    /// Of what is printed, of the error stream, and of the reply.
    streams: Vec<DuplexStream>,
    end: Option<oneshot::Sender<Report>>,
}

impl OutputReader {
    /// Hears until the line ends.
    async fn read_all(mut self, mut output: ContainerOutput) {
        let mut decoder = Decoder::default();
        let mut complaint = Vec::new();
        while let Some(part) = output.next().await {
            let input = match part {
                Ok(LogOutput::StdOut { message }) => self.read_frames(&mut decoder, &message).await,
                Ok(other) => {
                    let room = COMPLAINT_MAX_BYTES - complaint.len();
                    let text = other.into_bytes();
                    complaint.extend_from_slice(&text[..text.len().min(room)]);
                    Ok(())
                }
                Err(error) => Err(error.to_string()),
            };
            if let Err(why) = input {
                tracing::debug!(why, "invalid output of container");
                complaint = why.into_bytes();
                break;
            }
        }
        if let Some(ready) = self.ready.take() {
            let text = String::from_utf8_lossy(&complaint);
            let last = text.trim().lines().last().unwrap_or("it ended without output").to_owned();
            let _ = ready.send(Err(last));
        }
    }

    async fn read_frames(
        &mut self,
        decoder: &mut Decoder,
        mut message: &[u8],
    ) -> Result<(), String> {
        while !message.is_empty() {
            match decoder.next(&mut message)? {
                None => {}
                Some(Frame::Ready) => {
                    if let Some(ready) = self.ready.take() {
                        let _ = ready.send(Ok(()));
                    }
                }
                Some(Frame::Data(kind, data)) => {
                    let at = match kind {
                        FrameKind::Stdout => 0,
                        FrameKind::Stderr => 1,
                        _ => 2,
                    };
                    // A reader that has enough bytes has closed its stream, which is no error.
                    if let Some(stream) = self.streams.get_mut(at) {
                        let _ = stream.write_all(data).await;
                    }
                }
                Some(Frame::Report(report)) => {
                    self.streams.clear();
                    if let Some(end) = self.end.take() {
                        let _ = end.send(report);
                    }
                }
            }
        }
        Ok(())
    }
}
