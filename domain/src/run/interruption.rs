//! The effect of the death of the process that ran a workflow.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::Run;
use crate::{
    error::{ErrorCode, TaskError},
    event::EventData,
    store::Epoch,
    task::TaskStatus,
};

/// A task that is to be tried once is begun again after its process has died, for that is not its
/// own failure, as a rule: but not more often than this.
pub(super) const CUT_OFF_MAX: u32 = 10;

impl Run {
    /// Another process, named `by`, resumes the workflow under its own lease, because the one that
    /// ran it died.
    pub fn recovered(&mut self, by: &Arc<str>, epoch: Epoch, left_by: Epoch, now: DateTime<Utc>) {
        let owner = Arc::clone(by);
        self.log(now, EventData::WorkflowRecovered { owner, epoch, left_by });
    }

    /// An attempt that had begun ended with its process, and counts. The task starts again, or
    /// fails if no attempt is left: the task may be the cause of the process's death. It is pending
    /// already, as if it had not begun.
    pub fn interrupted(&mut self, index: u32, now: DateTime<Utc>) {
        let task = &self.record.tasks[index as usize];
        if task.status != TaskStatus::Pending {
            return;
        }
        let policy = &self.plan.tasks[index as usize].retry;
        let attempts_max = if policy.max_attempts > 1 { policy.max_attempts } else { CUT_OFF_MAX };
        let (task_id, attempt_count) = (task.id.clone(), task.attempts);
        self.log(now, EventData::TaskInterrupted { task_id, attempt_count, attempts_max });
        if attempt_count >= attempts_max {
            let message = format!(
                "the process that ran it ended during attempt {attempt_count} of {attempts_max}, \
                 and no other is left; `gleitzeit retry` runs it again"
            );
            let error = TaskError::new(ErrorCode::TaskRetryExhausted, message);
            self.fail(index, error, now);
        }
    }
}
