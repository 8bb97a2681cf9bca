//! Leases: which process runs which workflow of a shared store.
//!
//! A process opens one *lease*, whose number, its *epoch*, is never used again. The lease owns the
//! workflows that the process submits and claims. Every write about an owned workflow carries the
//! epoch as its fencing token: after the lease is gone, the store rejects every write with its
//! epoch. A lease is gone after its close, or after another process claims once its term or its
//! process has ended. Its workflows are then free, or belong to the lease of that process at once.
//!
//! The idea of a fencing token: M. Kleppmann, "How to do distributed locking", 2016.
//!
//! Invariant: an unsettled workflow is free, or a lease that exists owns it.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use serde::Serialize;

use super::error::StoreError;
pub use crate::command::{Command, Resolution};
pub use crate::epoch::Epoch;
use crate::{
    error::TaskError,
    id::WorkflowId,
    needs::{Needs, Offer},
    workflow::WorkflowRecord,
};

/// An open lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// The number of the lease.
    pub epoch: Epoch,
    /// The time until it expires without a renewal; `None` if it ends with its process only.
    pub term: Option<Duration>,
}

/// A claimed workflow.
#[derive(Debug, Clone, PartialEq)]
pub struct ClaimedWorkflow {
    /// The stored state.
    pub record: WorkflowRecord,
    /// The methods that it calls, as recorded at its submission.
    pub needs: Needs,
    /// The lease that expired while it owned the workflow, unless another has released it since: its
    /// ready tasks may have been executing. `None` for a workflow that never ran, or that was
    /// released.
    pub left_by: Option<Epoch>,
}

/// The result of a claim.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Claimed {
    /// The workflows that the lease now owns, in the order of submission.
    pub workflows: Vec<ClaimedWorkflow>,
    /// True if there may be more to claim.
    pub more: bool,
    /// The time until the lease of another process may have ended, and a claim may find more; `None`
    /// while no other process has a lease.
    pub ask_again_in: Option<Duration>,
}

/// The result of a claim of one workflow.
#[derive(Debug, Clone, PartialEq)]
pub enum ClaimedOne {
    /// The lease owns the workflow, or the workflow is settled and was read only. The stored state.
    Taken(Box<ClaimedWorkflow>),
    /// A live process owns it.
    Held,
    /// There is no such workflow.
    Unknown,
}

/// The reason of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// Any process may claim them next, this one too.
    ForAll,
    /// This process cannot run them: its claims skip them until its offer changes.
    ForOthers,
}

/// The owner and the needs of a workflow, for a person.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standing {
    /// The lease that owns it; `None` for a free or settled workflow.
    pub owner: Option<Owner>,
    /// The methods that a process must offer to claim it.
    pub needs: Needs,
}

/// A lease that owns a workflow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Owner {
    /// The number of the lease.
    pub epoch: Epoch,
    /// The name of its process.
    pub name: String,
    /// The id of the process on its machine, if known.
    pub process_id: Option<i32>,
    /// False if the process has ended, or has not renewed its lease in time: the next claim takes its
    /// workflows over.
    pub is_alive: bool,
}

/// A request to the process that runs a workflow.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The workflow.
    pub workflow: WorkflowId,
    /// The command.
    pub command: Command,
}

/// The key of a stored request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestKey(pub u64);

/// The answer to a request.
pub type RequestAnswer = Result<(), TaskError>;

/// The part of a [`Store`](super::Store) that lets several processes share it.
#[async_trait]
pub trait LeaseStore: Send + Sync {
    /// Opens a lease for this process. `owner` names the process in status and logs; `term` is the time
    /// until it expires without a renewal, in a store whose leases are timed.
    ///
    /// # Errors
    /// Any [`StoreError`] of writing.
    async fn open_lease(&self, owner: &str, term: Duration) -> Result<Lease, StoreError>;

    /// Renews a lease for another `term`; returns false if it is gone.
    ///
    /// # Errors
    /// Any [`StoreError`] of writing; the lease may then be renewed or not.
    async fn renew_lease(&self, epoch: Epoch, term: Duration) -> Result<bool, StoreError>;

