//! The level `docker`: a container for each task, warmed before the task comes.
//!
//! `service` → engine → container: `python3` running the *supervisor*, which has loaded all that a
//! task needs, waits for one, forks its child, and tells how that ended. No container sees a second
//! task.
//!
//! | module | what it does |
//! |---|---|
//! | `engine` | the questions to the engine, and their errors |
//! | `profile` | what a container may do and take, as the engine reads it |
//! | `owner` | whose containers those are, and which of them nobody owns any more |
//! | `line` | what a supervisor says |
//! | `container` | one container: started, warmed, given its task, gone |
//! | `stock` | the stock of warm ones |
//!
//! Invariant: a container is gone when its task has ended, when the call was dropped, and when the
//! service has died, whichever comes first.

mod container;
mod engine;
pub(crate) mod engine_info;
pub(crate) mod line;
mod owner;
mod profile;
mod stock;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::Serialize;
use tokio::sync::{Semaphore, watch};

use crate::{
    Interpreter, Job, Level, Limits, SandboxError, frames,
    jail::filter::{OWN_PID, program as filter_program},
    pool::WorkerPool,
    self_test::{SelfTest, attempts},
    watch::Ended,
};
use container::IdleContainer;
use engine::Engine;
use engine_info::EngineInfo;

/// The engine removes a few containers a second.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// What holds for every container of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DockerSettings {
    /// The image, which must be there: nothing is pulled.
    pub image: String,
    /// Where the engine listens: `unix://PATH` or `tcp://HOST:PORT`. Without it `DOCKER_HOST`, and
    /// then `unix:///var/run/docker.sock`.
    pub host: Option<String>,
    /// The runtime that the engine starts containers with, such as `runsc`; without it its own
    /// choice.
    pub runtime: Option<String>,
    /// Containers that wait for a task, warm.
    pub pool_size: usize,
    /// Tasks at once.
    pub workers: usize,
    /// Jobs that may wait for a container.
    pub queue_max: usize,
    /// Processor time of a container, in thousandths of a core.
    pub cpu_millicores: u32,
    /// Processes and threads of a container, the supervisor's included.
    pub pids: u32,
    /// Bytes that the files of a task may take together; they are in memory.
    pub task_bytes: u64,
    /// Files and directories that a task may make.
    pub task_inodes: u64,
    /// What most jobs are limited to: containers are warmed with the memory of these limits, and
    /// another job's is set before it is handed over.
    pub usual: Limits,
    /// Directories and files of the engine's machine, shown read-only under their own names.
    pub read_only_paths: Vec<PathBuf>,
}

impl DockerSettings {
    /// Containers of `image`, with as many workers as there are cores.
    pub fn of(image: impl Into<String>) -> Self {
        let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            image: image.into(),
            host: None,
            runtime: None,
            pool_size: workers * 2,
            workers,
            queue_max: 1024,
            cpu_millicores: 1000,
            pids: 64,
            task_bytes: 256 << 20,
            task_inodes: 4096,
            usual: Limits::default(),
            read_only_paths: Vec::new(),
        }
    }

    /// The engine's address.
    pub fn address(&self) -> String {
        let set = self.host.clone().or_else(|| std::env::var("DOCKER_HOST").ok());
        set.filter(|host| !host.is_empty()).unwrap_or_else(|| engine::ADDRESS.to_owned())
    }
}

/// Sees that an engine answers at `address`, and that it has `image`.
///
/// # Errors
/// [`SandboxError::Unavailable`] with what is missing and how to get it.
pub async fn engine_at(address: &str, image: Option<&str>) -> Result<EngineInfo, SandboxError> {
    let engine = Engine::connect(address).await?;
    let info = engine.info(None).await?;
    match image {
        Some(image) => engine
            .has_image(image)
            .await
            .map(|()| EngineInfo { image: Some(image.to_owned()), ..info }),
        None => Ok(info),
    }
}

/// Sees that containers can be had with these settings: the engine, its runtime and the image.
///
/// # Errors
/// [`SandboxError::Unavailable`] with what is missing and how to get it.
pub async fn docker_available(settings: &DockerSettings) -> Result<EngineInfo, SandboxError> {
    let engine = Engine::connect(&settings.address()).await?;
    let info = engine.info(settings.runtime.as_deref()).await?;
    engine.has_image(&settings.image).await?;
    Ok(EngineInfo { image: Some(settings.image.clone()), ..info })
}

/// All that it takes to warm a container.
#[derive(Debug)]
struct ContainerConfig {
    engine: Engine,
    settings: DockerSettings,
    owner: String,
    interpreter: Interpreter,
    /// What a supervisor is told at first.
    boot_frames: Vec<u8>,
    /// So many are warmed at once.
    warming: Semaphore,
    containers: ContainerCount,
}

