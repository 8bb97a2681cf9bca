//! A store that refuses what holds a certain word, over one in memory: as a database refuses a value
//! for what is in it, whatever else is written with it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use gleitzeit_actors::memory_store::MemoryStore;
use gleitzeit_domain::{
    event::Event,
    id::WorkflowId,
    store::{ListFilter, NewWorkflow, Store, StoreError, Submitted, WorkflowChange},
    task::TaskRecord,
    workflow::{WorkflowRecord, WorkflowSummary},
};

/// What a result or an error must not hold.
pub(crate) const POISON: &str = "poison";

/// Refuses results and errors that hold [`POISON`].
#[derive(Debug, Default)]
pub(crate) struct Picky {
    memory: MemoryStore,
    refused: AtomicUsize,
    /// Writes of changes that fail and may be repeated: so many, after so many that were refused.
    away: AtomicUsize,
}

impl Picky {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Is away for the next so many writes of changes once it has refused one.
    pub(crate) fn goes_away(&self, writes: usize) {
        self.away.store(writes, Ordering::SeqCst);
    }

    fn check<'a>(
        &self,
        mut tasks: impl Iterator<Item = &'a TaskRecord>,
        mut events: impl Iterator<Item = &'a Event>,
    ) -> Result<(), StoreError> {
        let is_bad = |task: &TaskRecord| {
            let result = task.result.as_ref().is_some_and(|it| it.to_string().contains(POISON));
            result || task.error.as_ref().is_some_and(|it| format!("{it:?}").contains(POISON))
        };
        let has_word = |event: &Event| format!("{:?}", event.data).contains(POISON);
        if tasks.any(is_bad) || events.any(has_word) {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return Err(StoreError::Refused { detail: "a value is not allowed".into() });
        }
        Ok(())
    }
}

#[async_trait]
impl Store for Picky {
    fn describe(&self) -> String {
        "memory, for a test".into()
    }

    async fn submit(&self, new: Vec<NewWorkflow>) -> Result<Vec<Submitted>, StoreError> {
        // As with a database, the answer does not come within the same step.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let tasks = new.iter().flat_map(|new| &new.record.tasks);
        self.check(tasks, new.iter().flat_map(|new| &new.events))?;
        self.memory.submit(new).await
    }

    async fn record(&self, changes: Vec<WorkflowChange>) -> Result<(), StoreError> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let take = |left: usize| left.checked_sub(1);
        if self.refused.load(Ordering::SeqCst) > 0
            && self.away.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok()
        {
            return Err(StoreError::Unavailable { detail: "cut".into() });
        }
        let tasks = changes.iter().flat_map(|change| &change.tasks);
        self.check(tasks, changes.iter().flat_map(|change| &change.events))?;
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
