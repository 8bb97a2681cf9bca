//! Runs jobs with one interpreter, at one level of isolation.
//!
//! Invariant: a job runs at the sandbox's level or not at all.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    Interpreter, Job, Level, Outcome, SandboxError, classify,
    jail::{self, Jail, JailSettings},
    process::Unjailed,
    self_test::SelfTest,
};

/// Settings that hold for every job of a sandbox without a jail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxSettings {
    /// Jobs get their directories below this one.
    pub work_root: PathBuf,
}

impl Default for SandboxSettings {
    fn default() -> Self {
        Self { work_root: std::env::temp_dir() }
    }
}

/// Runs jobs with one interpreter, each in a process of its own. A clone is the same sandbox.
///
/// At [`Level::None`] a job runs with the rights of the service: its limits protect from accidents,
/// and from nothing else. At [`Level::Process`] and [`Level::Chroot`] it runs in a jail, at
/// [`Level::Docker`] in a container of its own. Dropping the last clone ends all that belongs to it.
#[derive(Debug, Clone)]
pub struct Sandbox {
    interpreter: Interpreter,
    backend: Backend,
}

/// The implementation of a level.
#[derive(Debug, Clone)]
enum Backend {
    Unjailed(Unjailed),
    Jail(Arc<Jail>),
    #[cfg(feature = "docker")]
    Docker(Arc<crate::docker::Docker>),
}

impl Sandbox {
    /// One at [`Level::None`]. Clears away what a killed predecessor left below the work root.
    pub fn new(interpreter: Interpreter, settings: SandboxSettings) -> Self {
        let backend = Backend::Unjailed(Unjailed::new(settings.work_root));
        Self { interpreter, backend }
    }

    /// A sandbox at [`Level::Process`], or [`Level::Chroot`] if the settings name a root. Asks the
    /// interpreter at `path`, starts as many zygotes as there are workers, and runs the self-test
    /// in one. With a root, `path` is a path of that root.
    ///
    /// Must be called in a tokio runtime with I/O and time, which keeps the zygotes from then on.
    ///
    /// # Errors
    /// [`SandboxError::Interpreter`] and [`SandboxError::Version`] as of [`Interpreter::probe`],
    /// [`SandboxError::Unavailable`] when there is no jail to be had, or it does not hold.
    pub async fn jailed(path: &Path, settings: &JailSettings) -> Result<Self, SandboxError> {
        let interpreter = match settings.root {
            Some(_) => jail::probe(path, settings).await?,
            None => Interpreter::probe(path).await?,
        };
        let jail = Jail::start(&interpreter, settings).await?;
        Ok(Self { interpreter, backend: Backend::Jail(Arc::new(jail)) })
    }

    /// One at [`Level::Docker`]: asks the interpreter at `path` of the image, warms a stock of
    /// containers, and has one of them try to get out.
    ///
    /// Must be called in a tokio runtime with I/O and time, which keeps the stock from then on.
    ///
    /// # Errors
    /// [`SandboxError::Unavailable`] if the engine, the image or its interpreter is unusable,
    /// [`SandboxError::Engine`] if the engine fails meanwhile.
    #[cfg(feature = "docker")]
    pub async fn docker(
        path: &Path,
        settings: &crate::DockerSettings,
    ) -> Result<Self, SandboxError> {
        let (docker, interpreter) = crate::docker::Docker::start(path, settings).await?;
        Ok(Self { interpreter, backend: Backend::Docker(Arc::new(docker)) })
    }

    /// The interpreter.
    pub fn interpreter(&self) -> &Interpreter {
        &self.interpreter
    }

    /// How far jobs are kept from the machine.
    pub fn level(&self) -> Level {
        match &self.backend {
            Backend::Unjailed(_) => Level::None,
            Backend::Jail(jail) => jail.level(),
            #[cfg(feature = "docker")]
            Backend::Docker(_) => Level::Docker,
        }
    }

    /// The result of the self-test; `None` at [`Level::None`], which has nothing to test.
    pub fn self_test(&self) -> Option<&SelfTest> {
        match &self.backend {
            Backend::Unjailed(_) => None,
            Backend::Jail(jail) => Some(jail.self_test()),
            #[cfg(feature = "docker")]
            Backend::Docker(docker) => Some(docker.self_test()),
        }
    }

    /// True while it can run jobs, at once or when those that run have ended.
    pub fn is_serving(&self) -> bool {
        match &self.backend {
            Backend::Unjailed(_) => true,
            Backend::Jail(jail) => jail.is_serving(),
            #[cfg(feature = "docker")]
            Backend::Docker(docker) => docker.is_serving(),
        }
    }

    /// Runs a job to its end. An error of the code is part of the outcome.
    ///
    /// Dropping the future kills the process, and all that it started, at once.
    ///
    /// # Errors
    /// [`SandboxError`] when the job is refused or no process could be started.
    pub async fn run(&self, job: Job) -> Result<Outcome, SandboxError> {
        job.check()?;
        tracing::trace!(mode = ?job.mode, bytes = job.source.bytes.len(), "running Python");
        let ended = match &self.backend {
            Backend::Unjailed(unjailed) => unjailed.run(&self.interpreter, &job).await?,
            Backend::Jail(jail) => jail.run(&self.interpreter, &job).await?,
            #[cfg(feature = "docker")]
            Backend::Docker(docker) => docker.run(&job).await?,
        };
        Ok(classify::outcome(ended, job.mode, self.level()))
    }

    /// Ends everything that belongs to it, jobs that run included, and waits until it is gone.
    pub async fn stop(&self) {
        match &self.backend {
            Backend::Unjailed(_) => {}
            Backend::Jail(jail) => jail.stop().await,
            #[cfg(feature = "docker")]
            Backend::Docker(docker) => docker.stop().await,
        }
    }
}
