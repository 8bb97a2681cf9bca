//! What holds of the engine when writes are slow, fail or cross with what is asked meanwhile.

mod early;
mod harness;

use std::{sync::Arc, time::Duration};

use gleitzeit_domain::{
    command::Command,
    error::ErrorCode,
    needs::Needs,
    retry::RetryPolicy,
    run::{RunKey, TaskKey},
    store::{NewWorkflow, Store as _, StoreError},
    task::TaskStatus,
    workflow::WorkflowStatus,
};
use serde_json::json;
use tokio::sync::oneshot;

use crate::load_balancer::CancelTasks;

use self::harness::{
    Fault, Harness, HeldStore, hang, once, run_until_idle, statuses, task, workflow,
};
use super::{
    Apply, EngineCounts, EngineSettings, GetWorkflow, Recover, Recovered, Reopen, Shutdown,
};

fn cancel(id: &str) -> Apply {
    Apply { id: id.into(), command: Command::Cancel { reason: "enough".into() } }
}

/// A write that is under way says nothing of what changed after it was taken: a call that must not
/// run twice would begin before its start is stored.
#[actix::test]
async fn a_start_is_acknowledged_by_its_own_write() {
    let harness = Harness::new().await;
    harness.store.hold();
    harness.store.let_through(1);
    let tasks = [task("first", json!({})), once("only", json!({}))];
    let settled = harness.submit(workflow("w", tasks).max_parallel_tasks(1)).await;
    // The outcome of `first` is being written, and `only` is on its way.
    run_until_idle().await;
    harness.store.let_through(1);
    run_until_idle().await;
    assert_eq!(harness.made(), ["first"], "called before its start was stored");
    harness.store.let_through(1);
    run_until_idle().await;
    assert_eq!(harness.made(), ["first", "only"]);
    assert_eq!(statuses(&harness.stored("w").await)[1], TaskStatus::Executing);
    harness.store.release();
    let record = settled.await.unwrap().unwrap();
    assert_eq!(record.status, WorkflowStatus::Completed);
}

/// Whoever cancels is told once the cancellation is stored, not once something else is.
#[actix::test]
async fn a_cancellation_is_acknowledged_by_its_own_write() {
    let harness = Harness::new().await;
    harness.store.hold();
    harness.store.let_through(1);
    let settled = harness.submit(workflow("w", [task("a", json!({})), task("b", hang())])).await;
    run_until_idle().await;
    let mut cancelled = Box::pin(harness.actors.addresses.engine.send(cancel("w")));
    harness.store.let_through(1);
    let early = tokio::time::timeout(Duration::from_secs(1), &mut cancelled).await;
    assert!(early.is_err(), "told before it was stored: {early:?}");
    harness.store.release();
    cancelled.await.unwrap().unwrap();
    assert_eq!(harness.stored("w").await.status, WorkflowStatus::Cancelled);
    assert_eq!(settled.await.unwrap().unwrap().status, WorkflowStatus::Cancelled);
}

/// A settled workflow whose last write is under way cannot be cancelled, and who tries is told so.
#[actix::test]
async fn a_workflow_that_is_settled_and_not_stored_is_not_cancelled() {
    let harness = Harness::new().await;
    harness.store.hold();
    harness.store.let_through(1);
    let settled = harness.submit(workflow("w", [task("a", json!({}))])).await;
    run_until_idle().await;
    let refused = harness.actors.addresses.engine.send(cancel("w")).await.unwrap().unwrap_err();
    assert_eq!(refused.code, ErrorCode::WorkflowInvalidState);
    harness.store.release();
    assert_eq!(settled.await.unwrap().unwrap().status, WorkflowStatus::Completed);
}

/// A reader gets what the next write stores, however busy the workflow is, and never what is not
/// stored.
#[actix::test]
async fn a_reader_waits_for_one_write_and_no_longer() {
    let harness = Harness::new().await;
    harness.store.hold();
    harness.store.let_through(1);
    let chain = [task("a", json!({})), task("b", json!({})).after("a"), task("c", hang())];
    let _settled = harness.submit(workflow("w", chain)).await;
    run_until_idle().await;
    let (answer, read) = oneshot::channel();
    harness.actors.addresses.engine.do_send(GetWorkflow { id: "w".into(), answer });
    harness.store.let_through(1);
    let record = read.await.unwrap().unwrap();
    assert_eq!(statuses(&record)[0], TaskStatus::Completed);
    harness.store.release();
}