    /// Closes a lease: frees its unsettled workflows, and notifies the engines. A lease that is gone is
    /// no error.
    ///
    /// # Errors
    /// Any [`StoreError`] of writing.
    async fn close_lease(&self, epoch: Epoch) -> Result<(), StoreError>;

    /// Expires the ended leases of others, then claims up to `limit` free unsettled workflows whose
    /// needs `offer` covers, the oldest first. No two claims get the same workflow. A workflow that
    /// is not covered stays free.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`] if the lease is gone, or any other; then nothing was claimed.
    async fn claim(&self, epoch: Epoch, limit: usize, offer: &Offer)
    -> Result<Claimed, StoreError>;

    /// Releases those of the workflows that the lease owns: they are free then, and the engines are
    /// notified. No write about them may be pending.
    ///
    /// # Errors
    /// As [`claim`](Self::claim); then none was released, or the outcome is unknown. The call may be
    /// repeated.
    async fn release(
        &self,
        epoch: Epoch,
        ids: &[WorkflowId],
        why: Release,
    ) -> Result<(), StoreError>;

    /// The owner of each workflow, in their order; `None` for one that does not exist. The answer may
    /// be outdated when the caller gets it.
    ///
    /// # Errors
    /// Any [`StoreError`] of reading.
    async fn standings(&self, ids: &[WorkflowId]) -> Result<Vec<Option<Standing>>, StoreError>;

    /// Claims one workflow, unless a live process owns it. A settled workflow has no owner and is read
    /// only, unless `reopens` is true: then the lease owns it, and a live process that has claimed it
    /// so excludes others.
    ///
    /// # Errors
    /// As [`claim`](Self::claim).
    async fn claim_one(
        &self,
        epoch: Epoch,
        id: &WorkflowId,
        reopens: bool,
    ) -> Result<ClaimedOne, StoreError>;

    /// Stores a request, and notifies the engines.
    ///
    /// # Errors
    /// Any [`StoreError`] of writing. [`StoreError::Integrity`] if there is no such workflow.
    async fn ask(&self, request: Request) -> Result<RequestKey, StoreError>;

    /// The unanswered requests about unsettled workflows of a lease, the oldest first.
    ///
    /// # Errors
    /// Any [`StoreError`] of reading.
    async fn requests(&self, epoch: Epoch) -> Result<Vec<(RequestKey, Request)>, StoreError>;

    /// Stores the answer to a request, unless there is one.
    ///
    /// # Errors
    /// Any [`StoreError`] of writing.
    async fn answer(&self, key: RequestKey, answer: RequestAnswer) -> Result<(), StoreError>;

    /// Takes the answer to a request, and deletes both; `None` before there is one.
    ///
    /// # Errors
    /// Any [`StoreError`].
    async fn take_answer(&self, key: RequestKey) -> Result<Option<RequestAnswer>, StoreError>;

    /// Deletes a request whose answer nobody waits for.
    ///
    /// # Errors
    /// Any [`StoreError`] of writing.
    async fn withdraw(&self, key: RequestKey) -> Result<(), StoreError>;

    /// Stores a request to every process on this store, and notifies the engines. The processes that it
    /// concerns answer it like any other request.
    ///
    /// # Errors
    /// Any [`StoreError`] of writing; [`StoreError::Closed`] in a store without other processes.
    async fn ask_all(&self, command: Command) -> Result<RequestKey, StoreError> {
        let _ = command;
        Err(StoreError::Closed)
    }

    /// The requests to every process after `after`, the oldest first; true for the answered ones.
    ///
    /// # Errors
    /// Any [`StoreError`] of reading.
    async fn asked_of_all(
        &self,
        after: RequestKey,
    ) -> Result<Vec<(RequestKey, Command, bool)>, StoreError> {
        let _ = after;
        Ok(Vec::new())
    }

    /// Yields after another process may have written a free workflow, a request or an answer, or opened
    /// a lease. It may yield too often; notifications that were not polled yet become one.
    fn notifications(&self) -> BoxStream<'static, ()>;

    /// True while [`notifications`](Self::notifications) yields after every commit of another
    /// process, so that a change need not be polled for. A listener that begins, or loses its
    /// connection, changes this.
    fn notifies_every_commit(&self) -> bool {
        false
    }
}
