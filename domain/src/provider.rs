//! The port to providers: a provider, its calls, and how it is built.
//!
//! A provider lives on one thread: it is built there by its factory, and its futures need not be
//! `Send`. It is never asked two things at once that it cannot do at once: `&self` is shared by
//! every call in flight, and `max_concurrent` bounds them.

use std::{collections::BTreeMap, fmt, future::Future, rc::Rc, sync::Arc, time::Duration};

use async_trait::async_trait;
use serde_json::Value;

use crate::{
    error::TaskError,
    file_access::FileAccess,
    health::HealthReport,
    id::{Capability, IdError, ProtocolId, ProviderId, TaskId, WorkflowId},
    protocol::MethodRef,
    resources::Resources,
    security::SecurityRequirements,
};

/// One attempt of one task, as its provider sees it.
#[derive(Debug, Clone)]
pub struct Call {
    /// The workflow.
    pub workflow_id: WorkflowId,
    /// The task.
    pub task_id: TaskId,
    /// The number of the attempt, from 1.
    pub attempt: u32,
    /// The method.
    pub method: MethodRef,
    /// The parameters: references resolved, defaults filled in, checked against the schema.
    pub params: Arc<Value>,
    /// Names of the parameters in `params` that are defaults of the schema.
    pub defaulted: Arc<[Box<str>]>,
    /// The limit of the attempt: the shortest of those that the task sets, or else a default. The
    /// supervisor drops the call after it and the provider's [`grace`](Provider::grace).
    pub timeout: Duration,
    /// The resources leased for the call.
    pub resources: Resources,
    /// Directories and files that the workflow may use.
    pub file_access: Option<Arc<FileAccess>>,
}

impl Call {
    /// The method's bare name.
    pub fn method_name(&self) -> &str {
        &self.method.capability.method
    }

    /// The protocol.
    pub fn protocol(&self) -> &ProtocolId {
        &self.method.capability.protocol
    }

    /// The same for every attempt of the task, also after a restart: a peer that knows it can
    /// drop a repeated call.
    pub fn idempotency_key(&self) -> String {
        format!("{}/{}", self.workflow_id, self.task_id)
    }

    /// A parameter by name.
    pub fn param(&self, name: &str) -> Option<&Value> {
        self.params.get(name)
    }

    /// A parameter by name, if the task gives it; `None` if the schema's default stands in for it.
    ///
    /// A setting of the provider may beat a default, and never what is given.
    pub fn supplied(&self, name: &str) -> Option<&Value> {
        if self.defaulted.iter().any(|defaulted| **defaulted == *name) {
            return None;
        }
        self.param(name)
    }

    /// The isolation that the method requires.
    pub fn security(&self) -> Option<&SecurityRequirements> {
        self.method.spec.security_requirements.as_ref()
    }
}

/// The result of a completed call.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The result; shared with everyone who reads it.
    pub value: Arc<Value>,
    /// Peak memory of the call in bytes; `None` if the provider does not know it.
    pub memory_bytes: Option<u64>,
    /// Growth of memory during the call in bytes; `None` if the provider does not know it.
    pub memory_delta_bytes: Option<u64>,
}

impl From<Value> for Outcome {
    fn from(value: Value) -> Self {
        Self::from(Arc::new(value))
    }
}

impl From<Arc<Value>> for Outcome {
    fn from(value: Arc<Value>) -> Self {
        Self { value, memory_bytes: None, memory_delta_bytes: None }
    }
}

/// No provider gets more [`grace`](Provider::grace) than this.
pub const GRACE_MAX: Duration = Duration::from_secs(10);

/// Does the work of one or more protocols.
///
/// Dropping the future of [`execute`](Self::execute) cancels the call: whatever it started must
/// end with it. A panic is caught; it fails the call and makes the supervisor build a new
/// instance.
#[async_trait(?Send)]
pub trait Provider {
    /// Makes ready. No call comes before this has succeeded.
    ///
    /// # Errors
    /// The reason why it cannot serve now; it is tried again with a backoff.
    async fn initialize(&self) -> Result<(), TaskError> {
        Ok(())
    }

