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

mod sample;

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
    error::ErrorCode,
    health::HealthStatus,
    id::Capability,
    protocol::{Method, MethodSpec, validate::Filled},
    provider::{Provider, ProviderSpec},
};
use serde_json::Value;

pub use sample::{Sample, SampleError};

/// No step of the suite may take longer.
const TIMEOUT: Duration = Duration::from_mins(1);

/// How often each sample is called while the others are.
const ROUNDS: usize = 4;

/// After how many polls a call is dropped: before it began, and at several points of its way.
const DROPPED_AFTER: [usize; 6] = [0, 1, 2, 3, 8, 32];

/// A claim that every provider must meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Claim {
    /// It names what it serves, every sample's method included.
    Serves,
    /// The factory builds it, and a second instance beside it.
    Builds,
    /// It initializes, and initializing it again changes nothing.
    Initializes,
    /// The health check answers, and does not report a working provider as unhealthy.
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
    /// The claim.
    pub claim: Claim,
    /// The observation instead.
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
        // Without a provider no further claim can be checked.
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

    /// Does as a supervisor does after a panic: builds a new instance, while calls of the old one
    /// may end.
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
    outcome.and_then(|outcome| sample.check(outcome)).map_err(|wrong| {
        format!("{:?} with {}: {wrong}", sample.method.capability, sample.filled.params)
    })
}

/// The result of a step that may panic or hang.
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
