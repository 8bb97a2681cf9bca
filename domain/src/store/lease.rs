//! Which process runs which workflow, where several share a store.
//!
//! A process takes one *lease*, named by its *epoch*: a number that is never given twice. What it
//! submits and claims belongs to that lease. Every write about an owned workflow carries the epoch
//! as its fencing token: once the lease is gone, nothing that bears its number is written any more.
//! A lease is gone when it is closed, or when it is dead and another process asks for work: its time
//! has run out, or its process has ended. All that it owned is then free to be claimed, or belongs to
//! the lease of that process at once.
//!
//! The idea of a fencing token: M. Kleppmann, "How to do distributed locking", 2016.
//!
//! Invariant: an unsettled workflow belongs to nobody, or to a lease that is there.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};

use super::StoreError;
pub use crate::command::{Command, Resolution};
use crate::{
    error::TaskError,
    id::WorkflowId,
    needs::{Needs, Offer},
    workflow::WorkflowRecord,
};

/// Names a lease, and is the fencing token of its writes; larger for a later lease, never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

/// A lease that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Its name.
    pub epoch: Epoch,
    /// How long it is good for without being renewed; `None` where it ends with its process only.
    pub term: Option<Duration>,
}

/// A workflow that was claimed.
#[derive(Debug, Clone, PartialEq)]
pub struct ClaimedWorkflow {
    /// As it is stored.
    pub record: WorkflowRecord,
    /// What it needs, as it was told at its submission.
    pub needs: Needs,
    /// The lease that died while it owned the workflow, where nobody has given it up in order since:
    /// what was ready to run may have been under way then. `None` for what was never run, or was
    /// handed over.
    pub left_by: Option<Epoch>,
}

/// What there was to claim.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Claimed {
    /// Workflows that belong to the lease from now on, in the order of submission.
    pub workflows: Vec<ClaimedWorkflow>,
    /// True when there may be more.
    pub more: bool,
    /// When to ask again, because the lease of another process may be dead by then; `None` while
    /// no other process holds one.
    pub ask_again_in: Option<Duration>,
}

/// What became of a claim on one workflow.
#[derive(Debug, Clone, PartialEq)]
pub enum ClaimedOne {
    /// It belongs to the lease now, or did before; or it is settled, and was only read. As it is
    /// stored.
    Taken(Box<ClaimedWorkflow>),
    /// A live process runs it, or is about to.
    Held,
    /// There is none.
    Unknown,
}

/// Why single workflows are given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// For whoever claims them next, this lease included.
    ForAll,
    /// This process cannot run them: a claim does not give them to this lease again, as long as it
    /// offers the same.
    ForOthers,
}

/// Who has a workflow, and what it needs; for people.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standing {
    /// The lease that owns it; `None` while it waits to be claimed, or is settled.
    pub owner: Option<Owner>,
    /// What a process must offer to claim it.
    pub needs: Needs,
}

/// A lease that owns a workflow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Owner {
    /// Its name.
    pub epoch: Epoch,
    /// What its process calls itself.
    pub name: String,
    /// The number of the process on its machine, where it is told.
    pub process_id: Option<i32>,
    /// False when the process has ended, or has not renewed its lease in time: whoever looks for
    /// work next takes over what it owns.
    pub is_alive: bool,
}

/// A request to the process that runs a workflow.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// About which workflow.
    pub workflow: WorkflowId,
    /// What is to be done.
    pub command: Command,
}

/// Names a stored request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestKey(pub u64);

/// The answer to a request.
pub type RequestAnswer = Result<(), TaskError>;

/// The part of a [`Store`](super::Store) that lets several processes share it.
#[async_trait]
pub trait LeaseStore: Send + Sync {
    /// Takes a lease for this process. `owner` tells people and logs who holds it; `term` is how
    /// long it is good for without being renewed, where the store goes by time.
    ///
    /// # Errors
    /// Any [`StoreError`] of writing.
    async fn open_lease(&self, owner: &str, term: Duration) -> Result<Lease, StoreError>;

    /// Makes a lease good for another `term`; false when it is gone.
    ///
    /// # Errors
    /// Any [`StoreError`] of writing; the lease may be renewed or not then.
    async fn renew_lease(&self, epoch: Epoch, term: Duration) -> Result<bool, StoreError>;

