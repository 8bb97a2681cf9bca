//! Stored workflows by their ids, for the commands about one workflow.

use gleitzeit_domain::{
    error::{ErrorCode, TaskError},
    id::{TaskId, WorkflowId},
    workflow::WorkflowRecord,
};

use super::{
    output::Failure,
    session::{Session, close},
};

/// A workflow as it stands in the store, without its large results.
///
/// # Errors
/// When it is not there.
pub(crate) async fn find(session: &Session, id: &WorkflowId) -> Result<WorkflowRecord, Failure> {
    let store = session.store_of(id).await?;
    let found = store.outline(id).await;
    close(store).await?;
    found?.ok_or_else(|| session.no_workflow(id))
}

/// The same with all results.
///
/// # Errors
/// When it is not there.
pub(crate) async fn find_whole(
    session: &Session,
    id: &WorkflowId,
) -> Result<WorkflowRecord, Failure> {
    let store = session.store_of(id).await?;
    let found = store.workflow(id).await;
    close(store).await?;
    found?.ok_or_else(|| session.no_workflow(id))
}

/// Rejects a task that the workflow does not have.
///
/// # Errors
/// `TASK_NOT_FOUND`; the message names some tasks of the workflow.
pub(crate) fn refuse_unknown(record: &WorkflowRecord, task: &TaskId) -> Result<(), Failure> {
    if record.tasks.iter().any(|it| it.id == *task) {
        return Ok(());
    }
    let mut known: Vec<&str> = record.tasks.iter().take(20).map(|it| it.id.as_str()).collect();
    if known.len() < record.tasks.len() {
        known.push("…");
    }
    let message =
        format!("workflow `{}` has no task `{task}`; it has {}", record.id, known.join(", "));
    Err(TaskError::new(ErrorCode::TaskNotFound, message).into())
}
