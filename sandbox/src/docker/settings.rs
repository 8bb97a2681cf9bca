//! Settings of containers.

use std::path::PathBuf;

use super::engine;
use crate::Limits;

/// Settings that hold for every container of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DockerSettings {
    /// The image, which must be there: nothing is pulled.
    pub image: String,
    /// The address of the engine: `unix://PATH` or `tcp://HOST:PORT`. `None` uses `DOCKER_HOST`,
    /// and then `unix:///var/run/docker.sock`.
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
    /// The limits of most jobs. Containers are warmed with the memory of these limits; for a job
    /// with other limits it is changed before the job is sent.
    pub usual: Limits,
    /// Directories and files of the engine's machine, mounted read-only under their own names.
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
