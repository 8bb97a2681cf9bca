//! The effect of a failed attempt on its task: another attempt after a pause, or the end.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};

use super::{AttemptOutcome, Run};
use crate::{
    error::{ErrorCode, TaskError},
    event::EventData,
    protocol::Effect,
    retry::RetryPolicy,
    task::TaskStatus,
};

/// The next step of a task whose attempt was interrupted, or did not begin, because the lease
/// expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interruption {
    /// It waits for its turn again.
    Queued,
    /// The call had begun and must not run twice: a person has to resolve it.
    Unknown,
    /// The task was settled before, or this is an older attempt: nothing changed.
    Stale,
}

impl Run {
    /// An attempt did not begin its call, and is to begin later.
    pub fn hold_back(&mut self, index: u32, attempt: u32, now: DateTime<Utc>) -> Interruption {
        let task = self.task(index);
        match task.status {
            TaskStatus::Queued if task.attempts + 1 == attempt => Interruption::Queued,
            TaskStatus::Executing if task.attempts == attempt => self.queue_again(index, now),
            _ => Interruption::Stale,
        }
    }

    /// The call of an attempt was cut off; what it has done outside is not known. It counts as an
    /// attempt, and is not the last one for that.
    pub fn cut_off(&mut self, index: u32, attempt: u32, now: DateTime<Utc>) -> Interruption {
        let task = self.task(index);
        if task.status != TaskStatus::Executing || task.attempts != attempt {
            return self.hold_back(index, attempt, now);
        }
        if self.must_not_repeat(index) {
            self.outcome_unknown(index, now);
            return Interruption::Unknown;
        }
        let attempts_max = self.plan.tasks[index as usize].retry.max_attempts.max(attempt + 1);
        let task_id = self.task(index).id.clone();
        self.log(now, EventData::TaskInterrupted { task_id, attempt_count: attempt, attempts_max });
        self.queue_again(index, now)
    }

    fn queue_again(&mut self, index: u32, now: DateTime<Utc>) -> Interruption {
        if self.queue(index, now).is_err() {
            return Interruption::Stale;
        }
        // The start may be stored: a crash before the next one would leave the task in doubt
        // without need.
        if self.must_not_repeat(index) {
            self.set_dirty(index);
        }
        Interruption::Queued
    }

    fn must_not_repeat(&self, index: u32) -> bool {
        let method = self.plan.tasks[index as usize].method.as_ref();
        method.is_ok_and(|method| method.spec.effect == Effect::AtMostOnce)
    }

    /// An attempt failed: the task is tried again, or has failed.
    pub(super) fn fail_attempt(
        &mut self,
        index: u32,
        error: TaskError,
        now: DateTime<Utc>,
        random: f64,
    ) -> AttemptOutcome {
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
            return AttemptOutcome::Retry(pause);
        }
        let error = exhausted(error, attempt, &planned.retry);
        self.fail(index, error, now);
        AttemptOutcome::Settled(false)
    }

    /// A call that must not run twice is repeated only if it has not begun, or if the error itself
    /// allows it, such as that of a provider that rejected the call under load.
    fn may_repeat(&self, index: u32, error: &TaskError) -> bool {
        let once = self.must_not_repeat(index);
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
        self.set_dirty(index);
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