    /// Runs one call.
    ///
    /// # Errors
    /// The failure of the call; the code decides whether it is retried.
    async fn execute(&self, call: Call) -> Result<Outcome, TaskError>;

    /// How long after a call's limit the supervisor waits before it drops the call, at most
    /// [`GRACE_MAX`]. Zero drops it at the limit.
    ///
    /// The time that a provider needs after the limit, if it ends calls itself with a more precise
    /// answer. The supervisor must not drop the call within it.
    fn grace(&self) -> Duration {
        Duration::ZERO
    }

    /// Says how well it is. Asked at intervals, never twice at once.
    async fn health_check(&self) -> HealthReport {
        HealthReport::healthy()
    }

    /// Lets go of what it holds. Calls in flight have ended or been dropped before.
    async fn shutdown(&self) {}
}

/// On which thread a provider lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Placement {
    /// With the control actors: for a provider that answers within microseconds and never blocks.
    Control,
    /// On one of the worker threads, shared with other providers.
    #[default]
    Worker,
    /// On a thread of its own: for a provider that may block it.
    Dedicated,
}

/// How a provider is watched and brought back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Supervision {
    /// Between the end of one health check and the start of the next.
    pub health_interval: Duration,
    /// A check that takes longer has failed.
    pub health_timeout: Duration,
    /// Failed checks in a row that make it unhealthy.
    pub unhealthy_after: u32,
    /// Failed checks in a row that replace the instance by a new one.
    pub restart_after: u32,
    /// Restarts allowed within `restart_window`; one more and the provider has failed.
    pub restarts_max: u32,
    /// Length of the sliding window; intensity and period as in Erlang/OTP's `supervisor`.
    pub restart_window: Duration,
    /// Pause before the first restart; doubles with each further one in the window.
    pub backoff_min: Duration,
    /// Longest pause.
    pub backoff_max: Duration,
    /// `initialize` and `shutdown` may take this long.
    pub lifecycle_timeout: Duration,
}

impl Default for Supervision {
    fn default() -> Self {
        Self {
            health_interval: Duration::from_secs(30),
            health_timeout: Duration::from_secs(10),
            unhealthy_after: 3,
            restart_after: 6,
            restarts_max: 5,
            restart_window: Duration::from_mins(1),
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(10),
            lifecycle_timeout: Duration::from_secs(30),
        }
    }
}

/// Builds a provider on its own thread.
pub type ProviderFactory = Arc<dyn Fn() -> Result<Rc<dyn Provider>, TaskError> + Send + Sync>;

/// Everything the runtime needs to know of a provider before it exists.
#[derive(Clone)]
pub struct ProviderSpec {
    /// The id.
    pub id: ProviderId,
    /// Methods that it serves. A protocol in `protocols` adds all of its methods.
    pub capabilities: Vec<Capability>,
    /// Protocols that it serves whole.
    pub protocols: Vec<ProtocolId>,
    /// The share under the weighted strategy; 0 is chosen only if all candidates have 0.
    pub weight: f64,
    /// Calls in flight at once; `None` for no bound of its own.
    pub max_concurrent: Option<u32>,
    /// On which thread it lives.
    pub placement: Placement,
    /// How it is watched.
    pub supervision: Supervision,
    /// True if `supervision` was chosen for this provider; false lets the runtime's `[supervision]`
    /// take its place.
    pub supervision_chosen: bool,
    /// The kind of provider, for people: `python`, `ollama`, `closure`.
    pub kind: Arc<str>,
    /// Settings worth showing, without secrets.
    pub config: BTreeMap<String, Value>,
    /// Builds it.
    pub factory: ProviderFactory,
}

