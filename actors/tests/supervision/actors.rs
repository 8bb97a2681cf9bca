//! The outer ring: an actor that panics is restarted under its address; where it holds the truth,
//! the owner of the system must stop it.
//!
//! An actor panics here by answering a question whose asker cannot be woken.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use gleitzeit_actors::{
    dependency_resolver::SettleTasks,
    event_bus::{EventFilter, Subscribe},
    execution_engine::IsIdle,
    load_balancer::GetProviders,
    monitor::{GetMetrics, GetProviderHealth},
    protocol_registry::ValidateCalls,
    provider_supervisor::{GetStatus, ProviderState},
    resource_manager::GetResources,
};
use gleitzeit_domain::{
    balance::{Candidate, LoadBalancingStrategy, PickContext, Sample, Strategies},
    error::ErrorCode,
    health::HealthStatus,
    id::ProviderId,
    resources::{ResourceRequirements, Resources},
    retry::RetryPolicy,
    store::Store,
    task::TaskStatus,
};

use crate::support::{
    Harness, Setup, assert_completed,
    hooked_store::{Decision, Hook, HookedStore, Operation},
    make_panic, many, one,
    provider::{Gate, Script},
    task,
};

fn held_at(gate: &Gate) -> Script {
    let gate = gate.clone();
    Script::executing(move |instance, _| {
        let gate = gate.clone();
        async move {
            gate.pass().await;
            Ok(instance.into())
        }
    })
}

fn small() -> Setup {
    Setup { resources: Resources { memory_mib: 10, ..Resources::UNLIMITED }, ..Setup::default() }
}

/// Twenty tasks: some in flight, some waiting for resources, some for a provider.
async fn survives(panic: impl AsyncFnOnce(&Harness)) {
    tokio::time::pause();
    let mut harness = Harness::new(small());
    let gate = Gate::default();
    let script = held_at(&gate);
    harness.employ(script.spec("p").max_concurrent(4)).await;
    let need = ResourceRequirements { memory_mb: Some(1), ..ResourceRequirements::default() };
    let spec = many(20, |at| task(&format!("t{at}")).resources(need.clone()));
    let (_, ending) = harness.submit(spec).await;
    script.diary.until("call", 4).await;

    panic(&harness).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(harness.resources().await.taken.memory_mib, 4);
    gate.open(20);
    assert_completed(ending.await);
    gate.open(1);
    assert_completed(harness.run(one(task("next"))).await);
    harness.assert_nothing_left().await;
    assert!(harness.actors.failed.try_recv().is_err(), "an actor is gone");
    assert_eq!(harness.status("p").await.generation, 1);
}

/// Nothing of what waits or runs is lost with the answer.
#[actix::test]
async fn a_registry_that_panics_is_survived() {
    survives(async |harness| {
        make_panic(&harness.addresses.registry, ValidateCalls(Vec::new())).await;
    })
    .await;
}

/// Leases and waits outlive it.
#[actix::test]
async fn a_resource_manager_that_panics_is_survived() {
    survives(async |harness| make_panic(&harness.addresses.resources, GetResources).await).await;
}

/// So do tickets, and the calls that wait in line.
#[actix::test]
async fn a_balancer_that_panics_is_survived() {
    survives(async |harness| make_panic(&harness.addresses.balancer, GetProviderHealth).await)
        .await;
}

/// Subscribers stay.
#[actix::test]
async fn a_bus_that_panics_is_survived() {
    survives(async |harness| {
        let mut events = harness.events().await;
        let question = Subscribe { filter: EventFilter::default(), capacity: 1 };
        make_panic(&harness.addresses.bus, question).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        harness.register(Script::default().spec_of("q", "play/v1.0")).await;
        events.health(&"q".into(), HealthStatus::Healthy).await;
    })
    .await;
}

/// Measurements continue.
#[actix::test]
async fn a_monitor_that_panics_is_survived() {
    survives(async |harness| make_panic(&harness.addresses.monitor, GetMetrics).await).await;
}

