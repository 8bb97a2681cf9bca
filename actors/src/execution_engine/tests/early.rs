//! First tasks without an effect outside, which run before their workflow is stored.

use std::time::Duration;

use gleitzeit_domain::{
    command::Command,
    error::ErrorCode,
    id::WorkflowId,
    plan::Draft,
    problem::SubmitError,
    retry::{Backoff, RetryPolicy},
    store::{Store as _, StoreError},
    task::TaskStatus,
    workflow::{TaskSpec, WorkflowSpec, WorkflowStatus},
};
use serde_json::json;
use tokio::sync::oneshot::{Receiver, error::TryRecvError};

use super::{
    cancel,
    harness::{Fault, Harness, HeldStore, hang, pure, run_until_idle, statuses, task, workflow},
};
use crate::execution_engine::{Apply, EngineCounts, EngineSettings, GetWorkflow, Shutdown};

/// A workflow whose id is made up.
fn unnamed(tasks: impl IntoIterator<Item = TaskSpec>) -> Draft {
    let spec = tasks.into_iter().fold(WorkflowSpec::new("w"), WorkflowSpec::task);
    Draft::new(spec).unwrap()
}

/// A harness whose store writes nothing but one workflow, which is being written.
async fn held() -> Harness {
    let harness = Harness::new().await;
    harness.store.hold();
    drop(harness.send(workflow("first", [task("first", hang())])));
    run_until_idle().await;
    harness
}

fn is_unanswered<T>(receiver: &mut Receiver<T>) -> bool {
    matches!(receiver.try_recv(), Err(TryRecvError::Empty))
}

async fn stored(harness: &Harness, id: &WorkflowId) -> gleitzeit_domain::workflow::WorkflowRecord {
    harness.store.workflow(id).await.unwrap().unwrap()
}

/// What it gave is reported, and what needs it begins, only after that is stored.
#[actix::test]
async fn a_pure_first_task_does_not_wait_for_the_store() {
    let harness = Harness::new().await;
    harness.store.hold();
    let tasks = [pure("a", json!({"answer": 1})), pure("b", json!({})).after("a")];
    let draft = unnamed(tasks);
    let id = draft.id.clone();
    let (mut accepted, mut settled) = harness.send_draft(draft);
    run_until_idle().await;
    assert_eq!(harness.made(), ["a"]);
    assert!(is_unanswered(&mut accepted) && is_unanswered(&mut settled));
    harness.store.let_through(1);
    run_until_idle().await;
    assert_eq!(accepted.await.unwrap().unwrap(), id);
    // It was given to the store before `a` had ended, so that its outcome is a write of its own.
    assert_eq!(statuses(&stored(&harness, &id).await), [TaskStatus::Pending; 2]);
    assert_eq!(harness.made(), ["a"], "`b` began before the outcome of `a` was stored");
    harness.store.let_through(1);
    run_until_idle().await;
    assert_eq!(harness.made(), ["a", "b"]);
    assert_eq!(statuses(&stored(&harness, &id).await)[0], TaskStatus::Completed);
    harness.store.release();
    assert_eq!(settled.await.unwrap().unwrap().status, WorkflowStatus::Completed);
    assert_eq!(harness.engine_counts().await, EngineCounts::default());
}

/// Of a workflow that is refused, or was there before, nothing must be left or be done again.
#[actix::test]
async fn an_effect_and_a_chosen_id_wait_for_the_store() {
    let harness = held().await;
    let named = harness.send(workflow("named", [pure("a", json!({}))]));
    let effect = harness.send_draft(unnamed([task("b", json!({}))]));
    let mixed = harness.send_draft(unnamed([pure("c", json!({})), task("d", json!({}))]));
    run_until_idle().await;
    assert_eq!(harness.made(), Vec::<String>::new());
    harness.store.release();
    for (accepted, settled) in [named, effect, mixed] {
        accepted.await.unwrap().unwrap();
        assert_eq!(settled.await.unwrap().unwrap().status, WorkflowStatus::Completed);
    }
}

