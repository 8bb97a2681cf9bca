//! Keeps one provider alive: builds it, runs its calls, checks its health, brings it back.
//!
//! Asked by the pipeline to execute calls and by the `LoadBalancer` to stop, restart or answer a
//! ping; tells the `LoadBalancer` whenever what it can promise changes.
//!
//! Invariants: a panic, a hang or the loss of a call touches that call only; a call in flight
//! stays with the instance that began it; an answer of an older generation changes nothing; health
//! checks never overlap; an `initialize` or a check that fails never ends the tries, however long
//! the peer is away: only panics and blocked threads count against the restart budget.

mod calls;
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

/// What a provider can promise now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProviderState {
    /// An instance is being made ready.
    Starting,
    /// Calls are taken.
    Serving,
    /// The next instance waits for its time.
    BackingOff,
    /// It panicked or blocked its thread beyond the restart budget; only a [`Restart`] helps.
    Failed,
    /// Shut down.
    Stopped,
}

/// Which of a provider's supervisors one is. One whose thread is blocked is given up and has a
/// successor; should it wake up, its word counts no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SupervisorGeneration {
    /// Higher than that of every supervisor before it.
    pub number: u64,
    /// Instances that those before it have had.
    pub generation: u64,
    /// Restarts before it.
    pub restarts: u64,
}

/// Tells the balancer that a provider's state or health changed.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct ProviderStatusChanged {
    /// The number of the [`SupervisorGeneration`] of who says so.
    pub tenure: u64,
    /// How the provider is.
    pub status: ProviderStatus,
}

/// What is told of a provider.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProviderStatus {
    /// Its id.
    pub provider_id: ProviderId,
    /// What kind it is.
    pub kind: Arc<str>,
    /// What it can promise.
    pub state: ProviderState,
    /// How well it is; unknown unless it serves.
    pub health: HealthStatus,
    /// What the last check or failure said.
    pub detail: String,
    /// How many instances it has had.
    pub generation: u64,
    /// Restarts since the start, asked for or not.
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
    tenure: u64,
    generation: u64,
    instance: Option<Rc<dyn Provider>>,
    /// What makes the instance ready, or checks it.
    background_task: Option<JoinHandle<()>>,
    /// Instances that were replaced and have calls in flight, by generation.
    retired: BTreeMap<u64, Rc<dyn Provider>>,
    judge: HealthTracker,
    detail: String,
    /// For panics.
    budget: RestartBudget,
    /// For everything else that keeps it from serving.
    backoff: PeerBackoff,
    /// The cause that was logged last, while it does not serve.
    logged: Option<String>,
    restarts: u64,
    born: Instant,
    running: BTreeMap<CallKey, RunningCall>,
    next_call: u64,
    calls_total: u64,
    calls_failed: u64,
    stopping: Option<oneshot::Sender<()>>,
}

impl ProviderSupervisor {
    /// A supervisor that has built nothing yet.
    pub fn new(
        spec: Arc<ProviderSpec>,
        listener: Recipient<ProviderStatusChanged>,
        events: EventSink,
        clock: crate::Clock,
        tenure: SupervisorGeneration,
    ) -> Self {
        let policy = RestartPolicy::from(&spec.supervision);
        Self {
            judge: HealthTracker::new(spec.supervision.unhealthy_after),
            budget: RestartBudget::new(policy),
            backoff: PeerBackoff::new(&policy),
            logged: None,
            spec,
            listener,
            events,
            clock,
            state: ProviderState::Starting,
            tenure: tenure.number,
            generation: tenure.generation,
            instance: None,
            background_task: None,
            retired: BTreeMap::new(),
            detail: String::new(),
            restarts: tenure.restarts,
            born: Instant::now(),
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

    fn enter(&mut self, state: ProviderState) {
        self.state = state;
        self.tell();
    }

    fn tell(&self) {
        let status = self.status();
        self.listener.do_send(ProviderStatusChanged { tenure: self.tenure, status });
    }

    fn status(&self) -> ProviderStatus {
        ProviderStatus {
            provider_id: self.id().clone(),
            kind: self.spec.kind.clone(),
            state: self.state,
            health: self.judge.status(),
            detail: self.detail.clone(),
            generation: self.generation,
            restarts: self.restarts,
            in_flight: self.running.len(),
            calls_total: self.calls_total,
            calls_failed: self.calls_failed,
        }
    }

    /// False when only a word from outside brings it back, or nothing at all.
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
        ctx.set_mailbox_capacity(crate::MAILBOX);
        // After a panic of the actor itself: its timers are gone, its calls go on by themselves.
        if self.is_wanted() {
            self.begin(ctx);
        } else if self.stopping.is_some() {
            self.stop_now();
        }
    }
}

impl Supervised for ProviderSupervisor {
    /// Whatever panicked here is no provider's; the instance is not trusted all the same.
    fn restarting(&mut self, _: &mut Self::Context) {
        self.retire();
        if self.is_wanted() {
            self.restarts += 1;
            self.publish_restart("its supervisor panicked");
        }
    }
}

/// The answer of a call: what it gave, and how long it took.
pub(crate) type Answer = (Result<Outcome, TaskError>, Duration);

/// The span in which a workflow was submitted; the spans of its calls are its children.
pub type CallerSpan = Option<Arc<tracing::Span>>;

/// A call with the key of its task.
#[derive(Debug)]
pub struct KeyedCall {
    /// The task.
    pub task: TaskKey,
    /// What is called.
    pub call: Call,
    /// The span in which the workflow was submitted.
    pub span: CallerSpan,
}
