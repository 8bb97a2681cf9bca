//! A store whose panics are errors.
//!
//! A panic inside a store would else stop the engine, or, where it comes after the first step, be
//! waited for for ever. A write that panicked may have been committed or not; like every write of
//! which that is not known, it is written again, which the port allows.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures_util::FutureExt as _;
use gleitzeit_domain::{
    event::Event,
    id::WorkflowId,
    store::{ListFilter, NewWorkflow, Store, StoreError, Submitted, WorkflowChange},
    workflow::{WorkflowRecord, WorkflowSummary},
};

use crate::guard::panic_text;

/// The store with its panics caught. One that says it cannot fail is taken at its word: nothing is
/// kept for another try, so its panic goes through and stops the system.
pub(super) fn guarded(store: Arc<dyn Store>) -> Arc<dyn Store> {
    if store.is_fallible() { Arc::new(GuardedStore(store)) } else { store }
}

struct GuardedStore(Arc<dyn Store>);

/// Awaits what `ask` begins; it is called in here too, for a store may panic before there is a
/// future.
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

    async fn submit(&self, new: Vec<NewWorkflow>) -> Result<Vec<Submitted>, StoreError> {
        caught(async || self.0.submit(new).await, unknown).await
    }

    async fn record(&self, changes: Vec<WorkflowChange>) -> Result<(), StoreError> {
        caught(async || self.0.record(changes).await, unknown).await
    }

    async fn unsettled(&self) -> Result<Vec<WorkflowRecord>, StoreError> {
        caught(async || self.0.unsettled().await, unread).await
    }

    async fn workflow(&self, id: &WorkflowId) -> Result<Option<WorkflowRecord>, StoreError> {
        caught(async || self.0.workflow(id).await, unread).await
    }

    async fn list(&self, filter: ListFilter) -> Result<Vec<WorkflowSummary>, StoreError> {
        caught(async || self.0.list(filter).await, unread).await
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
