//! First tasks without an effect outside, which run before their workflow is stored.

use std::time::Duration;

use gleitzeit_domain::{
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
    stage::{Fault, HeldStore, Stage, hang, pure, quiet, statuses, task, workflow},
};
use crate::execution_engine::{Cancel, EngineCounts, EngineSettings, GetWorkflow, Shutdown};

/// A workflow whose id is made up.
fn unnamed(tasks: impl IntoIterator<Item = TaskSpec>) -> Draft {
    let spec = tasks.into_iter().fold(WorkflowSpec::new("w"), WorkflowSpec::task);
    Draft::new(spec).unwrap()
}

/// A stage whose store writes nothing but one workflow, which is being written.
async fn held() -> Stage {
    let stage = Stage::new().await;
    stage.store.hold();
    drop(stage.send(workflow("first", [task("first", hang())])));
    quiet().await;
    stage
}

fn is_untold<T>(receiver: &mut Receiver<T>) -> bool {
    matches!(receiver.try_recv(), Err(TryRecvError::Empty))
}

async fn stored(stage: &Stage, id: &WorkflowId) -> gleitzeit_domain::workflow::WorkflowRecord {
    stage.store.workflow(id).await.unwrap().unwrap()
}

/// What it gave is told, and what needs it begins, only after that is stored.
#[actix::test]
async fn a_pure_first_task_does_not_wait_for_the_store() {
    let stage = Stage::new().await;
    stage.store.hold();
    let tasks = [pure("a", json!({"answer": 1})), pure("b", json!({})).after("a")];
    let draft = unnamed(tasks);
    let id = draft.id.clone();
    let (mut accepted, mut settled) = stage.send_draft(draft);
    quiet().await;
    assert_eq!(stage.made(), ["a"]);
    assert!(is_untold(&mut accepted) && is_untold(&mut settled));
    stage.store.let_through(1);
    quiet().await;
    assert_eq!(accepted.await.unwrap().unwrap(), id);
    // It was given to the store before `a` had ended, so that its outcome is a write of its own.
    assert_eq!(statuses(&stored(&stage, &id).await), [TaskStatus::Pending; 2]);
    assert_eq!(stage.made(), ["a"], "`b` began before the outcome of `a` was stored");
    stage.store.let_through(1);
    quiet().await;
    assert_eq!(stage.made(), ["a", "b"]);
    assert_eq!(statuses(&stored(&stage, &id).await)[0], TaskStatus::Completed);
    stage.store.release();
    assert_eq!(settled.await.unwrap().unwrap().status, WorkflowStatus::Completed);
    assert_eq!(stage.engine_counts().await, EngineCounts::default());
}

/// Of a workflow that is refused, or was there before, nothing must be left or be done again.
#[actix::test]
async fn an_effect_and_a_chosen_id_wait_for_the_store() {
    let stage = held().await;
    let named = stage.send(workflow("named", [pure("a", json!({}))]));
    let effect = stage.send_draft(unnamed([task("b", json!({}))]));
    let mixed = stage.send_draft(unnamed([pure("c", json!({})), task("d", json!({}))]));
    quiet().await;
    assert_eq!(stage.made(), Vec::<String>::new());
    stage.store.release();
    for (accepted, settled) in [named, effect, mixed] {
        accepted.await.unwrap().unwrap();
        assert_eq!(settled.await.unwrap().unwrap().status, WorkflowStatus::Completed);
    }
}

/// A workflow that ends while it waits for its turn at the store costs one write.
#[actix::test]
async fn what_ended_before_the_write_is_written_with_the_workflow() {
    let stage = held().await;
    let one = stage.send_draft(unnamed([pure("a", json!({"answer": 7}))]));
    let draft = unnamed([pure("b", json!({})), pure("c", json!({})).after("b")]);
    let id = draft.id.clone();
    let (mut accepted, mut settled) = stage.send_draft(draft);
    quiet().await;
    assert_eq!(stage.made(), ["a", "b"]);
    // The first one's submission, then that of these two.
    stage.store.let_through(2);
    quiet().await;
    let record = one.1.await.unwrap().unwrap();
    assert_eq!(record.status, WorkflowStatus::Completed);
    assert_eq!(one.0.await.unwrap().unwrap(), record.id);
    assert_eq!(stored(&stage, &record.id).await, *record);
    let events = stage.store.events(&record.id, 0, 100).await.unwrap();
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
    assert_eq!(stage.made(), ["a", "b", "first", "c"], "what follows begins at once");
    assert!(is_untold(&mut settled), "its end is not stored");
    stage.store.release();
    assert_eq!(settled.await.unwrap().unwrap().status, WorkflowStatus::Completed);
}

/// Whoever asks what has become of it is told once that is stored.
#[actix::test]
async fn a_state_that_is_not_stored_is_not_told() {
    let stage = held().await;
    let draft = unnamed([pure("a", json!({}))]);
    let id = draft.id.clone();
    let (_accepted, _settled) = stage.send_draft(draft);
    quiet().await;
    let (answer, mut told) = tokio::sync::oneshot::channel();
    stage.actors.addresses.engine.do_send(GetWorkflow { id: id.clone(), answer });
    quiet().await;
    assert!(is_untold(&mut told));
    stage.store.release();
    let record = told.await.unwrap().unwrap();
    assert_eq!(record.status, WorkflowStatus::Completed);
    assert_eq!(stored(&stage, &id).await, *record);
}

