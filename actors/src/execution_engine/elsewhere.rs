//! Waits for workflows that do not run here, by reading the store.

use std::sync::Arc;

use gleitzeit_domain::{
    error::{ErrorCode, TaskError},
    id::WorkflowId,
    store::Store,
};

use super::callers::Waiter;
use crate::follower::Follower;

/// Answers a caller once a workflow has settled in the store, unless the caller goes before.
pub(super) async fn settled_elsewhere(follower: Follower, id: WorkflowId, waiter: Waiter) {
    let Waiter { mut answer, outline } = waiter;
    let end = tokio::select! {
        end = follower.settled(&id, !outline) => end,
        // The watch would otherwise last as long as the workflow runs.
        () = answer.closed() => return,
    };
    let _ = answer.send(end);
}

/// Answers with the end as it is stored; an error if the workflow has none yet, for no process runs
/// it.
pub(super) async fn answer_from_store(store: Arc<dyn Store>, id: WorkflowId, waiter: Waiter) {
    // Large results are read only for a caller that wants them.
    let found = if waiter.outline { store.outline(&id) } else { store.workflow(&id) };
    let answer = match found.await {
        Ok(Some(record)) if record.status.is_settled() => Ok(Arc::new(record)),
        Ok(Some(record)) => Err(TaskError::new(
            ErrorCode::WorkflowInvalidState,
            format!("workflow `{id}` is {}, but does not run here; resume it", record.status),
        )),
        Ok(None) => Err(TaskError::new(
            ErrorCode::WorkflowNotFound,
            format!("no workflow has the id `{id}`"),
        )),
        Err(error) => Err(error.into()),
    };
    let _ = waiter.answer.send(answer);
}