/// A workflow that ends while it waits for its turn at the store costs one write.
#[actix::test]
async fn what_ended_before_the_write_is_written_with_the_workflow() {
    let harness = held().await;
    let one = harness.send_draft(unnamed([pure("a", json!({"answer": 7}))]));
    let draft = unnamed([pure("b", json!({})), pure("c", json!({})).after("b")]);
    let id = draft.id.clone();
    let (mut accepted, mut settled) = harness.send_draft(draft);
    run_until_idle().await;
    assert_eq!(harness.made(), ["a", "b"]);
    // The first one's submission, then that of these two.
    harness.store.let_through(2);
    run_until_idle().await;
    let record = one.1.await.unwrap().unwrap();
    assert_eq!(record.status, WorkflowStatus::Completed);
    assert_eq!(one.0.await.unwrap().unwrap(), record.id);
    assert_eq!(stored(&harness, &record.id).await, *record);
    let events = harness.store.events(&record.id, 0, 100).await.unwrap();
    let types: Vec<_> = events.iter().map(|event| event.data.event_type()).collect();
    let whole = [
        "workflow:submitted",
        "task:queued",
        "workflow:started",
        "task:started",
        "task:completed",
        "workflow:completed",
    ];
    assert_eq!(types, whole);
    assert_eq!(accepted.try_recv().unwrap().unwrap(), id);
    assert_eq!(harness.made(), ["a", "b", "first", "c"], "what follows begins at once");
    assert!(is_unanswered(&mut settled), "its end is not stored");
    harness.store.release();
    assert_eq!(settled.await.unwrap().unwrap().status, WorkflowStatus::Completed);
}

/// Whoever asks what has become of it is told once that is stored.
#[actix::test]
async fn a_state_that_is_not_stored_is_not_reported() {
    let harness = held().await;
    let draft = unnamed([pure("a", json!({}))]);
    let id = draft.id.clone();
    let (_accepted, _settled) = harness.send_draft(draft);
    run_until_idle().await;
    let (answer, mut reported) = tokio::sync::oneshot::channel();
    harness.actors.addresses.engine.do_send(GetWorkflow { id: id.clone(), answer });
    run_until_idle().await;
    assert!(is_unanswered(&mut reported));
    harness.store.release();
    let record = reported.await.unwrap().unwrap();
    assert_eq!(record.status, WorkflowStatus::Completed);
    assert_eq!(stored(&harness, &id).await, *record);
}

/// The call of a submission that is refused ends with it.
#[actix::test]
async fn a_refused_submission_takes_its_calls_along() {
    let harness = held().await;
    let (accepted, settled) = harness.send_draft(unnamed([pure("a", hang())]));
    run_until_idle().await;
    assert_eq!(harness.made(), ["a"]);
    harness.store.let_through(1);
    run_until_idle().await;
    let detail = "no".to_owned();
    harness.store.spoil_submit(Fault::Refused(StoreError::Integrity { detail: detail.clone() }));
    harness.store.release();
    let refusal = SubmitError::Store(StoreError::Integrity { detail });
    assert_eq!(accepted.await.unwrap(), Err(refusal));
    assert_eq!(settled.await.unwrap().unwrap_err().code, ErrorCode::PersistenceIntegrityError);
    harness.actors.addresses.engine.send(cancel("first")).await.unwrap().unwrap();
    run_until_idle().await;
    assert_eq!(harness.engine_counts().await, EngineCounts::default());
}

/// A store that did it and did not say so is asked again: what it has is recognised.
#[actix::test]
async fn a_write_in_doubt_is_recognised_with_its_outcome() {
    let harness = held().await;
    let (accepted, settled) = harness.send_draft(unnamed([pure("a", json!({}))]));
    run_until_idle().await;
    harness.store.let_through(1);
    run_until_idle().await;
    harness.store.spoil_submit(Fault::DoneButUnknown);
    harness.store.release();
    let id = accepted.await.unwrap().unwrap();
    let record = settled.await.unwrap().unwrap();
    assert_eq!((record.status, &record.id), (WorkflowStatus::Completed, &id));
    assert_eq!(harness.made().iter().filter(|made| *made == "a").count(), 1);
}

