//! One suite that every provider passes, those of other crates included.
//!
//! Asked by the tests of a provider's author. It uses a provider as its supervisor does: builds it
//! from its factory, initializes it, calls it, drops calls, checks it, shuts it down.
//!
//! ```
//! use gleitzeit_providers::{conformance::{self, Sample}, echo};
//! use gleitzeit_domain::protocol::catalog::ProtocolCatalog;
//! use serde_json::json;
//!
//! # actix_rt::System::new().block_on(async {
//! let catalog = ProtocolCatalog::builtin();
//! let samples = [
//!     Sample::new(&catalog, "echo/v1.0:echo", json!({ "n": 1 }))?.returning(json!({ "n": 1 })),
//!     Sample::new(&catalog, "echo/v1.0:echo", json!({ "n": 2 }))?.returning(json!({ "n": 2 })),
//! ];
//! conformance::check(&echo::spec("echo"), &samples).await?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```

use std::{
    any::Any,
    fmt,
    future::{Future, poll_fn},
    panic::AssertUnwindSafe,
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use futures_util::{FutureExt as _, future::join_all};
use gleitzeit_domain::{
    error::{ErrorCode, TaskError},
    health::HealthStatus,
    id::Capability,
    protocol::{Method, MethodRef, MethodSpec, catalog::ProtocolCatalog, validate::Filled},
    provider::{Call, Outcome, Provider, ProviderSpec},
    resources::Resources,
};
use serde_json::Value;

/// No step of the suite may take longer.
const TIMEOUT: Duration = Duration::from_mins(1);

/// How often each sample is called while the others are.
const ROUNDS: usize = 4;

/// After how many polls a call is dropped: before it began, and at several points of its way.
const DROPPED_AFTER: [usize; 6] = [0, 1, 2, 3, 8, 32];

type Accepts = Box<dyn Fn(&Value) -> Result<(), String>>;

/// A call that must succeed, and what its result must be.
pub struct Sample {
    method: MethodRef,
    filled: Filled,
    accepts: Accepts,
}

impl fmt::Debug for Sample {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Sample")
            .field("capability", &self.method.capability)
            .field("params", &self.filled.params)
            .finish_non_exhaustive()
    }
}

/// Why a [`Sample`] is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SampleError {
    /// No such method is in the catalog.
    #[error("`{capability}` is not in the catalog of protocols")]
    UnknownMethod {
        /// As given.
        capability: String,
    },
    /// The parameters break the method's schema.
    #[error("the parameters for `{capability}` break its schema: {violations}")]
    Params {
        /// As given.
        capability: String,
        /// Everything wrong, in one line.
        violations: String,
    },
}

impl Sample {
    /// A call of `capability` (`name/version:method`) as the engine would make it: the parameters
    /// checked, and its defaults filled in. Any result that fits the schema will do.
    ///
    /// # Errors
    /// [`SampleError`] when the engine would not make such a call.
    pub fn new(
        catalog: &ProtocolCatalog,
        capability: &str,
        params: Value,
    ) -> Result<Self, SampleError> {
        let name = || capability.to_owned();
        let method = capability.parse::<Capability>().ok().and_then(|id| catalog.method(&id));
        let method = method.ok_or_else(|| SampleError::UnknownMethod { capability: name() })?;
        let filled = method.params.fill(&Arc::new(params)).map_err(|violations| {
            SampleError::Params { capability: name(), violations: listed(&violations) }
        })?;
        Ok(Self { method, filled, accepts: Box::new(|_| Ok(())) })
    }

    /// The result must be `expected`.
    #[must_use]
    pub fn returning(self, expected: Value) -> Self {
        self.accepting(move |result| {
            if *result == expected { Ok(()) } else { Err(format!("expected {expected}")) }
        })
    }

    /// `accepts` says of a result what is wrong with it. To show that calls do not mix, it must
    /// refuse the results of the other samples.
    #[must_use]
    pub fn accepting(mut self, accepts: impl Fn(&Value) -> Result<(), String> + 'static) -> Self {
        self.accepts = Box::new(accepts);
        self
    }

    /// The call, as first attempt of a task of its own.
    pub fn call(&self, task: &str) -> Call {
        Call {
            workflow_id: "conformance".into(),
            task_id: task.into(),
            attempt: 1,
            method: Arc::clone(&self.method),
            params: Arc::clone(&self.filled.params),
            defaulted: Arc::clone(&self.filled.defaulted),
            timeout: TIMEOUT,
            resources: Resources::default(),
            file_access: None,
        }
    }

    fn judge(&self, outcome: Result<Outcome, TaskError>) -> Result<(), String> {
        let value = outcome.map_err(|error| format!("failed: {error}"))?.value;
        if let Some(returns) = &self.method.returns {
            let violations = returns.check(&value);
            if !violations.is_empty() {
                return Err(format!("result {value} breaks its schema: {}", listed(&violations)));
            }
        }
        (self.accepts)(&value).map_err(|wrong| format!("result {value}: {wrong}"))
    }
}

