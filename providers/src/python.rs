//! Runs Python code: `execute` and `validate` of `python/v1.0`.
//!
//! Asked through its supervisor like any provider; asks a [`Sandbox`], which owns the processes.
//! Cut into: settings ([`PythonConfig`]), what is admitted ([`SecurityManager`]), parameters to
//! job, scripts, outcome to result.
//!
//! Invariant: code that raised, exited with a status other than 0 or was stopped is an error, with
//! all that it had printed in the error's data; it is never a result.

mod answer;
mod config;
mod config_error;
mod docker;
mod exposed;
mod kind;
mod request;
mod script;
mod security;

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use gleitzeit_domain::{
    error::{ErrorCode, TaskError},
    health::HealthReport,
    id::{Capability, ProtocolId, ProviderId, Version},
    provider::{Call, GRACE_MAX, Outcome, Placement, Provider, ProviderSpec, Supervision},
};
use gleitzeit_sandbox::{Interpreter, Job, Sandbox, SandboxError, SandboxSettings, Status};

use serde_json::Value;

pub use config::PythonConfig;
pub use config_error::PythonConfigError;
pub use docker::DockerConfig;
pub use kind::kind;
pub use security::{AdmittedCall, SecurityManager};

use exposed::ExposedFiles;
use request::PythonRequest;
use script::Scripts;

/// The remedy if no isolation is available.
const UNAVAILABLE: &str = "`gleitzeit doctor` says what this machine lacks; for code that you trust, \
                           set `sandbox = \"none\"` and `allow_unsandboxed = true` in [security]";
const NO_ISOLATION: &str = "no jail and no container can be had";
const METHODS: [&str; 2] = ["execute", "validate"];
/// A health check waits so long for a place among the tasks.
const ISOLATION_TIMEOUT: Duration = Duration::from_secs(3);
/// Code that ran so recently shows that the sandbox works.
const PROVEN: Duration = Duration::from_secs(5);
/// A health check that takes longer has failed; a task that does nothing takes milliseconds.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// A provider of `python/v1.0` that runs code with the interpreter of `config`.
///
/// The interpreter is first asked when the runtime starts the provider.
///
/// ```
/// use gleitzeit_providers::python::{self, PythonConfig};
///
/// let config = PythonConfig { max_workers: Some(4), ..Default::default() };
/// let spec = python::spec("python", config)?;
/// assert_eq!(spec.max_concurrent, Some(4));
/// # Ok::<(), python::PythonConfigError>(())
/// ```
///
/// # Errors
/// The first setting that is wrong, by its name.
pub fn spec(
    id: impl Into<ProviderId>,
    config: PythonConfig,
) -> Result<ProviderSpec, PythonConfigError> {
    config.check()?;
    let python = ProtocolId::new("python", Version { major: 1, minor: 0, patch: 0 });
    let redacted = config.redacted();
    let workers = config.workers();
    let config = Arc::new(config);
    Ok(ProviderSpec {
        id: id.into(),
        capabilities: METHODS.map(|method| Capability::new(python.clone(), method)).to_vec(),
        protocols: Vec::new(),
        weight: 1.0,
        max_concurrent: Some(workers),
        placement: Placement::Worker,
        supervision: Supervision::default(),
        supervision_chosen: false,
        kind: "python".into(),
        config: redacted,
        factory: Arc::new(move || {
            let provider =
                PythonProvider::new(PythonConfig::clone(&config)).map_err(TaskError::from)?;
            Ok(Rc::new(provider))
        }),
    })
}

/// The way in which a Python provider of a settings file would run, as far as it is known without a
/// task.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Diagnosis {
    /// The provider.
    pub provider: ProviderId,
    /// The interpreter, as the settings name it.
    pub interpreter: std::path::PathBuf,
    /// The version; `None` if the interpreter is unusable.
    pub version: Option<String>,
    /// The level of its tasks; `None` if they cannot run.
    pub level: Option<&'static str>,
    /// The result of the self-test of its jail.
    #[serde(rename = "verdict")]
    pub self_test: Option<gleitzeit_sandbox::SelfTest>,
    /// Why it cannot run.
    pub error: Option<String>,
}

/// Starts the sandbox of a provider as its settings say, tries to get out of it, and ends it.
/// `None` for a provider of another kind.
pub async fn diagnose(spec: &ProviderSpec) -> Option<Diagnosis> {
    let config = config_of(spec)?;
    let mut diagnosis = Diagnosis {
        provider: spec.id.clone(),
        interpreter: config.interpreter(),
        version: None,
        level: None,
        self_test: None,
        error: None,
    };
    match open(&config).await {
        Ok(sandbox) => {
            diagnosis.version = Some(sandbox.interpreter().version().to_string());
            diagnosis.level = Some(sandbox.level().as_str());
            diagnosis.self_test = sandbox.self_test().cloned();
            sandbox.stop().await;
        }
        Err(error) => diagnosis.error = Some(PythonProvider::advice(&error)),
    }
    Some(diagnosis)
}

