//! Claims: only a process that can run a workflow claims it, and a dead process leaves it to others.

use std::{sync::Arc, time::Duration};

use gleitzeit_actors::{
    execution_engine::{Apply, EngineSettings, OfferChanged, Recover, Shutdown},
    load_balancer::RegisterProvider,
    memory_store::MemoryStore,
    protocol_registry::RegisterProtocol,
};
use gleitzeit_domain::{
    command::Command,
    error::ErrorCode,
    id::WorkflowId,
    needs::Needs,
    protocol::{MethodSpec, ParameterSpec, ProtocolSpec, catalog::ProtocolCatalog},
    provider::Placement,
    retry::Backoff::Fixed,
    store::{LeaseStore as _, NewWorkflow, Store as _, conformance::sample},
    task::TaskStatus::{Cancelled, Completed, Executing, Failed, Pending, UpstreamFailed},
    workflow::{TaskSpec, WorkflowSpec, WorkflowStatus},
};
use serde_json::json;

use crate::support::{
    Harness, RefusingStore, Setup, code, of, quick, retries, secs, statuses, task, within,
};

const TERM: Duration = secs(15);

fn shared() -> Arc<MemoryStore> {
    Arc::new(MemoryStore::default().with_timed_leases())
}

/// An engine that claims free workflows.
fn worker(store: &Arc<RefusingStore>) -> Setup {
    let owner: Arc<str> = "worker".into();
    let engine =
        EngineSettings { takes_over: true, lease_term: TERM, owner, ..EngineSettings::default() };
    Setup { engine, store: Arc::<RefusingStore>::clone(store), ..Setup::default() }
}

/// The protocol `shop`, whose method takes at most so many items.
fn shop(most: i64) -> ProtocolSpec {
    let count = ParameterSpec::integer().maximum(most);
    let method = MethodSpec::new("charge").param("count", count);
    ProtocolSpec::new("shop", "v1.0".parse().unwrap()).method(method)
}

fn catalog(most: i64) -> ProtocolCatalog {
    let mut catalog = Setup::default().catalog;
    catalog.register(shop(most)).unwrap();
    catalog
}

/// Has a provider of `shop`.
async fn serve_shop(harness: &Harness) {
    let spec = harness.script.provider("shop", "shop/v1.0").placement(Placement::Control);
    let capabilities = vec!["shop/v1.0:charge".parse().unwrap()];
    let register = RegisterProvider { spec, capabilities };
    harness.actors.addresses.balancer.send(register).await.unwrap().unwrap();
    harness.actors.addresses.engine.do_send(OfferChanged);
}

fn order(id: &str, count: i64) -> WorkflowSpec {
    let charge = TaskSpec::new("charge", "shop/charge").params(json!({"count": count}));
    WorkflowSpec::new("order").id(id).task(charge)
}

/// A workflow as another process stores it, with what it needs.
fn stored(spec: WorkflowSpec, needs: &[&str]) -> NewWorkflow {
    let id = spec.id.clone().unwrap();
    let needs: Needs = needs.iter().map(|need| Arc::from(*need)).collect();
    NewWorkflow { needs, ..sample::of_spec(id.as_str(), spec) }
}