/// The call of a submission that is refused ends with it.
#[actix::test]
async fn a_refused_submission_takes_its_calls_along() {
    let stage = held().await;
    let (accepted, settled) = stage.send_draft(unnamed([pure("a", hang())]));
    quiet().await;
    assert_eq!(stage.made(), ["a"]);
    stage.store.let_through(1);
    quiet().await;
    let detail = "no".to_owned();
    stage.store.spoil_submit(Fault::Refused(StoreError::Integrity { detail: detail.clone() }));
    stage.store.release();
    let refusal = SubmitError::Store(StoreError::Integrity { detail });
    assert_eq!(accepted.await.unwrap(), Err(refusal));
    assert_eq!(settled.await.unwrap().unwrap_err().code, ErrorCode::PersistenceIntegrityError);
    stage.actors.addresses.engine.send(cancel("first")).await.unwrap().unwrap();
    quiet().await;
    assert_eq!(stage.engine_counts().await, EngineCounts::default());
}

/// A store that did it and did not say so is asked again: what it has is recognised.
#[actix::test]
async fn a_write_in_doubt_is_recognised_with_its_outcome() {
    let stage = held().await;
    let (accepted, settled) = stage.send_draft(unnamed([pure("a", json!({}))]));
    quiet().await;
    stage.store.let_through(1);
    quiet().await;
    stage.store.spoil_submit(Fault::DoneButUnknown);
    stage.store.release();
    let id = accepted.await.unwrap().unwrap();
    let record = settled.await.unwrap().unwrap();
    assert_eq!((record.status, &record.id), (WorkflowStatus::Completed, &id));
    assert_eq!(stage.made().iter().filter(|made| *made == "a").count(), 1);
}

/// An attempt that failed early counts, and the pause behind it is stored with the workflow.
#[actix::test]
async fn an_early_task_is_tried_again() {
    let stage = held().await;
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
    let (_accepted, settled) = stage.send_draft(draft);
    quiet().await;
    stage.store.release();
    quiet().await;
    let waiting = stored(&stage, &id).await;
    assert_eq!((waiting.tasks[0].status, waiting.tasks[0].attempts), (TaskStatus::RetryPending, 1));
    assert!(waiting.tasks[0].due_at.is_some());
    let record = settled.await.unwrap().unwrap();
    assert_eq!((record.status, record.tasks[0].attempts), (WorkflowStatus::Failed, 2));
}

/// A stop that is asked for before the workflow is stored is a part of it.
#[actix::test]
async fn what_runs_early_can_be_cancelled() {
    let stage = held().await;
    let draft = unnamed([pure("a", hang())]);
    let id = draft.id.clone();
    let (accepted, settled) = stage.send_draft(draft);
    quiet().await;
    let engine = &stage.actors.addresses.engine;
    let mut cancelled = Box::pin(engine.send(Cancel { id: id.clone(), reason: "enough".into() }));
    let early = tokio::time::timeout(Duration::from_secs(1), &mut cancelled).await;
    assert!(early.is_err(), "told before it was stored: {early:?}");
    stage.store.release();
    cancelled.await.unwrap().unwrap();
    accepted.await.unwrap().unwrap();
    assert_eq!(settled.await.unwrap().unwrap().status, WorkflowStatus::Cancelled);
    assert_eq!(stored(&stage, &id).await.status, WorkflowStatus::Cancelled);
}

/// The limit of a workflow holds for what runs before it is stored as well.
#[actix::test]
async fn a_limit_ends_what_runs_early() {
    let stage = held().await;
    let spec = WorkflowSpec::new("w").task(pure("a", hang())).timeout(Duration::from_mins(1));
    let (_accepted, settled) = stage.send_draft(Draft::new(spec).unwrap());
    tokio::time::sleep(Duration::from_secs(90)).await;
    stage.store.release();
    assert_eq!(settled.await.unwrap().unwrap().status, WorkflowStatus::TimedOut);
    stage.actors.addresses.engine.send(cancel("first")).await.unwrap().unwrap();
    quiet().await;
    assert_eq!(stage.engine_counts().await, EngineCounts::default());
}

/// What was never stored is no workflow that was left behind.
#[actix::test]
async fn a_stop_says_nothing_of_what_is_not_stored() {
    tokio::time::pause();
    let stage = Stage::open(EngineSettings::default(), HeldStore::open()).await;
    stage.store.hold();
    let (mut accepted, _settled) = stage.send_draft(unnamed([pure("a", hang())]));
    quiet().await;
    assert_eq!(stage.made(), ["a"]);
    let deadline = Duration::from_secs(5);
    let report = stage.actors.addresses.engine.send(Shutdown { deadline }).await.unwrap();
    assert_eq!(report.unsettled, []);
    assert_eq!(report.abandoned, []);
    assert!(is_untold(&mut accepted));
}
