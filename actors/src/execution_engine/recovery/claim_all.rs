//! Claims everything that no process runs and this one can, a part at a time.
//!
//! At the start, and at each poll. Invariant: what was claimed is resumed before the recovery ends,
//! whatever becomes of the claim after it.

use std::sync::Arc;

use futures_util::future::join;
use gleitzeit_domain::{
    engine::{ClaimBudget, RecoverOptions, Recovered, RecoveryProgress},
    error::TaskError,
    needs::Offer,
    store::{
        Epoch, Store,
        lease::{Claimed, ClaimedWorkflow},
    },
};

use super::{
    super::claims::{GetClaimBudget, PollAfter, PollClaims},
    Recovery, end, gone, resume_all, unclaimed,
};
use crate::{load_balancer::GetServed, peers::Peers, protocol_registry::GetCatalog};

/// Workflows that are claimed at once: enough to share the price of a transaction, and few enough
/// that processes which start together share the work.
const CLAIM_MAX: usize = 1_000;

/// What there is to be resumed next.
enum Page {
    /// Everything, from a store without leases.
    Everything(Vec<ClaimedWorkflow>),
    /// A part, which was claimed for a lease.
    Part(Claimed, Epoch),
    /// Nothing: there is no room.
    NoRoom,
}

async fn budget(recovery: &Recovery, besides: u64) -> Result<ClaimBudget, TaskError> {
    Ok(recovery.engine.budget.send(GetClaimBudget { besides }).await.map_err(gone)??)
}

/// What this process knows and has a provider for.
async fn offer(peers: &Peers) -> Result<Offer, TaskError> {
    let catalog = peers.registry.send(GetCatalog).await.map_err(gone)?;
    let served = peers.balancer.send(GetServed).await.map_err(gone)?;
    Ok(Offer::of(served.into_iter().filter(|method| catalog.method(method).is_some())))
}

async fn fetch(store: &dyn Store, budget: ClaimBudget, offer: &Offer) -> Result<Page, TaskError> {
    match (budget, store.leases()) {
        (ClaimBudget::NoRoom, _) => Ok(Page::NoRoom),
        (ClaimBudget::Part(mine), Some(leases)) => {
            gleitzeit_failpoint::failpoint!("engine.claim.before");
            let claimed = leases.claim(mine, CLAIM_MAX, offer).await?;
            gleitzeit_failpoint::failpoint!("engine.claim.after");
            Ok(Page::Part(claimed, mine))
        }
        _ => {
            let records = store.unsettled().await?;
            Ok(Page::Everything(records.into_iter().map(unclaimed).collect()))
        }
    }
}

/// Claims everything that is not settled and that no live process runs, a part at a time, as far
/// as there is room. The next part is claimed while one is resumed.
pub(in crate::execution_engine) async fn claim_all(
    recovery: &Recovery,
    store: Arc<dyn Store>,
) -> Result<Recovered, TaskError> {
    let options = RecoverOptions::default();
    let mut progress = RecoveryProgress::default();
    // Once for all parts: a protocol that is added meanwhile causes a poll of its own.
    let offer = offer(&recovery.peers).await?;
    let mut page = fetch(&*store, budget(recovery, 0).await?, &offer).await?;
    loop {
        let (Claimed { workflows, more, ask_again_in }, mine) = match page {
            Page::NoRoom => return Ok(end(progress)),
            Page::Everything(records) => {
                resume_all(recovery, &store, records, None, options, &mut progress).await?;
                return Ok(end(progress));
            }
            Page::Part(claimed, mine) => (claimed, mine),
        };
        // These tasks are not in the load of the engine yet: without them the next part would
        // exceed the limit.
        let tasks = workflows.iter().map(|it| it.record.tasks.len() as u64).sum();
        // Asked before these are planned, for the engine and the planning share a thread: the
        // database has something to do from the beginning.
        let granted = if more { Some(budget(recovery, tasks).await) } else { None };
        let next = async {
            match granted {
                Some(granted) => fetch(&*store, granted?, &offer).await.map(Some),
                None => Ok(None),
            }
        };
        let resumed = resume_all(recovery, &store, workflows, Some(mine), options, &mut progress);
        // Both are awaited to their end: a claim that failed must not drop what was claimed before.
        let (next, resumed) = join(next, resumed).await;
        resumed?;
        gleitzeit_failpoint::failpoint!("engine.claim.adopted");
        if let Some(next) = next? {
            page = next;
            continue;
        }
        recovery.engine.poll_after.do_send(PollAfter(ask_again_in));
        if progress.recovered.workflows > 0 {
            // Requests to the process that ran them wait for an answer.
            recovery.engine.poll.do_send(PollClaims);
        }
        return Ok(end(progress));
    }
}
