//! The steps of a task: queued, started, finished, failed, skipped, cancelled.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::{
    AttemptOutcome, Run,
    measure::{NotAResult, error_size, result_size, storable},
    unstored::Unstored,
};
use crate::{
    error::{ErrorCode, TaskError},
    event::EventData,
    id::ProviderId,
    provider::Outcome,
    task::{ImpossibleTransition, TaskStatus, WAITS},
    workflow::WorkflowStatus,
};

impl Run {
    /// A task's dependencies have settled: it waits for its turn.
    ///
    /// # Errors
    /// [`ImpossibleTransition`] as the table says.
    pub fn queue(&mut self, index: u32, now: DateTime<Utc>) -> Result<(), ImpossibleTransition> {
        self.step(index, TaskStatus::Queued)?;
        let task = &mut self.record.tasks[index as usize];
        task.due_at = None;
        let task_id = task.id.clone();
        let priority = self.plan.spec.tasks[index as usize].priority;
        self.log(now, EventData::TaskQueued { task_id, priority });
        Ok(())
    }

    /// Starts an attempt and returns its number.
    ///
    /// # Errors
    /// [`ImpossibleTransition`] if the table does not allow it.
    pub fn start(
        &mut self,
        index: u32,
        provider_id: ProviderId,
        now: DateTime<Utc>,
    ) -> Result<u32, ImpossibleTransition> {
        self.step(index, TaskStatus::Executing)?;
        if self.record.started_at.is_none() {
            self.record.started_at = Some(now);
            self.begun = true;
            self.log(now, EventData::WorkflowStarted {});
        }
        if self.record.status == WorkflowStatus::Pending {
            self.record.status = WorkflowStatus::Running;
            self.begun = true;
        }
        let call = self.plan.tasks[index as usize].capability();
        self.waits_no_more(index);
        let task = &mut self.record.tasks[index as usize];
        task.attempts += 1;
        task.started_at = Some(now);
        task.provider_id = Some(provider_id.clone());
        let (task_id, attempt) = (task.id.clone(), task.attempts);
        self.log(now, EventData::TaskStarted { task_id, call, attempt, provider_id });
        Ok(attempt)
    }

    /// A queued task waits for providers that are all down, because of `reason`. The wait is
    /// written, so that readers of the store see it. False if the attempt is stale.
    pub fn wait_for_provider(
        &mut self,
        index: u32,
        attempt: u32,
        reason: &Arc<str>,
        now: DateTime<Utc>,
    ) -> bool {
        let task = &mut self.record.tasks[index as usize];
        if task.status != TaskStatus::Queued || task.attempts + 1 != attempt {
            return false;
        }
        let message = format!("{WAITS}{reason}");
        task.error = Some(Arc::new(TaskError::new(ErrorCode::ProviderNotAvailable, message)));
        let task_id = task.id.clone();
        self.waits.insert(index);
        self.set_dirty(index);
        self.log(now, EventData::TaskWaiting { task_id, reason: Arc::clone(reason) });
        true
    }

    /// True for a task that is written down as waiting for a provider.
    pub fn waits_for_provider(&self, index: u32) -> bool {
        self.waits.contains(&index)
    }

    /// Clears the written reason of a wait.
    pub(super) fn waits_no_more(&mut self, index: u32) {
        if self.waits.remove(&index) {
            self.record.tasks[index as usize].error = None;
            self.set_dirty(index);
        }
    }

    /// An attempt goes to another provider, because the one it was to go to broke down before its
    /// call began.
    pub fn hand_over(&mut self, index: u32, provider_id: ProviderId) {
        self.record.tasks[index as usize].provider_id = Some(provider_id);
    }

    /// Writes a started task down before its call, for a method that must not run twice.
    pub fn save_start(&mut self, index: u32) {
        self.set_dirty(index);
        self.workflow_dirty = true;
    }

    /// Has a start written that has taken so long that others are to see it.
    pub fn record_start(&mut self, index: u32) {
        self.set_dirty(index);
    }

    /// An attempt ended. `random` (0..1) draws the jitter of a retry; `duration` is of the call.
    pub fn finish(
        &mut self,
        index: u32,
        attempt: u32,
        outcome: Result<Outcome, TaskError>,
        duration: Option<Duration>,
        now: DateTime<Utc>,
        random: f64,
    ) -> AttemptOutcome {
        let task = &mut self.record.tasks[index as usize];
        let running = match task.status {
            TaskStatus::Executing => task.attempts == attempt,
            // Refused before its call began: parameters, resources, no provider.
            TaskStatus::Queued => task.attempts + 1 == attempt,
            _ => false,
        };
        if !running {
            return AttemptOutcome::Stale;
        }
        if task.status == TaskStatus::Queued {
            task.attempts = attempt;
        }
        self.waits.remove(&index);
        task.duration = duration.map(|span| span.as_secs_f64());
        let has_effect =
            task.status == TaskStatus::Executing && self.plan.tasks[index as usize].has_effect();
        let outcome = outcome.and_then(|Outcome { value, .. }| {
            let size = result_size(&value, self.result_max).map_err(NotAResult::into_error)?;
            Ok((value, size))
        });
        match outcome {
            Ok((value, size)) => {
                self.unstored += Unstored::of_call(has_effect, size);
                self.complete(index, value, size, now);
                AttemptOutcome::Settled(true)
            }
            Err(error) => {
                let error = storable(error, self.result_max);
                self.unstored += Unstored::of_call(has_effect, error_size(&error));
                self.fail_attempt(index, error, now, random)
            }
        }
    }

