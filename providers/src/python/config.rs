//! Settings of a Python provider.
//!
//! Asked by [`spec`](super::spec). Sizes are MiB or KiB as their names say.

use std::{collections::BTreeMap, num::NonZeroUsize, path::PathBuf, thread, time::Duration};

use gleitzeit_domain::{provider::Call, security::SandboxLevel};
#[cfg(feature = "docker")]
use gleitzeit_sandbox::DockerSettings;
use gleitzeit_sandbox::{JailSettings, Limits, NetworkRule, Policy, Preset};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    config_error::{CPU_MIN_MILLICORES, PythonConfigError},
    docker::{Beside, DockerConfig},
    request::PythonRequest,
    security::SecurityManager,
};
use crate::reach::Rules;

/// Workers of each core if tasks may use the network and `max_workers` is absent.
const NETWORK_WORKERS: u32 = 4;

/// Settings of a Python provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PythonConfig {
    /// The interpreter: a path, or a name looked up in `PATH`. That of a virtual environment brings
    /// its packages. Versions 3.9 to 3.14.
    pub interpreter: PathBuf,
    /// Tasks running at once. If absent: as many as there are cores, and four times as many with
    /// `network`, because such tasks mostly wait for other machines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_workers: Option<u32>,
    /// A virtual environment whose interpreter and packages are used, instead of `interpreter`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub virtual_env: Option<PathBuf>,
    /// How far tasks are kept from the machine.
    pub sandbox: SandboxLevel,
    /// With `sandbox = "chroot"`: the root file system that tasks see. `interpreter` is in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<PathBuf>,
    /// The program that builds jails, if the host does not call [`gleitzeit_sandbox::init`]: the
    /// path of `gleitzeit`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub launcher: Option<PathBuf>,
    /// True lets tasks connect to other machines by TCP, where their method does not forbid it.
    pub network: bool,
    /// Near addresses that tasks may reach, too: `127.0.0.1:5432`, `10.0.0.0/8`.
    pub network_allow: Vec<NetworkRule>,
    /// Directories and files that tasks see besides, read-only.
    #[serde(alias = "shown")]
    pub read_only_paths: Vec<PathBuf>,
    /// MiB that the files of a task may take together; they are in memory.
    pub task_dir_mb: u64,
    /// With `sandbox = "docker"`: the containers that tasks run in. `interpreter` is in the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub docker: Option<DockerConfig>,
    /// A directory of control groups, version 2, that was delegated to the service; `None` detects
    /// it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<PathBuf>,
    /// The processor limit of a jailed task over all its threads, in thousandths of a core; `None`
    /// sets no limit. Needs control groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_millicores: Option<u32>,
    /// Tasks that may wait for a worker.
    pub queue_max: u32,
    /// False starts an interpreter only when there is a task for it, and not one for each worker
    /// beforehand: for a program that ends soon.
    #[serde(skip_serializing_if = "Clone::clone")]
    pub prefork: bool,
    /// The modules and calls that are rejected with a message.
    pub policy: Preset,
    /// Modules that are allowed in addition to the policy, even if it blocks them.
    pub allowed_modules: Vec<String>,
    /// Modules refused besides those of the policy.
    pub blocked_modules: Vec<String>,
    /// Scripts are read below these directories only. A relative one is a directory of the
    /// workflow, if that has one of its own.
    pub file_roots: Vec<PathBuf>,
    /// Directories and files that are stored with a workflow count below these directories only.
    #[serde(rename = "place_roots", skip_serializing_if = "Vec::is_empty")]
    pub workflow_file_roots: Vec<PathBuf>,
    /// Files that no task is given, by absolute path: the database, the settings.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub guarded: Vec<PathBuf>,
    /// Memory of a task that declares none, in MiB of address space.
    pub memory_mb: u64,
    /// The size limit in MiB of a file that a task writes, if the task declares no disk space.
    pub file_size_mb: u64,
    /// KiB kept of each output stream.
    pub output_kept_kb: u32,
    /// MiB of both output streams together above which a task is stopped.
    pub output_max_mb: u32,
    /// KiB that a result may have as JSON.
    pub result_max_kb: u32,
}

