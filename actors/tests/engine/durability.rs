//! Nothing is published, and nothing follows, before it is stored; a store that fails loses nothing.

use std::sync::Arc;

use gleitzeit_domain::{
    error::ErrorCode,
    problem::SubmitError,
    store::{Store as _, StoreError},
    task::TaskStatus::{Cancelled, Completed, Executing},
    workflow::{TaskSpec, WorkflowSpec, WorkflowStatus},
};
use serde_json::json;
use tokio::sync::oneshot::error::TryRecvError;

use crate::support::{FlakyStore, Harness, Setup, of, quick, secs, statuses, task};

async fn over(store: &Arc<FlakyStore>) -> Harness {
    Setup { store: Arc::<FlakyStore>::clone(store), ..Setup::default() }.open().await
}

fn two_steps() -> WorkflowSpec {
    WorkflowSpec::new("steps").task(quick("one")).task(quick("two").after("one"))
}

/// Before it is stored, a submission is neither acknowledged nor published nor started.
#[actix::test]
async fn a_submission_is_acknowledged_only_when_it_is_stored() {
    let store = FlakyStore::gated();
    let mut harness = over(&store).await;
    let mut sent = harness.send(two_steps());
    harness.catch_up().await;
    assert_eq!(sent.taken.try_recv().unwrap_err(), TryRecvError::Empty);
    assert_eq!((harness.published(&sent.id).len(), harness.script.calls().len()), (0, 0));
    store.pass_submits(1);
    harness.until_task("task:started", "one").await;
    assert_eq!(sent.taken.try_recv().unwrap(), Ok(sent.id.clone()));
    store.open();
    sent.end().await;
    harness.finish().await;
}

/// Before an outcome is stored, no event reports it, no dependent starts, no caller is answered.
#[actix::test]
async fn an_outcome_is_published_only_when_it_is_stored() {
    let store = FlakyStore::gated();
    store.pass_submits(1);
    let mut harness = over(&store).await;
    let mut sent = harness.submit(two_steps()).await.unwrap();
    harness.catch_up().await;
    let begun = ["workflow:submitted", "task:queued one", "workflow:started", "task:started one"];
    assert_eq!(harness.published(&sent.id), begun);
    assert_eq!((harness.script.order(), store.records_arrived()), (vec!["one".to_owned()], 1));
    store.pass_records(1);
    harness.until_task("task:started", "two").await;
    harness.catch_up().await;
    assert_eq!(harness.published(&sent.id).last().map(String::as_str), Some("task:started two"));
    assert_eq!(sent.end.try_recv().unwrap_err(), TryRecvError::Empty);
    assert_eq!(statuses(&harness.stored(&sent.id).await)[0], Completed);
    store.pass_records(1);
    let id = sent.id.clone();
    assert_eq!(sent.end().await.status, WorkflowStatus::Completed);
    assert_eq!(harness.stored(&id).await.status, WorkflowStatus::Completed);
    store.open();
    harness.finish().await;
}

/// A cancellation is acknowledged by its own write, not by one that was under way before it.
#[actix::test]
async fn a_cancellation_is_acknowledged_only_when_it_is_stored() {
    let store = FlakyStore::gated();
    store.pass_submits(1);
    let mut harness = over(&store).await;
    let spec = two_steps().task(task("long", json!({"sleep": 100})));
    let sent = harness.submit(spec).await.unwrap();
    harness.catch_up().await;
    assert_eq!(store.records_arrived(), 1, "the end of `one` is being written");
    let mut cancelling = Box::pin(harness.cancel(&sent.id));
    let soon = tokio::time::timeout(secs(1), &mut cancelling).await;
    assert!(soon.is_err(), "acknowledged before anything was stored");
    store.pass_records(1);
    let soon = tokio::time::timeout(secs(1), &mut cancelling).await;
    assert!(soon.is_err(), "acknowledged by a write from before it");
    assert_eq!(harness.stored(&sent.id).await.status, WorkflowStatus::Running);
    store.pass_records(1);
    cancelling.await.unwrap();
    assert_eq!(harness.stored(&sent.id).await.status, WorkflowStatus::Cancelled);
    store.open();
    assert_eq!(statuses(&*sent.end().await), [Completed, Cancelled, Cancelled]);
    harness.finish().await;
}

/// Nor does anything follow from the cancellation of one task.
#[actix::test]
async fn a_cancelled_task_is_acknowledged_only_when_it_is_stored() {
    let store = FlakyStore::gated();
    store.pass_submits(1);
    let mut harness = over(&store).await;
    let spec = two_steps().task(task("long", json!({"sleep": 100})));
    let sent = harness.submit(spec).await.unwrap();
    harness.catch_up().await;
    let mut cancelling = Box::pin(harness.cancel_task(&sent.id, "long"));
    assert!(tokio::time::timeout(secs(1), &mut cancelling).await.is_err());
    store.pass_records(1);
    assert!(tokio::time::timeout(secs(1), &mut cancelling).await.is_err());
    assert!(!of(&harness.stored(&sent.id).await, "long").status.is_settled());
    store.open();
    cancelling.await.unwrap();
    assert_eq!(of(&harness.stored(&sent.id).await, "long").status, Cancelled);
    sent.end().await;
    harness.finish().await;
}

