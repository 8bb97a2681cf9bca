//! A person's word about a task whose outcome is unknown.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::{
    Run,
    measure::{NotAResult, result_size},
};
use crate::{
    error::{ErrorCode, TaskError},
    store::lease::Resolution,
    task::TaskStatus,
};

/// The effect of a person's resolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolved {
    /// The task is settled.
    Settled,
    /// It waits for its turn again.
    Queued,
}

impl Run {
    /// Ends the doubt about a task.
    ///
    /// # Errors
    /// `WORKFLOW_INVALID_STATE` when its outcome is not unknown; `TASK_RESULT_INVALID` when the
    /// result is not what its method returns, or cannot be stored. Nothing has changed then.
    pub fn settle_unknown(
        &mut self,
        index: u32,
        resolution: Resolution,
        now: DateTime<Utc>,
    ) -> Result<Resolved, TaskError> {
        let task = self.task(index);
        if task.status != TaskStatus::OutcomeUnknown {
            let message = format!(
                "task `{}` is {}; only a task that is outcome_unknown can be resolved",
                task.id, task.status
            );
            return Err(TaskError::new(ErrorCode::WorkflowInvalidState, message));
        }
        match resolution {
            Resolution::Completed { result } => {
                if let Ok(method) = &self.plan.tasks[index as usize].method {
                    method.check_result(&result)?;
                }
                let size = result_size(&result, self.result_max).map_err(NotAResult::into_error)?;
                self.complete(index, Arc::new(result), size, now);
                Ok(Resolved::Settled)
            }
            Resolution::Failed { message } => {
                let error = TaskError::new(ErrorCode::TaskExecutionFailed, message.to_string());
                self.fail(index, error.retryable(false), now);
                Ok(Resolved::Settled)
            }
            Resolution::Retry => {
                self.queue(index, now).map_err(|impossible| {
                    TaskError::new(ErrorCode::WorkflowInvalidState, impossible.to_string())
                })?;
                // The task must be written: a crash before the next outcome would lose the
                // resolution.
                self.set_dirty(index);
                Ok(Resolved::Queued)
            }
        }
    }
}
