//! The port to what remembers: workflows, their tasks and their events, over restarts.
//!
//! Asked by the engine only, in batches. Whatever a call reports as done is committed; a call that
//! fails has changed nothing that a later read could see, or says [`StoreError::Unknown`].
//!
//! A store keeps times to the microsecond; finer parts may be cut off.

use std::{any::Any, sync::Arc, time::Duration};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    error::{ErrorCode, TaskError},
    event::Event,
    id::WorkflowId,
    needs::Needs,
    task::TaskRecord,
    workflow::{WorkflowRecord, WorkflowSpec, WorkflowStatus, WorkflowSummary},
};

pub mod audit;
pub mod conformance;
pub mod lease;
mod parts;

pub use lease::{Epoch, LeaseStore};

/// A workflow to be written for the first time, with the events of its submission.
#[derive(Debug, Clone)]
pub struct NewWorkflow {
    /// The workflow and its tasks; `last_sequence` is that of the last event.
    pub record: WorkflowRecord,
    /// Its first events.
    pub events: Vec<Event>,
    /// The lease that it belongs to; `None` leaves it to whoever claims it.
    pub epoch: Option<Epoch>,
    /// What a process must offer to be given it by a claim.
    pub needs: Needs,
}

/// What became of a submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Submitted {
    /// Written now.
    Created,
    /// A workflow of this id was there before; nothing was written.
    Existed,
}

/// What changed of one workflow; written whole or not at all.
#[derive(Debug, Clone)]
pub struct WorkflowChange {
    /// Which workflow.
    pub id: WorkflowId,
    /// The workflow's own new state, where it changed.
    pub workflow: Option<WorkflowState>,
    /// The new state of each task that changed.
    pub tasks: Vec<TaskRecord>,
    /// What happened, in order; follows what was written before without a gap.
    pub events: Vec<Event>,
    /// The number of the last event written or about to be; kept even where `events` is empty.
    pub last_sequence: u64,
    /// The lease that the workflow belongs to, as the fencing token of this write. `None` where the
    /// store is used by one process, and nothing need be checked.
    pub epoch: Option<Epoch>,
}

/// The part of a workflow that changes.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkflowState {
    /// Where it stands.
    pub status: WorkflowStatus,
    /// When its first task began.
    pub started_at: Option<DateTime<Utc>>,
    /// When it settled.
    pub completed_at: Option<DateTime<Utc>>,
    /// Why it did not complete.
    pub error: Option<Arc<TaskError>>,
}

/// Which workflows a list shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ListFilter {
    /// Only of this status.
    pub status: Option<WorkflowStatus>,
    /// Only of this name.
    pub name: Option<String>,
    /// Only those submitted at this time or later.
    pub since: Option<DateTime<Utc>>,
    /// Only those submitted before this time.
    pub until: Option<DateTime<Utc>>,
    /// At most so many, the newest first.
    pub limit: usize,
    /// Skips so many of the newest.
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

/// Another submission of a settled workflow, and the event that tells of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Amendment {
    /// The workflow.
    pub id: WorkflowId,
    /// The new submission; its tasks are those of the old one.
    pub spec: Arc<WorkflowSpec>,
    /// Its sequence is the one after the workflow's last.
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

/// Why a store did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It cannot be used as it is: a wrong address, or a schema of a newer program.
    #[error("store cannot be opened: {detail}")]
    Open {
        /// What is wrong, and what to do.
        detail: String,
    },
    /// It cannot be reached; asking again may help.
    #[error("store cannot be reached: {detail}")]
    Unavailable {
        /// What the driver said.
        detail: String,
    },
    /// It takes no writes now: disk full, read-only.
    #[error("store refused a write: {detail}")]
    Write {
        /// What the driver said.
        detail: String,
    },
    /// It refused what was to be written, and will again: too large, a constraint. Other writes pass.
    #[error("store refused what was to be written: {detail}; writing the same again will not help")]
    Refused {
        /// What the driver said.
        detail: String,
    },
    /// It could not read.
    #[error("store could not read: {detail}")]
    Read {
        /// What the driver said.
        detail: String,
    },
    /// Whether a write was committed is not known; writing the same again is safe.
    #[error("store did not say whether it committed: {detail}")]
    Unknown {
        /// What the driver said.
        detail: String,
    },
    /// The lease that a write bears is gone: another process may run its workflows by now. Take a
    /// new one, and claim what is to be claimed.
    #[error("lease {epoch} is gone; another process may run its workflows by now")]
    LeaseLost {
        /// The lease.
        epoch: Epoch,
    },
    /// It is gone while it was in use, and nothing that is written now would be found again: the
    /// file of a database was removed or replaced. Stop.
    #[error("store is gone: {detail}")]
    Gone {
        /// What became of it, and what to do.
        detail: String,
    },
    /// What is stored contradicts itself.
    #[error("stored data contradicts itself: {detail}")]
    Integrity {
        /// What was found.
        detail: String,
    },
    /// The store was closed.
    #[error("store is closed")]
    Closed,
}

