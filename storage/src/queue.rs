//! The requests to the writer, and the replies to them.
//!
//! Every part of the storage that changes the database sends a [`Request`]; the
//! [`writer`](super::writer) serves them in the order of the queue. Only renewals of leases pass
//! the queue: the writer commits them before its next transaction.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use gleitzeit_domain::{
    id::WorkflowId,
    needs::Offer,
    store::{
        Amendment, Deletion, Epoch, StoreError, Submitted,
        lease::{Claimed, ClaimedOne, Lease, Release, RequestKey},
    },
};
use tokio::sync::oneshot;

use super::write_call::WriteCall;

/// The sender of the reply to one request.
pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// The answer to one call of a committed group; a record has no [`Submitted`].
pub(super) type Answer = Result<Vec<Submitted>, StoreError>;

/// One request to the writer.
#[derive(Debug)]
pub(super) enum Request {
    /// Writes submissions or changes.
    Write(WriteCall, oneshot::Sender<Answer>),
    /// Deletes settled workflows.
    Prune(Prune),
    /// Changes the spec of a settled workflow.
    Amend(Box<Amendment>, Reply<bool>),
    /// Deletes single workflows.
    Delete(Vec<WorkflowId>, Reply<Vec<Deletion>>),
    /// Deletes needs without a workflow.
    DeleteNeeds(UnusedNeeds),
    /// Serves a call about a lease or a request of another process.
    // Boxed: the largest variant decides the size of every queued request.
    Lease(Box<LeaseCall>),
    /// Commits the renewals that are due; they are in [`Renewals`].
    Renew,
    /// Replies true if another connection committed since the last request of this kind.
    #[cfg_attr(
        not(all(feature = "sqlite", target_os = "linux")),
        allow(dead_code, reason = "sent by the watch on a file alone")
    )]
    HasChanged(oneshot::Sender<bool>),
    /// Completes the requests before this one, and ends the writer.
    Close,
}

/// A deletion of settled workflows, with its progress.
#[derive(Debug)]
pub(super) struct Prune {
    /// Deletes what settled before this time; `None` deletes the oldest, whenever they settled.
    pub(super) before: Option<DateTime<Utc>>,
    /// Workflows that it may still delete.
    pub(super) limit: usize,
    /// Workflows deleted so far.
    pub(super) count: usize,
    pub(super) reply: oneshot::Sender<Result<usize, StoreError>>,
}

/// Needs without a workflow.
#[derive(Debug)]
pub(super) struct UnusedNeeds {
    pub(super) hashes: Vec<i64>,
    /// The key of the newest workflow of the snapshot in which they were found.
    pub(super) newest: i64,
}

/// A call that the writer serves in a transaction of its own.
#[derive(Debug)]
pub(super) enum LeaseCall {
    Open { owner: String, term: Duration, reply: Reply<Lease> },
    Close { epoch: Epoch, reply: Reply<()> },
    Claim { epoch: Epoch, limit: usize, offer: Offer, reply: Reply<Claimed> },
    Release { epoch: Epoch, ids: Vec<WorkflowId>, why: Release, reply: Reply<()> },
    ClaimOne { epoch: Epoch, id: WorkflowId, reopens: bool, reply: Reply<ClaimedOne> },
    Ask { workflow: WorkflowId, body: String, reply: Reply<RequestKey> },
    AskAll { body: String, reply: Reply<RequestKey> },
    Answer { key: RequestKey, answer: String, reply: Reply<()> },
    Forget { key: RequestKey, reply: Reply<()> },
}

/// A renewal of a lease for another `term`.
#[derive(Debug)]
pub(super) struct Renewal {
    pub(super) epoch: Epoch,
    pub(super) term: Duration,
    pub(super) reply: Reply<bool>,
}

/// Renewals that the writer commits before its next transaction.
#[derive(Debug, Default)]
pub(super) struct Renewals(Mutex<Vec<Renewal>>);

impl Renewals {
    pub(super) fn add(&self, renewal: Renewal) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(renewal);
    }

    pub(super) fn take(&self) -> Vec<Renewal> {
        // All at once: a renewal that is added during the transaction belongs to the next one.
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
