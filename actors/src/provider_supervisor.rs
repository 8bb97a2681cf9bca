//! Runs one provider: builds it, makes its calls, checks its health, and restarts it.
//!
//! Asked by the pipeline to execute calls, and by the `LoadBalancer` to stop, restart or answer a
//! ping. Reports every change of its state to the `LoadBalancer`.
//!
//! Invariants: a panic, a hang or the loss of a call touches that call only; a call in flight
//! stays with the instance that began it; an answer of an older generation changes nothing; health
//! checks never overlap. An `initialize` or a check that fails never ends the restarts, however long
//! the peer is away: only panics in calls and blocked threads count against the restart budget.

mod calls;
mod health;
mod lifecycle;

use std::{collections::BTreeMap, rc::Rc, sync::Arc, time::Duration};

use actix::prelude::*;
use gleitzeit_domain::{
    error::TaskError,
    event::EventData,
    health::{HealthStatus, HealthTracker},
    id::ProviderId,
    provider::{Call, Outcome, Provider, ProviderSpec},
    restart::{PeerBackoff, RestartBudget, RestartPolicy},
    run::TaskKey,
};
use serde::{Deserialize, Serialize};
use tokio::{sync::oneshot, task::JoinHandle, time::Instant};

use calls::{CallKey, RunningCall};
pub use calls::{CancelCalls, Execute, Execution, Finished};
pub use lifecycle::{GetStatus, Restart, Stop};

/// The state of a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProviderState {
    /// An instance is being built and initialized.
    Starting,
    /// The instance accepts calls.
    Serving,
    /// The pause before the next instance.
    BackingOff,
    /// The provider panicked or blocked its thread beyond the restart budget; only a [`Restart`]
    /// starts it again.
    Failed,
    /// Shut down.
    Stopped,
}

/// Distinguishes the supervisors of one provider. A supervisor whose thread is blocked is given up and
/// replaced; if it wakes up, its reports are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SupervisorGeneration {
    /// Higher than that of every supervisor before it.
    pub number: u64,
    /// Instances of the supervisors before it.
    pub generation: u64,
    /// Restarts under the supervisors before it.
    pub restarts: u64,
}

/// Sent to the balancer when a provider's state or health has changed.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct ProviderStatusChanged {
    /// The [`SupervisorGeneration::number`] of the sender.
    pub supervisor_number: u64,
    /// The status after the change.
    pub status: ProviderStatus,
}

/// The status of a provider, as the balancer and operators see it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProviderStatus {
    /// The id of the provider.
    pub provider_id: ProviderId,
    /// The kind of the settings, such as `python`; `custom` for a provider of the host.
    pub kind: Arc<str>,
    /// The state.
    pub state: ProviderState,
    /// The judgement of the last health checks; unknown unless the provider serves.
    pub health: HealthStatus,
    /// The text of the last check or failure; empty if there is none.
    pub detail: String,
    /// Instances so far.
    pub generation: u64,
    /// Restarts since the start, by request or after a failure.
    pub restarts: u64,
    /// Calls in flight.
    pub in_flight: usize,
    /// Calls answered since the start.
    pub calls_total: u64,
    /// Calls that failed since the start.
    pub calls_failed: u64,
}

/// Receives provider events, for the event bus.
pub type EventSink = Recipient<crate::event_bus::Publish>;

/// The actor. One per provider, on the arbiter of its placement.
pub struct ProviderSupervisor {
    spec: Arc<ProviderSpec>,
    listener: Recipient<ProviderStatusChanged>,
    events: EventSink,
    clock: crate::Clock,
    state: ProviderState,
    supervisor_number: u64,
    generation: u64,
    instance: Option<Rc<dyn Provider>>,
    /// The `initialize` or health check under way.
    background_task: Option<JoinHandle<()>>,
    /// Replaced instances with calls in flight, by generation.
    retired: BTreeMap<u64, Rc<dyn Provider>>,
    health: HealthTracker,
    detail: String,
    /// Bounds restarts after panics in calls.
    budget: RestartBudget,
    /// Spaces restarts after any other failure, without an end.
    backoff: PeerBackoff,
    /// The cause that was logged last, while the provider does not serve.
    logged: Option<String>,
    restarts: u64,
    started_at: Instant,
    running: BTreeMap<CallKey, RunningCall>,
    next_call: u64,
    calls_total: u64,
    calls_failed: u64,
    stopping: Option<oneshot::Sender<()>>,
}

