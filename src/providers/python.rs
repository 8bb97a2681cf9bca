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
mod request;
mod script;
mod security;

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use async_trait::async_trait;
use gleitzeit_domain::{
    error::{ErrorCode, TaskError},
    health::HealthReport,
    id::{Capability, ProtocolId, ProviderId, Version},
    provider::{Call, Outcome, Placement, Provider, ProviderSpec, Supervision},
};
use gleitzeit_sandbox::{Interpreter, Job, Sandbox, SandboxError, Settings, Status};

pub use config::{PythonConfig, PythonConfigError};
pub use security::SecurityManager;

use request::Request;
use script::Scripts;

const METHODS: [&str; 2] = ["execute", "validate"];
/// A health check that takes longer has failed; a task that does nothing takes milliseconds.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// A provider of `python/v1.0` that runs code with the interpreter of `config`.
///
/// The interpreter is first asked when the runtime starts the provider.
///
/// ```
/// use gleitzeit::providers::python::{self, PythonConfig};
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
    let shown = config.shown();
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
        kind: "python".into(),
        config: shown,
        factory: Arc::new(move || {
            let provider =
                PythonProvider::new(PythonConfig::clone(&config)).map_err(TaskError::from)?;
            Ok(Rc::new(provider))
        }),
    })
}

/// The provider itself, for whoever builds a [`ProviderSpec`] of their own around it.
#[derive(Debug)]
pub struct PythonProvider {
    config: PythonConfig,
    security: SecurityManager,
    scripts: Scripts,
    sandbox: RefCell<Option<Sandbox>>,
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
            scripts: Scripts::new(&config.file_roots),
            config,
            sandbox: RefCell::new(None),
        })
    }

    /// A handle of the sandbox; cheap, and held by no borrow while a job runs.
    fn sandbox(&self) -> Result<Sandbox, TaskError> {
        self.sandbox.borrow().clone().ok_or_else(|| {
            TaskError::new(ErrorCode::ProviderUnhealthy, "the Python provider is not initialized")
        })
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
        let sandbox = self.sandbox()?;
        let policy = self.security.admit(call.security())?;
        let request = Request::read(&call.params)?;
        let source = match (&request.code, &request.file) {
            (Some(code), None) => request::inline(code),
            (None, Some(file)) => self.scripts.read(file).await?,
            (code, _) => return Err(request::one_of_code_and_file(code.is_some())),
        };
        let timeout = config::timeout(&request, call);
        let limits = self.config.limits(&request, call);
        let job = request.into_job(source, policy, limits, call);
        let outcome = sandbox.run(job).await.map_err(|error| refused(&error))?;
        answer::of_execute(outcome, timeout)
    }

    async fn validate_code(&self, call: &Call) -> Result<Outcome, TaskError> {
        let sandbox = self.sandbox()?;
        let policy = self.security.admit(call.security())?;
        let request = Request::read(&call.params)?;
        let Some(code) = &request.code else {
            return Err(TaskError::new(ErrorCode::InvalidParams, "`code` is missing"));
        };
        let source = request::inline(code);
        let timeout = config::timeout(&request, call);
        let limits = self.config.limits(&request, call);
        let job = request.into_job(source, policy, limits, call);
        let job = Job { mode: gleitzeit_sandbox::Mode::Validate, ..job };
        let outcome = sandbox.run(job).await.map_err(|error| refused(&error))?;
        answer::of_validate(outcome, timeout)
    }
}

/// A job that could not be run: the task is wrong, or the machine has nothing left to give.
fn refused(error: &SandboxError) -> TaskError {
    let code = match error {
        SandboxError::Environment { .. } | SandboxError::Import { .. } => ErrorCode::InvalidParams,
        SandboxError::System { .. } => ErrorCode::ResourceExhausted,
        SandboxError::Interpreter { .. } | SandboxError::Version { .. } => {
            ErrorCode::ProviderUnhealthy
        }
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
        let interpreter = Interpreter::probe(&self.config.interpreter).await.map_err(|error| {
            failed(format!("{error}; set `interpreter` of the python provider"))
        })?;
        let path = interpreter.path().display().to_string();
        let version = interpreter.version();
        let sandbox = Sandbox::new(interpreter, Settings::default());
        self.try_out(&sandbox).await.map_err(failed)?;
        tracing::info!(path, %version, sandbox = sandbox.level().as_str(), "Python is ready");
        self.sandbox.replace(Some(sandbox));
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

    async fn health_check(&self) -> HealthReport {
        let sandbox = match self.sandbox() {
            Ok(sandbox) => sandbox,
            Err(error) => return HealthReport::unhealthy(error.message),
        };
        match self.try_out(&sandbox).await {
            Ok(()) => HealthReport {
                detail: format!(
                    "Python {}, sandbox {}",
                    sandbox.interpreter().version(),
                    sandbox.level().as_str()
                ),
                ..HealthReport::healthy()
            },
            Err(why) => HealthReport::unhealthy(why),
        }
    }

    async fn shutdown(&self) {
        self.sandbox.replace(None);
    }
}