fn listed<T: fmt::Display>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join("; ")
}

/// What a provider must hold to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Claim {
    /// It names what it serves, every sample's method included.
    Serves,
    /// Its factory builds it, and another one beside it.
    Builds,
    /// It initializes, and initializing it again changes nothing.
    Initializes,
    /// Its health check answers, and does not call a working provider unhealthy.
    AnswersHealthChecks,
    /// Each sample's call succeeds, with a result that fits its schema.
    Serving,
    /// A method that it does not know ends in [`ErrorCode::MethodNotSupported`].
    RefusesUnknownMethods,
    /// A call that is dropped, wherever it was, does not disturb the next one.
    SurvivesDroppedCalls,
    /// Calls at once each get their own result.
    KeepsCallsApart,
    /// It can be shut down, twice, and used after that without a panic.
    ShutsDown,
}

/// A claim that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Which one.
    pub claim: Claim,
    /// What was seen instead.
    pub detail: String,
}

/// Every claim that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failures(pub Vec<Failure>);

impl fmt::Display for Failures {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("the provider does not conform:")?;
        self.0.iter().try_for_each(|it| write!(out, "\n- {:?}: {}", it.claim, it.detail))
    }
}

impl std::error::Error for Failures {}

/// Runs a provider through every claim. To be called where providers live: in an actix system, or
/// in a `LocalSet` of tokio, on a clock that runs.
///
/// # Errors
/// Every claim that does not hold, with what was seen.
pub async fn check(spec: &ProviderSpec, samples: &[Sample]) -> Result<(), Failures> {
    let mut suite = Suite { spec, samples, failures: Vec::new() };
    suite.run().await;
    if suite.failures.is_empty() { Ok(()) } else { Err(Failures(suite.failures)) }
}

struct Suite<'a> {
    spec: &'a ProviderSpec,
    samples: &'a [Sample],
    failures: Vec<Failure>,
}