/// A method that must not run twice is called only when its own start is stored: a write of the
/// same workflow that was under way before does not count.
#[actix::test]
async fn a_call_that_must_not_repeat_waits_for_its_start_to_be_stored() {
    let store = FlakyStore::gated();
    store.pass_submits(1);
    let setup = Setup { store: Arc::<FlakyStore>::clone(&store), ..Setup::default() };
    let mut harness = Setup { providers: vec![("main", Some(1))], ..setup }.open().await;
    harness.add_provider("second", "other/v1.0", None).await;
    let spec = WorkflowSpec::new("once")
        .task(task("busy", json!({"gate": "g"})))
        .task(TaskSpec::new("once", "test/once").params(json!({})))
        .task(TaskSpec::new("other", "other/run").params(json!({})));
    let sent = harness.submit(spec).await.unwrap();
    harness.catch_up().await;
    assert_eq!(store.records_arrived(), 1, "the end of `other` is being written");
    harness.script.open("g");
    harness.catch_up().await;
    store.pass_records(1);
    harness.catch_up().await;
    assert_eq!(of(&harness.stored(&sent.id).await, "other").status, Completed);
    assert!(harness.script.calls_of("once").is_empty(), "called before its start was stored");
    store.pass_records(1);
    harness.catch_up().await;
    assert_eq!(of(&harness.stored(&sent.id).await, "once").status, Executing);
    assert_eq!(harness.script.calls_of("once").len(), 1);
    store.open();
    assert_eq!(sent.end().await.status, WorkflowStatus::Completed);
    harness.finish().await;
}

fn unavailable() -> StoreError {
    StoreError::Unavailable { detail: "cut".into() }
}

fn unknown() -> StoreError {
    StoreError::Unknown { detail: "no answer".into() }
}

/// Failed writes are repeated until they succeed; meanwhile nothing is published.
#[actix::test]
async fn outcomes_survive_a_store_that_fails_for_a_while() {
    let write = StoreError::Write { detail: "disk full".into() };
    let errors = vec![unavailable(), unknown(), write, unavailable(), unknown()];
    let store = FlakyStore::flaky(Vec::new(), errors);
    let mut harness = over(&store).await;
    let mut sent = harness.submit(two_steps()).await.unwrap();
    harness.catch_up().await;
    assert_eq!(harness.published(&sent.id).last().map(String::as_str), Some("task:started one"));
    assert_eq!(sent.end.try_recv().unwrap_err(), TryRecvError::Empty);
    let record = sent.end().await;
    assert_eq!(statuses(&record), [Completed, Completed]);
    assert_eq!(harness.script.calls().len(), 2, "nothing ran twice");
    harness.finish().await;
}

/// A hundred workflows on a store that fails now and then: none is lost, none is published early.
#[actix::test]
async fn many_workflows_survive_a_store_that_fails_now_and_then() {
    let store = FlakyStore::flaky(Vec::new(), (0..20).map(|_| unknown()).collect());
    let mut harness = over(&store).await;
    let sent: Vec<_> = (0..100).map(|_| harness.send(two_steps())).collect();
    for sent in sent {
        let id = sent.id.clone();
        let record = sent.end().await;
        assert_eq!(record.status, WorkflowStatus::Completed);
        assert_eq!(harness.stored(&id).await.status, WorkflowStatus::Completed);
    }
    assert_eq!(harness.script.calls().len(), 200);
    harness.finish().await;
}

/// A submission that the store refuses is answered with its error and leaves nothing; the same id
/// can be submitted again.
#[actix::test]
async fn a_submission_that_cannot_be_stored_is_refused() {
    let integrity = StoreError::Integrity { detail: "odd".into() };
    let write = StoreError::Write { detail: "disk full".into() };
    let codes = [
        (unavailable(), ErrorCode::PersistenceConnectionFailed),
        (write, ErrorCode::PersistenceWriteFailed),
        (integrity, ErrorCode::PersistenceIntegrityError),
    ];
    let errors = codes.iter().map(|(error, _)| error.clone()).collect();
    let store = FlakyStore::flaky(errors, Vec::new());
    let mut harness = over(&store).await;
    for (error, code) in codes {
        let refused = harness.submit(two_steps().id("same")).await.err();
        assert_eq!(refused, Some(SubmitError::Store(error)));
        assert_eq!(refused.unwrap().code(), code);
    }
    assert!(harness.script.calls().is_empty());
    assert_eq!(harness.run(two_steps().id("same")).await.status, WorkflowStatus::Completed);
    harness.finish().await;
}

/// A store that loses its answer is asked again, and what it had committed is taken as its own:
/// the workflow runs, once.
#[actix::test]
async fn a_submission_whose_answer_was_lost_runs_once() {
    let store = FlakyStore::flaky(vec![unknown(), unknown()], Vec::new());
    let mut harness = over(&store).await;
    let record = harness.run(two_steps()).await;
    assert_eq!(record.status, WorkflowStatus::Completed);
    assert_eq!(harness.script.calls().len(), 2);
    harness.finish().await;
}

/// A read of a running workflow returns its stored state.
#[actix::test]
async fn a_query_is_answered_from_what_is_stored() {
    let store = FlakyStore::gated();
    store.pass_submits(1);
    let mut harness = over(&store).await;
    let sent = harness.submit(two_steps()).await.unwrap();
    harness.catch_up().await;
    let mut asking = Box::pin(harness.state(&sent.id));
    assert!(tokio::time::timeout(secs(1), &mut asking).await.is_err(), "told what is not stored");
    store.pass_records(1);
    let seen = asking.await.expect("it runs here");
    assert_eq!(seen.tasks[0].status, Completed);
    store.open();
    let stored = store.workflow(&sent.id).await.unwrap().unwrap();
    assert_eq!(stored.tasks[0].status, Completed);
    sent.end().await;
    assert!(harness.state(&stored.id).await.is_none(), "it does not run here any more");
    harness.finish().await;
}
