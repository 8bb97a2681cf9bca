//! Recovery: a second engine continues the stored work of a first one.

use std::sync::Arc;

use gleitzeit_actors::{
    execution_engine::{Recovered, Shutdown},
    memory_store::MemoryStore,
};
use gleitzeit_domain::{
    error::ErrorCode,
    retry::Backoff::Fixed,
    store::{Store as _, conformance::sample},
    task::TaskStatus::{
        Cancelled, Completed, Executing, Failed, OutcomeUnknown, RetryPending, UpstreamFailed,
    },
    workflow::{TaskSpec, WorkflowSpec, WorkflowStatus},
};
use serde_json::json;

use crate::support::{
    FlakyStore, Harness, Script, Setup, assert_at, code, failing, of, quick, result, retries, secs,
    statuses, task,
};

/// A first engine over a store that a second one finds.
pub(crate) async fn first(memory: &Arc<MemoryStore>) -> (Harness, Arc<FlakyStore>) {
    let store = FlakyStore::over_shared(Arc::clone(memory));
    let harness =
        Setup { store: Arc::<FlakyStore>::clone(&store), ..Setup::default() }.open().await;
    (harness, store)
}

/// A second one, after the first has lost its store as in a crash.
pub(crate) async fn second(memory: &Arc<MemoryStore>) -> Harness {
    let setup = Setup { store: Arc::<MemoryStore>::clone(memory), ..Setup::default() };
    setup.open_again().await
}

/// A crash: from here on, nothing that the first engine writes arrives; its calls are cut off.
pub(crate) async fn crash(harness: Harness, store: &FlakyStore) -> Script {
    store.cut();
    let report =
        harness.actors.addresses.engine.send(Shutdown { deadline: secs(0) }).await.unwrap();
    assert!(!report.unsettled.is_empty(), "there is something left to recover");
    let script = harness.script.clone();
    drop(harness);
    script
}

/// A completed task is not run again, and its result is there for references; a task that
/// was executing, waiting or not yet ready continues.
#[actix::test]
async fn an_engine_continues_the_work_of_another() {
    let memory = Arc::new(MemoryStore::default());
    let (mut harness, store) = first(&memory).await;
    let spec = WorkflowSpec::new("cut")
        .id("cut")
        .task(task("done", json!({"value": {"n": 1}})))
        .task(failing("bad"))
        .task(quick("skipped").after("bad"))
        .task(task("runs", json!({"gate": "g"})).after("done"))
        .task(task("last", json!({"value": ["${done.n}", "${runs}"]})))
        .task(
            quick("mended")
                .after("bad")
                .after("runs")
                .on_dependency_failure(gleitzeit_domain::task::OnDependencyFailure::Run),
        );
    harness.submit(spec).await.unwrap();
    harness.until_task("task:started", "runs").await;
    harness.until_task("task:upstream_failed", "skipped").await;
    harness.catch_up().await;
    crash(harness, &store).await;

    let mut harness = second(&memory).await;
    let recovered = harness.recover().await;
    assert_eq!(recovered, Recovered { workflows: 1, tasks: 3, unreadable: 0, held: 0, unfit: 0 });
    harness.script.open("g");
    let record = harness.wait(&"cut".into()).await.unwrap();
    assert_eq!(
        statuses(&record),
        [Completed, Failed, UpstreamFailed, Completed, Completed, Completed]
    );
    assert_eq!(result(&record, "last")[0], 1);
    let mut order = harness.script.order();
    order[1..].sort();
    assert_eq!(order, ["runs", "last", "mended"]);
    harness.check_stored(&"cut".into()).await;
    harness.finish().await;
}

