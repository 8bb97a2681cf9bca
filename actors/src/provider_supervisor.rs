//! Keeps one provider alive: builds it, runs its calls, checks its health, brings it back.
//!
//! Asked by the pipeline to execute calls and by the `LoadBalancer` to stop, restart or answer a
//! ping; tells the `LoadBalancer` whenever what it can promise changes.
//!
//! Invariants: a panic, a hang or the loss of a call touches that call only; a call in flight
//! stays with the instance that began it; an answer of an older generation changes nothing; health
//! checks never overlap.

mod calls;
mod lifecycle;

use std::{collections::HashMap, rc::Rc, sync::Arc, time::Duration};

use actix::prelude::*;
use gleitzeit_domain::{
    error::TaskError,
    event::EventData,
    health::{HealthJudge, HealthStatus},
    id::ProviderId,
    provider::{Call, Outcome, Provider, ProviderSpec},
    restart::{RestartBudget, RestartPolicy},
    run::TaskKey,
};
use serde::{Deserialize, Serialize};
use tokio::{sync::oneshot, task::JoinHandle, time::Instant};

pub use calls::{CancelCalls, Execute, Execution, Finished};
pub use lifecycle::{GetStatus, Ping, Restart, Stop};

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
    /// The restart budget is spent; only a [`Restart`] helps.
    Failed,
    /// Shut down.
    Stopped,
}

/// Tells the balancer that a provider's state or health changed.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct ProviderStatusChanged {
    /// Which provider.
    pub provider_id: ProviderId,
    /// How many instances it has had, this one included.
    pub generation: u64,
    /// What it can promise.
    pub state: ProviderState,
    /// How well it is.
    pub health: HealthStatus,
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
    /// How well it is.
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
    generation: u64,
    instance: Option<Rc<dyn Provider>>,
    judge: HealthJudge,
    detail: String,
    budget: RestartBudget,
    restarts: u64,
    born: Instant,
    running: HashMap<TaskKey, JoinHandle<()>>,
    calls_total: u64,
    calls_failed: u64,
    has_served: bool,
    stopping: Option<oneshot::Sender<()>>,
}

impl ProviderSupervisor {
    /// A supervisor that has built nothing yet.
    pub fn new(
        spec: Arc<ProviderSpec>,
        listener: Recipient<ProviderStatusChanged>,
        events: EventSink,
        clock: crate::Clock,
    ) -> Self {
        Self {
            judge: HealthJudge::new(spec.supervision.unhealthy_after),
            budget: RestartBudget::new(RestartPolicy::from(&spec.supervision)),
            spec,
            listener,
            events,
            clock,
            state: ProviderState::Starting,
            generation: 0,
            instance: None,
            detail: String::new(),
            restarts: 0,
            born: Instant::now(),
            running: HashMap::new(),
            calls_total: 0,
            calls_failed: 0,
            has_served: false,
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
        self.listener.do_send(ProviderStatusChanged {
            provider_id: self.id().clone(),
            generation: self.generation,
            state: self.state,
            health: self.judge.status(),
        });
    }

    fn publish(&self, data: EventData) {
        self.events.do_send(crate::loose(self.clock.now(), data));
    }
}

impl Actor for ProviderSupervisor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(crate::MAILBOX);
        // After a panic of the actor itself: its timers are gone, its calls go on by themselves.
        if self.state != ProviderState::Failed && self.state != ProviderState::Stopped {
            self.begin(ctx);
        }
    }
}

impl Supervised for ProviderSupervisor {
    fn restarting(&mut self, _: &mut Self::Context) {
        self.instance = None;
        self.judge.reset();
    }
}

/// The answer of a call: what it gave, and how long it took.
pub(crate) type Answer = (Result<Outcome, TaskError>, Duration);

/// A call with the key of its task.
pub(crate) type KeyedCall = (TaskKey, Call);
