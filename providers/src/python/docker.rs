//! Settings of a Python provider's containers.
//!
//! Checked with the other settings, and read when the sandbox is opened. Invariant: a setting that
//! containers cannot honour is rejected by name, and never ignored.

use gleitzeit_domain::security::SandboxLevel;
use serde::{Deserialize, Serialize};

use super::config_error::PythonConfigError;

/// The containers of a Python provider.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DockerConfig {
    /// The image. It must be at the engine already: nothing is pulled.
    pub image: String,
    /// The address of the engine: `unix://PATH`, or `tcp://HOST:PORT`, which is not encrypted.
    /// `None` uses `DOCKER_HOST`, and then `unix:///var/run/docker.sock`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The runtime that starts containers, such as `runsc`; `None` uses the engine's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// Containers that wait for a task; `None` uses twice the number of workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool_size: Option<u32>,
    /// The processor limit of a task, in thousandths of a core; `None` means 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_millicores: Option<u32>,
    /// Processes and threads of a container, the supervisor included; `None` means 64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids: Option<u32>,
}

/// The settings of a provider that its containers depend on.
pub(super) struct Beside<'a> {
    /// The settings of its containers; `None` if it has none.
    pub(super) docker: Option<&'a DockerConfig>,
    /// The isolation level.
    pub(super) sandbox: SandboxLevel,
    /// True if tasks may use the network.
    pub(super) network: bool,
    /// True if a virtual environment of this machine is set.
    pub(super) has_virtual_env: bool,
}

impl DockerConfig {
    /// Checks the settings of containers, and those beside them that containers exclude or need.
    ///
    /// # Errors
    /// The first setting that is wrong.
    pub(super) fn check(beside: &Beside<'_>) -> Result<(), PythonConfigError> {
        let together = |field, message| Err(PythonConfigError::Together { field, message });
        let Some(docker) = beside.docker else {
            if beside.sandbox == SandboxLevel::Docker {
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
        if beside.sandbox != SandboxLevel::Docker {
            return together("docker", "needs `sandbox = \"docker\"`");
        }
        if docker.image.is_empty() {
            return together("docker.image", "missing; name an image that the engine has");
        }
        if beside.network {
            let message = "containers have none; set `network = false` for this provider";
            return together("network", message);
        }
        if beside.has_virtual_env {
            return together("virtual_env", "not with containers; put it into the image");
        }
        Ok(())
    }
}