impl Default for PythonConfig {
    fn default() -> Self {
        Self {
            interpreter: "python3".into(),
            max_workers: None,
            virtual_env: None,
            sandbox: SandboxLevel::Process,
            root: None,
            launcher: None,
            network: false,
            network_allow: Vec::new(),
            read_only_paths: Vec::new(),
            task_dir_mb: 256,
            docker: None,
            cgroup: None,
            cpu_millicores: None,
            queue_max: 1024,
            prefork: true,
            policy: Preset::Off,
            allowed_modules: Vec::new(),
            blocked_modules: Vec::new(),
            file_roots: vec![".".into()],
            workflow_file_roots: vec!["/".into()],
            guarded: Vec::new(),
            memory_mb: 512,
            file_size_mb: 256,
            output_kept_kb: 64,
            output_max_mb: 8,
            result_max_kb: 1024,
        }
    }
}

impl PythonConfig {
    /// # Errors
    /// The first setting that is wrong.
    pub(super) fn check(&self) -> Result<(), PythonConfigError> {
        let numbers = [
            ("max_workers", u64::from(self.max_workers.unwrap_or(1))),
            ("file_size_mb", self.file_size_mb),
            ("task_dir_mb", self.task_dir_mb),
            ("queue_max", self.queue_max.into()),
            ("output_kept_kb", self.output_kept_kb.into()),
            ("output_max_mb", self.output_max_mb.into()),
            ("result_max_kb", self.result_max_kb.into()),
        ];
        if let Some((field, _)) = numbers.into_iter().find(|(_, number)| *number == 0) {
            return Err(PythonConfigError::Zero { field });
        }
        let least = Limits::MEMORY_MIN_BYTES >> 20;
        if self.memory_mb < least {
            return Err(PythonConfigError::Memory { configured: self.memory_mb, least });
        }
        if let Some(configured) = self.cpu_millicores.filter(|it| *it < CPU_MIN_MILLICORES) {
            return Err(PythonConfigError::Cpu { configured });
        }
        if self.interpreter.as_os_str().is_empty() {
            return Err(PythonConfigError::Empty { field: "interpreter" });
        }
        if self.sandbox == SandboxLevel::Docker && cfg!(not(feature = "docker")) {
            return Err(PythonConfigError::Sandbox { level: self.sandbox.as_str() });
        }
        DockerConfig::check(&Beside {
            docker: self.docker.as_ref(),
            sandbox: self.sandbox,
            network: self.network,
            has_virtual_env: self.virtual_env.is_some(),
        })?;
        let together = |field, message| Err(PythonConfigError::Together { field, message });
        match (self.sandbox == SandboxLevel::Chroot, &self.root, &self.virtual_env) {
            (true, None, _) => together("root", "missing; `sandbox = \"chroot\"` needs one"),
            (true, _, Some(_)) => together("virtual_env", "not with `root`; name its interpreter"),
            (false, Some(_), _) => together("root", "needs `sandbox = \"chroot\"`"),
            (_, _, Some(_)) if self.interpreter != Self::default().interpreter => {
                together("virtual_env", "it has an interpreter; leave out `interpreter`")
            }
            _ => Ok(()),
        }
    }

    /// The interpreter's path.
    pub(super) fn interpreter(&self) -> PathBuf {
        match &self.virtual_env {
            Some(environment) => environment.join("bin/python"),
            None => self.interpreter.clone(),
        }
    }

    /// The jail of tasks; `None` if they run in none.
    pub(super) fn jail(&self) -> Option<JailSettings> {
        if matches!(self.sandbox, SandboxLevel::None | SandboxLevel::Docker) {
            return None;
        }
        Some(JailSettings {
            launcher: self.launcher.clone(),
            root: self.root.clone(),
            workers: self.workers() as usize,
            queue_max: self.queue_max as usize,
            prefork: self.prefork,
            network: self.network,
            network_allow: self.network_allow.clone(),
            read_only_paths: self.read_only_paths.clone(),
            task_bytes: self.task_dir_mb << 20,
            cgroup: self.cgroup.clone(),
            cpu_millicores: self.cpu_millicores,
            ..JailSettings::default()
        })
    }

    /// The containers of tasks; `None` if they run in none.
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

    /// True if tasks run in containers.
    pub(super) fn containers_are_used(&self) -> bool {
        self.sandbox == SandboxLevel::Docker
    }

    /// The files that a call may name.
    pub(super) fn rules(&self) -> Rules {
        Rules::new(&self.file_roots, &self.workflow_file_roots, &self.guarded)
    }

