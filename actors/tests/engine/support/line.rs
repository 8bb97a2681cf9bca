//! A store that several engines share, over a line that may stall, refuse, or lose answers.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

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
use tokio::sync::watch;

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// It arrives and is answered.
    Whole,
    /// It stays on its way until the state changes.
    Stalled,
    /// It does not arrive, and the caller hears so.
    Refusing,
    /// It is done, and its answer does not come: the caller knows nothing.
    Deaf,
    /// It is not done, and the caller knows nothing either.
    Lost,
}

/// Changes its state when the test says so; single calls may be given a state of their own.
#[derive(Debug)]
pub(crate) struct Line {
    memory: Arc<MemoryStore>,
    /// How far the server's clock is before this machine's.
    ahead: Option<TimeDelta>,
    state: watch::Sender<State>,
    /// The states of the next submissions, in order.
    submits: Mutex<Vec<State>>,
}

impl Line {
    pub(crate) fn over(memory: &Arc<MemoryStore>) -> Arc<Self> {
        Self::new(memory, None)
    }

    /// A line to a server whose clock differs from this machine's.
    pub(crate) fn to_server_ahead(memory: &Arc<MemoryStore>, ahead: TimeDelta) -> Arc<Self> {
        Self::new(memory, Some(ahead))
    }

    fn new(memory: &Arc<MemoryStore>, ahead: Option<TimeDelta>) -> Arc<Self> {
        let state = watch::Sender::new(State::Whole);
        Arc::new(Self { memory: Arc::clone(memory), ahead, state, submits: Mutex::default() })
    }

    pub(crate) fn set(&self, state: State) {
        self.state.send_replace(state);
    }

    /// The next submissions meet these states, the rest the state of the line.
    pub(crate) fn spoil_submits(&self, mut states: Vec<State>) {
        states.reverse();
        *self.submits.lock().unwrap() = states;
    }

    async fn pass<T>(
        &self,
        state: Option<State>,
        ask: impl AsyncFnOnce(&MemoryStore) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut states = self.state.subscribe();
        let state = match state {
            Some(state) => state,
            None => *states.wait_for(|state| *state != State::Stalled).await.unwrap(),
        };
        let unknown = || StoreError::Unknown { detail: "no answer".into() };
        match state {
            State::Whole | State::Stalled => ask(&self.memory).await,
            State::Refusing => Err(StoreError::Unavailable { detail: "refused".into() }),
            State::Deaf => ask(&self.memory).await.and_then(|_| Err(unknown())),
            State::Lost => Err(unknown()),
        }
    }
}

#[async_trait]
impl Store for Line {
    fn describe(&self) -> String {
        "memory, for a test".into()
    }

    fn leases(&self) -> Option<&dyn LeaseStore> {
        Some(self)
    }

    async fn shared_time(&self) -> Result<Option<DateTime<Utc>>, StoreError> {
        self.pass(None, async |_| Ok(self.ahead.map(|ahead| Utc::now() + ahead))).await
    }

    async fn submit(&self, new: Vec<NewWorkflow>) -> Result<Vec<Submitted>, StoreError> {
        let state = self.submits.lock().unwrap().pop();
        self.pass(state, async |memory| memory.submit(new).await).await
    }

    async fn record(&self, changes: Vec<WorkflowChange>) -> Result<(), StoreError> {
        self.pass(None, async |memory| memory.record(changes).await).await
    }

    async fn unsettled(&self) -> Result<Vec<WorkflowRecord>, StoreError> {
        self.pass(None, async |memory| memory.unsettled().await).await
    }

    async fn workflow(&self, id: &WorkflowId) -> Result<Option<WorkflowRecord>, StoreError> {
        self.pass(None, async |memory| memory.workflow(id).await).await
    }

    async fn list(&self, filter: ListFilter) -> Result<Vec<WorkflowSummary>, StoreError> {
        self.pass(None, async |memory| memory.list(filter).await).await
    }

    async fn events(
        &self,
        id: &WorkflowId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Event>, StoreError> {
        self.pass(None, async |memory| memory.events(id, after, limit).await).await
    }

    async fn prune(&self, before: DateTime<Utc>, limit: usize) -> Result<usize, StoreError> {
        self.pass(None, async |memory| memory.prune(before, limit).await).await
    }

    async fn close(&self, limit: Duration) -> Result<(), StoreError> {
        self.memory.close(limit).await
    }
}

#[async_trait]
impl LeaseStore for Line {
    async fn open_lease(&self, owner: &str, term: Duration) -> Result<Lease, StoreError> {
        self.pass(None, async |memory| memory.open_lease(owner, term).await).await
    }

    async fn renew_lease(&self, epoch: Epoch, term: Duration) -> Result<bool, StoreError> {
        self.pass(None, async |memory| memory.renew_lease(epoch, term).await).await
    }

    async fn close_lease(&self, epoch: Epoch) -> Result<(), StoreError> {
        self.pass(None, async |memory| memory.close_lease(epoch).await).await
    }

    /// What was claimed in doubt, a store gives with the next claim; this one does not claim it.
    async fn claim(
        &self,
        epoch: Epoch,
        limit: usize,
        offer: &Offer,
    ) -> Result<Claimed, StoreError> {
        let state = match *self.state.borrow() {
            State::Deaf => Some(State::Lost),
            _ => None,
        };
        self.pass(state, async |memory| memory.claim(epoch, limit, offer).await).await
    }

    async fn release(
        &self,
        epoch: Epoch,
        ids: &[WorkflowId],
        why: Release,
    ) -> Result<(), StoreError> {
        self.pass(None, async |memory| memory.release(epoch, ids, why).await).await
    }

    async fn standings(&self, ids: &[WorkflowId]) -> Result<Vec<Option<Standing>>, StoreError> {
        self.pass(None, async |memory| memory.standings(ids).await).await
    }

    async fn claim_one(
        &self,
        epoch: Epoch,
        id: &WorkflowId,
        reopens: bool,
    ) -> Result<ClaimedOne, StoreError> {
        self.pass(None, async |memory| memory.claim_one(epoch, id, reopens).await).await
    }

    async fn ask(&self, request: Request) -> Result<RequestKey, StoreError> {
        self.pass(None, async |memory| memory.ask(request).await).await
    }

    async fn requests(&self, epoch: Epoch) -> Result<Vec<(RequestKey, Request)>, StoreError> {
        self.pass(None, async |memory| memory.requests(epoch).await).await
    }

    async fn answer(&self, key: RequestKey, answer: RequestAnswer) -> Result<(), StoreError> {
        self.pass(None, async |memory| memory.answer(key, answer).await).await
    }

    async fn take_answer(&self, key: RequestKey) -> Result<Option<RequestAnswer>, StoreError> {
        self.pass(None, async |memory| memory.take_answer(key).await).await
    }

    async fn withdraw(&self, key: RequestKey) -> Result<(), StoreError> {
        self.pass(None, async |memory| memory.withdraw(key).await).await
    }

    fn notifications(&self) -> BoxStream<'static, ()> {
        self.memory.notifications()
    }
}