impl Suite<'_> {
    async fn run(&mut self) {
        self.serves();
        // Without a provider nothing more can be said.
        let Some(provider) = self.builds() else { return };
        self.initializes(&*provider).await;
        self.answers_health_checks(&*provider).await;
        self.serving(&*provider, Claim::Serving).await;
        self.refuses_unknown_methods(&*provider).await;
        self.survives_dropped_calls(&*provider).await;
        self.keeps_calls_apart(&*provider).await;
        self.replaces().await;
        self.shuts_down(&*provider).await;
    }

    fn fail(&mut self, claim: Claim, detail: impl Into<String>) {
        self.failures.push(Failure { claim, detail: detail.into() });
    }

    fn note<T>(&mut self, claim: Claim, seen: Result<T, String>) -> Option<T> {
        seen.map_err(|detail| self.fail(claim, detail)).ok()
    }

    fn serves(&mut self) {
        let spec = self.spec;
        if spec.capabilities.is_empty() && spec.protocols.is_empty() {
            self.fail(Claim::Serves, "names neither a capability nor a protocol");
        }
        if self.samples.is_empty() {
            self.fail(Claim::Serves, "no sample was given, so nothing can be shown");
        }
        for sample in self.samples {
            let capability = &*sample.method.capability;
            let whole = spec.protocols.contains(&capability.protocol);
            if !whole && !spec.capabilities.contains(capability) {
                self.fail(Claim::Serves, format!("does not name `{capability}`"));
            }
        }
    }

    fn builds(&mut self) -> Option<Rc<dyn Provider>> {
        let built = std::panic::catch_unwind(AssertUnwindSafe(|| (self.spec.factory)()));
        let built = match built {
            Ok(built) => built.map_err(|error| format!("the factory failed: {error}")),
            Err(panic) => Err(format!("the factory panicked: {}", panic_message(&*panic))),
        };
        self.note(Claim::Builds, built)
    }

    async fn initializes(&mut self, provider: &dyn Provider) {
        for time in ["first", "second"] {
            let seen = guarded(provider.initialize()).await;
            let seen = seen.and_then(|done| done.map_err(|error| error.to_string()));
            let seen = seen.map_err(|wrong| format!("initialize, the {time} time: {wrong}"));
            self.note(Claim::Initializes, seen);
        }
    }

    async fn answers_health_checks(&mut self, provider: &dyn Provider) {
        let seen = guarded(provider.health_check()).await;
        if let Some(report) = self.note(Claim::AnswersHealthChecks, seen)
            && !matches!(report.status, HealthStatus::Healthy | HealthStatus::Degraded)
        {
            let detail = format!("calls itself {}: {}", report.status, report.detail);
            self.fail(Claim::AnswersHealthChecks, detail);
        }
    }

    /// Every sample, one after the other.
    async fn serving(&mut self, provider: &dyn Provider, claim: Claim) {
        let samples = self.samples;
        for (at, sample) in samples.iter().enumerate() {
            let seen = called(provider, sample, &format!("sample-{at}")).await;
            self.note(claim, seen);
        }
    }

    async fn refuses_unknown_methods(&mut self, provider: &dyn Provider) {
        let spec = self.spec;
        let protocol = spec.protocols.first();
        let Some(protocol) = protocol.or(spec.capabilities.first().map(|it| &it.protocol)) else {
            return;
        };
        let name = "no-such-method";
        let capability = Capability::new(protocol.clone(), name);
        let Ok(method) = Method::compile(capability, MethodSpec::new(name)) else { return };
        let sample = Sample {
            method: Arc::new(method),
            filled: Filled {
                params: Arc::new(Value::Object(serde_json::Map::new())),
                defaulted: Arc::default(),
            },
            accepts: Box::new(|_| Ok(())),
        };
        let wrong = match guarded(provider.execute(sample.call("unknown"))).await {
            Ok(Err(error)) if error.code == ErrorCode::MethodNotSupported => return,
            Ok(Err(error)) => format!("ended in {error}"),
            Ok(Ok(outcome)) => format!("succeeded with {}", outcome.value),
            Err(wrong) => wrong,
        };
        self.fail(Claim::RefusesUnknownMethods, wrong);
    }

    async fn survives_dropped_calls(&mut self, provider: &dyn Provider) {
        let samples = self.samples;
        for sample in samples {
            for polls in DROPPED_AFTER {
                let call = provider.execute(sample.call("dropped"));
                let dropped = guarded(polled(call, polls)).await.map_err(|wrong| {
                    format!("{:?} dropped after {polls} polls: {wrong}", sample.method.capability)
                });
                self.note(Claim::SurvivesDroppedCalls, dropped);
            }
            let after = called(provider, sample, "after-dropped").await;
            self.note(Claim::SurvivesDroppedCalls, after);
        }
    }

    async fn keeps_calls_apart(&mut self, provider: &dyn Provider) {
        let samples = self.samples;
        let calls = (0..ROUNDS).flat_map(|round| samples.iter().map(move |sample| (round, sample)));
        let running = calls.enumerate().map(|(at, (_, sample))| async move {
            called(provider, sample, &format!("at-once-{at}")).await
        });
        for seen in join_all(running).await {
            self.note(Claim::KeepsCallsApart, seen);
        }
    }

    /// What a supervisor does after a panic: a new instance, while calls of the old one may end.
    async fn replaces(&mut self) {
        let Some(another) = self.builds() else { return };
        self.initializes(&*another).await;
        self.serving(&*another, Claim::Builds).await;
    }

    async fn shuts_down(&mut self, provider: &dyn Provider) {
        for time in ["first", "second"] {
            let seen = guarded(provider.shutdown()).await;
            let seen = seen.map_err(|wrong| format!("shutdown, the {time} time: {wrong}"));
            self.note(Claim::ShutsDown, seen);
        }
        let health = guarded(provider.health_check()).await;
        self.note(Claim::ShutsDown, health.map_err(|wrong| format!("health check: {wrong}")));
        let samples = self.samples;
        for sample in samples {
            // Whether it still works is its own affair.
            let seen = guarded(provider.execute(sample.call("after-shutdown"))).await;
            self.note(Claim::ShutsDown, seen.map_err(|wrong| format!("execute: {wrong}")));
        }
    }
}

async fn called(provider: &dyn Provider, sample: &Sample, task: &str) -> Result<(), String> {
    let outcome = guarded(provider.execute(sample.call(task))).await;
    outcome.and_then(|outcome| sample.judge(outcome)).map_err(|wrong| {
        format!("{:?} with {}: {wrong}", sample.method.capability, sample.filled.params)
    })
}

/// What came of a step that may panic or hang.
async fn guarded<T>(step: impl Future<Output = T>) -> Result<T, String> {
    match tokio::time::timeout(TIMEOUT, AssertUnwindSafe(step).catch_unwind()).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(panic)) => Err(format!("panicked: {}", panic_message(&*panic))),
        Err(_) => Err(format!("did not end within {TIMEOUT:?}")),
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or(panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without words")
}

/// Polls at most so often, letting everything else run in between; then drops.
async fn polled<T>(call: impl Future<Output = T>, polls: usize) {
    let mut call = pin!(call);
    for _ in 0..polls {
        if poll_fn(|context| Poll::Ready(call.as_mut().poll(context))).await.is_ready() {
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[cfg(test)]
mod tests;
