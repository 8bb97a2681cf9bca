//! The port to a store, which keeps workflows, tasks and events over restarts.
//!
//! The engine writes to it, in batches; handles, the runtime and the command line read it. A call
//! that returns `Ok` is committed. A call that fails has changed nothing that a later read could see,
//! or returns [`StoreError::Unknown`].
//!
//! A store keeps times to the microsecond, and may cut off finer parts.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    error::TaskError,
    event::Event,
    id::WorkflowId,
    needs::Needs,
    task::TaskRecord,
    workflow::{WorkflowRecord, WorkflowSpec, WorkflowStatus, WorkflowSummary},
};

pub mod audit;
pub mod conformance;
pub mod error;
pub mod lease;
mod parts;

pub use crate::epoch::Epoch;
pub use error::StoreError;
pub use lease::LeaseStore;

/// A new workflow, with the events of its submission.
#[derive(Debug, Clone)]
pub struct NewWorkflow {
    /// The workflow and its tasks; its `last_sequence` is that of the last event.
    pub record: WorkflowRecord,
    /// The events of its submission.
    pub events: Vec<Event>,
    /// The lease that owns it; `None` leaves it free for any claim.
    pub epoch: Option<Epoch>,
    /// The methods that a process must offer to claim it.
    pub needs: Needs,
}

/// The outcome of a submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Submitted {
    /// The workflow was written.
    Created,
    /// A workflow of this id existed; nothing was written.
    Existed,
}

/// A change of one workflow, written whole or not at all.
#[derive(Debug, Clone)]
pub struct WorkflowChange {
    /// The id of the workflow.
    pub id: WorkflowId,
    /// The workflow's own new state; `None` if it did not change.
    pub workflow: Option<WorkflowState>,
    /// The new state of each task that changed.
    pub tasks: Vec<TaskRecord>,
    /// The new events, in order; they follow the written ones without a gap.
    pub events: Vec<Event>,
    /// The sequence of the last event that is or will be written; stored even if `events` is empty.
    pub last_sequence: u64,
    /// The lease that owns the workflow, as the fencing token of this write; `None` in a store that
    /// one process uses, which checks nothing.
    pub epoch: Option<Epoch>,
}

/// The changing part of a workflow's own state.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkflowState {
    /// The status.
    pub status: WorkflowStatus,
    /// The time at which its first task started.
    pub started_at: Option<DateTime<Utc>>,
    /// The time at which it settled.
    pub completed_at: Option<DateTime<Utc>>,
    /// The error of a workflow that did not complete.
    pub error: Option<Arc<TaskError>>,
}

/// The filter of a list of workflows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ListFilter {
    /// Lists workflows of this status only.
    pub status: Option<WorkflowStatus>,
    /// Lists workflows of this name only.
    pub name: Option<String>,
    /// Only those submitted at this time or later.
    pub since: Option<DateTime<Utc>>,
    /// Only those submitted before this time.
    pub until: Option<DateTime<Utc>>,
    /// Upper limit of the listed workflows, the newest first.
    pub limit: usize,
    /// The number of newest workflows to skip.
    pub offset: usize,
}

impl Default for ListFilter {
    fn default() -> Self {
        Self { status: None, name: None, since: None, until: None, limit: 50, offset: 0 }
    }
}

impl ListFilter {
    /// True for a workflow of this status, name and time of submission.
    pub fn covers(&self, status: WorkflowStatus, name: &str, created_at: DateTime<Utc>) -> bool {
        self.status.is_none_or(|wanted| wanted == status)
            && self.name.as_deref().is_none_or(|wanted| wanted == name)
            && self.since.is_none_or(|since| since <= created_at)
            && self.until.is_none_or(|until| created_at < until)
    }
}

/// Another submission of a settled workflow, and the event that records it.
#[derive(Debug, Clone, PartialEq)]
pub struct Amendment {
    /// The workflow.
    pub id: WorkflowId,
    /// The new submission; its tasks are those of the old one.
    pub spec: Arc<WorkflowSpec>,
    /// The event of the change; its sequence is the one after the workflow's last.
    pub event: Event,
}

/// The outcome of a deletion, for one workflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// The workflow is gone, with its tasks, results and events.
    Deleted,
    /// No workflow has the id.
    Unknown,
    /// The workflow is not settled, or a process is about to run it again; nothing of it was deleted.
    Unsettled,
}