/// Counts the containers that are there.
#[derive(Debug, Clone)]
struct ContainerCount(Arc<watch::Sender<usize>>);

impl ContainerCount {
    fn new() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }

    /// One more, until it is dropped.
    fn one_more(&self) -> ContainerGuard {
        self.0.send_modify(|count| *count += 1);
        ContainerGuard(self.clone())
    }

    async fn until_none(&self) {
        let _ = self.0.subscribe().wait_for(|count| *count == 0).await;
    }
}

/// A container that is there.
#[derive(Debug)]
struct ContainerGuard(ContainerCount);

impl Drop for ContainerGuard {
    fn drop(&mut self) {
        (self.0.0).send_modify(|count| *count -= 1);
    }
}

/// The first frame of a supervisor, by the names that the harness reads.
#[derive(Serialize)]
struct HarnessConfig {
    own_pid: u32,
}

fn boot_frames(interpreter: &Interpreter) -> Vec<u8> {
    let mut boot_frames = Vec::new();
    frames::put(&mut boot_frames, interpreter.harness());
    frames::put(
        &mut boot_frames,
        &serde_json::to_vec(&HarnessConfig { own_pid: OWN_PID }).unwrap_or_default(),
    );
    frames::put(&mut boot_frames, &filter_program(false));
    boot_frames
}

/// A stock of warm containers. Dropped, all of them are ended.
#[derive(Debug)]
pub(crate) struct Docker {
    config: Arc<ContainerConfig>,
    pool: Arc<WorkerPool<IdleContainer>>,
    slots: Semaphore,
    self_test: SelfTest,
}

impl Docker {
    /// Clears away what dead services left, asks the image's interpreter at `path`, warms the
    /// stock, and has one container try to get out.
    pub(crate) async fn start(
        path: &Path,
        settings: &DockerSettings,
    ) -> Result<(Self, Interpreter), SandboxError> {
        let info = docker_available(settings).await?;
        let engine = Engine::connect(&settings.address()).await?;
        let owner = owner::own();
        owner::sweep(&engine).await?;
        let containers = ContainerCount::new();
        let interpreter = container::probe(&engine, settings, &owner, path, &containers).await?;
        if !interpreter.needs().has_ctypes {
            return Err(SandboxError::unavailable(format!(
                "Python interpreter `{}` of image `{}` cannot import ctypes, by which a task shuts \
                 itself in; use an image whose interpreter can",
                path.display(),
                settings.image
            )));
        }
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let config = Arc::new(ContainerConfig {
            engine,
            settings: settings.clone(),
            owner,
            boot_frames: boot_frames(&interpreter),
            interpreter: interpreter.clone(),
            warming: Semaphore::new(cores),
            containers,
        });
        let pool = Arc::new(WorkerPool::new(settings.queue_max));
        // The first one alone: what is wrong is told once.
        let first = IdleContainer::start(&config).await?;
        let mut docker = Self {
            config: Arc::clone(&config),
            pool: Arc::clone(&pool),
            slots: Semaphore::new(settings.workers),
            self_test: SelfTest::default(),
        };
        tokio::spawn(stock::keep(Arc::clone(&pool), Arc::clone(&config), Some(first)));
        for _ in 1..settings.pool_size {
            tokio::spawn(stock::keep(Arc::clone(&pool), Arc::clone(&config), None));
        }
        let run = async |job: &Job| docker.run(job).await;
        let checks = attempts::run(Level::Docker, run).await?;
        docker.self_test = SelfTest { checks, engine: Some(info), ..SelfTest::default() };
        Ok((docker, interpreter))
    }

    pub(crate) async fn run(&self, job: &Job) -> Result<Ended, SandboxError> {
        let waiting = self.pool.enter_queue()?;
        let _slot = self.slots.acquire().await.map_err(|_| SandboxError::Closed)?;
        loop {
            let warm = self.pool.next(&waiting).await?;
            // The engine may have ended it since.
            if warm.is_alive() {
                drop(waiting);
                return warm.run(&self.config, job).await;
            }
        }
    }

    pub(crate) fn self_test(&self) -> &SelfTest {
        &self.self_test
    }

    /// True while containers can be had.
    pub(crate) fn is_serving(&self) -> bool {
        self.pool.broken().is_none()
    }

    /// Ends all containers, with what runs in them, and waits until they are gone.
    pub(crate) async fn stop(&self) {
        self.close();
        if tokio::time::timeout(STOP_TIMEOUT, self.config.containers.until_none()).await.is_err() {
            tracing::warn!("containers stay behind; they end with this process");
        }
    }

    fn close(&self) {
        self.slots.close();
        self.pool.close();
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        self.close();
    }
}