async fn settled(memory: &MemoryStore, id: &str) -> WorkflowStatus {
    within(async {
        loop {
            let record = memory.workflow(&id.into()).await.unwrap().unwrap();
            if record.status.is_settled() {
                return record.status;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
}

async fn is_free(memory: &MemoryStore, id: &str) -> bool {
    let ids = [WorkflowId::from(id)];
    let standing = memory.standings(&ids).await.unwrap().pop().flatten().unwrap();
    standing.owner.is_none()
}

/// A service that does not know the protocol must not end an order that another one has begun.
#[actix::test]
async fn what_a_process_does_not_know_is_left_to_one_that_does() {
    tokio::time::pause();
    let memory = shared();
    let strangers = RefusingStore::new(Arc::clone(&memory), 0);
    let mut stranger = worker(&strangers).open_again().await;
    memory.submit(vec![stored(order("o", 1), &["shop/v1.0+:charge"])]).await.unwrap();
    assert_eq!(stranger.recover().await.workflows, 0);
    tokio::time::sleep(Duration::from_hours(1)).await;
    assert!(is_free(&memory, "o").await);
    assert_eq!(strangers.released(), 0, "it was never taken");
    // A protocol without a provider is not enough.
    let store = RefusingStore::new(Arc::clone(&memory), 0);
    let mut knows = Setup { catalog: catalog(9), ..worker(&store) }.open_again().await;
    assert_eq!(knows.recover().await.workflows, 0);
    assert!(is_free(&memory, "o").await);
    serve_shop(&knows).await;
    assert_eq!(settled(&memory, "o").await, WorkflowStatus::Completed);
    assert!(stranger.script.calls().is_empty());
    knows.finish().await;
    stranger.finish().await;
}

/// A rolling upgrade of a running process: it claims workflows of the methods that were added.
#[actix::test]
async fn a_process_that_learns_a_method_takes_up_what_waits_for_it() {
    tokio::time::pause();
    let memory = shared();
    let store = RefusingStore::new(Arc::clone(&memory), 0);
    let mut harness = worker(&store).open_again().await;
    harness.recover().await;
    memory.submit(vec![stored(order("o", 1), &["shop/v1.0+:charge"])]).await.unwrap();
    harness.catch_up().await;
    assert!(is_free(&memory, "o").await);
    harness.actors.addresses.registry.send(RegisterProtocol(shop(9))).await.unwrap().unwrap();
    serve_shop(&harness).await;
    assert_eq!(settled(&memory, "o").await, WorkflowStatus::Completed);
    harness.finish().await;
}

/// Another schema, or a workflow without stored needs, is found after the claim only. It is released
/// back once, and neither failed nor taken again and again.
#[actix::test]
async fn a_workflow_that_cannot_be_planned_is_released_once() {
    tokio::time::pause();
    let memory = shared();
    let older = RefusingStore::new(Arc::clone(&memory), 0);
    let mut harness = Setup { catalog: catalog(3), ..worker(&older) }.open_again().await;
    serve_shop(&harness).await;
    let fits = "shop/v1.0+:charge#another";
    let unknown = stored(WorkflowSpec::new("u").id("u").task(TaskSpec::new("t", "gone/run")), &[]);
    memory
        .submit(vec![
            stored(order("large", 7), &[fits]),
            stored(order("small", 2), &[fits]),
            unknown,
        ])
        .await
        .unwrap();
    let recovered = harness.recover().await;
    assert_eq!((recovered.workflows, recovered.unfit), (1, 2));
    assert_eq!(settled(&memory, "small").await, WorkflowStatus::Completed);
    for _ in 0..5 {
        memory.submit(vec![stored(order("small", 2), &[fits])]).await.unwrap();
        tokio::time::sleep(Duration::from_mins(20)).await;
    }
    assert_eq!(older.released(), 2, "each of the two once");
    assert!(is_free(&memory, "large").await && is_free(&memory, "u").await);
    let named = Recover { id: Some("large".into()), hold: false };
    let refused = within(harness.actors.addresses.engine.send(named)).await.unwrap().unwrap_err();
    assert_eq!(refused.code, ErrorCode::InvalidParams, "{refused}");
    assert!(is_free(&memory, "large").await, "also where it was asked for by name");
    let newer = RefusingStore::new(Arc::clone(&memory), 0);
    let mut other = Setup { catalog: catalog(9), ..worker(&newer) }.open_again().await;
    serve_shop(&other).await;
    other.recover().await;
    assert_eq!(settled(&memory, "large").await, WorkflowStatus::Completed);
    other.finish().await;
    harness.finish().await;
}

/// A process without providers stops one task of what it stored for others: the others run the
/// rest.
#[actix::test]
async fn who_only_changes_a_workflow_does_not_keep_it() {
    tokio::time::pause();
    let memory = shared();
    let own = RefusingStore::new(Arc::clone(&memory), 0);
    let setup = Setup { providers: Vec::new(), ..worker(&own) };
    let engine = EngineSettings { takes_over: false, ..setup.engine.clone() };
    let changer = Setup { engine, ..setup }.open_again().await;
    let spec = WorkflowSpec::new("w")
        .id("w")
        .task(quick("a"))
        .task(task("stopped", json!({"gate": "never"})).after("a"))
        .task(quick("skipped").after("stopped"))
        .task(quick("b").after("a"));
    memory.submit(vec![stored(spec, &["test/v1.0+:run"])]).await.unwrap();
    let hold = Recover { id: Some("w".into()), hold: true };
    within(changer.actors.addresses.engine.send(hold)).await.unwrap().unwrap();
    assert!(!is_free(&memory, "w").await);
    let command = Command::CancelTask { task: "stopped".into(), reason: "enough".into() };
    let cancel = Apply { id: "w".into(), command };
    within(changer.actors.addresses.engine.send(cancel)).await.unwrap().unwrap();
    within(async {
        while !is_free(&memory, "w").await {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    assert!(changer.script.now() < secs(1), "{:?}", changer.script.now());
    let record = memory.workflow(&"w".into()).await.unwrap().unwrap();
    assert_eq!(statuses(&record), [Pending, Cancelled, UpstreamFailed, Pending]);
    // It may be changed once more, and is released once more, also if the command fails.
    let hold = || Recover { id: Some("w".into()), hold: true };
    within(changer.actors.addresses.engine.send(hold())).await.unwrap().unwrap();
    let refused = changer.cancel_task(&"w".into(), "stopped").await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::WorkflowInvalidState);
    // And no notification follows.
    within(changer.actors.addresses.engine.send(hold())).await.unwrap().unwrap();
    let store = RefusingStore::new(Arc::clone(&memory), 0);
    let mut harness = worker(&store).open_again().await;
    harness.recover().await;
    assert_eq!(settled(&memory, "w").await, WorkflowStatus::Failed);
    let record = memory.workflow(&"w".into()).await.unwrap().unwrap();
    assert_eq!(statuses(&record), [Completed, Cancelled, UpstreamFailed, Completed]);
    assert_eq!(harness.script.order(), ["a", "b"]);
    harness.finish().await;
    changer.finish().await;
}

/// A workflow can be cancelled by a process that does not know what it calls.
#[actix::test]
async fn what_nobody_knows_can_be_cancelled() {
    tokio::time::pause();
    let memory = shared();
    let store = RefusingStore::new(Arc::clone(&memory), 0);
    let harness = worker(&store).open_again().await;
    memory.submit(vec![stored(order("o", 1), &["shop/v1.0+:charge"])]).await.unwrap();
    let hold = Recover { id: Some("o".into()), hold: true };
    within(harness.actors.addresses.engine.send(hold)).await.unwrap().unwrap();
    harness.cancel(&"o".into()).await.unwrap();
    assert_eq!(settled(&memory, "o").await, WorkflowStatus::Cancelled);
    harness.finish().await;
}

/// Others see what runs long, with no write for what does not.
#[actix::test]
async fn a_long_call_is_seen_from_elsewhere() {
    tokio::time::pause();
    let memory = shared();
    let store = RefusingStore::new(Arc::clone(&memory), 0);
    let mut harness = worker(&store).open_again().await;
    let spec = WorkflowSpec::new("w").id("w").task(task("long", json!({"sleep": 60})));
    let sent = harness.submit(spec.task(quick("next").after("long"))).await.unwrap();
    harness.until_task("task:started", "long").await;
    tokio::time::sleep(Duration::from_millis(900)).await;
    let early = memory.workflow(&"w".into()).await.unwrap().unwrap();
    assert_eq!((early.status, early.tasks[0].status), (WorkflowStatus::Pending, Pending));
    tokio::time::sleep(Duration::from_millis(200)).await;
    let record = memory.workflow(&"w".into()).await.unwrap().unwrap();
    assert_eq!((record.status, record.tasks[0].status), (WorkflowStatus::Running, Executing));
    assert_eq!(record.tasks[0].attempts, 1);
    assert!(record.tasks[0].started_at.is_some() && record.started_at.is_some());
    let events = memory.events(&"w".into(), 0, 10).await.unwrap();
    assert!(events.iter().any(|event| event.data.event_type() == "task:started"));
    assert_eq!(sent.end().await.status, WorkflowStatus::Completed);
    harness.finish().await;
}

/// A process that dies: its lease expires, and none of its further writes arrives.
async fn dies(harness: Harness, store: &RefusingStore) {
    store.cut();
    harness.actors.addresses.engine.send(Shutdown { deadline: secs(0) }).await.unwrap();
    tokio::time::sleep(TERM).await;
}

/// A task that kills its process each time, at once: the attempts count, and come to an end.
#[actix::test]
async fn a_task_that_kills_its_process_uses_up_its_attempts() {
    tokio::time::pause();
    let memory = shared();
    let kills = task("kills", json!({"gate": "never"})).retry(retries(3, Fixed, secs(1)));
    let spec = WorkflowSpec::new("w").id("w").task(kills).task(quick("behind").after("kills"));
    memory.submit(vec![stored(spec, &["test/v1.0+:run"])]).await.unwrap();
    let mut deaths = 0;
    loop {
        let store = RefusingStore::new(Arc::clone(&memory), 0);
        let mut harness = worker(&store).open_again().await;
        harness.recover().await;
        harness.catch_up().await;
        let record = memory.workflow(&"w".into()).await.unwrap().unwrap();
        if record.status.is_settled() {
            assert_eq!(statuses(&record), [Failed, UpstreamFailed]);
            assert_eq!(code(&record, "kills"), Some(ErrorCode::TaskRetryExhausted));
            assert_eq!(of(&record, "kills").attempts, 3);
            harness.finish().await;
            break;
        }
        harness.until_task("task:started", "kills").await;
        dies(harness, &store).await;
        deaths += 1;
        assert!(deaths < 9, "it is tried for ever");
    }
    // That of the first is not known: a start is stored before its call from the second on.
    assert_eq!(deaths, 4);
    let events = memory.events(&"w".into(), 0, 100).await.unwrap();
    let count = |kind: &str| events.iter().filter(|it| it.data.event_type() == kind).count();
    assert_eq!((count("workflow:recovered"), count("task:interrupted")), (4, 3));
}

/// A workflow that is handed over in order was not cut off: nothing is written ahead for it, and
/// no recovery is reported.
#[actix::test]
async fn what_is_handed_over_is_not_recovered() {
    tokio::time::pause();
    let memory = shared();
    let store = RefusingStore::new(Arc::clone(&memory), 0);
    let mut first = worker(&store).open_again().await;
    first
        .submit(WorkflowSpec::new("w").id("w").task(task("a", json!({"gate": "g"}))))
        .await
        .unwrap();
    first.until_task("task:started", "a").await;
    first.actors.addresses.engine.send(Shutdown { deadline: secs(0) }).await.unwrap();
    let store = RefusingStore::new(Arc::clone(&memory), 0);
    let mut second = worker(&store).open_again().await;
    second.recover().await;
    second.until_task("task:started", "a").await;
    second.catch_up().await;
    let record = memory.workflow(&"w".into()).await.unwrap().unwrap();
    assert_eq!(record.tasks[0].status, Pending, "a start that was written for nothing");
    second.script.open("g");
    assert_eq!(settled(&memory, "w").await, WorkflowStatus::Completed);
    let events = memory.events(&"w".into(), 0, 100).await.unwrap();
    assert!(events.iter().all(|event| event.data.event_type() != "workflow:recovered"));
    second.finish().await;
}
