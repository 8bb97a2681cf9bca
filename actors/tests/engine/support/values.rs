//! Tasks to submit, and values to expect.

use std::{future::Future, time::Duration};

use gleitzeit_domain::{
    error::ErrorCode,
    retry::{Backoff, RetryPolicy},
    task::{TaskRecord, TaskStatus},
    workflow::{TaskSpec, WorkflowRecord},
};
use serde_json::{Value, json};

/// The longest wait of a test, on the paused clock.
pub(super) const TIMEOUT: Duration = Duration::from_hours(6);

/// A task that calls the scripted provider; its parameters are the script (see [`script`](super::script)).
pub(crate) fn task(id: &str, script: Value) -> TaskSpec {
    TaskSpec::new(id, "test/run").params(script)
}

/// A task that completes at once.
pub(crate) fn quick(id: &str) -> TaskSpec {
    task(id, json!({}))
}

/// A task whose only attempt fails.
pub(crate) fn failing(id: &str) -> TaskSpec {
    task(id, json!({"fail": "TASK_EXECUTION_FAILED"}))
}

/// A policy without jitter and cap, so that times are exact.
pub(crate) fn retries(max_attempts: u32, backoff: Backoff, base: Duration) -> RetryPolicy {
    RetryPolicy {
        max_attempts,
        backoff,
        base_delay: base,
        max_delay: Duration::from_hours(24),
        jitter: false,
        ..RetryPolicy::default()
    }
}

pub(crate) const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Timers are exact to the millisecond, and a chain of a few adds up.
pub(crate) fn assert_at(actual: Duration, expected: Duration) {
    let late = actual.checked_sub(expected);
    assert!(
        late.is_some_and(|late| late < Duration::from_millis(20)),
        "at {actual:?} instead of {expected:?}"
    );
}

/// Awaits something that must happen; on the paused clock, a wait without an end takes no time.
pub(crate) async fn within<T>(it: impl Future<Output = T>) -> T {
    tokio::time::timeout(TIMEOUT, it).await.expect("it never happened")
}

/// A task of a record, by its id.
pub(crate) fn of<'a>(record: &'a WorkflowRecord, task: &str) -> &'a TaskRecord {
    record.tasks.iter().find(|it| it.id.as_str() == task).expect("a task of this id")
}

/// The statuses of all tasks, in order.
pub(crate) fn statuses(record: &WorkflowRecord) -> Vec<TaskStatus> {
    record.tasks.iter().map(|task| task.status).collect()
}

/// The code that a task ended with.
pub(crate) fn code(record: &WorkflowRecord, task: &str) -> Option<ErrorCode> {
    of(record, task).error.as_ref().map(|error| error.code)
}

/// The result of a completed task.
pub(crate) fn result<'a>(record: &'a WorkflowRecord, task: &str) -> &'a Value {
    of(record, task).result.as_ref().expect("a result")
}
