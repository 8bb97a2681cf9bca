//! Writes to the store with all their retries: new workflows, changes, leases.
//!
//! Used by the engine, and knows nothing of it.
//!
//! What an answer means is decided by the domain; here it is awaited, and asked for again.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use actix::prelude::*;
use chrono::{DateTime, Utc};
use gleitzeit_domain::{
    engine::{
        AfterSubmit, AfterWrite, NotStored, SubmitOutcomes, SubmitRetries, WriteOutcome,
        after_write, is_same_submission, unconfirmed,
    },
    store::{
        Epoch, NewWorkflow, Store, StoreError, Submitted, WorkflowChange,
        lease::{Lease, Release},
    },
};
use tokio::time::Instant;

/// A store that does not report its time within this is asked again with the next renewal.
const TIME_LIMIT: Duration = Duration::from_secs(1);

/// A store that does not close a lease within this is not waited for: the lease expires.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// First and longest pause before a release is tried again.
const RELEASE_PAUSE_MIN: Duration = Duration::from_millis(50);
const RELEASE_PAUSE_MAX: Duration = Duration::from_secs(5);

/// Work whose result goes to the engine.
pub(crate) type Writing<M> = Pin<Box<dyn Future<Output = M>>>;

/// What became of a batch of new workflows.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct SubmissionsStored(pub(crate) SubmitOutcomes);

/// What became of a write of changes.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Written(pub(crate) WriteOutcome);

/// The answer about the lease, asked for at `since`.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct LeaseAnswered {
    pub(crate) answer: Result<Lease, StoreError>,
    pub(crate) since: Instant,
    /// The store's time, and when it was read.
    pub(crate) time: Option<(DateTime<Utc>, Instant)>,
}

/// Writes new workflows.
pub(crate) fn submit(store: Arc<dyn Store>, new: Vec<NewWorkflow>) -> Writing<SubmissionsStored> {
    Box::pin(async move { SubmissionsStored(submit_all(store, new).await) })
}

fn submit_all(store: Arc<dyn Store>, new: Vec<NewWorkflow>) -> Writing<SubmitOutcomes> {
    Box::pin(async move {
        // A store that cannot fail is written to once: nothing need be kept for another try.
        let kept = if store.is_fallible() { new.clone() } else { Vec::new() };
        let count = new.len();
        gleitzeit_failpoint::failpoint!("engine.submit.storing");
        match store.submit(new).await {
            Ok(outcomes) => {
                gleitzeit_failpoint::failpoint!("engine.submit.stored");
                outcomes.into_iter().map(Ok).collect()
            }
            Err(error) if kept.is_empty() => vec![Err(NotStored::Store(error)); count],
            Err(error) => submit_again(store, kept, error).await,
        }
    })
}

async fn submit_again(
    store: Arc<dyn Store>,
    new: Vec<NewWorkflow>,
    mut error: StoreError,
) -> SubmitOutcomes {
    let mut retries = SubmitRetries::new(&error);
    while let Some(pause) = retries.pause(&error) {
        tracing::warn!(%error, ?pause, "commit of submissions unconfirmed; writing again");
        tokio::time::sleep(pause).await;
        // The same again is safe: an id that exists is written once.
        match store.submit(new.clone()).await {
            Ok(outcomes) => return recognise(&*store, new, outcomes).await,
            Err(next) => error = next,
        }
    }
    match retries.finish(&error, new) {
        AfterSubmit::Known(outcomes) => outcomes,
        // Each in a transaction of its own: the one at fault must not take the others with it.
        AfterSubmit::OneByOne(new) => {
            let mut outcomes = Vec::with_capacity(new.len());
            for one in new {
                outcomes.append(&mut submit_all(Arc::clone(&store), vec![one]).await);
            }
            outcomes
        }
    }
}

/// After an unconfirmed write: what exists already may have been written by it.
async fn recognise(
    store: &dyn Store,
    new: Vec<NewWorkflow>,
    outcomes: Vec<Submitted>,
) -> SubmitOutcomes {
    let mut recognised = Vec::with_capacity(outcomes.len());
    for (new, outcome) in new.into_iter().zip(outcomes) {
        recognised.push(match outcome {
            Submitted::Created => Ok(outcome),
            Submitted::Existed => match store.workflow(&new.record.id).await {
                Ok(Some(stored)) if is_same_submission(&stored, &new.record) => {
                    Ok(Submitted::Created)
                }
                Ok(_) => Ok(Submitted::Existed),
                Err(error) => Err(unconfirmed(&error, new)),
            },
        });
    }
    recognised
}