/// A pause between two attempts survives a restart: the next attempt starts when it was due.
#[actix::test]
async fn a_pending_retry_keeps_its_time_and_its_count() {
    let memory = Arc::new(MemoryStore::default());
    let (mut harness, store) = first(&memory).await;
    let fails = task("t", json!({"fail": "CONNECTION_LOST"})).retry(retries(2, Fixed, secs(100)));
    harness.submit(WorkflowSpec::new("pausing").id("p").task(fails)).await.unwrap();
    harness.until_task("task:retry_scheduled", "t").await;
    harness.catch_up().await;
    crash(harness, &store).await;

    let mut harness = second(&memory).await;
    harness.recover().await;
    let record = harness.wait(&"p".into()).await.unwrap();
    assert_eq!(code(&record, "t"), Some(ErrorCode::TaskRetryExhausted));
    assert_eq!(of(&record, "t").attempts, 2);
    let calls = harness.script.calls();
    assert_eq!((calls.len(), calls[0].attempt), (1, 2));
    // The wall clock went on a little between the two engines.
    assert!(calls[0].began > secs(90) && calls[0].began < secs(101), "{:?}", calls[0].began);
    harness.finish().await;
}

/// A call that must not run twice and whose start is stored is not run again: a person decides.
#[actix::test]
async fn a_call_that_must_not_repeat_is_left_to_a_person() {
    let memory = Arc::new(MemoryStore::default());
    let (mut harness, store) = first(&memory).await;
    let once = |id: &str| TaskSpec::new(id, "test/once").params(json!({"gate": "g"}));
    let spec = WorkflowSpec::new("once")
        .id("o")
        .task(once("began"))
        .task(quick("behind").after("began"))
        .task(task("repeats", json!({"gate": "g"})));
    harness.submit(spec).await.unwrap();
    harness.until_task("task:started", "began").await;
    harness.catch_up().await;
    assert_eq!(
        of(&memory.workflow(&"o".into()).await.unwrap().unwrap(), "began").status,
        Executing
    );
    crash(harness, &store).await;

    let mut harness = second(&memory).await;
    harness.recover().await;
    harness.until_task("task:outcome_unknown", "began").await;
    harness.script.open("g");
    harness.until_task("task:completed", "repeats").await;
    harness.catch_up().await;
    let stored = harness.stored(&"o".into()).await;
    assert_eq!(of(&stored, "began").status, OutcomeUnknown);
    assert!(!stored.status.is_settled(), "it waits for a person's word");
    assert_eq!(harness.script.order(), ["repeats"]);
    harness.cancel_task(&"o".into(), "began").await.unwrap();
    let record = harness.wait(&"o".into()).await.unwrap();
    assert_eq!(statuses(&record), [Cancelled, UpstreamFailed, Completed]);
    harness.finish().await;
}

/// A workflow's limit counts from its acceptance, also over a restart; a task's total limit is
/// kept for a task that had begun before.
#[actix::test]
async fn limits_hold_over_a_restart() {
    let memory = Arc::new(MemoryStore::default());
    let (mut harness, store) = first(&memory).await;
    let slow = || json!({"gate": "never"});
    let bounded = WorkflowSpec::new("bounded").id("w").timeout(secs(60)).task(task("t", slow()));
    let fails = json!({"fail": "CONNECTION_LOST"});
    let total = task("t", fails).retry(retries(99, Fixed, secs(10))).total_timeout(secs(45));
    let total = WorkflowSpec::new("total").id("t").task(total);
    harness.submit(bounded).await.unwrap();
    harness.submit(total).await.unwrap();
    harness.until_task("task:retry_scheduled", "t").await;
    harness.catch_up().await;
    crash(harness, &store).await;

    let mut harness = second(&memory).await;
    harness.recover().await;
    let timed_out = harness.wait(&"t".into()).await.unwrap();
    assert_eq!(code(&timed_out, "t"), Some(ErrorCode::TaskTimeout));
    assert!(harness.script.now() <= secs(46), "{:?}", harness.script.now());
    let record = harness.wait(&"w".into()).await.unwrap();
    assert_eq!(record.status, WorkflowStatus::TimedOut);
    assert!(harness.script.now() <= secs(61), "{:?}", harness.script.now());
    harness.finish().await;
}

/// Recovering twice, or what runs here already, changes nothing.
#[actix::test]
async fn what_runs_is_not_recovered_again() {
    let mut harness = Harness::open().await;
    let spec = WorkflowSpec::new("here").task(task("t", json!({"gate": "g"})));
    let sent = harness.submit(spec).await.unwrap();
    harness.until_task("task:started", "t").await;
    assert_eq!(harness.recover().await, Recovered::default());
    harness.script.open("g");
    assert_eq!(sent.end().await.status, WorkflowStatus::Completed);
    assert_eq!(harness.recover().await, Recovered::default());
    assert_eq!(harness.script.calls().len(), 1);
    harness.finish().await;
}

