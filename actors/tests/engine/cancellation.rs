//! Cancellation of a task, a branch, a workflow, wherever its tasks are on their way.

use gleitzeit_domain::{
    error::ErrorCode,
    resources::{ResourceRequirements, Resources},
    retry::Backoff::Fixed,
    task::TaskStatus::{self, Cancelled, Completed, UpstreamFailed},
    workflow::{TaskSpec, WorkflowSpec, WorkflowStatus},
};
use serde_json::json;

use crate::support::{
    Ending, Harness, Setup, assert_at, code, of, quick, retries, secs, statuses, task,
};

/// Cancelling a task drops its call at once; its branch is skipped, the others go on.
#[actix::test]
async fn a_cancelled_task_stops_its_call_and_its_branch() {
    let mut harness = Harness::open().await;
    let spec = WorkflowSpec::new("branches")
        .task(task("stop", json!({"sleep": 100})))
        .task(quick("behind").after("stop"))
        .task(task("other", json!({"sleep": 50})))
        .task(quick("end").after("other"));
    let sent = harness.submit(spec).await.unwrap();
    harness.until_task("task:started", "stop").await;
    tokio::time::sleep(secs(10)).await;
    harness.cancel_task(&sent.id, "stop").await.unwrap();
    harness.catch_up().await;
    let call = &harness.script.calls_of("stop")[0];
    assert_eq!(call.ending, Ending::Dropped);
    assert_at(call.ended.unwrap(), secs(10));
    let record = sent.end().await;
    assert_eq!(statuses(&record), [Cancelled, UpstreamFailed, Completed, Completed]);
    assert_eq!(code(&record, "stop"), Some(ErrorCode::TaskCancelled));
    assert!(of(&record, "stop").error.as_ref().unwrap().message.contains("enough"));
    assert_eq!(record.status, WorkflowStatus::Failed);
    harness.finish().await;
}

/// Cancelling a workflow drops every call of it, and of no other.
#[actix::test]
async fn a_cancelled_workflow_stops_all_its_calls() {
    let mut harness = Harness::open().await;
    let wide = |name: &str| {
        let calls = (0..20).map(|n| task(&format!("{name}{n}"), json!({"sleep": 100})));
        calls.fold(WorkflowSpec::new(name), WorkflowSpec::task)
    };
    let stopped = harness.submit(wide("a").task(quick("last").after("a0"))).await.unwrap();
    let left = harness.submit(wide("b")).await.unwrap();
    harness.until_task("task:started", "b19").await;
    harness.cancel(&stopped.id).await.unwrap();
    let id = stopped.id.clone();
    let record = stopped.end().await;
    assert_eq!(record.status, WorkflowStatus::Cancelled);
    assert_eq!(record.error.as_ref().map(|error| error.code), Some(ErrorCode::WorkflowCancelled));
    assert!(statuses(&record).iter().all(|status| *status == Cancelled));
    harness.catch_up().await;
    assert_eq!(harness.script.running(), 20, "only those of the other workflow run");
    assert_eq!(harness.published(&id).last().map(String::as_str), Some("workflow:cancelled"));
    assert_eq!(left.end().await.status, WorkflowStatus::Completed);
    harness.finish().await;
}

/// Half a machine for each of two, none for the third.
fn half(spec: TaskSpec) -> TaskSpec {
    spec.resources(ResourceRequirements { memory_mb: Some(512), ..Default::default() })
}

/// A task that waits for resources can be cancelled: it leaves the line, and its place is free.
#[actix::test]
async fn tasks_that_wait_for_a_lease_leave_the_line() {
    let resources = Resources { memory_mib: 1024, ..Resources::UNLIMITED };
    let mut harness = Setup { resources, ..Setup::default() }.open().await;
    let hold = |id: &str| half(task(id, json!({"gate": "g"})));
    let holders = WorkflowSpec::new("holders").task(hold("h1")).task(hold("h2"));
    let holders = harness.submit(holders).await.unwrap();
    harness.until_task("task:started", "h2").await;
    let one = WorkflowSpec::new("one").task(half(quick("w1"))).task(half(quick("w2")));
    let one = harness.submit(one).await.unwrap();
    let all = harness.submit(WorkflowSpec::new("all").task(half(quick("w3")))).await.unwrap();
    harness.catch_up().await;
    assert_eq!(harness.resources().await.waiting, 3);
    harness.cancel_task(&one.id, "w1").await.unwrap();
    harness.cancel(&all.id).await.unwrap();
    harness.catch_up().await;
    assert_eq!(harness.resources().await.waiting, 1, "the cancelled ones wait no more");
    assert_eq!(harness.engine_counts().await.in_flight, 3);
    assert_eq!(all.end().await.status, WorkflowStatus::Cancelled);
    harness.script.open("g");
    holders.end().await;
    assert_eq!(statuses(&*one.end().await), [Cancelled, Completed]);
    assert_eq!(harness.script.order(), ["h1", "h2", "w2"]);
    harness.finish().await;
}

