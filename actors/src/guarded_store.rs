//! A store whose panics are errors.
//!
//! A panic inside a store would otherwise stop the engine, or, after its first step, never be
//! answered. A write that panicked may have been committed or not; like every write of
//! which that is not known, it is written again, which the port allows.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures_util::{FutureExt as _, StreamExt as _, stream::BoxStream};
use gleitzeit_domain::{
    event::Event,
    id::WorkflowId,
    needs::Offer,
    store::{
        Amendment, Deletion, Epoch, LeaseStore, ListFilter, NewWorkflow, Store, StoreError,
        Submitted, WorkflowChange,
        lease::{
            Claimed, ClaimedOne, Command, Lease, Release, Request, RequestAnswer, RequestKey,
            Standing,
        },
    },
    workflow::{WorkflowRecord, WorkflowSummary},
};

use crate::guard::panic_text;

/// The store with its panics caught. For a store that cannot fail nothing is kept for another try, so
/// its panic passes and stops the system.
pub(crate) fn guarded(store: Arc<dyn Store>) -> Arc<dyn Store> {
    // Without this a store in memory would pay for a wrapper on each call.
    if store.is_fallible() { Arc::new(GuardedStore(store)) } else { store }
}

struct GuardedStore(Arc<dyn Store>);

/// Awaits what `ask` begins. The call itself is made in here, because a store may panic before it
/// returns a future.
async fn caught<T>(
    ask: impl AsyncFnOnce() -> Result<T, StoreError>,
    error: impl FnOnce(String) -> StoreError,
) -> Result<T, StoreError> {
    let answered = AssertUnwindSafe(async { ask().await }).catch_unwind().await;
    answered.unwrap_or_else(|panic| {
        let text = panic_text(&*panic);
        tracing::error!(text, "the store panicked");
        Err(error(format!("it panicked: {text}")))
    })
}

fn unknown(detail: String) -> StoreError {
    StoreError::Unknown { detail }
}

fn unread(detail: String) -> StoreError {
    StoreError::Read { detail }
}

#[async_trait]
impl Store for GuardedStore {
    fn describe(&self) -> String {
        self.0.describe()
    }

    fn leases(&self) -> Option<&dyn LeaseStore> {
        // Itself, and not the inner one: the leases must be guarded as well.
        self.0.leases().is_some().then_some(self as &dyn LeaseStore)
    }

    async fn shared_time(&self) -> Result<Option<DateTime<Utc>>, StoreError> {
        caught(async || self.0.shared_time().await, unread).await
    }

    async fn submit(&self, new: Vec<NewWorkflow>) -> Result<Vec<Submitted>, StoreError> {
        // Unknown: it may have committed before it panicked.
        caught(async || self.0.submit(new).await, unknown).await
    }

    async fn record(&self, changes: Vec<WorkflowChange>) -> Result<(), StoreError> {
        caught(async || self.0.record(changes).await, unknown).await
    }

    async fn unsettled(&self) -> Result<Vec<WorkflowRecord>, StoreError> {
        // A read has changed nothing, and is not in doubt.
        caught(async || self.0.unsettled().await, unread).await
    }

    async fn workflow(&self, id: &WorkflowId) -> Result<Option<WorkflowRecord>, StoreError> {
        caught(async || self.0.workflow(id).await, unread).await
    }

    async fn outline(&self, id: &WorkflowId) -> Result<Option<WorkflowRecord>, StoreError> {
        caught(async || self.0.outline(id).await, unread).await
    }

    async fn result(
        &self,
        id: &WorkflowId,
        index: u32,
    ) -> Result<Option<Arc<serde_json::Value>>, StoreError> {
        caught(async || self.0.result(id, index).await, unread).await
    }

    async fn list(&self, filter: ListFilter) -> Result<Vec<WorkflowSummary>, StoreError> {
        caught(async || self.0.list(filter).await, unread).await
    }

    async fn ids(&self, prefix: &str, limit: usize) -> Result<Vec<WorkflowId>, StoreError> {
        caught(async || self.0.ids(prefix, limit).await, unread).await
    }

    async fn amend(&self, amendment: Amendment) -> Result<bool, StoreError> {
        caught(async || self.0.amend(amendment).await, unknown).await
    }

