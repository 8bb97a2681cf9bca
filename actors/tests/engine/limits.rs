//! How much at once: tasks, calls of a provider, resources, intake; and who is not held up by it.

use gleitzeit_actors::execution_engine::EngineSettings;
use gleitzeit_domain::{
    error::ErrorCode,
    event::EventData,
    problem::SubmitError,
    resources::{ResourceRequirements, Resources},
    task::TaskStatus::{Completed, Failed},
    workflow::{TaskSpec, WorkflowSpec, WorkflowStatus},
};
use serde_json::json;

use crate::support::{Harness, Setup, assert_at, code, of, quick, secs, statuses, task};

/// `count` tasks that take a second each.
fn wide(name: &str, count: u32) -> WorkflowSpec {
    let tasks = (0..count).map(|n| task(&format!("{name}{n}"), json!({"sleep": 1})));
    tasks.fold(WorkflowSpec::new(name), WorkflowSpec::task)
}

fn with_engine(engine: EngineSettings) -> Setup {
    Setup { engine, ..Setup::default() }
}

/// Exactly `max_concurrent_tasks` calls run, no more and no fewer, over all workflows together.
#[actix::test]
async fn so_many_tasks_run_at_once_as_the_settings_allow() {
    let engine = EngineSettings { max_concurrent_tasks: 7, ..EngineSettings::default() };
    let mut harness = with_engine(engine).open().await;
    let sent = [harness.send(wide("a", 20)), harness.send(wide("b", 15))];
    for sent in sent {
        sent.end().await;
    }
    assert_eq!(harness.script.peak(""), 7);
    // 35 tasks of a second, seven at a time: a place was never left empty.
    assert_at(harness.script.now(), secs(5));
    harness.finish().await;
}

/// `max_parallel_tasks` bounds its own workflow, and no other.
#[actix::test]
async fn a_workflow_keeps_to_its_own_limit() {
    let mut harness = Harness::open().await;
    let bounded = harness.send(wide("a", 12).max_parallel_tasks(3));
    let free = harness.send(wide("b", 12));
    free.end().await;
    assert_at(harness.script.now(), secs(1));
    bounded.end().await;
    assert_at(harness.script.now(), secs(4));
    assert_eq!(harness.script.peak(""), 15);
    harness.finish().await;
}

/// A provider never gets more calls at once than it takes, and is never left short of them.
#[actix::test]
async fn each_provider_gets_as_many_calls_as_it_takes() {
    let providers = vec![("small", Some(2)), ("large", Some(5))];
    let mut harness = Setup { providers, ..Setup::default() }.open().await;
    let record = harness.run(wide("a", 70)).await;
    assert_eq!(record.status, WorkflowStatus::Completed);
    assert_eq!([harness.script.peak("small"), harness.script.peak("large")], [2, 5]);
    assert_at(harness.script.now(), secs(10));
    harness.finish().await;
}

fn memory(mib: u64) -> ResourceRequirements {
    ResourceRequirements { memory_mb: Some(mib), ..Default::default() }
}

fn one_gib() -> Setup {
    let resources = Resources { memory_mib: 1024, ..Resources::UNLIMITED };
    Setup { resources, ..Setup::default() }
}

/// Leases never add up to more than there is; all of it is used where it can be.
#[actix::test]
async fn resources_are_never_overdrawn() {
    let mut harness = one_gib().open().await;
    let needy = |n| task(&format!("t{n}"), json!({"sleep": 1})).resources(memory(256));
    let spec = (0..12).map(needy).fold(WorkflowSpec::new("needy"), WorkflowSpec::task);
    harness.run(spec).await;
    assert_eq!((harness.script.peak(""), harness.script.memory_peak()), (4, 1024));
    assert_at(harness.script.now(), secs(3));
    harness.finish().await;
}

/// A request that can never fit is refused at once.
#[actix::test]
async fn a_need_above_the_total_is_refused_at_once() {
    let mut harness = one_gib().open().await;
    let spec = WorkflowSpec::new("too much").task(quick("t").resources(memory(1025)));
    let record = harness.run(spec).await;
    assert_eq!(code(&record, "t"), Some(ErrorCode::ResourceExhausted));
    let error = of(&record, "t").error.clone().unwrap();
    assert!(error.message.contains("1025") && error.message.contains("1024"), "{error}");
    assert_at(harness.script.now(), secs(0));
    assert!(harness.script.calls().is_empty());
    harness.finish().await;
}

