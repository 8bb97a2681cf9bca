//! The level `docker`: a container for each task, warmed before the task comes.
//!
//! `service` → engine → container: `python3` running the *supervisor*. The supervisor loads
//! everything that a task needs, waits for one, forks its child, and reports how the child ended.
//! No container runs a second task.
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
//! Invariant: a container is removed as soon as its task has ended, its call is dropped, or the
//! service has died.

mod config;
mod container;
mod engine;
pub(crate) mod engine_info;
pub(crate) mod line;
mod owner;
mod profile;
mod settings;
mod stock;

use std::{path::Path, sync::Arc, time::Duration};

use tokio::sync::Semaphore;

use crate::{
    Interpreter, Job, Level, SandboxError,
    pool::WorkerPool,
    self_test::{SelfTest, attempts},
    watch::Ended,
};
use config::{ContainerConfig, ContainerCount, boot_frames};
use container::IdleContainer;
use engine::Engine;
use engine_info::EngineInfo;

pub use settings::DockerSettings;

/// The engine removes a few containers a second.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

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
        // The first container starts alone, so that a fault is logged once and not once per slot.
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
            tracing::warn!("containers not removed; they exit with this process");
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