/// While the store refuses writes, a reader is sent to it instead of waiting for its recovery.
#[actix::test]
async fn a_reader_does_not_wait_for_a_store_that_fails() {
    let harness = Harness::new().await;
    let full = StoreError::Write { detail: "disk full".to_owned() };
    for _ in 0..3 {
        harness.store.spoil_record(Fault::Refused(full.clone()));
    }
    let settled = harness.submit(workflow("w", [task("a", json!({}))])).await;
    run_until_idle().await;
    let (answer, read) = oneshot::channel();
    harness.actors.addresses.engine.do_send(GetWorkflow { id: "w".into(), answer });
    assert_eq!(read.await.unwrap(), None);
    assert_eq!(settled.await.unwrap().unwrap().status, WorkflowStatus::Completed);
    assert_eq!(harness.stored("w").await.status, WorkflowStatus::Completed);
}

/// What changed while a write failed is written right after that write succeeds.
#[actix::test]
async fn changes_are_written_behind_a_write_that_was_repeated() {
    let harness = Harness::new().await;
    harness.store.spoil_record(Fault::DoneButUnknown);
    let spec = workflow("w", [task("a", json!({})), task("b", json!({})).after("a")]);
    let settled = harness.submit(spec).await;
    let other = harness.submit(workflow("v", [task("a", json!({}))])).await;
    assert_eq!(settled.await.unwrap().unwrap().status, WorkflowStatus::Completed);
    assert_eq!(other.await.unwrap().unwrap().status, WorkflowStatus::Completed);
    run_until_idle().await;
    assert_eq!(harness.engine_counts().await, EngineCounts::default());
    let events = harness.store.events(&"w".into(), 0, 100).await.unwrap();
    let sequences: Vec<u64> = events.iter().map(|event| event.sequence).collect();
    assert_eq!(sequences, (1..=events.len() as u64).collect::<Vec<_>>());
}

/// A store that wrote a submission and lost the answer has it; the workflow runs, once.
#[actix::test]
async fn a_submission_that_was_stored_in_doubt_runs() {
    let harness = Harness::new().await;
    harness.store.spoil_submit(Fault::DoneButUnknown);
    let settled = harness.submit(workflow("w", [task("a", json!({}))])).await;
    let record = settled.await.unwrap().unwrap();
    assert_eq!(record.status, WorkflowStatus::Completed);
    assert_eq!(harness.made(), ["a"]);
}

/// What was there before a write in doubt is not run a second time.
#[actix::test]
async fn a_workflow_that_existed_before_a_write_in_doubt_is_left_alone() {
    let harness = Harness::new().await;
    let first = harness.submit(workflow("w", [task("a", json!({}))])).await;
    first.await.unwrap().unwrap();
    harness.store.spoil_submit(Fault::DoneButUnknown);
    let again = harness.submit(workflow("w", [task("a", json!({}))])).await;
    assert_eq!(again.await.unwrap().unwrap().status, WorkflowStatus::Completed);
    assert_eq!(harness.made(), ["a"]);
    assert_eq!(harness.engine_counts().await, EngineCounts::default());
}

/// Submissions share a transaction; one that cannot be stored must not take the others with it.
#[actix::test]
async fn a_submission_that_cannot_be_stored_is_refused_alone() {
    let harness = Harness::new().await;
    harness.store.poison("bad");
    let sent = ["one", "bad", "two"].map(|id| harness.send(workflow(id, [task("a", json!({}))])));
    let [one, bad, two] = sent;
    assert!(one.0.await.unwrap().is_ok());
    assert!(two.0.await.unwrap().is_ok());
    let refused = bad.0.await.unwrap().unwrap_err();
    assert_eq!(refused.code(), ErrorCode::PersistenceIntegrityError);
    assert!(bad.1.await.unwrap().is_err());
    for settled in [one.1, two.1] {
        assert_eq!(settled.await.unwrap().unwrap().status, WorkflowStatus::Completed);
    }
    assert_eq!(harness.engine_counts().await, EngineCounts::default());
}