impl StoreError {
    /// The code that a caller of the runtime sees.
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Open { .. } => ErrorCode::ConfigurationError,
            Self::Unavailable { .. } | Self::Gone { .. } => ErrorCode::PersistenceConnectionFailed,
            Self::Write { .. } | Self::Refused { .. } => ErrorCode::PersistenceWriteFailed,
            Self::Read { .. } => ErrorCode::PersistenceReadFailed,
            Self::Unknown { .. } => ErrorCode::PersistenceTransactionFailed,
            Self::Integrity { .. } => ErrorCode::PersistenceIntegrityError,
            Self::LeaseLost { .. } => ErrorCode::WorkflowInvalidState,
            Self::Closed => ErrorCode::SystemShutdown,
        }
    }

    /// True when writing the same again may succeed and cannot do harm.
    pub const fn is_transient(&self) -> bool {
        !matches!(
            self,
            Self::Open { .. }
                | Self::Refused { .. }
                | Self::Gone { .. }
                | Self::Integrity { .. }
                | Self::LeaseLost { .. }
                | Self::Closed
        )
    }
}

impl From<StoreError> for TaskError {
    fn from(error: StoreError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

/// What remembers. Whoever writes one runs [`conformance::check`] over it.
///
/// Writes take effect in the order of the calls. Every write may be repeated without harm: the
/// engine writes again what was reported as failed, as it was.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// What it is, for a person: `memory`, `sqlite:gleitzeit.db`.
    fn describe(&self) -> String;

    /// False when no write can fail, so that nothing need be kept for a second try.
    fn is_fallible(&self) -> bool {
        true
    }

    /// How several processes share it; `None` for a store that is used by one process at a time.
    fn leases(&self) -> Option<&dyn LeaseStore> {
        None
    }

    /// The time by the clock that all processes on this store share: the server's. `None` where they
    /// share this machine's. What several of them compare goes by it, whatever their own clocks say.
    ///
    /// # Errors
    /// Any [`StoreError`] of reading.
    async fn shared_time(&self) -> Result<Option<DateTime<Utc>>, StoreError> {
        Ok(None)
    }

    /// Itself, for whoever asks for more than a store of any kind can do: only the store in a
    /// database writes within a transaction of its caller. A store around another one passes on
    /// what that one says.
    fn as_any(&self) -> Option<&dyn Any> {
        None
    }

    /// Writes new workflows, all in one transaction; answers for each, in order. The same id
    /// twice, here or before, is written once.
    ///
    /// # Errors
    /// Any [`StoreError`]; then none of them is written. [`StoreError::LeaseLost`] where one bears a
    /// lease that is gone.
    async fn submit(&self, new: Vec<NewWorkflow>) -> Result<Vec<Submitted>, StoreError>;

    /// Writes what changed, all in one transaction. A change of a workflow that is not there is
    /// passed over: it was forgotten since, and the write is a repeated one.
    ///
    /// # Errors
    /// Any [`StoreError`]; then none of it is written. [`StoreError::Integrity`] where a change
    /// names a task that its workflow does not have, or could not be read back;
    /// [`StoreError::Refused`] where it cannot be stored at all.
    /// [`StoreError::LeaseLost`] where one bears a lease that is gone.
    async fn record(&self, changes: Vec<WorkflowChange>) -> Result<(), StoreError>;

    /// Every workflow that is not settled, in the order of submission, with its tasks.
    ///
    /// # Errors
    /// Any [`StoreError`] but those of writing.
    async fn unsettled(&self) -> Result<Vec<WorkflowRecord>, StoreError>;

    /// One workflow with its tasks.
    ///
    /// # Errors
    /// Any [`StoreError`] but those of writing.
    async fn workflow(&self, id: &WorkflowId) -> Result<Option<WorkflowRecord>, StoreError>;

    /// One workflow with its tasks, without its large results: a completed task that has no result
    /// here has it in the store, and [`result`](Self::result) reads it.
    ///
    /// # Errors
    /// Any [`StoreError`] but those of writing.
    async fn outline(&self, id: &WorkflowId) -> Result<Option<WorkflowRecord>, StoreError> {
        self.workflow(id).await
    }

    /// The result of the task at place `index` of a workflow; `None` if there is none.
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

    /// Workflows in the order of submission, the newest first.
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

    /// Forgets workflows that settled before `before`, at most `limit` of them; says how many.
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

    /// Waits until the store can never be used again although nobody closed it, and says why:
    /// [`StoreError::Gone`]. A runtime stops then. Most stores cannot be lost, and never answer.
    async fn lost(&self) -> StoreError {
        std::future::pending().await
    }

    /// Waits until every write before this call is committed, then lets go of what it holds.
    /// Every later call but this one says [`StoreError::Closed`].
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when that took longer than `limit`; it goes on all the same.
    async fn close(&self, limit: Duration) -> Result<(), StoreError>;
}
