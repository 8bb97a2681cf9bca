//! What the failure of an attempt means for its task: another one, after a pause, or the end.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};

use super::{Run, Verdict};
use crate::{
    error::{ErrorCode, TaskError},
    event::EventData,
    protocol::Effect,
    retry::RetryPolicy,
    task::TaskStatus,
};

impl Run {
    /// An attempt failed: the task is tried again, or has failed.
    pub(super) fn fail_attempt(
        &mut self,
        index: u32,
        error: TaskError,
        now: DateTime<Utc>,
        random: f64,
    ) -> Verdict {
        let planned = &self.plan.tasks[index as usize];
        let attempt = self.record.tasks[index as usize].attempts;
        if error.code == ErrorCode::TaskTimeout {
            let event = EventData::TaskTimeout {
                task_id: planned.id.clone(),
                scope: "attempt".into(),
                limit: planned.timeout.as_secs_f64(),
                attempt_count: attempt,
            };
            self.log(now, event);
        }
        let planned = &self.plan.tasks[index as usize];
        if let Some(pause) = planned.retry.pause_after(attempt, &error, random)
            && self.may_repeat(index, &error)
        {
            self.await_retry(index, error, pause, now);
            return Verdict::Retry(pause);
        }
        let error = exhausted(error, attempt, &planned.retry);
        self.fail(index, error, now);
        Verdict::Settled(false)
    }

    /// A call that must not run twice is repeated only where it has not begun, or where the error
    /// itself vouches for it, as that of a provider that refused it for load.
    fn may_repeat(&self, index: u32, error: &TaskError) -> bool {
        let method = self.plan.tasks[index as usize].method.as_ref();
        let once = method.is_ok_and(|method| method.spec.effect == Effect::AtMostOnce);
        let begun = self.task(index).status == TaskStatus::Executing;
        !(once && begun) || error.retryable == Some(true)
    }

    fn await_retry(&mut self, index: u32, error: TaskError, pause: Duration, now: DateTime<Utc>) {
        let max_retries = self.plan.tasks[index as usize].retry.max_attempts.saturating_sub(1);
        let due_at = later(now, pause);
        let task = &mut self.record.tasks[index as usize];
        debug_assert!(task.status.can_become(TaskStatus::RetryPending), "{}", task.status);
        task.status = TaskStatus::RetryPending;
        task.due_at = Some(due_at);
        let event = EventData::TaskRetryScheduled {
            task_id: task.id.clone(),
            attempt_count: task.attempts,
            max_retries,
            delay: pause.as_secs_f64(),
            due_at,
            error_code: error.code,
            error_message: error.message.as_ref().into(),
        };
        task.error = Some(Arc::new(error));
        self.mark(index);
        self.log(now, event);
    }
}

/// `pause` after `now`, or the end of time.
fn later(now: DateTime<Utc>, pause: Duration) -> DateTime<Utc> {
    let pause = TimeDelta::from_std(pause).unwrap_or(TimeDelta::MAX);
    now.checked_add_signed(pause).unwrap_or(DateTime::<Utc>::MAX_UTC)
}

/// Says that attempts were used up, where more than one was allowed.
fn exhausted(mut error: TaskError, attempt: u32, policy: &RetryPolicy) -> TaskError {
    let allowed = policy.max_attempts;
    if allowed > 1 && attempt >= allowed && policy.allows(&error) {
        let last = serde_json::to_value(&error).unwrap_or_default();
        error = TaskError::new(
            ErrorCode::TaskRetryExhausted,
            format!("all {allowed} attempts failed; the last one: {error}"),
        )
        .with_data(serde_json::json!({ "attempts": attempt, "last_error": last }));
    }
    error
}