/// The call in flight ends well; the next one is served by a new instance at the same address.
#[actix::test]
async fn a_supervisor_that_panics_is_restarted_under_its_address() {
    tokio::time::pause();
    let harness = Harness::new(Setup::default());
    let gate = Gate::default();
    let script = held_at(&gate);
    harness.employ(script.spec("p")).await;
    let mut events = harness.events().await;
    let (_, held) = harness.submit(one(task("held"))).await;
    script.diary.until("call", 1).await;
    let supervisor = harness.pick("work/v1.0:run").await.supervisor().clone();
    make_panic(&supervisor, GetStatus).await;
    assert_eq!(&*events.restarted("p").await, "its supervisor panicked");
    events.health(&"p".into(), HealthStatus::Healthy).await;
    let status = supervisor.send(GetStatus).await.unwrap();
    assert_eq!((status.generation, status.restarts, status.in_flight), (2, 1, 1));
    assert_eq!(script.diary.count("shut down 1"), 0);
    gate.open(2);
    assert_eq!(**held.await.tasks[0].result.as_ref().unwrap(), 1);
    assert_eq!(**harness.run_task(task("next")).await.result.as_ref().unwrap(), 2);
    script.diary.until("dropped 1", 1).await;
    harness.assert_nothing_left().await;
}

