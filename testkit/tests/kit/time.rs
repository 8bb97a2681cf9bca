//! Time passes only when nothing is left to do.

use std::time::{Duration, Instant};

use gleitzeit::{ErrorCode, RetryPolicy, TaskSpec, WorkflowSpec, WorkflowStatus};
use gleitzeit_testkit::{Crash, HandlerError, TestKit};
use serde_json::json;

const HOUR: Duration = Duration::from_hours(1);

fn slow_policy(max_attempts: u32) -> RetryPolicy {
    let (base_delay, max_delay) = (Duration::from_mins(5), Duration::from_hours(1));
    RetryPolicy { max_attempts, base_delay, max_delay, jitter: false, ..RetryPolicy::default() }
}

fn pay(policy: RetryPolicy) -> WorkflowSpec {
    WorkflowSpec::new("order").task(TaskSpec::new("pay", "bank/pay").retry(policy))
}

/// More than a day of pauses costs no waiting. A machine takes some milliseconds for it, and no
/// bound is set here but that it is not a day.
#[test]
fn a_day_of_retries_is_over_at_once() {
    let mut kit = TestKit::new();
    kit.fake("bank/pay", |_| Err(HandlerError::new("closed").retryable()));
    let begun = Instant::now();
    let ended = kit.run(pay(slow_policy(30)));
    eprintln!("{:?} of retries took {:?}", kit.elapsed(), begun.elapsed());
    assert_eq!(ended.status, WorkflowStatus::Failed);
    let error = ended.task("pay").unwrap().error.as_deref().unwrap();
    assert_eq!(error.code, ErrorCode::TaskRetryExhausted);
    kit.assert_calls("bank/pay", 30);
    assert!(kit.elapsed() > 24 * HOUR, "{:?}", kit.elapsed());
}

/// `retry_after` holds to the second, and across a crash in the middle of the pause.
#[test]
fn a_pause_is_kept_over_a_crash() {
    let mut kit = TestKit::new();
    kit.fake("bank/pay", |call| match call.number {
        1 => Err(HandlerError::new("closed").retry_after(HOUR)),
        _ => Ok(json!("paid")),
    });
    kit.crash(Crash::after("task:retry_scheduled pay"));
    let ended = kit.run(pay(slow_policy(3)));
    assert_eq!(ended.status, WorkflowStatus::Completed, "{:?}", ended.lines());
    kit.assert_crashed();
    let (begun, done) = (ended.created_at, ended.completed_at.unwrap());
    assert!((done - begun).to_std().unwrap() >= HOUR, "{begun} to {done}");
    assert!(kit.elapsed() >= HOUR && kit.elapsed() < 2 * HOUR, "{:?}", kit.elapsed());
}

/// A fake that awaits takes virtual time, which the limits of tasks see.
#[test]
fn a_slow_fake_runs_into_the_tasks_timeout() {
    let mut kit = TestKit::new();
    kit.fake_async("bank/pay", |_| async {
        tokio::time::sleep(HOUR).await;
        Ok(json!("too late"))
    });
    let task = TaskSpec::new("pay", "bank/pay").timeout(HOUR / 2);
    let ended = kit.run(WorkflowSpec::new("order").task(task.retry(RetryPolicy::never())));
    assert_eq!(ended.task("pay").unwrap().error.as_deref().unwrap().code, ErrorCode::TaskTimeout);
    ended.assert_order(&["task:started pay", "task:timeout pay", "task:failed pay"]);
    assert!(kit.elapsed() >= HOUR / 2 && kit.elapsed() < HOUR, "{:?}", kit.elapsed());
}

/// A wait without an end is reported, not waited for.
#[test]
#[should_panic(expected = "in `workflow-1`, task `pay` is executing")]
fn a_workflow_that_never_ends_fails_its_test() {
    let mut kit = TestKit::new();
    kit.fake_async("bank/pay", |_| std::future::pending());
    let task = TaskSpec::new("pay", "bank/pay").timeout(10_000 * HOUR);
    kit.run(WorkflowSpec::new("order").task(task));
}
