//! A store over one in memory whose calls each pass a hook: the base of every store that
//! misbehaves for a test.
#![allow(dead_code, reason = "shared by several test programs; none uses all of it")]

use std::{fmt, ops::Deref, sync::Arc, time::Duration};

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
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

/// A call of the store, as its hook sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Operation<'a> {
    Submit(&'a [NewWorkflow]),
    Record(&'a [WorkflowChange]),
    /// Reads one workflow.
    Workflow,
    /// Reads the events of one workflow.
    Events,
    /// Any other read or clean-up.
    Other,
    OpenLease,
    RenewLease,
    CloseLease,
    Claim,
    Release(&'a [WorkflowId]),
    /// A claim on one workflow, or anything about requests.
    OtherLease,
}

/// The decision about a call.
#[derive(Debug)]
pub(crate) enum Decision {
    /// The call is done and answered.
    Pass,
    /// The call is not done.
    Refuse(StoreError),
    /// The call is done, and answered with an error.
    PassThenFail(StoreError),
}

/// Decides about every call of a [`HookedStore`]; may wait first, or panic.
#[async_trait]
pub(crate) trait Hook: fmt::Debug + Send + Sync + 'static {
    async fn on(&self, operation: Operation<'_>) -> Decision;

    /// False for a store that one process uses at a time.
    fn has_leases(&self) -> bool {
        false
    }

    /// True for a store that notifies of every commit.
    fn notifies_every_commit(&self) -> bool {
        false
    }

    /// How far the clock of the store's server is ahead of this machine's.
    fn clock_ahead(&self) -> Option<TimeDelta> {
        None
    }
}

/// The store.
#[derive(Debug)]
pub(crate) struct HookedStore<H> {
    memory: Arc<MemoryStore>,
    hook: H,
}

impl<H> HookedStore<H> {
    pub(crate) fn over(memory: Arc<MemoryStore>, hook: H) -> Arc<Self> {
        Arc::new(Self { memory, hook })
    }
}

impl<H> Deref for HookedStore<H> {
    type Target = H;

    fn deref(&self) -> &H {
        &self.hook
    }
}

impl<H: Hook> HookedStore<H> {
    async fn pass<T>(
        &self,
        operation: Operation<'_>,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        match self.hook.on(operation).await {
            Decision::Pass => call.await,
            Decision::Refuse(error) => Err(error),
            Decision::PassThenFail(error) => call.await.and(Err(error)),
        }
    }
}

#[async_trait]
impl<H: Hook> Store for HookedStore<H> {
    fn describe(&self) -> String {
        "memory, for a test".into()
    }

    fn leases(&self) -> Option<&dyn LeaseStore> {
        self.hook.has_leases().then_some(self as &dyn LeaseStore)
    }

    async fn shared_time(&self) -> Result<Option<DateTime<Utc>>, StoreError> {
        let now = async { Ok(self.hook.clock_ahead().map(|ahead| Utc::now() + ahead)) };
        self.pass(Operation::Other, now).await
    }

    async fn submit(&self, new: Vec<NewWorkflow>) -> Result<Vec<Submitted>, StoreError> {
        self.pass(Operation::Submit(&new.clone()), self.memory.submit(new)).await
    }

    async fn record(&self, changes: Vec<WorkflowChange>) -> Result<(), StoreError> {
        self.pass(Operation::Record(&changes.clone()), self.memory.record(changes)).await
    }

    async fn unsettled(&self) -> Result<Vec<WorkflowRecord>, StoreError> {
        self.pass(Operation::Other, self.memory.unsettled()).await
    }

    async fn workflow(&self, id: &WorkflowId) -> Result<Option<WorkflowRecord>, StoreError> {
        self.pass(Operation::Workflow, self.memory.workflow(id)).await
    }

    async fn list(&self, filter: ListFilter) -> Result<Vec<WorkflowSummary>, StoreError> {
        self.pass(Operation::Other, self.memory.list(filter)).await
    }

    async fn events(
        &self,
        id: &WorkflowId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Event>, StoreError> {
        self.pass(Operation::Events, self.memory.events(id, after, limit)).await
    }

    async fn prune(&self, before: DateTime<Utc>, limit: usize) -> Result<usize, StoreError> {
        self.pass(Operation::Other, self.memory.prune(before, limit)).await
    }

    async fn close(&self, limit: Duration) -> Result<(), StoreError> {
        self.memory.close(limit).await
    }
}

#[async_trait]
impl<H: Hook> LeaseStore for HookedStore<H> {
    async fn open_lease(&self, owner: &str, term: Duration) -> Result<Lease, StoreError> {
        self.pass(Operation::OpenLease, self.memory.open_lease(owner, term)).await
    }

    async fn renew_lease(&self, epoch: Epoch, term: Duration) -> Result<bool, StoreError> {
        self.pass(Operation::RenewLease, self.memory.renew_lease(epoch, term)).await
    }

    async fn close_lease(&self, epoch: Epoch) -> Result<(), StoreError> {
        self.pass(Operation::CloseLease, self.memory.close_lease(epoch)).await
    }

    async fn claim(
        &self,
        epoch: Epoch,
        limit: usize,
        offer: &Offer,
    ) -> Result<Claimed, StoreError> {
        self.pass(Operation::Claim, self.memory.claim(epoch, limit, offer)).await
    }

    async fn release(
        &self,
        epoch: Epoch,
        ids: &[WorkflowId],
        why: Release,
    ) -> Result<(), StoreError> {
        self.pass(Operation::Release(ids), self.memory.release(epoch, ids, why)).await
    }

    async fn standings(&self, ids: &[WorkflowId]) -> Result<Vec<Option<Standing>>, StoreError> {
        self.pass(Operation::OtherLease, self.memory.standings(ids)).await
    }

    async fn claim_one(
        &self,
        epoch: Epoch,
        id: &WorkflowId,
        reopens: bool,
    ) -> Result<ClaimedOne, StoreError> {
        self.pass(Operation::OtherLease, self.memory.claim_one(epoch, id, reopens)).await
    }

    async fn ask(&self, request: Request) -> Result<RequestKey, StoreError> {
        self.pass(Operation::OtherLease, self.memory.ask(request)).await
    }

    async fn requests(&self, epoch: Epoch) -> Result<Vec<(RequestKey, Request)>, StoreError> {
        self.pass(Operation::OtherLease, self.memory.requests(epoch)).await
    }

    async fn answer(&self, key: RequestKey, answer: RequestAnswer) -> Result<(), StoreError> {
        self.pass(Operation::OtherLease, self.memory.answer(key, answer)).await
    }

    async fn take_answer(&self, key: RequestKey) -> Result<Option<RequestAnswer>, StoreError> {
        self.pass(Operation::OtherLease, self.memory.take_answer(key)).await
    }

    async fn withdraw(&self, key: RequestKey) -> Result<(), StoreError> {
        self.pass(Operation::OtherLease, self.memory.withdraw(key)).await
    }

    fn notifies_every_commit(&self) -> bool {
        self.hook.notifies_every_commit()
    }

    fn notifications(&self) -> BoxStream<'static, ()> {
        self.memory.notifications()
    }
}