/// A task that waits for a busy or a missing provider can be cancelled too.
#[actix::test]
async fn tasks_that_wait_for_a_provider_leave_the_line() {
    let mut harness = Setup { providers: vec![("main", Some(1))], ..Setup::default() }.open().await;
    let spec = WorkflowSpec::new("waiting")
        .task(task("busy", json!({"gate": "g"})))
        .task(quick("behind-busy"))
        .task(TaskSpec::new("nobody", "other/run"))
        .task(quick("next"));
    let sent = harness.submit(spec).await.unwrap();
    harness.until_task("task:started", "busy").await;
    harness.catch_up().await;
    assert_eq!(harness.engine_counts().await.parked, 3);
    harness.cancel_task(&sent.id, "behind-busy").await.unwrap();
    harness.cancel_task(&sent.id, "nobody").await.unwrap();
    harness.catch_up().await;
    assert_eq!(harness.engine_counts().await.parked, 1);
    harness.script.open("g");
    let record = sent.end().await;
    assert_eq!(statuses(&record), [Completed, Cancelled, Cancelled, Completed]);
    assert!(harness.script.now() < secs(1), "nobody waited for the provider that never came");
    harness.finish().await;
}

/// A task between two attempts can be cancelled: the next attempt never begins.
#[actix::test]
async fn a_pending_retry_can_be_cancelled() {
    let mut harness = Harness::open().await;
    let spec = WorkflowSpec::new("pausing")
        .task(task("t", json!({"fail": "CONNECTION_LOST"})).retry(retries(5, Fixed, secs(100))));
    let sent = harness.submit(spec).await.unwrap();
    harness.until_task("task:retry_scheduled", "t").await;
    harness.cancel_task(&sent.id, "t").await.unwrap();
    let record = sent.end().await;
    assert_eq!(statuses(&record), [Cancelled]);
    tokio::time::sleep(secs(200)).await;
    assert_eq!(harness.script.calls_of("t").len(), 1);
    harness.finish().await;
}

/// Tasks in line behind `max_concurrent_tasks`, and in a workflow's own backlog, never start once
/// cancelled, and do not use up the room of others.
#[actix::test]
async fn queued_tasks_can_be_cancelled() {
    let mut setup = Setup::default();
    setup.engine.max_concurrent_tasks = 2;
    let mut harness = setup.open().await;
    let gated = (0..6).map(|n| task(&format!("t{n}"), json!({"gate": "g"})));
    let spec = gated.fold(WorkflowSpec::new("line").max_parallel_tasks(3), WorkflowSpec::task);
    let sent = harness.submit(spec).await.unwrap();
    harness.until_task("task:started", "t1").await;
    for id in ["t2", "t4"] {
        harness.cancel_task(&sent.id, id).await.unwrap();
    }
    harness.script.open("g");
    let record = sent.end().await;
    let expected = [Completed, Completed, Cancelled, Completed, Cancelled, Completed];
    assert_eq!(statuses(&record), expected);
    assert_eq!(harness.script.order(), ["t0", "t1", "t3", "t5"]);
    assert_eq!(harness.script.peak(""), 2);
    harness.finish().await;
}

/// Cancelling what is over, or was never there, is refused and changes nothing.
#[actix::test]
async fn what_is_settled_cannot_be_cancelled() {
    let mut harness = Harness::open().await;
    let spec =
        WorkflowSpec::new("over").task(quick("done")).task(task("open", json!({"gate": "g"})));
    let sent = harness.submit(spec).await.unwrap();
    harness.until_task("task:completed", "done").await;
    let code = |answer: Result<(), gleitzeit_domain::error::TaskError>| answer.unwrap_err().code;
    let of_task = |task: &'static str| harness.cancel_task(&sent.id, task);
    assert_eq!(code(of_task("done").await), ErrorCode::WorkflowInvalidState);
    assert_eq!(code(of_task("nobody").await), ErrorCode::TaskNotFound);
    let unknown = "unknown".into();
    assert_eq!(code(harness.cancel_task(&unknown, "done").await), ErrorCode::WorkflowNotFound);
    assert_eq!(code(harness.cancel(&unknown).await), ErrorCode::WorkflowNotFound);
    harness.script.open("g");
    let id = sent.id.clone();
    assert_eq!(sent.end().await.status, WorkflowStatus::Completed);
    assert_eq!(code(harness.cancel(&id).await), ErrorCode::WorkflowNotFound);
    harness.finish().await;
}

/// A burst of cancellations in the middle of a burst of work leaves nothing half done.
#[actix::test]
async fn cancelling_in_the_thick_of_it_leaves_nothing_behind() {
    let mut harness = Harness::open().await;
    let mut sent = Vec::new();
    for round in 0..40_u32 {
        let calls = (0..10).map(|n| task(&format!("r{round}-{n}"), json!({"sleep": n})));
        let spec = calls.fold(WorkflowSpec::new("burst"), WorkflowSpec::task);
        sent.push(harness.submit(spec).await.unwrap());
        for _ in 0..round {
            tokio::task::yield_now().await;
        }
        harness.cancel(&sent.last().unwrap().id).await.unwrap();
    }
    for sent in sent {
        let record = sent.end().await;
        assert_eq!(record.status, WorkflowStatus::Cancelled);
        let settled = |status: &TaskStatus| matches!(status, Cancelled | Completed);
        assert!(statuses(&record).iter().all(settled));
    }
    harness.finish().await;
}