impl ProviderSupervisor {
    /// A supervisor without an instance; `started` builds the first one.
    pub fn new(
        spec: Arc<ProviderSpec>,
        listener: Recipient<ProviderStatusChanged>,
        events: EventSink,
        clock: crate::Clock,
        supervisor_number: SupervisorGeneration,
    ) -> Self {
        let policy = RestartPolicy::from(&spec.supervision);
        Self {
            health: HealthTracker::new(spec.supervision.unhealthy_after),
            budget: RestartBudget::new(policy),
            backoff: PeerBackoff::new(&policy),
            logged: None,
            spec,
            listener,
            events,
            clock,
            state: ProviderState::Starting,
            supervisor_number: supervisor_number.number,
            generation: supervisor_number.generation,
            instance: None,
            background_task: None,
            retired: BTreeMap::new(),
            detail: String::new(),
            restarts: supervisor_number.restarts,
            started_at: Instant::now(),
            running: BTreeMap::new(),
            next_call: 0,
            calls_total: 0,
            calls_failed: 0,
            stopping: None,
        }
    }

    fn id(&self) -> &ProviderId {
        &self.spec.id
    }

    fn set_state(&mut self, state: ProviderState) {
        self.state = state;
        self.notify_balancer();
    }

    fn notify_balancer(&self) {
        // The whole status, not the change: a report that is lost with a restart of the balancer is
        // made good by the next one.
        let status = self.status();
        self.listener
            .do_send(ProviderStatusChanged { supervisor_number: self.supervisor_number, status });
    }

    fn status(&self) -> ProviderStatus {
        ProviderStatus {
            provider_id: self.id().clone(),
            kind: self.spec.kind.clone(),
            state: self.state,
            health: self.health.status(),
            detail: self.detail.clone(),
            generation: self.generation,
            restarts: self.restarts,
            in_flight: self.running.len(),
            calls_total: self.calls_total,
            calls_failed: self.calls_failed,
        }
    }

    /// False if only a request brings the provider back, or nothing does.
    fn is_wanted(&self) -> bool {
        !matches!(self.state, ProviderState::Failed | ProviderState::Stopped)
    }

    fn publish(&self, data: EventData) {
        self.events.do_send(crate::system_event(self.clock.now(), data));
    }
}

impl Actor for ProviderSupervisor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // The default of 16 would let a later `do_send` overtake calls that wait for room.
        ctx.set_mailbox_capacity(crate::MAILBOX);
        // Also after a panic of the actor itself: its timers are gone, so nothing else would build
        // the next instance. Calls in flight run in tasks of their own and go on.
        if self.is_wanted() {
            self.begin(ctx);
        } else if self.stopping.is_some() {
            self.stop_now();
        }
    }
}

impl Supervised for ProviderSupervisor {
    /// Replaces the instance: a message may have changed it half-way before the panic.
    fn restarting(&mut self, _: &mut Self::Context) {
        self.retire();
        // A failed or stopped provider stays so: it has no instance that could have been damaged.
        if self.is_wanted() {
            self.restarts += 1;
            self.publish_restart("its supervisor panicked");
        }
    }
}

/// The outcome of a call, and the time that it took.
pub(crate) type Answer = (Result<Outcome, TaskError>, Duration);

/// The span in which a workflow was submitted; the spans of its calls are its children.
pub type CallerSpan = Option<Arc<tracing::Span>>;

/// A call with the key of its task.
#[derive(Debug)]
pub struct KeyedCall {
    /// The task that makes the call.
    pub task: TaskKey,
    /// The call with its parameters.
    pub call: Call,
    /// The span in which the workflow was submitted.
    pub span: CallerSpan,
}
