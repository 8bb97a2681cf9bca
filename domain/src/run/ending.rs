//! The end of a workflow: when all of its tasks are settled, when it is stopped, and when a person
//! opens it again.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::{Run, StopCause};
use crate::{
    error::{ErrorCode, TaskError},
    event::EventData,
    task::{TaskRecord, TaskStatus},
    workflow::WorkflowStatus,
};

impl Run {
    /// Settles the workflow when all of its tasks are; true when it did now.
    pub fn conclude(&mut self, now: DateTime<Utc>) -> bool {
        if self.unsettled > 0 || self.is_settled() {
            return false;
        }
        let failure = self.first_failure.or_else(|| {
            let never_ran = |task: &&TaskRecord| task.status == TaskStatus::UpstreamFailed;
            self.record.tasks.iter().find(never_ran).map(|task| task.index)
        });
        let duration = self.close(now);
        let event = match failure {
            None => {
                self.record.status = WorkflowStatus::Completed;
                EventData::WorkflowCompleted { duration }
            }
            Some(index) => {
                let task = &self.record.tasks[index as usize];
                let why = task.error.as_ref().map_or_else(String::new, |e| format!(": {e}"));
                let message = format!("task `{}` is {}{why}", task.id, task.status);
                self.record.status = WorkflowStatus::Failed;
                self.failed_event(ErrorCode::WorkflowExecutionFailed, message, duration)
            }
        };
        self.log(now, event);
        true
    }

    /// Stops every task that is not settled, and the workflow with them; false when it was settled.
    pub fn stop(&mut self, cause: &StopCause, now: DateTime<Utc>) -> bool {
        if self.is_settled() {
            return false;
        }
        let reason: Arc<str> = match cause {
            StopCause::Cancelled { reason } => Arc::clone(reason),
            StopCause::TimedOut { limit } => {
                format!("the workflow did not end within {limit:?}").into()
            }
        };
        for index in 0..u32::try_from(self.record.tasks.len()).unwrap_or(u32::MAX) {
            if let StopCause::TimedOut { limit } = cause
                && self.task(index).status == TaskStatus::Executing
            {
                let event = EventData::TaskTimeout {
                    task_id: self.task(index).id.clone(),
                    scope: "workflow".into(),
                    limit: limit.as_secs_f64(),
                    attempt_count: self.task(index).attempts,
                };
                self.log(now, event);
            }
            self.cancel_task(index, &reason, now);
        }
        let duration = self.close(now);
        let event = match cause {
            StopCause::Cancelled { .. } => {
                self.record.status = WorkflowStatus::Cancelled;
                let error = TaskError::new(ErrorCode::WorkflowCancelled, reason.to_string());
                self.record.error = Some(Arc::new(error));
                EventData::WorkflowCancelled { reason, duration }
            }
            StopCause::TimedOut { .. } => {
                self.record.status = WorkflowStatus::TimedOut;
                self.failed_event(ErrorCode::WorkflowTimeout, reason.to_string(), duration)
            }
        };
        self.log(now, event);
        true
    }

    fn close(&mut self, now: DateTime<Utc>) -> f64 {
        self.record.completed_at = Some(now);
        self.workflow_dirty = true;
        (now - self.record.created_at).to_std().unwrap_or_default().as_secs_f64()
    }

    fn failed_event(&mut self, code: ErrorCode, message: String, duration: f64) -> EventData {
        let event = EventData::WorkflowFailed {
            status: self.record.status.as_str().into(),
            error_code: code,
            error_message: message.as_str().into(),
            duration,
        };
        self.record.error = Some(Arc::new(TaskError::new(code, message)));
        event
    }

    /// Opens a settled workflow again: every task that did not complete is pending as at first.
    ///
    /// True when there was such a task.
    pub fn reopen(&mut self) -> bool {
        // What conditions left out is decided again with the rest, and is nothing to run by itself.
        let is_open = |task: &TaskRecord| {
            task.status.can_become(TaskStatus::Pending) && task.status != TaskStatus::Skipped
        };
        if !self.record.tasks.iter().any(is_open) {
            return false;
        }
        let mut reopened = 0;
        for task in &mut self.record.tasks {
            if task.status.can_become(TaskStatus::Pending) {
                let again = TaskRecord::pending(task.index, task.id.clone(), task.name.clone());
                *task = again;
                self.dirty.push(task.index);
                reopened += 1;
            }
        }
        self.unsettled += reopened;
        self.first_failure = None;
        if reopened > 0 {
            self.record.status = WorkflowStatus::Running;
            self.record.completed_at = None;
            self.record.error = None;
            self.workflow_dirty = true;
        }
        reopened > 0
    }
}