    /// Gives a lease up: what it owns and has not settled is free at once, and whoever listens
    /// is told. A lease that is gone already is no error.
    ///
    /// # Errors
    /// Any [`StoreError`] of writing.
    async fn close_lease(&self, epoch: Epoch) -> Result<(), StoreError>;

    /// Ends the leases that are dead, then takes at most `limit` unsettled workflows that belong to
    /// nobody and whose needs `offer` covers, the oldest first. No two claims take the same one. What
    /// is not covered stays free.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`] when the lease is gone; any other; then nothing was claimed.
    async fn claim(&self, epoch: Epoch, limit: usize, offer: &Offer)
    -> Result<Claimed, StoreError>;

    /// Gives up those of the workflows that the lease owns: they belong to nobody then, and whoever
    /// listens is told. Nothing of them may be on its way to the store.
    ///
    /// # Errors
    /// As [`claim`](Self::claim); then none was given up, or that is not known: it may be repeated.
    async fn release(
        &self,
        epoch: Epoch,
        ids: &[WorkflowId],
        why: Release,
    ) -> Result<(), StoreError>;

    /// Who has each of the workflows, in their order; `None` for one that is not there. May be of
    /// the past when it is told.
    ///
    /// # Errors
    /// Any [`StoreError`] of reading.
    async fn standings(&self, ids: &[WorkflowId]) -> Result<Vec<Option<Standing>>, StoreError>;

    /// Takes one workflow, unless a live process runs it. What is settled belongs to nobody: it is
    /// read and stays so, unless it is taken to be opened again (`reopens`), which a live process
    /// keeps others from that has done the same.
    ///
    /// # Errors
    /// As [`claim`](Self::claim).
    async fn claim_one(
        &self,
        epoch: Epoch,
        id: &WorkflowId,
        reopens: bool,
    ) -> Result<ClaimedOne, StoreError>;

    /// Stores a request, and tells whoever listens.
    ///
    /// # Errors
    /// Any [`StoreError`] of writing. [`StoreError::Integrity`] where there is no such workflow.
    async fn ask(&self, request: Request) -> Result<RequestKey, StoreError>;

    /// The requests about unsettled workflows of a lease that are not answered yet, oldest first.
    ///
    /// # Errors
    /// Any [`StoreError`] of reading.
    async fn requests(&self, epoch: Epoch) -> Result<Vec<(RequestKey, Request)>, StoreError>;

    /// Stores the answer to a request; the first one stands.
    ///
    /// # Errors
    /// Any [`StoreError`] of writing.
    async fn answer(&self, key: RequestKey, answer: RequestAnswer) -> Result<(), StoreError>;

    /// Takes the answer to a request, which is forgotten with it; `None` while there is none.
    ///
    /// # Errors
    /// Any [`StoreError`].
    async fn take_answer(&self, key: RequestKey) -> Result<Option<RequestAnswer>, StoreError>;

    /// Withdraws a request that nobody needs answered any more.
    ///
    /// # Errors
    /// Any [`StoreError`] of writing.
    async fn withdraw(&self, key: RequestKey) -> Result<(), StoreError>;

    /// Stores a request to every process that runs workflows of this store, and tells whoever listens.
    /// Those concerned answer as to any other request.
    ///
    /// # Errors
    /// Any [`StoreError`] of writing; [`StoreError::Closed`] of a store that has no other processes.
    async fn ask_all(&self, command: Command) -> Result<RequestKey, StoreError> {
        let _ = command;
        Err(StoreError::Closed)
    }

    /// The requests to every process behind `after`, oldest first; true for those that somebody has
    /// answered.
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

    /// Yields whenever another process may have written something to claim, a request, or an
    /// answer, or may have taken a lease. It may yield too often, and rings that nobody has heard yet are one.
    fn notifications(&self) -> BoxStream<'static, ()>;

    /// True while [`notifications`](Self::notifications) yields after every commit of another
    /// process, so that a change need not be polled for. A listener that begins, or loses its
    /// connection, changes this.
    fn notifies_every_commit(&self) -> bool {
        false
    }
}