/// A supervisor beyond its budget takes no other with it, is reported, and can be restarted.
#[actix::test]
async fn a_supervisor_that_is_gone_is_visible_and_restarts_by_message() {
    tokio::time::pause();
    let mut harness = Harness::new(Setup::default());
    harness.employ(Script::default().spec("p")).await;
    harness.employ(Script::default().spec_of("q", "play/v1.0")).await;
    let mut events = harness.events().await;
    let supervisor = harness.pick("work/v1.0:run").await.supervisor().clone();
    for _ in 0..6 {
        make_panic(&supervisor, GetStatus).await;
        // The panic of an answer is followed by a restart, or by none.
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    assert!(events.failed("p").await.contains("its supervisor panicked"));
    let status = harness.status("p").await;
    assert_eq!(status.state, ProviderState::Failed);
    assert!(status.detail.contains("its supervisor panicked"), "{}", status.detail);
    let refused = harness.run_task(task("refused")).await;
    assert_eq!(refused.error.unwrap().code, ErrorCode::ProviderNotAvailable);
    assert_eq!(harness.status("q").await.generation, 1);

    harness.restart("p").await;
    events.health(&"p".into(), HealthStatus::Healthy).await;
    assert_completed(harness.run(one(task("next"))).await);
    assert!(harness.status("p").await.generation > status.generation);
    assert!(harness.actors.failed.try_recv().is_err(), "an actor is gone");
    harness.assert_nothing_left().await;
}

/// Panics at those of its choices whose number is in `panics`, from 1.
struct Shaky {
    choices: Arc<AtomicU32>,
    panics: fn(u32) -> bool,
}

impl LoadBalancingStrategy for Shaky {
    fn name(&self) -> &'static str {
        "shaky"
    }

    fn select(&mut self, candidates: &[Candidate<'_>], _: &PickContext<'_>) -> usize {
        let number = self.choices.fetch_add(1, Ordering::SeqCst) + 1;
        assert!(!(self.panics)(number), "choice {number}");
        number as usize % candidates.len()
    }
}

fn shaky(panics: fn(u32) -> bool) -> Setup {
    let choices = Arc::new(AtomicU32::new(0));
    let strategies = Strategies::default().with(
        "shaky",
        Arc::new(move |_| Box::new(Shaky { choices: Arc::clone(&choices), panics })),
    );
    Setup { strategies, ..Setup::default() }.strategy("shaky")
}

/// A stranger's strategy costs an attempt, not a task, and leaves no call counted that is none.
#[actix::test]
async fn a_strategy_that_panics_costs_an_attempt() {
    tokio::time::pause();
    let harness = Harness::new(shaky(|number| number == 2));
    for id in ["p", "q"] {
        harness.employ(Script::default().spec(id).max_concurrent(2)).await;
    }
    // All in one message to the balancer: the first was chosen when the second one panics.
    let retry = RetryPolicy { jitter: false, ..RetryPolicy::default() };
    let record = harness.run(many(3, |at| task(&format!("t{at}")).retry(retry.clone()))).await;
    assert_completed(Arc::clone(&record));
    let retried: Vec<u32> = record.tasks.iter().map(|task| task.attempts).collect();
    assert!(retried.iter().all(|attempts| *attempts <= 2), "{retried:?}");
    harness.assert_nothing_left().await;
    // Both have all their room again: four at once, and a fifth that waits.
    let mut tickets = Vec::new();
    for _ in 0..4 {
        tickets.push(harness.pick("work/v1.0:run").await);
    }
    assert!(!matches!(
        harness.pick_as(harness.request("work/v1.0:run")).await,
        gleitzeit_actors::load_balancer::Picked::Now(_)
    ));
}

/// Panics at the end of the first call.
#[derive(Default)]
struct Deaf {
    has_failed: bool,
}

impl LoadBalancingStrategy for Deaf {
    fn name(&self) -> &'static str {
        "deaf"
    }

    fn select(&mut self, _: &[Candidate<'_>], _: &PickContext<'_>) -> usize {
        0
    }

    fn finished(&mut self, _: &ProviderId, _: Sample, _: Duration) {
        assert!(std::mem::replace(&mut self.has_failed, true), "told for the first time");
    }
}

/// Waiting calls are served after the restart, although no other event follows.
#[actix::test]
async fn a_line_is_served_after_a_panic_over_the_end_of_a_call() {
    tokio::time::pause();
    let strategies = Strategies::default().with("deaf", Arc::new(|_| Box::<Deaf>::default()));
    let harness = Harness::new(Setup { strategies, ..Setup::default() }.strategy("deaf"));
    let gate = Gate::default();
    let script = held_at(&gate);
    harness.employ(script.spec("p").max_concurrent(1)).await;
    let (_, ending) = harness.submit(many(2, |at| task(&format!("t{at}")))).await;
    script.diary.until("call", 1).await;
    gate.open(2);
    let served = tokio::time::timeout(Duration::from_secs(1), ending).await;
    assert_completed(served.expect("the line is served again"));
    harness.assert_nothing_left().await;
}

/// Beyond its budget even a control actor ends the system: its failure is escalated.
#[actix::test]
async fn a_control_actor_beyond_its_budget_is_reported() {
    tokio::time::pause();
    let mut harness = Harness::new(Setup::default());
    for restarts in 0..6 {
        assert!(harness.actors.failed.try_recv().is_err(), "gave up after {restarts}");
        make_panic(&harness.addresses.balancer, GetProviders).await;
        make_panic(&harness.addresses.resources, GetResources).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    let reached = harness.actors.failed.await.unwrap();
    assert!(reached.actor.contains("ResourceManager"), "{reached:?}");
    assert_eq!(reached.panic, "the answer is poison");
}

/// Going on with half the truth is worse than stopping: what was acknowledged is in the store.
#[actix::test]
async fn a_resolver_that_panics_stops_the_system() {
    let harness = Harness::new(Setup::default());
    make_panic(&harness.addresses.resolver, SettleTasks(Vec::new())).await;
    let reached = harness.actors.failed.await.unwrap();
    assert!(reached.actor.contains("DependencyResolver"), "{reached:?}");
}

/// So does the engine.
#[actix::test]
async fn an_engine_that_panics_stops_the_system() {
    let harness = Harness::new(Setup::default());
    make_panic(&harness.addresses.engine, IsIdle).await;
    let reached = harness.actors.failed.await.unwrap();
    assert!(reached.actor.contains("ExecutionEngine"), "{reached:?}");
}

/// Panics at the first writes, at once or after a pause; then works.
#[derive(Debug, Default)]
struct Panicking {
    submits: AtomicU32,
    records: AtomicU32,
}

async fn maybe_panic(count: &AtomicU32) {
    match count.fetch_add(1, Ordering::SeqCst) {
        0 => panic!("at once"),
        1 => {
            tokio::task::yield_now().await;
            panic!("later");
        }
        _ => {}
    }
}

#[async_trait]
impl Hook for Panicking {
    async fn on(&self, operation: Operation<'_>) -> Decision {
        match operation {
            Operation::Submit(_) => maybe_panic(&self.submits).await,
            Operation::Record(_) => maybe_panic(&self.records).await,
            _ => {}
        }
        Decision::Pass
    }
}

/// A write that panicked is repeated; nothing is published before it is stored.
#[actix::test]
async fn a_store_that_panics_is_asked_again() {
    tokio::time::pause();
    let store = HookedStore::over(Arc::default(), Panicking::default());
    let setup = Setup { store: Arc::clone(&store) as Arc<dyn Store>, ..Setup::default() };
    let mut harness = Harness::new(setup);
    harness.employ(Script::default().spec("p")).await;
    let (id, ending) = harness.submit(one(task("any"))).await;
    assert_completed(ending.await);
    let stored = store.workflow(&id).await.unwrap().unwrap();
    assert_eq!(stored.tasks[0].status, TaskStatus::Completed);
    assert!(harness.actors.failed.try_recv().is_err(), "an actor is gone");
    harness.assert_nothing_left().await;
}