    pub(super) fn complete(
        &mut self,
        index: u32,
        value: Arc<Value>,
        size: u64,
        now: DateTime<Utc>,
    ) {
        let task = &mut self.record.tasks[index as usize];
        task.result = Some(value);
        task.error = None;
        let event = EventData::TaskCompleted {
            task_id: task.id.clone(),
            execution_time: task.duration.unwrap_or(0.0),
            provider_id: task.provider_id.clone(),
            result_size: size,
        };
        self.settle(index, TaskStatus::Completed, now);
        self.log(now, event);
    }

    /// A task ends with an error and is not tried again. No effect on a settled one.
    pub fn fail(&mut self, index: u32, error: TaskError, now: DateTime<Utc>) {
        if self.record.tasks[index as usize].status.is_settled() {
            return;
        }
        let task = &self.record.tasks[index as usize];
        let event = EventData::TaskFailed {
            task_id: task.id.clone(),
            error_code: error.code,
            error_message: error.message.as_ref().into(),
            is_retryable: error.is_retryable(),
            attempt_count: task.attempts,
            max_retries: self.plan.tasks[index as usize].retry.max_attempts.saturating_sub(1),
        };
        self.record.tasks[index as usize].error = Some(Arc::new(error));
        self.settle(index, TaskStatus::Failed, now);
        self.log(now, event);
    }

    /// A task's whole time ran out, pauses included.
    pub fn time_out(&mut self, index: u32, limit: Duration, now: DateTime<Utc>) {
        let task = &self.record.tasks[index as usize];
        let event = EventData::TaskTimeout {
            task_id: task.id.clone(),
            scope: "task".into(),
            limit: limit.as_secs_f64(),
            attempt_count: task.attempts,
        };
        let mut message = format!(
            "task `{}` did not end within {limit:?} over all its attempts; raise `total_timeout`",
            task.id
        );
        if let Some(wait) = task.error.as_ref().filter(|_| self.waits.contains(&index)) {
            message = format!("{message}; it still {}", wait.message);
        }
        self.log(now, event);
        self.fail(index, TaskError::new(ErrorCode::TaskTimeout, message).retryable(false), now);
        self.signal.raise();
    }

    /// A task never runs, because task `because` did not complete.
    pub fn upstream_failed(&mut self, index: u32, because: u32, now: DateTime<Utc>) {
        if self.record.tasks[index as usize].status.is_settled() {
            return;
        }
        let failed_task_id = self.record.tasks[because as usize].id.clone();
        let error = self.dependency_error(because);
        let task = &mut self.record.tasks[index as usize];
        let event = EventData::TaskUpstreamFailed { task_id: task.id.clone(), failed_task_id };
        task.error = Some(Arc::new(error));
        self.settle(index, TaskStatus::UpstreamFailed, now);
        self.log(now, event);
    }

    /// A task fails because task `because` did not complete.
    pub fn fail_dependency(&mut self, index: u32, because: u32, now: DateTime<Utc>) {
        let error = self.dependency_error(because);
        self.fail(index, error, now);
    }

    pub(super) fn dependency_error(&self, because: u32) -> TaskError {
        let mut task = &self.record.tasks[because as usize];
        // After a crash the cause may be one that was itself decided: the person who reads this wants
        // the task that failed.
        let data = task.error.as_ref().filter(|it| it.code == ErrorCode::TaskDependencyFailed);
        let root = data.and_then(|error| error.data.as_deref()?["failed_task_id"].as_str());
        if let Some(root) = root {
            let found = self.record.tasks.iter().find(|task| task.id.as_str() == root);
            task = found.unwrap_or(task);
        }
        TaskError::new(
            ErrorCode::TaskDependencyFailed,
            format!("needs task `{}`, which is {}", task.id, task.status),
        )
        .with_data(serde_json::json!({ "failed_task_id": task.id }))
    }

    /// Stops one task; true when it was not settled before.
    pub fn cancel_task(&mut self, index: u32, reason: &Arc<str>, now: DateTime<Utc>) -> bool {
        if self.record.tasks[index as usize].status.is_settled() {
            return false;
        }
        let task = &mut self.record.tasks[index as usize];
        let event =
            EventData::TaskCancelled { task_id: task.id.clone(), reason: Arc::clone(reason) };
        let message = format!("task `{}` was cancelled: {reason}", task.id);
        task.error = Some(Arc::new(TaskError::new(ErrorCode::TaskCancelled, message)));
        self.settle(index, TaskStatus::Cancelled, now);
        self.signal.raise();
        self.log(now, event);
        true
    }

    /// After a crash: the task had begun, and must not run twice.
    pub fn outcome_unknown(&mut self, index: u32, now: DateTime<Utc>) {
        let task = &mut self.record.tasks[index as usize];
        if !task.status.can_become(TaskStatus::OutcomeUnknown) {
            return;
        }
        task.status = TaskStatus::OutcomeUnknown;
        let event = EventData::TaskOutcomeUnknown {
            task_id: task.id.clone(),
            attempt_count: task.attempts,
        };
        self.set_dirty(index);
        self.log(now, event);
    }

    pub(super) fn step(&mut self, index: u32, to: TaskStatus) -> Result<(), ImpossibleTransition> {
        let task = &mut self.record.tasks[index as usize];
        task.status = task.status.step(to)?;
        Ok(())
    }

    pub(super) fn settle(&mut self, index: u32, to: TaskStatus, now: DateTime<Utc>) {
        let task = &mut self.record.tasks[index as usize];
        debug_assert!(task.status.can_become(to), "{} to {to}", task.status);
        task.status = to;
        task.completed_at = Some(now);
        task.due_at = None;
        self.waits.remove(&index);
        self.unsettled -= 1;
        if matches!(to, TaskStatus::Failed | TaskStatus::Cancelled) {
            self.first_failure.get_or_insert(index);
        }
        self.set_dirty(index);
    }
}