/// A store of workflows. An implementation must pass [`conformance::check`].
///
/// Writes take effect in the order of the calls. Every write may be repeated: the engine repeats a
/// failed write unchanged.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The name of the store for a person: `memory`, `sqlite:gleitzeit.db`.
    fn describe(&self) -> String;

    /// False if no write can fail, so that the engine keeps nothing for a retry.
    fn is_fallible(&self) -> bool {
        true
    }

    /// The leases by which several processes share it; `None` for a store of one process.
    fn leases(&self) -> Option<&dyn LeaseStore> {
        None
    }

    /// The time of the clock that all processes on this store share, which is the server's; `None` if
    /// they share this machine's. Times that several processes compare are taken from it.
    ///
    /// # Errors
    /// Any [`StoreError`] of reading.
    async fn shared_time(&self) -> Result<Option<DateTime<Utc>>, StoreError> {
        Ok(None)
    }

    /// Writes new workflows in one transaction; returns an outcome for each, in order. A second
    /// workflow of an id, here or stored, is not written.
    ///
    /// # Errors
    /// Any [`StoreError`]; then none of them is written. [`StoreError::LeaseLost`] if the lease of one
    /// is gone.
    async fn submit(&self, new: Vec<NewWorkflow>) -> Result<Vec<Submitted>, StoreError>;

    /// Writes changes in one transaction. A change of a workflow that does not exist is skipped: the
    /// workflow was deleted, and the write is a repeated one.
    ///
    /// # Errors
    /// Any [`StoreError`]; then none of them is written. [`StoreError::Integrity`] if a change names a
    /// task that its workflow does not have, or could not be read back; [`StoreError::Refused`] if
    /// the database rejects it; [`StoreError::LeaseLost`] if the lease of one is gone.
    async fn record(&self, changes: Vec<WorkflowChange>) -> Result<(), StoreError>;

    /// All unsettled workflows with their tasks, in the order of submission.
    ///
    /// # Errors
    /// Any [`StoreError`] but those of writing.
    async fn unsettled(&self) -> Result<Vec<WorkflowRecord>, StoreError>;

    /// One workflow with its tasks; `None` if there is none.
    ///
    /// # Errors
    /// Any [`StoreError`] but those of writing.
    async fn workflow(&self, id: &WorkflowId) -> Result<Option<WorkflowRecord>, StoreError>;

    /// One workflow with its tasks and without its large results. If a completed task has no result
    /// here, [`result`](Self::result) reads it.
    ///
    /// # Errors
    /// Any [`StoreError`] but those of writing.
    async fn outline(&self, id: &WorkflowId) -> Result<Option<WorkflowRecord>, StoreError> {
        self.workflow(id).await
    }

    /// The result of the task at `index` of a workflow; `None` if there is none.
    ///
    /// # Errors
    /// Any [`StoreError`] but those of writing.
    async fn result(
        &self,
        id: &WorkflowId,
        index: u32,
    ) -> Result<Option<Arc<serde_json::Value>>, StoreError> {
        let record = self.workflow(id).await?;
        let task = record.and_then(|it| it.tasks.into_iter().find(|task| task.index == index));
        Ok(task.and_then(|task| task.result))
    }

    /// Workflows by their submission, the newest first.
    ///
    /// # Errors
    /// Any [`StoreError`] but those of writing.
    async fn list(&self, filter: ListFilter) -> Result<Vec<WorkflowSummary>, StoreError>;

    /// The ids that begin with `prefix`, in the order of their bytes, at most `limit`.
    ///
    /// # Errors
    /// Any [`StoreError`] but those of writing.
    async fn ids(&self, prefix: &str, limit: usize) -> Result<Vec<WorkflowId>, StoreError> {
        let all = self.list(ListFilter { limit: usize::MAX, ..ListFilter::default() }).await?;
        let mut ids: Vec<WorkflowId> = all.into_iter().map(|summary| summary.id).collect();
        ids.retain(|id| id.as_str().starts_with(prefix));
        ids.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        ids.truncate(limit);
        Ok(ids)
    }

    /// A workflow's events with a sequence above `after`, in order, at most `limit`.
    ///
    /// # Errors
    /// Any [`StoreError`] but those of writing.
    async fn events(
        &self,
        id: &WorkflowId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Event>, StoreError>;

    /// Deletes workflows that settled before `before`, at most `limit` of them; returns their number.
    ///
    /// # Errors
    /// Any [`StoreError`].
    async fn prune(&self, before: DateTime<Utc>, limit: usize) -> Result<usize, StoreError>;

    /// Deletes settled workflows with all that only they refer to, in one transaction, and notifies
    /// other processes; an answer for each id, in order. A later submission of the id is a new workflow.
    ///
    /// # Errors
    /// Any [`StoreError`]; then none was deleted, or that is not known: it may be repeated.
    /// [`StoreError::Refused`] from a store that deletes nothing.
    async fn delete(&self, ids: &[WorkflowId]) -> Result<Vec<Deletion>, StoreError> {
        let _ = ids;
        Err(StoreError::Refused { detail: format!("`{}` deletes no workflows", self.describe()) })
    }

    /// Changes the submission of a settled workflow, with the event, in one transaction. False if the
    /// workflow is not there, not settled, about to run again, or has another last event: then nothing
    /// was written.
    ///
    /// # Errors
    /// Any [`StoreError`]; [`StoreError::Refused`] from a store that changes none.
    async fn amend(&self, amendment: Amendment) -> Result<bool, StoreError> {
        let id = amendment.id;
        let detail = format!("`{}` cannot change the inputs of workflow `{id}`", self.describe());
        Err(StoreError::Refused { detail })
    }

    /// Waits until the store is lost without a close, and returns [`StoreError::Gone`]; a runtime then
    /// stops. By default it never returns.
    async fn lost(&self) -> StoreError {
        std::future::pending().await
    }

    /// Waits until every write before this call is committed, then releases the resources of the
    /// store. Every later call but this one returns [`StoreError::Closed`].
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] after `limit`; the close continues in the background.
    async fn close(&self, limit: Duration) -> Result<(), StoreError>;
}