    async fn delete(&self, ids: &[WorkflowId]) -> Result<Vec<Deletion>, StoreError> {
        caught(async || self.0.delete(ids).await, unknown).await
    }

    async fn events(
        &self,
        id: &WorkflowId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Event>, StoreError> {
        caught(async || self.0.events(id, after, limit).await, unread).await
    }

    async fn prune(&self, before: DateTime<Utc>, limit: usize) -> Result<usize, StoreError> {
        caught(async || self.0.prune(before, limit).await, unknown).await
    }

    async fn close(&self, limit: Duration) -> Result<(), StoreError> {
        caught(async || self.0.close(limit).await, unknown).await
    }
}

impl GuardedStore {
    /// Called only if the store reported leases.
    fn leased(&self) -> Result<&dyn LeaseStore, StoreError> {
        // The port does not say that leases stay; a store that loses them fails the call only.
        let none = || StoreError::Open { detail: "the store has no leases any more".into() };
        self.0.leases().ok_or_else(none)
    }
}

#[async_trait]
impl LeaseStore for GuardedStore {
    async fn open_lease(&self, owner: &str, term: Duration) -> Result<Lease, StoreError> {
        caught(async || self.leased()?.open_lease(owner, term).await, unknown).await
    }

    async fn renew_lease(&self, epoch: Epoch, term: Duration) -> Result<bool, StoreError> {
        caught(async || self.leased()?.renew_lease(epoch, term).await, unknown).await
    }

    async fn close_lease(&self, epoch: Epoch) -> Result<(), StoreError> {
        caught(async || self.leased()?.close_lease(epoch).await, unknown).await
    }

    async fn claim(
        &self,
        epoch: Epoch,
        limit: usize,
        offer: &Offer,
    ) -> Result<Claimed, StoreError> {
        caught(async || self.leased()?.claim(epoch, limit, offer).await, unknown).await
    }

    async fn release(
        &self,
        epoch: Epoch,
        ids: &[WorkflowId],
        why: Release,
    ) -> Result<(), StoreError> {
        caught(async || self.leased()?.release(epoch, ids, why).await, unknown).await
    }

    async fn standings(&self, ids: &[WorkflowId]) -> Result<Vec<Option<Standing>>, StoreError> {
        caught(async || self.leased()?.standings(ids).await, unread).await
    }

    async fn claim_one(
        &self,
        epoch: Epoch,
        id: &WorkflowId,
        reopens: bool,
    ) -> Result<ClaimedOne, StoreError> {
        caught(async || self.leased()?.claim_one(epoch, id, reopens).await, unknown).await
    }

    async fn ask(&self, request: Request) -> Result<RequestKey, StoreError> {
        caught(async || self.leased()?.ask(request).await, unknown).await
    }

    async fn requests(&self, epoch: Epoch) -> Result<Vec<(RequestKey, Request)>, StoreError> {
        caught(async || self.leased()?.requests(epoch).await, unread).await
    }

    async fn answer(&self, key: RequestKey, answer: RequestAnswer) -> Result<(), StoreError> {
        caught(async || self.leased()?.answer(key, answer).await, unknown).await
    }

    async fn take_answer(&self, key: RequestKey) -> Result<Option<RequestAnswer>, StoreError> {
        caught(async || self.leased()?.take_answer(key).await, unknown).await
    }

    async fn withdraw(&self, key: RequestKey) -> Result<(), StoreError> {
        caught(async || self.leased()?.withdraw(key).await, unknown).await
    }

    async fn ask_all(&self, command: Command) -> Result<RequestKey, StoreError> {
        caught(async || self.leased()?.ask_all(command).await, unknown).await
    }

    async fn asked_of_all(
        &self,
        after: RequestKey,
    ) -> Result<Vec<(RequestKey, Command, bool)>, StoreError> {
        caught(async || self.leased()?.asked_of_all(after).await, unread).await
    }

    fn notifies_every_commit(&self) -> bool {
        self.0.leases().is_some_and(LeaseStore::notifies_every_commit)
    }

    fn notifications(&self) -> BoxStream<'static, ()> {
        match self.0.leases() {
            Some(leases) => leases.notifications(),
            None => futures_util::stream::pending().boxed(),
        }
    }
}