/// The settings that a provider of this kind was made with.
fn config_of(spec: &ProviderSpec) -> Option<PythonConfig> {
    let config = Value::Object(spec.config.clone().into_iter().collect());
    // A configuration that cannot be parsed belongs to another provider whose kind is also called
    // `python`.
    (&*spec.kind == "python").then(|| serde_json::from_value(config).ok())?
}

/// The sandbox of these settings.
async fn open(config: &PythonConfig) -> Result<Sandbox, SandboxError> {
    let path = config.interpreter();
    if let Some(jail) = config.jail() {
        return Sandbox::jailed(&path, &jail).await;
    }
    #[cfg(feature = "docker")]
    if let Some(containers) = config.containers() {
        return Sandbox::docker(&path, &containers).await;
    }
    let interpreter = Interpreter::probe(&path).await?;
    Ok(Sandbox::new(interpreter, SandboxSettings::default()))
}

/// Checks before a runtime starts that the level of a Python provider is available. Providers of
/// other kinds are skipped.
pub(crate) async fn check_level(spec: &ProviderSpec) -> Result<(), String> {
    let Some(config) = config_of(spec) else { return Ok(()) };
    let checked = match config.jail() {
        Some(jail) => gleitzeit_sandbox::available(&jail).await,
        None => Ok(()),
    };
    #[cfg(feature = "docker")]
    let checked = match config.containers() {
        Some(containers) => gleitzeit_sandbox::docker_available(&containers).await.map(|_| ()),
        None => checked,
    };
    checked.map_err(|error| PythonProvider::advice(&error))
}

/// The interpreter of a Python provider, as its settings name it. `None` for one of another kind.
pub fn interpreter(spec: &ProviderSpec) -> Option<std::path::PathBuf> {
    Some(config_of(spec)?.interpreter())
}

/// The containers of a Python provider's settings: the engine's address and the image. `None` for
/// one without.
#[cfg(feature = "docker")]
pub fn containers(spec: &ProviderSpec) -> Option<(String, String)> {
    let containers = config_of(spec)?.containers()?;
    Some((containers.address(), containers.image))
}

/// The provider itself, for a host that builds its own [`ProviderSpec`].
#[derive(Debug)]
pub struct PythonProvider {
    config: PythonConfig,
    security: SecurityManager,
    scripts: Scripts,
    sandbox: RefCell<Option<Sandbox>>,
    exposed: ExposedFiles,
    /// When code was last seen to run.
    proven_at: Cell<Option<Instant>>,
}

impl PythonProvider {
    /// A provider that has not asked its interpreter yet.
    ///
    /// # Errors
    /// The first setting that is wrong, by its name.
    pub fn new(config: PythonConfig) -> Result<Self, PythonConfigError> {
        config.check()?;
        Ok(Self {
            security: config.security(),
            scripts: Scripts::new(config.rules()),
            config,
            sandbox: RefCell::new(None),
            exposed: ExposedFiles::default(),
            proven_at: Cell::new(None),
        })
    }

    /// A handle of the sandbox; cheap, and held by no borrow while a job runs.
    fn sandbox(&self) -> Result<Sandbox, TaskError> {
        self.sandbox.borrow().clone().ok_or_else(|| {
            TaskError::new(ErrorCode::ProviderUnhealthy, "the Python provider is not initialized")
        })
    }

    /// The error, and the setting to change.
    fn advice(error: &SandboxError) -> String {
        match error {
            SandboxError::Unavailable { .. } | SandboxError::Engine { .. } => {
                format!("{error}; {UNAVAILABLE}")
            }
            _ => format!("{error}; set `interpreter` of the python provider"),
        }
    }

    /// A task that does nothing: shows that the interpreter starts, runs and answers.
    async fn try_out(&self, sandbox: &Sandbox) -> Result<(), String> {
        let outcome = sandbox
            .run(Job::execute("result = 6 * 7").timeout(CHECK_TIMEOUT))
            .await
            .map_err(|error| error.to_string())?;
        if outcome.status == Status::Ok && outcome.result == 42 {
            return Ok(());
        }
        let path = sandbox.interpreter().path().display();
        let why = outcome.error.map(|error| error.headline()).unwrap_or_default();
        Err(format!("`{path}` failed at a task that only multiplies: {why}"))
    }

    async fn execute_code(&self, call: &Call) -> Result<Outcome, TaskError> {
        let usual = self.sandbox()?;
        let admission = self.security.admit(call.security())?;
        let request = PythonRequest::read(&call.params)?;
        let file_access = call.file_access.as_deref();
        let source = match (&request.code, &request.file) {
            (Some(code), None) => request::inline(code),
            (None, Some(file)) => self.scripts.read(call.file_access.as_ref(), file).await?,
            (code, _) => return Err(request::one_of_code_and_file(code.is_some())),
        };
        let own = self.exposed.sandbox(&self.config, self.scripts.reach(file_access), call).await?;
        let sandbox = own.unwrap_or(usual);
        let timeout = config::timeout(&request, call);
        let limits = self.config.limits(&request, call);
        let job = request.into_job(source, admission, limits, call);
        let outcome = sandbox.run(job).await.map_err(|error| refused(&error))?;
        answer::of_execute(outcome, timeout)
    }

