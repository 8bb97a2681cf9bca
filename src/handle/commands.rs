//! Commands on workflows: cancel, resume, retry.

use gleitzeit_actors::execution_engine::{Recover, Recovered, Reopen};
use gleitzeit_domain::{
    command::Command,
    error::{ErrorCode, TaskError},
    id::{TaskId, WorkflowId},
};

use super::{Handle, stopped};

impl Handle {
    /// Cancels a workflow; its running calls end, in this process or another. A workflow that is
    /// stored and runs nowhere is cancelled, too.
    ///
    /// # Errors
    /// `WORKFLOW_NOT_FOUND`; `WORKFLOW_INVALID_STATE` if the workflow is settled, or if the process
    /// that runs it does not answer.
    pub async fn cancel(&self, id: &WorkflowId, reason: &str) -> Result<(), TaskError> {
        self.apply(id, Command::Cancel { reason: reason.into() }).await
    }

    /// Cancels one task; its dependents follow their policy. A task of a workflow that is stored and
    /// runs nowhere is cancelled, too, and no other task is run.
    ///
    /// # Errors
    /// `WORKFLOW_NOT_FOUND`, `TASK_NOT_FOUND`; `WORKFLOW_INVALID_STATE` if the task is settled, or if
    /// the process that runs it does not answer.
    pub async fn cancel_task(
        &self,
        id: &WorkflowId,
        task: &TaskId,
        reason: &str,
    ) -> Result<(), TaskError> {
        self.apply(id, Command::CancelTask { task: task.clone(), reason: reason.into() }).await
    }

    /// Resumes a stored workflow that is not settled, or all of them. Workflows that another live
    /// process runs are skipped.
    ///
    /// # Errors
    /// `WORKFLOW_NOT_FOUND`; `WORKFLOW_INVALID_STATE` if the named workflow is settled, or if another
    /// process runs it; those of the store.
    pub async fn resume(&self, id: Option<&WorkflowId>) -> Result<Recovered, TaskError> {
        let message = Recover { id: id.cloned(), hold: false };
        let recovered = self.addresses.engine.send(message).await.map_err(stopped)??;
        match id {
            Some(id) if recovered.held > 0 => {
                let message = format!("workflow `{id}` is run by another process");
                Err(TaskError::new(ErrorCode::WorkflowInvalidState, message))
            }
            _ => Ok(recovered),
        }
    }

    /// Retries the tasks of a settled workflow that did not complete.
    ///
    /// # Errors
    /// `WORKFLOW_NOT_FOUND`; `WORKFLOW_INVALID_STATE` if the workflow is not settled, or if all of its
    /// tasks completed.
    pub async fn retry(&self, id: &WorkflowId) -> Result<Recovered, TaskError> {
        self.addresses.engine.send(Reopen(id.clone())).await.map_err(stopped)?
    }
}
