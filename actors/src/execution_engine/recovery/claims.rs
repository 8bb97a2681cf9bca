//! Takes up all that nobody runs and this process can, a part at a time.
//!
//! Asked at the start, and whenever the engine looks around. Invariant: what was claimed is adopted
//! before the recovery ends, whatever becomes of the claim after it.

use std::sync::Arc;

use actix::prelude::*;
use futures_util::future::join;
use gleitzeit_domain::{
    error::TaskError,
    needs::Offer,
    store::{
        Epoch, Store,
        lease::{Claimed, ClaimedWorkflow},
    },
};

use super::{Recovered, Recovery, Taken, Wish, adopt_all, gone, unclaimed};
use crate::{
    addresses::ActorAddresses,
    execution_engine::{
        ExecutionEngine, Phase,
        ownership::{Look, NeedLease, PollAfter},
    },
    load_balancer::GetServed,
    protocol_registry::GetCatalog,
};

/// Workflows that are claimed at once: enough to share the price of a transaction, and few enough
/// that processes which start together share the work.
const CLAIM_MAX: usize = 1_000;

/// Asks whether more workflows may be claimed, beside those tasks that are about to be taken up.
#[derive(Debug, Message)]
#[rtype(result = "bool")]
struct HasRoom {
    besides: u64,
}

/// What there is to be taken up next.
enum Page {
    /// All of it, from a store without leases.
    Everything(Vec<ClaimedWorkflow>),
    /// A part, which was claimed for a lease.
    Part(Claimed, Epoch),
    /// Nothing, for want of room.
    NoRoom,
}

/// What may be fetched next.
enum Grant {
    /// A part, for this lease.
    Part(Epoch),
    /// Everything, from a store without leases.
    Everything,
    /// Nothing, for want of room.
    NoRoom,
}

/// Asks what may be fetched next, beside so many tasks.
async fn grant(
    addresses: &ActorAddresses,
    store: &dyn Store,
    besides: u64,
) -> Result<Grant, TaskError> {
    let epoch = addresses.engine.send(NeedLease).await.map_err(gone)??;
    let Some(mine) = epoch.filter(|_| store.leases().is_some()) else {
        return Ok(Grant::Everything);
    };
    let has_room = addresses.engine.send(HasRoom { besides }).await.map_err(gone)?;
    Ok(if has_room { Grant::Part(mine) } else { Grant::NoRoom })
}

/// What this process knows and has a provider for.
async fn offer(addresses: &ActorAddresses) -> Result<Offer, TaskError> {
    let catalog = addresses.registry.send(GetCatalog).await.map_err(gone)?;
    let served = addresses.balancer.send(GetServed).await.map_err(gone)?;
    Ok(Offer::of(served.into_iter().filter(|method| catalog.method(method).is_some())))
}

async fn fetch(store: &dyn Store, grant: Grant, offer: &Offer) -> Result<Page, TaskError> {
    match (grant, store.leases()) {
        (Grant::NoRoom, _) => Ok(Page::NoRoom),
        (Grant::Part(mine), Some(leases)) => {
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

/// Takes up everything that is not settled and that no live process runs, a part at a time, as far
/// as there is room. The next part is claimed while one is taken up.
pub(in crate::execution_engine) async fn claim_all(
    recovery: &Recovery,
    store: Arc<dyn Store>,
) -> Result<Recovered, TaskError> {
    let wish = Wish { reopen: false, hold: false };
    let mut taken = Taken::default();
    let engine = &recovery.addresses.engine;
    let offer = offer(&recovery.addresses).await?;
    let mut page = fetch(&*store, grant(&recovery.addresses, &*store, 0).await?, &offer).await?;
    loop {
        let (Claimed { workflows, more, ask_again_in }, mine) = match page {
            Page::NoRoom => return Ok(taken.end()),
            Page::Everything(records) => {
                adopt_all(recovery, &store, records, None, wish, &mut taken).await?;
                return Ok(taken.end());
            }
            Page::Part(claimed, mine) => (claimed, mine),
        };
        let tasks = workflows.iter().map(|it| it.record.tasks.len() as u64).sum();
        // Asked before these are planned, for the engine and the planning share a thread: the
        // database has something to do from the beginning.
        let granted =
            if more { Some(grant(&recovery.addresses, &*store, tasks).await) } else { None };
        let next = async {
            match granted {
                Some(granted) => fetch(&*store, granted?, &offer).await.map(Some),
                None => Ok(None),
            }
        };
        let adopting = adopt_all(recovery, &store, workflows, Some(mine), wish, &mut taken);
        let (next, adopted) = join(next, adopting).await;
        adopted?;
        gleitzeit_failpoint::failpoint!("engine.claim.adopted");
        if let Some(next) = next? {
            page = next;
            continue;
        }
        engine.do_send(PollAfter(ask_again_in));
        if taken.recovered.workflows > 0 {
            // What was asked of the process that ran them waits for an answer.
            engine.do_send(Look);
        }
        return Ok(taken.end());
    }
}

impl Handler<HasRoom> for ExecutionEngine {
    type Result = bool;

    fn handle(&mut self, HasRoom { besides }: HasRoom, _: &mut Self::Context) -> bool {
        let has_room = self.load + besides < self.settings.max_queued_tasks;
        if !has_room {
            self.defer_some();
        }
        has_room && matches!(self.phase, Phase::Running)
    }
}