/// Whoever cancels while the submission is being stored stops it before anything of it runs on.
#[actix::test]
async fn a_workflow_is_cancelled_on_its_way_in() {
    let harness = Harness::new().await;
    harness.store.hold();
    let (_, settled) = harness.send(workflow("w", [task("a", hang())]));
    run_until_idle().await;
    let cancelled = harness.actors.addresses.engine.send(cancel("w"));
    run_until_idle().await;
    harness.store.release();
    cancelled.await.unwrap().unwrap();
    assert_eq!(settled.await.unwrap().unwrap().status, WorkflowStatus::Cancelled);
    assert_eq!(harness.stored("w").await.status, WorkflowStatus::Cancelled);
    run_until_idle().await;
    assert_eq!(harness.engine_counts().await, EngineCounts::default());
}

/// A stop does not wait for its deadline once the last submission is stored.
#[actix::test]
async fn a_stop_waits_for_a_submission_and_no_longer() {
    let harness = Harness::new().await;
    harness.store.hold();
    let (accepted, _settled) = harness.send(workflow("w", [task("a", json!({}))]));
    run_until_idle().await;
    let begun = tokio::time::Instant::now();
    let stopped =
        harness.actors.addresses.engine.send(Shutdown { deadline: Duration::from_hours(1) });
    run_until_idle().await;
    harness.store.release();
    let report = stopped.await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert!(accepted.await.unwrap().is_ok());
    assert_eq!((report.unsettled.len(), report.stored), (1, true));
    assert_eq!(harness.made(), Vec::<String>::new());
}

/// Whoever stops ends what waits; a call that began in the same moment has not failed by that.
#[actix::test]
async fn a_call_that_the_stop_ends_is_left_to_the_next_start() {
    let harness = Harness::new().await;
    let _settled = harness.submit(workflow("w", [task("a", hang())])).await;
    run_until_idle().await;
    let stopped =
        harness.actors.addresses.engine.send(Shutdown { deadline: Duration::from_hours(1) });
    let begun = TaskKey { run: RunKey(1), index: 0 };
    harness.actors.addresses.balancer.do_send(CancelTasks(Arc::new(vec![begun])));
    let report = stopped.await.unwrap();
    assert_eq!(report.abandoned, [("w".into(), "a".into())]);
    assert_eq!(harness.stored("w").await.status, WorkflowStatus::Pending);
    assert_eq!(statuses(&harness.stored("w").await), [TaskStatus::Pending]);
}

/// One workflow whose outcome cannot be stored must not keep those of all others in memory.
#[actix::test]
async fn an_outcome_that_cannot_be_stored_holds_up_no_other() {
    let harness = Harness::new().await;
    harness.store.hold();
    harness.store.let_through(1);
    let bad = harness.submit(workflow("bad", [task("a", json!({})), task("b", hang())])).await;
    harness.store.poison("bad");
    harness.store.release();
    let good = ["one", "two"].map(|id| workflow(id, [task("a", json!({}))]));
    for spec in good {
        let settled = harness.submit(spec).await;
        assert_eq!(settled.await.unwrap().unwrap().status, WorkflowStatus::Completed);
    }
    let error = bad.await.unwrap().unwrap_err();
    assert_eq!(error.code, ErrorCode::PersistenceIntegrityError);
    run_until_idle().await;
    assert_eq!(harness.engine_counts().await, EngineCounts::default());
    assert_eq!(harness.stored("bad").await.status, WorkflowStatus::Pending);
}

fn cancel_task(task: &str) -> Apply {
    let command = Command::CancelTask { task: task.into(), reason: "enough".into() };
    Apply { id: "w".into(), command }
}

/// A cancelled task gives its place to the next one, and one that had none gives none.
#[actix::test]
async fn a_cancelled_task_frees_the_place_that_it_had() {
    let harness = Harness::new().await;
    let tasks = (1..=6).map(|n| task(&format!("t{n}"), hang()));
    let _settled = harness.submit(workflow("w", tasks).max_parallel_tasks(2)).await;
    run_until_idle().await;
    assert_eq!(harness.made(), ["t1", "t2"]);
    let engine = &harness.actors.addresses.engine;
    engine.send(cancel_task("t3")).await.unwrap().unwrap();
    run_until_idle().await;
    assert_eq!(harness.made(), ["t1", "t2"], "a task in line has no place to give");
    engine.send(cancel_task("t1")).await.unwrap().unwrap();
    run_until_idle().await;
    assert_eq!(harness.made(), ["t1", "t2", "t4"]);
    engine.send(cancel_task("t4")).await.unwrap().unwrap();
    engine.send(cancel_task("t2")).await.unwrap().unwrap();
    run_until_idle().await;
    assert_eq!(harness.made(), ["t1", "t2", "t4", "t5", "t6"]);
}