/// A task that waits for resources, and one whose provider is missing, hold up no others, not
/// even where one task may run at once.
#[actix::test]
async fn those_who_wait_hold_up_nobody() {
    let mut setup = one_gib();
    setup.engine.max_concurrent_tasks = 2;
    let mut harness = setup.open().await;
    let spec = WorkflowSpec::new("waits")
        .task(task("holder", json!({"gate": "g"})).resources(memory(1000)))
        .task(quick("needs-much").resources(memory(1000)))
        .task(TaskSpec::new("no-provider", "other/run"));
    let waits = harness.submit(spec).await.unwrap();
    harness.until_task("task:started", "holder").await;
    let others = harness.run(wide("other", 10)).await;
    assert_eq!(others.status, WorkflowStatus::Completed);
    assert_at(harness.script.now(), secs(10));
    harness.script.open("g");
    let record = waits.end().await;
    assert_eq!(statuses(&record), [Completed, Completed, Failed]);
    harness.finish().await;
}

/// If the most tasks that may wait for a provider do, the next one is dispatched as soon as one of them
/// has its turn, and not only when that one has ended.
#[actix::test]
async fn dispatch_continues_when_a_waiting_task_is_served() {
    let engine = EngineSettings { max_parked_tasks: 1, ..EngineSettings::default() };
    let mut harness = with_engine(engine).open().await;
    let late = TaskSpec::new("late", "other/run").params(json!({"sleep": 100}));
    let late = harness.submit(WorkflowSpec::new("late").task(late)).await.unwrap();
    harness.catch_up().await;
    assert_eq!(harness.engine_counts().await.parked, 1);
    let free = harness.submit(WorkflowSpec::new("free").task(quick("free"))).await.unwrap();
    harness.catch_up().await;
    assert!(harness.script.calls().is_empty(), "no more may wait, so nothing more is dispatched");
    harness.add_provider("second", "other/v1.0", None).await;
    harness.until_task("task:started", "late").await;
    free.end().await;
    assert_at(harness.script.now(), secs(0));
    late.end().await;
    harness.finish().await;
}

/// Intake beyond its bound is refused, reported once, and open again as soon as there is room.
#[actix::test]
async fn a_full_queue_refuses_and_recovers() {
    let engine = EngineSettings { max_queued_tasks: 10, ..EngineSettings::default() };
    let mut harness = with_engine(engine).open().await;
    let gated = (0..8).map(|n| task(&format!("t{n}"), json!({"gate": "g"})));
    let spec = gated.fold(WorkflowSpec::new("full"), WorkflowSpec::task);
    let first = harness.submit(spec).await.unwrap();
    for _ in 0..3 {
        let refused = harness.submit(wide("b", 3)).await.err();
        assert_eq!(refused, Some(SubmitError::QueueFull { waiting: 8, limit: 10 }));
        assert_eq!(refused.unwrap().code(), ErrorCode::QueueFull);
    }
    let published = harness.until("queue:full", |_| true).await;
    assert_eq!(published.data, EventData::QueueFull { waiting: 8, limit: 10 });
    let fits = harness.submit(wide("c", 2)).await.unwrap();
    harness.script.open("g");
    first.end().await;
    fits.end().await;
    harness.run(wide("d", 10)).await;
    let published = harness.events.iter().filter(|event| event.data.event_type() == "queue:full");
    assert_eq!(published.count(), 1, "one period of refusals is reported once");
    harness.finish().await;
}

/// The refusal of a workflow that can never fit does not say to wait.
#[actix::test]
async fn a_workflow_beyond_the_whole_limit_is_refused_for_good() {
    let engine = EngineSettings { max_queued_tasks: 2, ..EngineSettings::default() };
    let mut harness = with_engine(engine).open().await;
    let refused = harness.submit(wide("w", 3)).await.err().unwrap();
    assert_eq!(refused, SubmitError::TooLarge { tasks: 3, limit: 2 });
    let published = refused.to_string();
    assert!(
        published.contains("engine.max_queued_tasks") && !published.contains("later"),
        "{published}"
    );
    harness.run(wide("w", 2)).await;
    harness.finish().await;
}

/// A refused workflow has left no trace: the same id is accepted later and runs.
#[actix::test]
async fn what_was_refused_for_load_can_be_submitted_again() {
    let engine = EngineSettings { max_queued_tasks: 2, ..EngineSettings::default() };
    let mut harness = with_engine(engine).open().await;
    let first = WorkflowSpec::new("first").task(task("t", json!({"gate": "g"}))).task(quick("u"));
    let first = harness.submit(first).await.unwrap();
    let again = || wide("again", 2).id("again");
    assert!(harness.submit(again()).await.is_err());
    assert!(harness.store.workflow(&"again".into()).await.unwrap().is_none());
    harness.script.open("g");
    first.end().await;
    assert_eq!(harness.run(again()).await.status, WorkflowStatus::Completed);
    harness.finish().await;
}