    /// Tasks running at once.
    pub(super) fn workers(&self) -> u32 {
        self.max_workers.unwrap_or_else(|| {
            let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
            let cores = u32::try_from(cores).unwrap_or(1);
            if self.network { cores.saturating_mul(NETWORK_WORKERS) } else { cores }
        })
    }

    pub(super) fn security(&self) -> SecurityManager {
        let policy =
            Policy::preset(self.policy).with_lists(&self.allowed_modules, &self.blocked_modules);
        SecurityManager::new(self.sandbox, policy, self.network)
    }

    /// The settings for output; they have no secrets.
    pub(super) fn redacted(&self) -> BTreeMap<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(fields)) => fields.into_iter().collect(),
            _ => BTreeMap::new(),
        }
    }

    /// The limits of one call: what the task leased is what it gets.
    pub(super) fn limits(&self, request: &PythonRequest, call: &Call) -> Limits {
        let leased = |amount: u64, otherwise: u64| if amount == 0 { otherwise } else { amount };
        Limits {
            timeout: timeout(request, call),
            memory_bytes: leased(call.resources.memory_mib, self.memory_mb) << 20,
            file_bytes: leased(call.resources.disk_mib, self.file_size_mb) << 20,
            output_kept_bytes: self.output_kept_kb as usize * 1024,
            output_max_bytes: u64::from(self.output_max_mb) << 20,
            result_max_bytes: self.result_max_kb as usize * 1024,
            ..Limits::default()
        }
    }
}

/// The limit of an attempt. The plan of the task has included a literal `timeout`; a reference is
/// known only here.
pub(super) fn timeout(request: &PythonRequest, call: &Call) -> Duration {
    let own = request.timeout.filter(|_| call.supplied("timeout").is_some());
    own.map_or(call.timeout, |own| own.min(call.timeout))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A wrong setting is named, and nothing is guessed.
    #[test]
    fn wrong_settings_are_refused_by_name() {
        for (settings, expected) in [
            (json!({"max_workers": 0}), "max_workers: must be more than 0"),
            (json!({"memory_mb": 8}), "memory_mb: 8 is less than the 32 MiB"),
            (json!({"cpu_millicores": 49}), "cpu_millicores: 49 is less than 50"),
            (json!({"interpreter": ""}), "interpreter: must not be empty"),
            #[cfg(not(feature = "docker"))]
            (json!({"sandbox": "docker"}), "sandbox: `docker` is not available"),
            #[cfg(feature = "docker")]
            (json!({"sandbox": "docker"}), "docker.image: missing"),
            #[cfg(feature = "docker")]
            (json!({"sandbox": "docker", "docker": {}}), "docker.image: missing"),
            #[cfg(feature = "docker")]
            (
                json!({"sandbox": "docker", "docker": {"image": "i", "pids": 0}}),
                "docker.pids: must",
            ),
            #[cfg(feature = "docker")]
            (
                json!({"sandbox": "docker", "docker": {"image": "i"}, "network": true}),
                "network: containers have none",
            ),
            #[cfg(feature = "docker")]
            (
                json!({"sandbox": "docker", "docker": {"image": "i"}, "virtual_env": "v"}),
                "virtual_env: not with containers",
            ),
            (json!({"docker": {"image": "i"}}), "docker: needs `sandbox = \"docker\"`"),
            (json!({"output_max_mb": 0}), "output_max_mb: must be more than 0"),
            (json!({"sandbox": "chroot"}), "root: missing"),
            (json!({"root": "/x"}), "root: needs `sandbox = \"chroot\"`"),
            (json!({"virtual_env": "v", "interpreter": "p"}), "virtual_env: it has an"),
        ] {
            let config: PythonConfig = serde_json::from_value(settings).unwrap();
            let error = config.check().unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
        assert!(serde_json::from_value::<PythonConfig>(json!({"interpeter": "x"})).is_err());
        assert_eq!(PythonConfig::default().check(), Ok(()));
    }

    /// Tasks with the network wait for other machines: more of them than there are cores.
    #[test]
    fn workers_follow_the_cores_and_the_network() {
        let cores = u32::try_from(thread::available_parallelism().unwrap().get()).unwrap();
        let workers = |max_workers, network| {
            PythonConfig { max_workers, network, ..PythonConfig::default() }.workers()
        };
        assert_eq!(workers(None, false), cores);
        assert_eq!(workers(None, true), 4 * cores);
        assert_eq!((workers(Some(3), true), workers(Some(3), false)), (3, 3));
    }
}