/// Opening a failed workflow again runs what did not complete, and only that.
#[actix::test]
async fn a_failed_workflow_can_be_run_again() {
    let mut harness = Harness::open().await;
    let spec = WorkflowSpec::new("again")
        .id("again")
        .timeout(secs(100))
        .task(task("done", json!({"value": 5})))
        .task(task("flaky", json!({"gate": "g", "fail": "TASK_EXECUTION_FAILED"})).after("done"))
        .task(task("behind", json!({"value": "${done}"})).after("flaky"))
        .task(quick("cancelled"));
    let sent = harness.submit(spec).await.unwrap();
    harness.script.let_one_pass("g");
    let record = sent.end().await;
    assert_eq!(statuses(&record), [Completed, Failed, UpstreamFailed, Completed]);
    tokio::time::sleep(secs(200)).await;
    let reopened = harness.reopen(&"again".into()).await.unwrap();
    assert_eq!(reopened, Recovered { workflows: 1, tasks: 2, unreadable: 0, held: 0, unfit: 0 });
    harness
        .until("task:started", |event| {
            event.data.task_id().is_some_and(|id| id.as_str() == "flaky")
                && event.sequence > record.last_sequence
        })
        .await;
    let refused = harness.reopen(&"again".into()).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::WorkflowInvalidState, "it is running");
    harness.cancel(&"again".into()).await.unwrap();
    let record = harness.stored(&"again".into()).await;
    assert_eq!(record.status, WorkflowStatus::Cancelled);
    assert_eq!(statuses(&record), [Completed, Cancelled, Cancelled, Completed]);
    assert_eq!(harness.script.calls_of("done").len(), 1);
    harness.check_stored(&"again".into()).await;
    harness.finish().await;
}

/// A workflow that is completed, or does not exist, cannot be retried.
#[actix::test]
async fn a_completed_workflow_cannot_be_run_again() {
    let mut harness = Harness::open().await;
    harness.run(WorkflowSpec::new("good").id("good").task(quick("t"))).await;
    let code =
        |answer: Result<Recovered, gleitzeit_domain::error::TaskError>| answer.unwrap_err().code;
    assert_eq!(code(harness.reopen(&"good".into()).await), ErrorCode::WorkflowInvalidState);
    assert_eq!(code(harness.reopen(&"nobody".into()).await), ErrorCode::WorkflowNotFound);
    assert_at(harness.script.now(), secs(0));
    harness.finish().await;
}

/// The clock was set back or forward by a day between the failure and the restart: the retry waits as
/// long as its policy says; a time that lies within it is kept.
#[actix::test]
async fn a_retry_that_is_taken_up_waits_no_longer_than_its_policy_says() {
    for (stored, waits) in [(86_400, 3), (2, 2), (-5, 0), (-86_400, 3)] {
        if stored == 86_400 {
            tokio::time::pause();
        }
        let memory = Arc::new(MemoryStore::default());
        let spec =
            WorkflowSpec::new("w").id("w").task(quick("t").retry(retries(2, Fixed, secs(3))));
        let mut new = sample::of_spec("w", spec);
        let task = &mut new.record.tasks[0];
        task.status = RetryPending;
        task.attempts = 1;
        task.error = Some(Arc::new(sample::failure()));
        let setup = Setup { store: Arc::<MemoryStore>::clone(&memory), ..Setup::default() };
        let mut harness = setup.open_again().await;
        task.due_at = Some(chrono::Utc::now() + chrono::TimeDelta::seconds(stored));
        memory.submit(vec![new]).await.unwrap();
        harness.recover().await;
        let end = harness.wait(&"w".into()).await.unwrap();
        assert_eq!(statuses(&end), [Completed]);
        let waited = harness.script.now();
        let expected = secs(waits);
        assert!(waited <= expected + secs(1) && waited + secs(1) >= expected, "{waited:?}");
        harness.check_stored(&"w".into()).await;
        harness.finish().await;
    }
}
