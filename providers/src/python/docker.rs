//! Settings of a Python provider's containers.
//!
//! Asked with the other settings, and by whoever opens the sandbox. Invariant: what containers
//! cannot give is refused by name, and never left out in silence.

use gleitzeit_domain::security::SandboxLevel;
#[cfg(feature = "docker")]
use gleitzeit_sandbox::{DockerSettings, Limits};
use serde::{Deserialize, Serialize};

use super::config::{PythonConfig, PythonConfigError};

/// The containers of a Python provider.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DockerConfig {
    /// The image. It must be at the engine already: nothing is pulled.
    pub image: String,
    /// Where the engine listens: `unix://PATH`, or `tcp://HOST:PORT`, which is not encrypted. Where
    /// absent, `DOCKER_HOST` and then `unix:///var/run/docker.sock`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The runtime that starts containers, such as `runsc`; the engine's own choice where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// Containers that wait for a task; twice as many as there are workers where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool_size: Option<u32>,
    /// Processor time of a task, in thousandths of a core; 1000 where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_millicores: Option<u32>,
    /// Processes and threads of a container, of which the supervisor is one; 64 where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids: Option<u32>,
}

impl PythonConfig {
    /// What goes with containers, and what goes with them only.
    pub(super) fn check_docker(&self) -> Result<(), PythonConfigError> {
        let together = |field, message| Err(PythonConfigError::Together { field, message });
        let Some(docker) = &self.docker else {
            if self.sandbox == SandboxLevel::Docker {
                return together("docker.image", "missing; `sandbox = \"docker\"` needs one");
            }
            return Ok(());
        };
        let numbers = [
            ("docker.pool_size", docker.pool_size),
            ("docker.cpu_millicores", docker.cpu_millicores),
            ("docker.pids", docker.pids),
        ];
        if let Some((field, _)) = numbers.into_iter().find(|(_, number)| *number == Some(0)) {
            return Err(PythonConfigError::Zero { field });
        }
        let texts = [("docker.host", &docker.host), ("docker.runtime", &docker.runtime)];
        if let Some((field, _)) = texts.into_iter().find(|(_, text)| text.as_deref() == Some("")) {
            return Err(PythonConfigError::Empty { field });
        }
        if self.sandbox != SandboxLevel::Docker {
            return together("docker", "needs `sandbox = \"docker\"`");
        }
        if docker.image.is_empty() {
            return together("docker.image", "missing; name an image that the engine has");
        }
        if self.network {
            let message = "containers have none; set `network = false` for this provider";
            return together("network", message);
        }
        match &self.virtual_env {
            Some(_) => together("virtual_env", "not with containers; put it into the image"),
            None => Ok(()),
        }
    }

    /// The containers that tasks run in; `None` where they run in none.
    #[cfg(feature = "docker")]
    pub(super) fn containers(&self) -> Option<DockerSettings> {
        let docker = self.docker.as_ref().filter(|_| self.sandbox == SandboxLevel::Docker)?;
        let workers = self.workers() as usize;
        let plain = DockerSettings::of(&docker.image);
        Some(DockerSettings {
            host: docker.host.clone(),
            runtime: docker.runtime.clone(),
            pool_size: docker.pool_size.map_or(workers * 2, |size| size as usize),
            workers,
            queue_max: self.queue_max as usize,
            cpu_millicores: docker.cpu_millicores.unwrap_or(plain.cpu_millicores),
            pids: docker.pids.unwrap_or(plain.pids),
            task_bytes: self.task_dir_mb << 20,
            usual: Limits {
                memory_bytes: self.memory_mb << 20,
                file_bytes: self.file_size_mb << 20,
                ..Limits::default()
            },
            read_only_paths: self.read_only_paths.clone(),
            ..plain
        })
    }
}
