//! Starts the actors bottom-up and stops them top-down; owns the worker threads and joins them.
//!
//! All control actors share the thread of the caller's `System`; providers are spread over the
//! worker threads. If an actor whose state is the truth panics, or another one panics beyond its
//! budget, [`Actors::failed`] resolves and the owner must stop: acknowledged work is in the store.

use std::{collections::HashMap, sync::Arc, time::Duration};

use actix::prelude::*;
use actix_rt::Arbiter;
use gleitzeit_domain::{
    balance::{Strategies, UnknownStrategy},
    plan::PlanDefaults,
    protocol::catalog::ProtocolCatalog,
    resources::Resources,
    restart::RestartPolicy,
    store::Store,
};
use tokio::sync::oneshot;

use crate::{
    addresses::ActorAddresses,
    clock::Clock,
    dependency_resolver::DependencyResolver,
    event_bus::EventBus,
    execution_engine::{Connect, EngineSettings, ExecutionEngine, Shutdown, StopReport},
    follower::Follower,
    load_balancer::{BalancerSettings, LoadBalancer, StopProviders},
    monitor::{Monitor, MonitorConfig},
    protocol_registry::ProtocolRegistry,
    resource_manager::ResourceManager,
    supervision::{ESCALATE_AT_ONCE, RestartLimitReached, start_supervised, start_supervised_in},
};

/// The configuration of the actors.
#[derive(Debug)]
pub struct SystemConfig {
    /// Settings of the engine.
    pub engine: EngineSettings,
    /// Settings of the balancer.
    pub balancer: BalancerSettings,
    /// The strategies that settings may name.
    pub strategies: Strategies,
    /// The total of each resource; slots are the engine's `max_concurrent_tasks`.
    pub resources: Resources,
    /// The protocols.
    pub catalog: ProtocolCatalog,
    /// Values for tasks whose spec and method set none.
    pub defaults: PlanDefaults,
    /// Variables that `${env.X}` may read; a name without a value is not set.
    pub env: HashMap<String, Option<String>>,
    /// Between two measurements; zero for none.
    pub monitor_interval: Duration,
    /// Returns the memory of the process in MiB, if that can be known. Must not block.
    pub memory_mib: fn() -> Option<f64>,
    /// Threads for providers.
    pub workers: usize,
}

/// Restarts of an actor whose state survives a panic, or is rebuilt.
const RESTARTS: RestartPolicy = RestartPolicy {
    restarts_max: 5,
    window: Duration::from_mins(1),
    pause_min: Duration::from_millis(10),
    pause_max: Duration::from_secs(1),
};

/// The running actors.
#[derive(Debug)]
pub struct Actors {
    /// Their addresses.
    pub addresses: ActorAddresses,
    /// Reads what other processes run.
    pub follower: Follower,
    /// Resolves when an actor is gone for good; the system must stop then.
    pub failed: oneshot::Receiver<RestartLimitReached>,
    workers: Vec<Arbiter>,
}

/// Forwards the first failure of an actor to the owner of the system.
struct FailureWatcher {
    failed: Option<oneshot::Sender<RestartLimitReached>>,
}

impl Actor for FailureWatcher {
    type Context = Context<Self>;
}

impl Handler<RestartLimitReached> for FailureWatcher {
    type Result = ();

    fn handle(&mut self, reached: RestartLimitReached, _: &mut Self::Context) {
        tracing::error!(
            actor = reached.actor,
            panic = reached.panic,
            "actor failed; the system must stop"
        );
        if let Some(failed) = self.failed.take() {
            let _ = failed.send(reached);
        }
    }
}

/// Starts the actors on the current `System`.
///
/// # Errors
/// [`UnknownStrategy`] if the settings name a strategy that does not exist.
///
/// # Panics
/// When called outside a `System`.
pub fn start(parts: SystemConfig, store: Arc<dyn Store>) -> Result<Actors, UnknownStrategy> {
    let clock = Clock::start();
    let follower = Follower::new(Arc::clone(&store));
    let (failed_sender, failed) = oneshot::channel();
    let failure_watcher = FailureWatcher { failed: Some(failed_sender) }.start();
    let escalate = || failure_watcher.clone().recipient();
    let workers: Vec<Arbiter> = (0..parts.workers).map(|_| Arbiter::new()).collect();
    let handles = workers.iter().map(Arbiter::handle).collect();

    let bus = EventBus::new();
    // Cloned before the start: afterwards only messages reach the bus, and the engine reads the
    // count for every batch of events.
    let subscribers = bus.subscribers();
    let bus = start_supervised(RESTARTS, escalate(), |_| bus);
    let balancer = LoadBalancer::new(
        parts.balancer,
        &parts.strategies,
        handles,
        bus.clone().recipient(),
        clock,
    )?;
    let balancer = start_supervised(RESTARTS, escalate(), |_| balancer);
    let total = parts.resources.with_slots(parts.engine.max_concurrent_tasks.max(1) as u64);
    let resources = start_supervised(RESTARTS, escalate(), |_| ResourceManager::new(total));
    let registry = start_supervised(RESTARTS, escalate(), |_| {
        ProtocolRegistry::new(parts.catalog, parts.defaults)
    });
    let resolver =
        start_supervised(ESCALATE_AT_ONCE, escalate(), |_| DependencyResolver::new(parts.env));
    // Engine and monitor address each other: one address must exist before its actor.
    let engine_context = Context::<ExecutionEngine>::new();
    let engine = engine_context.address();
    let monitor = start_supervised(RESTARTS, escalate(), |_| {
        Monitor::new(MonitorConfig {
            interval: parts.monitor_interval,
            stats: engine.clone().recipient(),
            health: balancer.clone().recipient(),
            events: bus.clone().recipient(),
            memory_mib: parts.memory_mib,
        })
    });
    let engine_follower = follower.clone();
    start_supervised_in(engine_context, ESCALATE_AT_ONCE, escalate(), |_| {
        ExecutionEngine::new(parts.engine, store, engine_follower, subscribers, clock)
    });
    let addresses =
        ActorAddresses { engine, registry, resolver, resources, balancer, bus, monitor };
    // The first message of the engine: a submission before it would find no other actor.
    addresses.engine.do_send(Connect(addresses.peers()));
    Ok(Actors { addresses, follower, failed, workers })
}

impl Actors {
    /// Rejects further work, lets executing tasks end within `deadline`, stops the providers and joins
    /// the worker threads.
    pub async fn stop(self, deadline: Duration) -> StopReport {
        let report = self.addresses.engine.send(Shutdown { deadline }).await.unwrap_or_default();
        // Zero: calls that outlived the engine's deadline were dropped with it, and a second deadline
        // would double the time of a stop.
        let _ = self.addresses.balancer.send(StopProviders { deadline: Duration::ZERO }).await;
        for worker in &self.workers {
            worker.stop();
        }
        // Joined on another thread: destructors of providers still need this one for their messages.
        let joined = actix_rt::task::spawn_blocking(move || {
            for worker in self.workers {
                let _ = worker.join();
            }
        });
        // A worker that a provider blocks ends with the process; without the limit, neither would.
        if tokio::time::timeout(Duration::from_secs(2), joined).await.is_err() {
            tracing::warn!("worker thread not joined: a provider blocks it");
        }
        report
    }
}
