//! A store that several engines share, that refuses leases before it gives one, and that is gone for
//! an engine from one moment on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures_util::stream::BoxStream;
use gleitzeit_actors::memory_store::MemoryStore;
use gleitzeit_domain::{
    event::Event,
    id::WorkflowId,
    needs::Offer,
    store::{
        Epoch, LeaseStore, ListFilter, NewWorkflow, Store, StoreError, Submitted, WorkflowChange,
        lease::{
            Claimed, ClaimedOne, Lease, Release, Request, RequestAnswer, RequestKey, Standing,
        },
    },
    workflow::{WorkflowRecord, WorkflowSummary},
};

/// Refuses the next leases at once, without having waited for anything.
#[derive(Debug)]
pub(crate) struct Reluctant {
    memory: Arc<MemoryStore>,
    refusals: AtomicUsize,
    /// Workflows that were given back.
    released: AtomicUsize,
    is_cut: AtomicBool,
}

impl Reluctant {
    pub(crate) fn new(memory: Arc<MemoryStore>, refusals: usize) -> Arc<Self> {
        Arc::new(Self {
            memory,
            refusals: AtomicUsize::new(refusals),
            released: AtomicUsize::new(0),
            is_cut: AtomicBool::new(false),
        })
    }

    /// From now on nothing is written any more, and the lease is neither renewed nor closed: for the
    /// others, the engine over this one has died.
    pub(crate) fn cut(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
    }

    /// Workflows that were given back so far.
    pub(crate) fn released(&self) -> usize {
        self.released.load(Ordering::SeqCst)
    }

    fn check(&self) -> Result<(), StoreError> {
        if self.is_cut.load(Ordering::SeqCst) { Err(StoreError::Closed) } else { Ok(()) }
    }
}

#[async_trait]
impl Store for Reluctant {
    fn describe(&self) -> String {
        "memory, for a test".into()
    }

    fn leases(&self) -> Option<&dyn LeaseStore> {
        Some(self)
    }

    async fn submit(&self, new: Vec<NewWorkflow>) -> Result<Vec<Submitted>, StoreError> {
        self.check()?;
        self.memory.submit(new).await
    }

    async fn record(&self, changes: Vec<WorkflowChange>) -> Result<(), StoreError> {
        self.check()?;
        self.memory.record(changes).await
    }

    async fn unsettled(&self) -> Result<Vec<WorkflowRecord>, StoreError> {
        self.memory.unsettled().await
    }

    async fn workflow(&self, id: &WorkflowId) -> Result<Option<WorkflowRecord>, StoreError> {
        self.memory.workflow(id).await
    }

    async fn list(&self, filter: ListFilter) -> Result<Vec<WorkflowSummary>, StoreError> {
        self.memory.list(filter).await
    }

    async fn events(
        &self,
        id: &WorkflowId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Event>, StoreError> {
        self.memory.events(id, after, limit).await
    }

    async fn prune(&self, before: DateTime<Utc>, limit: usize) -> Result<usize, StoreError> {
        self.memory.prune(before, limit).await
    }

    async fn close(&self, limit: Duration) -> Result<(), StoreError> {
        self.memory.close(limit).await
    }
}

#[async_trait]
impl LeaseStore for Reluctant {
    async fn open_lease(&self, owner: &str, term: Duration) -> Result<Lease, StoreError> {
        let take = |left: usize| left.checked_sub(1);
        match self.refusals.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take) {
            Ok(_) => Err(StoreError::Unavailable { detail: "not now".into() }),
            Err(_) => self.memory.open_lease(owner, term).await,
        }
    }

    async fn renew_lease(&self, epoch: Epoch, term: Duration) -> Result<bool, StoreError> {
        self.check()?;
        self.memory.renew_lease(epoch, term).await
    }

    async fn close_lease(&self, epoch: Epoch) -> Result<(), StoreError> {
        self.check()?;
        self.memory.close_lease(epoch).await
    }

    async fn claim(
        &self,
        epoch: Epoch,
        limit: usize,
        offer: &Offer,
    ) -> Result<Claimed, StoreError> {
        self.check()?;
        self.memory.claim(epoch, limit, offer).await
    }

    async fn release(
        &self,
        epoch: Epoch,
        ids: &[WorkflowId],
        why: Release,
    ) -> Result<(), StoreError> {
        self.check()?;
        self.released.fetch_add(ids.len(), Ordering::SeqCst);
        self.memory.release(epoch, ids, why).await
    }

    async fn standings(&self, ids: &[WorkflowId]) -> Result<Vec<Option<Standing>>, StoreError> {
        self.memory.standings(ids).await
    }

    async fn claim_one(
        &self,
        epoch: Epoch,
        id: &WorkflowId,
        reopens: bool,
    ) -> Result<ClaimedOne, StoreError> {
        self.memory.claim_one(epoch, id, reopens).await
    }

    async fn ask(&self, request: Request) -> Result<RequestKey, StoreError> {
        self.memory.ask(request).await
    }

    async fn requests(&self, epoch: Epoch) -> Result<Vec<(RequestKey, Request)>, StoreError> {
        self.memory.requests(epoch).await
    }

    async fn answer(&self, key: RequestKey, answer: RequestAnswer) -> Result<(), StoreError> {
        self.memory.answer(key, answer).await
    }

    async fn take_answer(&self, key: RequestKey) -> Result<Option<RequestAnswer>, StoreError> {
        self.memory.take_answer(key).await
    }

    async fn withdraw(&self, key: RequestKey) -> Result<(), StoreError> {
        self.memory.withdraw(key).await
    }

    fn notifications(&self) -> BoxStream<'static, ()> {
        self.memory.notifications()
    }
}
