//! The store of a test: in memory; it outlives its runtimes, and they crash at its writes.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use gleitzeit::{
    Event, ListFilter, Store, StoreError, WorkflowId, WorkflowRecord, WorkflowSummary,
    domain::store::{Amendment, Deletion, LeaseStore, NewWorkflow, Submitted, WorkflowChange},
};

use crate::world::World;

pub(crate) struct KitStore(pub(crate) Arc<World>);

impl KitStore {
    /// Writes unless the process dies before; the process may die right after.
    async fn write<T>(
        &self,
        events: Vec<Event>,
        write: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        self.0.lives().await;
        if self.0.dies_before(&events) {
            match self.0.die().await {}
        }
        let written = write.await?;
        if self.0.dies_after(&events) {
            match self.0.die().await {}
        }
        Ok(written)
    }
}

#[async_trait]
impl Store for KitStore {
    fn describe(&self) -> String {
        "memory of the test".into()
    }

    fn leases(&self) -> Option<&dyn LeaseStore> {
        self.0.store.leases()
    }

    /// The virtual time, which continues from one life to the next.
    async fn shared_time(&self) -> Result<Option<DateTime<Utc>>, StoreError> {
        Ok(Some(self.0.now()))
    }

    async fn submit(&self, new: Vec<NewWorkflow>) -> Result<Vec<Submitted>, StoreError> {
        let events = new.iter().flat_map(|new| new.events.iter().cloned()).collect();
        self.write(events, self.0.store.submit(new)).await
    }

    async fn record(&self, changes: Vec<WorkflowChange>) -> Result<(), StoreError> {
        let events = changes.iter().flat_map(|change| change.events.iter().cloned()).collect();
        self.write(events, self.0.store.record(changes)).await
    }

    async fn unsettled(&self) -> Result<Vec<WorkflowRecord>, StoreError> {
        self.0.store.unsettled().await
    }

    async fn workflow(&self, id: &WorkflowId) -> Result<Option<WorkflowRecord>, StoreError> {
        self.0.store.workflow(id).await
    }

    async fn outline(&self, id: &WorkflowId) -> Result<Option<WorkflowRecord>, StoreError> {
        self.0.store.outline(id).await
    }

    async fn result(
        &self,
        id: &WorkflowId,
        index: u32,
    ) -> Result<Option<Arc<serde_json::Value>>, StoreError> {
        self.0.store.result(id, index).await
    }

    async fn list(&self, filter: ListFilter) -> Result<Vec<WorkflowSummary>, StoreError> {
        self.0.store.list(filter).await
    }

    async fn ids(&self, prefix: &str, limit: usize) -> Result<Vec<WorkflowId>, StoreError> {
        self.0.store.ids(prefix, limit).await
    }

    async fn amend(&self, amendment: Amendment) -> Result<bool, StoreError> {
        let event = vec![amendment.event.clone()];
        self.write(event, self.0.store.amend(amendment)).await
    }

    async fn delete(&self, ids: &[WorkflowId]) -> Result<Vec<Deletion>, StoreError> {
        self.0.store.delete(ids).await
    }

    async fn events(
        &self,
        id: &WorkflowId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Event>, StoreError> {
        self.0.store.events(id, after, limit).await
    }

    async fn prune(&self, before: DateTime<Utc>, limit: usize) -> Result<usize, StoreError> {
        self.0.store.prune(before, limit).await
    }

    /// Does nothing: the next life uses the same store.
    async fn close(&self, _: Duration) -> Result<(), StoreError> {
        Ok(())
    }
}