impl fmt::Debug for ProviderSpec {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("ProviderSpec")
            .field("id", &self.id)
            .field("kind", &self.kind)
            .field("protocols", &self.protocols)
            .field("capabilities", &self.capabilities)
            .finish_non_exhaustive()
    }
}

impl ProviderSpec {
    /// A provider of all methods of one protocol, built by `factory`.
    ///
    /// # Errors
    /// When `protocol` is not `name/version`.
    pub fn new<P: Provider + 'static>(
        id: impl Into<ProviderId>,
        protocol: &str,
        factory: impl Fn() -> Result<P, TaskError> + Send + Sync + 'static,
    ) -> Result<Self, IdError> {
        Ok(Self {
            id: id.into(),
            capabilities: Vec::new(),
            protocols: vec![protocol.parse()?],
            weight: 1.0,
            max_concurrent: None,
            placement: Placement::default(),
            supervision: Supervision::default(),
            supervision_chosen: false,
            kind: "custom".into(),
            config: BTreeMap::new(),
            factory: Arc::new(move || Ok(Rc::new(factory()?) as Rc<dyn Provider>)),
        })
    }

    /// A provider that is one asynchronous closure, called for every method of `protocol`.
    ///
    /// ```
    /// use gleitzeit_domain::provider::{Call, ProviderSpec};
    ///
    /// ProviderSpec::from_fn("adder", "math/v1.0", |call: Call| async move {
    ///     let numbers = call.param("numbers").and_then(|it| it.as_array()).cloned();
    ///     Ok(numbers.unwrap_or_default().iter().filter_map(|n| n.as_i64()).sum::<i64>().into())
    /// })?;
    /// # Ok::<(), gleitzeit_domain::id::IdError>(())
    /// ```
    ///
    /// # Errors
    /// When `protocol` is not `name/version`.
    pub fn from_fn<F, R>(
        id: impl Into<ProviderId>,
        protocol: &str,
        function: F,
    ) -> Result<Self, IdError>
    where
        F: Fn(Call) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Value, TaskError>> + 'static,
    {
        let function = Arc::new(function);
        let mut spec = Self::new(id, protocol, move || Ok(Closure(Arc::clone(&function))))?;
        spec.kind = "closure".into();
        Ok(spec)
    }

    /// Bounds the calls in flight.
    #[must_use]
    pub fn max_concurrent(mut self, limit: u32) -> Self {
        self.max_concurrent = Some(limit);
        self
    }

    /// Sets the share under the weighted strategy.
    #[must_use]
    pub fn weight(mut self, weight: f64) -> Self {
        self.weight = weight;
        self
    }

    /// Chooses the thread.
    #[must_use]
    pub fn placement(mut self, placement: Placement) -> Self {
        self.placement = placement;
        self
    }

    /// Sets the supervision of this provider, overriding `[supervision]`.
    #[must_use]
    pub fn supervision(mut self, supervision: Supervision) -> Self {
        self.supervision = supervision;
        self.supervision_chosen = true;
        self
    }

    /// Sets how it is watched unless that was chosen. A kind that asks for more time for its checks,
    /// its start and its stop keeps that.
    pub fn supervise_by_default(&mut self, general: Supervision) {
        if !self.supervision_chosen {
            let own = self.supervision;
            self.supervision = Supervision {
                health_timeout: general.health_timeout.max(own.health_timeout),
                lifecycle_timeout: general.lifecycle_timeout.max(own.lifecycle_timeout),
                ..general
            };
        }
    }
}

struct Closure<F>(Arc<F>);

#[async_trait(?Send)]
impl<F, R> Provider for Closure<F>
where
    F: Fn(Call) -> R,
    R: Future<Output = Result<Value, TaskError>>,
{
    async fn execute(&self, call: Call) -> Result<Outcome, TaskError> {
        (self.0)(call).await.map(Outcome::from)
    }
}
