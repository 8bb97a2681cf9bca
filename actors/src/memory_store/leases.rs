//! Several engines on one [`MemoryStore`]: what processes on one database are to each other.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt as _, stream::BoxStream};
use gleitzeit_domain::{
    id::WorkflowId,
    needs::Offer,
    store::{
        Epoch, LeaseStore, StoreError,
        lease::{
            Claimed, ClaimedOne, Lease, Release, Request, RequestAnswer, RequestKey, Standing,
        },
    },
};

use super::MemoryStore;

#[async_trait]
impl LeaseStore for MemoryStore {
    async fn open_lease(&self, owner: &str, term: Duration) -> Result<Lease, StoreError> {
        let term = self.leases_expire.then_some(term);
        let epoch = self.with(|tables| tables.lease_table.open(owner, term))?;
        Ok(Lease { epoch, term })
    }

    async fn renew_lease(&self, epoch: Epoch, term: Duration) -> Result<bool, StoreError> {
        let term = self.leases_expire.then_some(term);
        self.with(|tables| tables.lease_table.renew(epoch, term))
    }

    async fn close_lease(&self, epoch: Epoch) -> Result<(), StoreError> {
        self.with(|tables| {
            // A lease that another engine has ended owns nothing any more.
            if tables.lease_table.close(epoch) {
                tables.free(epoch, false);
            }
        })?;
        self.notify();
        Ok(())
    }

    async fn claim(
        &self,
        epoch: Epoch,
        limit: usize,
        offer: &Offer,
    ) -> Result<Claimed, StoreError> {
        self.with(|tables| {
            tables.lease_table.check(Some(epoch))?;
            // Before the claim: the workflows of a dead process are for this one.
            for dead in tables.lease_table.end_dead(epoch) {
                tables.free(dead, true);
            }
            let (workflows, more) = tables.claim(epoch, limit, offer);
            Ok(Claimed { workflows, more, ask_again_in: tables.lease_table.next_end(epoch) })
        })?
    }

    async fn claim_one(
        &self,
        epoch: Epoch,
        id: &WorkflowId,
        reopens: bool,
    ) -> Result<ClaimedOne, StoreError> {
        self.with(|tables| {
            tables.lease_table.check(Some(epoch))?;
            for dead in tables.lease_table.end_dead(epoch) {
                tables.free(dead, true);
            }
            Ok(tables.claim_one(epoch, id, reopens))
        })?
    }

    async fn release(
        &self,
        epoch: Epoch,
        ids: &[WorkflowId],
        why: Release,
    ) -> Result<(), StoreError> {
        self.with(|tables| {
            tables.lease_table.check(Some(epoch))?;
            tables.release(epoch, ids, why);
            Ok(())
        })??;
        self.notify();
        Ok(())
    }

    async fn standings(&self, ids: &[WorkflowId]) -> Result<Vec<Option<Standing>>, StoreError> {
        self.with(|tables| ids.iter().map(|id| tables.standing(id)).collect())
    }

    async fn ask(&self, request: Request) -> Result<RequestKey, StoreError> {
        let key = self.with(|tables| {
            if tables.contains(&request.workflow) {
                return Ok(tables.lease_table.ask(request));
            }
            let detail = format!("no workflow has the id `{}`", request.workflow);
            Err(StoreError::Integrity { detail })
        })??;
        self.notify();
        Ok(key)
    }

    async fn requests(&self, epoch: Epoch) -> Result<Vec<(RequestKey, Request)>, StoreError> {
        self.with(|tables| {
            let is_ours = |request: &Request| tables.runs_under(&request.workflow) == Some(epoch);
            let ours = tables.lease_table.unanswered().filter(|(_, request)| is_ours(request));
            ours.map(|(key, request)| (key, request.clone())).collect()
        })
    }

    async fn answer(&self, key: RequestKey, answer: RequestAnswer) -> Result<(), StoreError> {
        self.with(|tables| tables.lease_table.answer(key, answer))?;
        self.notify();
        Ok(())
    }

    async fn take_answer(&self, key: RequestKey) -> Result<Option<RequestAnswer>, StoreError> {
        self.with(|tables| tables.lease_table.take_answer(key))
    }

    async fn withdraw(&self, key: RequestKey) -> Result<(), StoreError> {
        self.with(|tables| tables.lease_table.withdraw(key))
    }

    fn notifications(&self) -> BoxStream<'static, ()> {
        // A watch, not a queue: notifications that no one has read yet are one, and an engine that is
        // busy does not pile them up.
        let receiver = self.notifications.subscribe();
        let changes = futures_util::stream::unfold(receiver, async |mut receiver| {
            receiver.changed().await.ok()?;
            Some(((), receiver))
        });
        changes.boxed()
    }
}