    async fn validate_code(&self, call: &Call) -> Result<Outcome, TaskError> {
        let sandbox = self.sandbox()?;
        let admission = self.security.admit(call.security())?;
        let request = PythonRequest::read(&call.params)?;
        let Some(code) = &request.code else {
            return Err(TaskError::new(ErrorCode::InvalidParams, "`code` is missing"));
        };
        let source = request::inline(code);
        let timeout = config::timeout(&request, call);
        let limits = self.config.limits(&request, call);
        let job = request.into_job(source, admission, limits, call);
        let job = Job { mode: gleitzeit_sandbox::Mode::Validate, ..job };
        let outcome = sandbox.run(job).await.map_err(|error| refused(&error))?;
        answer::of_validate(outcome, timeout)
    }
}

/// A job that could not be run: the task is wrong, or the machine has nothing left to give.
fn refused(error: &SandboxError) -> TaskError {
    let code = match error {
        SandboxError::Environment { .. } | SandboxError::Import { .. } => ErrorCode::InvalidParams,
        SandboxError::System { .. } | SandboxError::Busy { .. } => ErrorCode::ResourceExhausted,
        SandboxError::Interpreter { .. }
        | SandboxError::Version { .. }
        | SandboxError::Unavailable { .. }
        | SandboxError::Engine { .. }
        | SandboxError::Closed => ErrorCode::ProviderUnhealthy,
    };
    TaskError::new(code, error.to_string())
}

#[async_trait(?Send)]
impl Provider for PythonProvider {
    async fn initialize(&self) -> Result<(), TaskError> {
        if self.sandbox.borrow().is_some() {
            return Ok(());
        }
        let failed = |why: String| {
            TaskError::new(ErrorCode::ProviderInitializationFailed, why).retryable(true)
        };
        let opened = open(&self.config).await;
        let sandbox = opened.map_err(|error| failed(Self::advice(&error)))?;
        let path = sandbox.interpreter().path().display().to_string();
        let version = sandbox.interpreter().version();
        // A jail has been tried out by the attempts to get out of it.
        if sandbox.self_test().is_none() {
            self.try_out(&sandbox).await.map_err(failed)?;
        }
        tracing::info!(path, %version, sandbox = sandbox.level().as_str(), "Python is ready");
        self.sandbox.replace(Some(sandbox));
        self.proven_at.set(Some(Instant::now()));
        Ok(())
    }

    async fn execute(&self, call: Call) -> Result<Outcome, TaskError> {
        match call.method_name() {
            "execute" => self.execute_code(&call).await,
            "validate" => self.validate_code(&call).await,
            other => Err(TaskError::new(
                ErrorCode::MethodNotSupported,
                format!("the python provider has no method `{other}`; it has {METHODS:?}"),
            )),
        }
    }

    /// The sandbox ends a task at its limit, counted from the start of its code, with all that it
    /// has printed; a call that is dropped at the limit would lose that, and end code early.
    fn grace(&self) -> Duration {
        GRACE_MAX
    }

    async fn health_check(&self) -> HealthReport {
        self.exposed.tidy();
        let sandbox = match self.sandbox() {
            Ok(sandbox) => sandbox,
            Err(error) => return HealthReport::unhealthy(error.message),
        };
        // The first check comes right after the start, which has run code: a task that waits for the
        // same place would wait for nothing.
        let is_proven = self.proven_at.take().is_some_and(|at| at.elapsed() < PROVEN);
        let tried = async { if is_proven { Ok(()) } else { self.try_out(&sandbox).await } };
        let tried = tokio::time::timeout(ISOLATION_TIMEOUT, tried).await;
        // Long tasks in all places are no illness; only a jail that is gone is one.
        let tried = tried.unwrap_or_else(|_| {
            if sandbox.is_serving() { Ok(()) } else { Err(NO_ISOLATION.to_owned()) }
        });
        match tried {
            Ok(()) => {
                let (version, level) = (sandbox.interpreter().version(), sandbox.level().as_str());
                let self_test = sandbox.self_test().map(|self_test| format!(": {self_test}"));
                let detail =
                    format!("Python {version}, sandbox {level}{}", self_test.unwrap_or_default());
                HealthReport { detail, ..HealthReport::healthy() }
            }
            Err(why) => HealthReport::unhealthy(why),
        }
    }

    async fn shutdown(&self) {
        self.exposed.stop().await;
        let sandbox = self.sandbox.replace(None);
        if let Some(sandbox) = sandbox {
            sandbox.stop().await;
        }
    }
}