/// An attempt that failed early counts, and the pause behind it is stored with the workflow.
#[actix::test]
async fn an_early_task_is_tried_again() {
    let harness = held().await;
    let policy = RetryPolicy {
        max_attempts: 2,
        backoff: Backoff::Fixed,
        jitter: false,
        base_delay: Duration::from_mins(1),
        ..RetryPolicy::default()
    };
    let failing = pure("a", json!({"fail": "CONNECTION_LOST"})).retry(policy);
    let draft = unnamed([failing]);
    let id = draft.id.clone();
    let (_accepted, settled) = harness.send_draft(draft);
    run_until_idle().await;
    harness.store.release();
    run_until_idle().await;
    let waiting = stored(&harness, &id).await;
    assert_eq!((waiting.tasks[0].status, waiting.tasks[0].attempts), (TaskStatus::RetryPending, 1));
    assert!(waiting.tasks[0].due_at.is_some());
    let record = settled.await.unwrap().unwrap();
    assert_eq!((record.status, record.tasks[0].attempts), (WorkflowStatus::Failed, 2));
}

/// A stop that is asked for before the workflow is stored is a part of it.
#[actix::test]
async fn what_runs_early_can_be_cancelled() {
    let harness = held().await;
    let draft = unnamed([pure("a", hang())]);
    let id = draft.id.clone();
    let (accepted, settled) = harness.send_draft(draft);
    run_until_idle().await;
    let engine = &harness.actors.addresses.engine;
    let mut cancelled = Box::pin(
        engine.send(Apply { id: id.clone(), command: Command::Cancel { reason: "enough".into() } }),
    );
    let early = tokio::time::timeout(Duration::from_secs(1), &mut cancelled).await;
    assert!(early.is_err(), "told before it was stored: {early:?}");
    harness.store.release();
    cancelled.await.unwrap().unwrap();
    accepted.await.unwrap().unwrap();
    assert_eq!(settled.await.unwrap().unwrap().status, WorkflowStatus::Cancelled);
    assert_eq!(stored(&harness, &id).await.status, WorkflowStatus::Cancelled);
}

/// The limit of a workflow holds for what runs before it is stored as well.
#[actix::test]
async fn a_limit_ends_what_runs_early() {
    let harness = held().await;
    let spec = WorkflowSpec::new("w").task(pure("a", hang())).timeout(Duration::from_mins(1));
    let (_accepted, settled) = harness.send_draft(Draft::new(spec).unwrap());
    tokio::time::sleep(Duration::from_secs(90)).await;
    harness.store.release();
    assert_eq!(settled.await.unwrap().unwrap().status, WorkflowStatus::TimedOut);
    harness.actors.addresses.engine.send(cancel("first")).await.unwrap().unwrap();
    run_until_idle().await;
    assert_eq!(harness.engine_counts().await, EngineCounts::default());
}

/// What was never stored is no workflow that was left behind.
#[actix::test]
async fn a_stop_says_nothing_of_what_is_not_stored() {
    tokio::time::pause();
    let harness = Harness::open(EngineSettings::default(), HeldStore::open()).await;
    harness.store.hold();
    let (mut accepted, _settled) = harness.send_draft(unnamed([pure("a", hang())]));
    run_until_idle().await;
    assert_eq!(harness.made(), ["a"]);
    let deadline = Duration::from_secs(5);
    let report = harness.actors.addresses.engine.send(Shutdown { deadline }).await.unwrap();
    assert_eq!(report.unsettled, []);
    assert_eq!(report.abandoned, []);
    assert!(is_unanswered(&mut accepted));
}
