//! A stop: running tasks may end, late ones are cut off and reported, no new one starts.

use std::sync::Arc;

use gleitzeit_actors::{
    execution_engine::{Shutdown, StopReport},
    memory_store::MemoryStore,
};
use gleitzeit_domain::{
    error::ErrorCode,
    event::EventData,
    problem::SubmitError,
    resources::{ResourceRequirements, Resources},
    store::Store as _,
    task::TaskStatus::Completed,
    workflow::{TaskSpec, WorkflowSpec, WorkflowStatus},
};
use serde_json::json;

use crate::support::{
    Ending, FlakyStore, Harness, Setup, assert_at, of, quick, secs, task, within,
};

/// Executing tasks end within the deadline, and their outcomes are stored; nothing else starts.
#[actix::test]
async fn executing_tasks_may_end() {
    let mut harness = Harness::open().await;
    let spec = WorkflowSpec::new("ends")
        .id("w")
        .task(task("runs", json!({"sleep": 5})))
        .task(quick("behind").after("runs"));
    harness.submit(spec).await.unwrap();
    harness.until_task("task:started", "runs").await;
    let shutdown = harness.actors.addresses.engine.send(Shutdown { deadline: secs(60) });
    harness.catch_up().await;
    let refused = harness.submit(WorkflowSpec::new("late").task(quick("t"))).await.err();
    assert_eq!(refused, Some(SubmitError::Stopped));
    assert_eq!(refused.unwrap().code(), ErrorCode::SystemShutdown);
    let report = within(shutdown).await.unwrap();
    assert_at(harness.script.now(), secs(5));
    let unsettled = vec!["w".into()];
    assert_eq!(report, StopReport { abandoned: Vec::new(), unsettled, stored: true });
    assert_eq!(of(&harness.stored(&"w".into()).await, "runs").status, Completed);
    tokio::time::sleep(secs(100)).await;
    assert_eq!(harness.script.order(), ["runs"]);
}

/// A task that has not ended by the deadline is cut off, and named in the report and in the event.
#[actix::test]
async fn what_does_not_end_in_time_is_abandoned() {
    let mut harness = Harness::open().await;
    let spec = WorkflowSpec::new("long").id("w").task(task("runs", json!({"sleep": 200})));
    harness.submit(spec).await.unwrap();
    harness.until_task("task:started", "runs").await;
    let shutdown = harness.actors.addresses.engine.send(Shutdown { deadline: secs(10) });
    let report = within(shutdown).await.unwrap();
    assert_at(harness.script.now(), secs(10));
    assert_eq!(report.abandoned, [("w".into(), "runs".into())]);
    harness.catch_up().await;
    assert_eq!(harness.script.calls_of("runs")[0].ending, Ending::Dropped);
    let published = harness.until("engine:stopped", |_| true).await;
    assert_eq!(published.data, EventData::EngineStopped { abandoned_tasks: 1 });
    assert!(
        !harness.stored(&"w".into()).await.status.is_settled(),
        "the next start goes on with it"
    );
}

/// Tasks that wait for resources or a provider do not begin once the engine stops, also where
/// the last task that ends releases what they wait for.
#[actix::test]
async fn waiting_tasks_do_not_begin_during_a_stop() {
    let resources = Resources { memory_mib: 100, ..Resources::UNLIMITED };
    let all = || ResourceRequirements { memory_mb: Some(100), ..Default::default() };
    let providers = vec![("main", Some(1))];
    let setup = Setup { resources, providers, ..Setup::default() };
    let mut harness = setup.open().await;
    harness.add_provider("second", "other/v1.0", None).await;
    let spec = WorkflowSpec::new("waits")
        .id("w")
        .task(task("runs", json!({"sleep": 5})).resources(all()))
        .task(task("for-provider", json!({"sleep": 200})))
        .task(
            TaskSpec::new("for-lease", "other/run").params(json!({"sleep": 200})).resources(all()),
        );
    harness.submit(spec).await.unwrap();
    harness.until_task("task:started", "runs").await;
    harness.catch_up().await;
    assert_eq!(harness.engine_counts().await.parked, 2);
    let shutdown = harness.actors.addresses.engine.send(Shutdown { deadline: secs(60) });
    let report = within(shutdown).await.unwrap();
    assert!(report.stored, "{report:?}");
    harness.catch_up().await;
    let open = report.abandoned.len();
    let begun = harness.script.order();
    assert_eq!(harness.script.running(), 0, "a call outlives the stop: {begun:?}");
    assert_eq!((begun.len(), open), (1, 0), "{begun:?}: {report:?}");
}