/// Writes changes; those that are refused together are written alone.
pub(crate) fn record(store: Arc<dyn Store>, changes: Vec<WorkflowChange>) -> Writing<Written> {
    Box::pin(async move {
        // Kept for another try, if there can be need of one.
        let kept = if store.is_fallible() { changes.clone() } else { Vec::new() };
        gleitzeit_failpoint::failpoint!("engine.write.before");
        let answer = store.record(changes).await;
        if answer.is_ok() {
            gleitzeit_failpoint::failpoint!("engine.write.after");
        }
        let mut split = match after_write(answer, kept) {
            AfterWrite::Known(outcome) => return Written(outcome),
            AfterWrite::Split(split) => split,
        };
        while let Some(change) = split.next_change() {
            let answer = store.record(vec![change.clone()]).await;
            split.answered(change, answer);
        }
        Written(split.finish())
    })
}

/// Another term for the lease that is held, or a new lease.
pub(crate) fn ask_for_lease(
    store: Arc<dyn Store>,
    held: Option<Epoch>,
    owner: Arc<str>,
    term: Duration,
) -> Writing<LeaseAnswered> {
    // Before the question: a lease counts from when it was asked for, not from its answer.
    let since = Instant::now();
    Box::pin(async move {
        let answer = renew_or_open(&*store, held, &owner, term).await;
        let time = match &answer {
            Ok(_) => tokio::time::timeout(TIME_LIMIT, store.shared_time()).await,
            Err(_) => Ok(Ok(None)),
        };
        let time = time.ok().and_then(Result::ok).flatten().map(|now| (now, Instant::now()));
        LeaseAnswered { answer, since, time }
    })
}

async fn renew_or_open(
    store: &dyn Store,
    held: Option<Epoch>,
    owner: &str,
    term: Duration,
) -> Result<Lease, StoreError> {
    let Some(leases) = store.leases() else {
        return Err(StoreError::Open { detail: "it has no leases".into() });
    };
    gleitzeit_failpoint::failpoint!("engine.lease.before");
    if let Some(epoch) = held
        && leases.renew_lease(epoch, term).await?
    {
        return Ok(Lease { epoch, term: Some(term) });
    }
    gleitzeit_failpoint::failpoint!("engine.lease.opening");
    leases.open_lease(owner, term).await
}

/// Closes a lease, so that others can claim at once what is not settled.
pub(crate) async fn close_lease(store: &dyn Store, epoch: Epoch) {
    let Some(leases) = store.leases() else { return };
    gleitzeit_failpoint::failpoint!("engine.lease.closing");
    // Bounded: a database that is gone must not hold up the stop of the process.
    match tokio::time::timeout(CLOSE_LIMIT, leases.close_lease(epoch)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, %epoch, "lease close failed"),
        Err(_) => tracing::warn!(%epoch, "lease close timed out"),
    }
}

/// Returns workflows to the store, however often it must be asked. A lease that is gone owns none.
pub(crate) async fn release(
    store: &dyn Store,
    epoch: Epoch,
    ids: &[gleitzeit_domain::id::WorkflowId],
    why: Release,
) {
    let Some(leases) = store.leases() else { return };
    let mut pause = RELEASE_PAUSE_MIN;
    loop {
        match leases.release(epoch, ids, why).await {
            // A lost lease owns nothing. After the store is closed nothing can be released, and
            // the lease expires.
            Ok(()) | Err(StoreError::LeaseLost { .. } | StoreError::Closed) => return,
            Err(error) if error.is_transient() => {
                tracing::warn!(%error, workflows = ids.len(), ?pause, "workflow release failed; trying again");
                tokio::time::sleep(pause).await;
                pause = (2 * pause).min(RELEASE_PAUSE_MAX);
            }
            Err(error) => {
                tracing::error!(%error, workflows = ids.len(), "workflow release failed; they are free when this process ends");
                return;
            }
        }
    }
}