/// A limit or a pause beyond all time is no limit; it must not bring the engine down.
#[actix::test]
async fn spans_beyond_all_time_are_never_over() {
    let harness = Harness::new().await;
    let endless = task("a", json!({})).timeout(Duration::MAX).total_timeout(Duration::MAX);
    let spec = workflow("w", [endless]).timeout(Duration::MAX);
    let record = harness.submit(spec).await.await.unwrap().unwrap();
    assert_eq!(record.status, WorkflowStatus::Completed);
    let policy = RetryPolicy {
        max_attempts: 2,
        base_delay: Duration::MAX,
        max_delay: Duration::MAX,
        ..RetryPolicy::default()
    };
    let failing = task("a", json!({"fail": "CONNECTION_LOST"})).retry(policy);
    let settled = harness.submit(workflow("v", [failing])).await;
    run_until_idle().await;
    assert_eq!(harness.stored("v").await.tasks[0].status, TaskStatus::RetryPending);
    harness.actors.addresses.engine.send(cancel("v")).await.unwrap().unwrap();
    assert_eq!(settled.await.unwrap().unwrap().status, WorkflowStatus::Cancelled);
}

/// A hundred thousand limits are set in a moment.
#[actix::test]
async fn limits_of_many_tasks_cost_the_same_for_each() {
    let harness = Harness::new().await;
    let limited = |n: u32| task(&format!("t{n}"), hang()).total_timeout(Duration::from_hours(1));
    let spec = workflow("w", (0..20_000).map(limited)).max_parallel_tasks(1);
    let begun = std::time::Instant::now();
    let _settled = harness.submit(spec).await;
    run_until_idle().await;
    assert_eq!(harness.engine_counts().await.timers, 20_000);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

/// What was read of a workflow that runs here, and settled before the answer came, is old: its
/// tasks are not run a second time.
#[actix::test]
async fn a_workflow_that_settles_during_a_recovery_is_not_taken_up() {
    let harness = Harness::new().await;
    harness.store.hold_reads();
    let settled = harness.submit(workflow("w", [task("a", json!({}))])).await;
    let stopped = harness.submit(workflow("v", [task("b", hang())])).await;
    let engine = &harness.actors.addresses.engine;
    harness.store.hold();
    let recovered = engine.send(Recover { id: None, hold: false });
    run_until_idle().await;
    harness.store.release();
    engine.send(cancel("v")).await.unwrap().unwrap();
    for end in [settled, stopped] {
        end.await.unwrap().unwrap();
    }
    harness.store.release_reads();
    assert_eq!(recovered.await.unwrap().unwrap(), Recovered::default());
    run_until_idle().await;
    assert_eq!(harness.made(), ["a", "b"]);
    assert_eq!(harness.engine_counts().await, EngineCounts::default());
    // It is over: what settled during it can be opened again.
    let reopened = engine.send(Reopen("v".into())).await.unwrap().unwrap();
    assert_eq!(reopened, Recovered { workflows: 1, tasks: 1, unreadable: 0, held: 0, unfit: 0 });
    let again = engine.send(Reopen("v".into())).await.unwrap().unwrap_err();
    assert_eq!(again.code, ErrorCode::WorkflowInvalidState);
}

/// A record that lacks tasks is left alone; it must not bring the engine down at every start.
#[actix::test]
async fn a_stored_workflow_without_its_tasks_is_left_alone() {
    let harness = Harness::new().await;
    let _settled = harness.submit(workflow("w", [task("a", hang())])).await;
    run_until_idle().await;
    let store = HeldStore::open();
    let mut record = harness.stored("w").await;
    record.tasks.clear();
    store
        .submit(vec![NewWorkflow {
            record,
            events: Vec::new(),
            epoch: None,
            needs: Needs::default(),
        }])
        .await
        .unwrap();
    let second = Harness::open(EngineSettings::default(), store).await;
    let recover = Recover { id: None, hold: false };
    let recovered = second.actors.addresses.engine.send(recover).await.unwrap().unwrap();
    assert_eq!(recovered, Recovered { workflows: 0, tasks: 0, unreadable: 1, held: 0, unfit: 0 });
    let settled = second.submit(workflow("v", [task("a", json!({}))])).await;
    assert_eq!(settled.await.unwrap().unwrap().status, WorkflowStatus::Completed);
}