/// Everything that is asked during and after a stop is answered.
#[actix::test]
async fn callers_are_answered_when_the_engine_stops() {
    let store = Arc::new(MemoryStore::default());
    let setup = Setup { store: Arc::<MemoryStore>::clone(&store), ..Setup::default() };
    let mut harness = setup.open().await;
    let spec = WorkflowSpec::new("long").id("w").task(task("runs", json!({"sleep": 200})));
    let sent = harness.submit(spec).await.unwrap();
    harness.until_task("task:started", "runs").await;
    let report =
        harness.actors.addresses.engine.send(Shutdown { deadline: secs(1) }).await.unwrap();
    assert_eq!(report.unsettled.len(), 1);
    let answer = tokio::time::timeout(secs(10), sent.end).await.expect("told at the stop");
    let code = answer.map(|end| end.unwrap_err().code);
    assert!(matches!(code, Err(_) | Ok(ErrorCode::SystemShutdown)), "{code:?}");
    let waited = tokio::time::timeout(secs(10), harness.wait(&"w".into())).await.expect("answered");
    assert_eq!(waited.unwrap_err().code, ErrorCode::SystemShutdown);
    let again = harness.actors.addresses.engine.send(Shutdown { deadline: secs(1) }).await.unwrap();
    assert!(again.stored);
    assert!(store.workflow(&"w".into()).await.unwrap().is_some());
}

/// A stop with nothing to do is over at once.
#[actix::test]
async fn an_idle_engine_stops_at_once() {
    let mut harness = Harness::open().await;
    let record = harness.run(WorkflowSpec::new("done").task(quick("t"))).await;
    assert_eq!(record.status, WorkflowStatus::Completed);
    harness.catch_up().await;
    let report = harness.actors.stop(secs(100)).await;
    assert_eq!(report, StopReport { stored: true, ..StopReport::default() });
    assert_at(harness.script.now(), secs(0));
}

/// A workflow of which one task has ended, and its outcome is not stored, and another still runs.
async fn with_an_unstored_outcome(store: &Arc<FlakyStore>) -> Harness {
    let setup = Setup { store: Arc::<FlakyStore>::clone(store), ..Setup::default() };
    let mut harness = setup.open().await;
    store.pass_submits(1);
    let spec = WorkflowSpec::new("slow")
        .id("w")
        .task(quick("ends"))
        .task(task("runs", json!({"sleep": 200})));
    harness.submit(spec).await.unwrap();
    harness.catch_up().await;
    harness
}

/// A call that ended before the deadline is stored after it: a slow disk must not have it made again.
#[actix::test]
async fn a_slow_write_outlives_the_deadline() {
    let store = FlakyStore::gated();
    let harness = with_an_unstored_outcome(&store).await;
    let shutdown = harness.actors.addresses.engine.send(Shutdown { deadline: secs(1) });
    let opened = async {
        tokio::time::sleep(secs(4)).await;
        store.open();
    };
    let (report, ()) = futures_util::join!(within(shutdown), opened);
    let report = report.unwrap();
    assert_at(harness.script.now(), secs(4));
    assert_eq!((report.stored, report.abandoned), (true, vec![("w".into(), "runs".into())]));
    assert_eq!(of(&harness.stored(&"w".into()).await, "ends").status, Completed);
    assert_eq!(harness.script.calls_of("runs")[0].ending, Ending::Dropped);
}

/// A store that does not answer at all keeps no process.
#[actix::test]
async fn a_write_without_an_answer_ends_a_stop_in_time() {
    let store = FlakyStore::gated();
    let harness = with_an_unstored_outcome(&store).await;
    let shutdown = harness.actors.addresses.engine.send(Shutdown { deadline: secs(1) });
    let report = within(shutdown).await.unwrap();
    assert_at(harness.script.now(), secs(11));
    assert_eq!((report.stored, report.abandoned.len()), (false, 1), "{report:?}");
    store.open();
}
