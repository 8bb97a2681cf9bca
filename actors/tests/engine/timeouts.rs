//! Limits of an attempt, of a task over all its attempts, and of a workflow.

use gleitzeit_domain::{
    error::ErrorCode,
    event::EventData,
    retry::Backoff::Fixed,
    task::TaskStatus::{Cancelled, Completed, Failed, UpstreamFailed},
    workflow::{WorkflowSpec, WorkflowStatus},
};
use serde_json::json;

use crate::support::{Ending, Harness, assert_at, code, of, quick, retries, secs, statuses, task};

/// The scopes and limits of the timeouts that were published of a task.
fn timeouts(harness: &Harness, task: &str) -> Vec<(String, f64)> {
    let published = harness.events.iter().filter_map(|event| match &event.data {
        EventData::TaskTimeout { task_id, scope, limit, .. } if task_id.as_str() == task => {
            Some((scope.to_string(), *limit))
        }
        _ => None,
    });
    published.collect()
}

/// An attempt that takes too long is cut off then, its call dropped, and it may be tried again.
#[actix::test]
async fn an_attempt_is_cut_off_at_its_limit() {
    let mut harness = Harness::open().await;
    let slow = task("t", json!({"sleep": 1000}));
    let spec =
        WorkflowSpec::new("late").task(slow.timeout(secs(7)).retry(retries(2, Fixed, secs(3))));
    let record = harness.run(spec).await;
    assert_eq!(code(&record, "t"), Some(ErrorCode::TaskRetryExhausted));
    let calls = harness.script.calls_of("t");
    let times = calls.iter().map(|call| (call.began, call.ended.unwrap(), call.ending));
    for ((began, ended, ending), expected) in times.zip([(0, 7), (10, 17)]) {
        assert_at(began, secs(expected.0));
        assert_at(ended, secs(expected.1));
        assert_eq!(ending, Ending::Dropped);
    }
    harness.catch_up().await;
    assert_eq!(timeouts(&harness, "t"), [("attempt".to_owned(), 7.0), ("attempt".to_owned(), 7.0)]);
    harness.finish().await;
}

/// A single attempt that is cut off fails the task with the limit in its words.
#[actix::test]
async fn a_timed_out_task_says_its_limit() {
    let mut harness = Harness::open().await;
    let spec = WorkflowSpec::new("late").task(task("t", json!({"sleep": 1000})).timeout(secs(7)));
    let record = harness.run(spec).await;
    let error = of(&record, "t").error.clone().unwrap();
    assert_eq!(error.code, ErrorCode::TaskTimeout);
    assert!(error.message.contains("7s") && error.message.contains("main"), "{error}");
    harness.finish().await;
}

/// `total_timeout` counts attempts and pauses together, and cuts off whatever it meets.
#[actix::test]
async fn a_task_ends_at_its_total_limit() {
    let mut harness = Harness::open().await;
    let fails = json!({"sleep": 10, "fail": "CONNECTION_LOST"});
    let many = retries(100, Fixed, secs(10));
    let spec = WorkflowSpec::new("total")
        // Its third attempt runs from 40 on.
        .task(task("calling", fails.clone()).retry(many.clone()).total_timeout(secs(45)))
        // Its second pause lasts from 30 to 40.
        .task(task("pausing", fails).retry(many).total_timeout(secs(35)))
        .task(quick("behind").after("pausing"));
    let record = harness.run(spec).await;
    assert_eq!(statuses(&record), [Failed, Failed, UpstreamFailed]);
    for (id, limit, attempts, last) in
        [("calling", 45, 3, Ending::Dropped), ("pausing", 35, 2, Ending::Done)]
    {
        assert_eq!(code(&record, id), Some(ErrorCode::TaskTimeout), "{id}");
        let task = of(&record, id);
        let took = task.completed_at.unwrap() - record.created_at;
        assert_at(took.to_std().unwrap(), secs(limit));
        let calls = harness.script.calls_of(id);
        assert_eq!((calls.len(), calls.last().unwrap().ending), (attempts, last), "{id}");
    }
    harness.catch_up().await;
    assert_eq!(timeouts(&harness, "calling"), [("task".to_owned(), 45.0)]);
    harness.finish().await;
}

/// The total limit also ends a task that still waits for its turn.
#[actix::test]
async fn a_total_limit_ends_a_task_that_waits() {
    let mut harness = Harness::open().await;
    let spec = WorkflowSpec::new("waiting")
        .max_parallel_tasks(1)
        .task(task("long", json!({"sleep": 100})))
        .task(quick("waits").total_timeout(secs(20)))
        .task(quick("last"));
    let record = harness.run(spec).await;
    assert_eq!(statuses(&record), [Completed, Failed, Completed]);
    assert_eq!(code(&record, "waits"), Some(ErrorCode::TaskTimeout));
    assert_eq!(harness.script.order(), ["long", "last"]);
    harness.finish().await;
}

/// A workflow whose time is up ends then, as timed out: calls are cut off, nothing starts.
#[actix::test]
async fn a_workflow_ends_at_its_limit() {
    let mut harness = Harness::open().await;
    let spec = WorkflowSpec::new("bounded")
        .timeout(secs(60))
        .task(quick("done"))
        .task(task("calling", json!({"sleep": 200})).after("done"))
        .task(task("pausing", json!({"fail": "CONNECTION_LOST"})).retry(retries(
            9,
            Fixed,
            secs(500),
        )))
        .task(quick("waiting").after("calling"));
    let sent = harness.submit(spec).await.unwrap();
    let id = sent.id.clone();
    let record = sent.end().await;
    assert_eq!(record.status, WorkflowStatus::TimedOut);
    assert_eq!(record.error.as_ref().map(|error| error.code), Some(ErrorCode::WorkflowTimeout));
    assert_eq!(statuses(&record), [Completed, Cancelled, Cancelled, Cancelled]);
    assert_at((record.completed_at.unwrap() - record.created_at).to_std().unwrap(), secs(60));
    harness.catch_up().await;
    let call = &harness.script.calls_of("calling")[0];
    assert_eq!(call.ending, Ending::Dropped);
    assert_at(call.ended.unwrap(), secs(60));
    assert_eq!(timeouts(&harness, "calling"), [("workflow".to_owned(), 60.0)]);
    assert_eq!(harness.published(&id).last().map(String::as_str), Some("workflow:failed"));
    harness.finish().await;
}

/// A limit that was not met leaves nothing behind: no timer, no late effect.
#[actix::test]
async fn limits_that_are_kept_do_nothing() {
    let mut harness = Harness::open().await;
    let spec = WorkflowSpec::new("in time")
        .timeout(secs(50))
        .task(task("t", json!({"sleep": 5})).timeout(secs(6)).total_timeout(secs(7)));
    let sent = harness.submit(spec).await.unwrap();
    let id = sent.id.clone();
    let record = sent.end().await;
    assert_eq!(record.status, WorkflowStatus::Completed);
    tokio::time::sleep(secs(100)).await;
    assert_eq!(harness.published(&id).last().map(String::as_str), Some("workflow:completed"));
    harness.finish().await;
}
