//! Runs workflows: the actor around the decisions of [`gleitzeit_domain::engine`].
//!
//! Asked by the runtime's handle, the pipeline and its own free futures; asks registry, resolver and
//! store, and sends tasks into the [`pipeline`](crate::pipeline). Each message is passed to the core,
//! and what that decided is carried out, in order, before the next message is handled.
//!
//! Everything is done in batches that grow with the load by themselves: what arrives while a batch is
//! under way forms the next one. So a single task is never delayed, and under load tasks share the
//! cost of messages, spawns and commits.
//!
//! Invariant: no message is handled while an effect of an earlier one is still to be carried out. The
//! state of the core is the truth, so the actor is not restarted after a panic: the system stops, and
//! the next start recovers from the store.

mod answers;
mod callers;
mod claims;
mod commands;
mod elsewhere;
mod handlers;
mod log;
mod perform;
mod plan;
mod recovery;
mod requests;
mod steps;
#[cfg(test)]
mod tests;
mod unconfirmed;

use std::{rc::Rc, sync::Arc, time::Duration};

use actix::prelude::*;
use gleitzeit_domain::{
    engine::{ClaimBudget, Engine, EngineConfig, Now, StoreTraits},
    event::SubscriberCount,
    store::{Epoch, Store, StoreError},
    workflow::WorkflowRecord,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use self::{callers::Channels, claims::EngineRecipients, requests::LastSeen};
use crate::{
    clock::Clock,
    follower::Follower,
    guarded_store::guarded,
    peers::Peers,
    pipeline::{EffectGate, Route},
};

pub use self::commands::{
    Apply, Connect, EngineHealth, EngineSettings, GetEngineCounts, GetHealth, GetWorkflow, IsIdle,
    OfferChanged, Recover, Reopen, Shutdown, Submit, Wait, WaitAnswer,
};
pub use crate::provider_supervisor::CallerSpan;
pub use gleitzeit_domain::engine::{EngineCounts, LeaseHealth, Recovered, StopReport};

/// A future that waits for the lease.
#[derive(Debug)]
enum LeaseWaiter {
    /// For the lease itself.
    Lease(oneshot::Sender<Result<Option<Epoch>, StoreError>>),
    /// For what may be claimed under it, beside so many tasks.
    Budget(u64, oneshot::Sender<Result<ClaimBudget, StoreError>>),
}

/// What the engine knows of the other actors.
#[derive(Debug)]
struct Connections {
    peers: Rc<Peers>,
    /// The way of its tasks.
    route: Rc<Route>,
    /// Itself, for its free futures.
    engine: Rc<EngineRecipients>,
}

/// Timers of the actor that are armed; each is disarmed before it is armed again.
#[derive(Debug, Default)]
struct Armed {
    /// For retries and limits.
    timer: Option<SpawnHandle>,
    renewal: Option<SpawnHandle>,
    /// For the end of the lease's term.
    term: Option<SpawnHandle>,
    poll: Option<SpawnHandle>,
}

/// The actor. One per system, on the control arbiter.
pub struct ExecutionEngine {
    core: Engine<Channels>,
    max_concurrent_tasks: u64,
    owner: Arc<str>,
    lease_term: Duration,
    reads_elsewhere: bool,
    results: Option<mpsc::UnboundedSender<Arc<WorkflowRecord>>>,
    store: Arc<dyn Store>,
    follower: Follower,
    clock: Clock,
    started_at: Instant,
    gate: Rc<EffectGate>,
    connections: Option<Connections>,
    armed: Armed,
    /// Effects are being carried out.
    is_performing: bool,
    lease_waiters: Vec<LeaseWaiter>,
    last_seen: Rc<LastSeen>,
    stop: Option<oneshot::Sender<StopReport>>,
}

impl ExecutionEngine {
    /// An engine without workflows. It needs [`Connect`] before anything else.
    /// `subscribers` are those of the event bus; `follower` reads what other processes run.
    pub fn new(
        settings: EngineSettings,
        store: Arc<dyn Store>,
        follower: Follower,
        subscribers: SubscriberCount,
        clock: Clock,
    ) -> Self {
        let traits =
            StoreTraits { has_leases: store.leases().is_some(), is_fallible: store.is_fallible() };
        let config = EngineConfig {
            max_concurrent_tasks: settings.max_concurrent_tasks,
            max_queued_tasks: settings.max_queued_tasks,
            max_result_bytes: settings.max_result_bytes,
            max_unstored_bytes: settings.max_unstored_bytes,
            max_parked_tasks: settings.max_parked_tasks,
            seed: settings.seed,
            owner: Arc::clone(&settings.owner),
            lease_term: settings.lease_term,
            takes_over: settings.takes_over,
            sweep: settings.sweep,
            store: traits,
            // Steps cost an effect each: without failpoints the core does not report them.
            reports_steps: gleitzeit_failpoint::ENABLED,
        };
        Self {
            core: Engine::new(config, subscribers),
            max_concurrent_tasks: settings.max_concurrent_tasks as u64,
            owner: settings.owner,
            lease_term: settings.lease_term,
            reads_elsewhere: settings.takes_over && traits.has_leases,
            results: settings.results,
            store: guarded(store),
            follower,
            clock,
            started_at: Instant::now(),
            // Closed until the first lease is there: a call with an effect before it could run
            // twice.
            gate: EffectGate::new(traits.has_leases),
            connections: None,
            armed: Armed::default(),
            is_performing: false,
            lease_waiters: Vec::new(),
            last_seen: Rc::default(),
            stop: None,
        }
    }

    fn connections(&self) -> &Connections {
        // The system sends `Connect` right after the start, and a mailbox keeps its order.
        self.connections.as_ref().expect("`Connect` is sent before any other message")
    }

    fn peers(&self) -> Rc<Peers> {
        Rc::clone(&self.connections().peers)
    }

    fn engine(&self) -> Rc<EngineRecipients> {
        Rc::clone(&self.connections().engine)
    }

    fn now(&self) -> Now {
        Now { wall: self.clock.now(), moment: self.started_at.elapsed() }
    }
}

impl Actor for ExecutionEngine {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // With the default of 16 a later `do_send` would overtake a `send` that waits for room.
        ctx.set_mailbox_capacity(crate::MAILBOX);
    }
}

impl Supervised for ExecutionEngine {}
