//! A store that behaves badly on purpose, over one in memory.

use std::{
    sync::{
        Arc, Mutex,
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
    workflow::{WorkflowRecord, WorkflowSummary},
};
use tokio::sync::Semaphore;

/// More writes than a test makes.
const ALL: usize = Semaphore::MAX_PERMITS >> 4;

/// One kind of write: held back until the test lets it through, and failing as it was told.
#[derive(Debug)]
struct Trouble {
    gate: Semaphore,
    /// The next error is the last one here.
    errors: Mutex<Vec<StoreError>>,
    /// Writes that have arrived so far, let through or not.
    arrived: AtomicUsize,
}

impl Trouble {
    fn new(permits: usize, errors: Vec<StoreError>) -> Self {
        Self {
            gate: Semaphore::new(permits),
            errors: Mutex::new(errors),
            arrived: AtomicUsize::new(0),
        }
    }

    /// Waits at the gate; then the error to answer with, if any.
    async fn meet(&self) -> Option<StoreError> {
        self.arrived.fetch_add(1, Ordering::SeqCst);
        self.gate.acquire().await.unwrap().forget();
        self.errors.lock().unwrap().pop()
    }
}

/// Holds writes back, or fails some; what it says it has written, a [`MemoryStore`] has.
#[derive(Debug)]
pub(crate) struct Unruly {
    memory: Arc<MemoryStore>,
    submits: Trouble,
    records: Trouble,
    /// Errors of the next reads of one workflow.
    reads: Mutex<Vec<StoreError>>,
}

impl Unruly {
    /// Holds back every write until it is let through.
    pub(crate) fn gated() -> Arc<Self> {
        Self::over(Arc::default(), 0, Vec::new(), Vec::new())
    }

    /// Answers the first writes of new workflows and of changes with these errors. A write that is
    /// answered with [`StoreError::Unknown`] is committed all the same.
    pub(crate) fn flaky(submits: Vec<StoreError>, records: Vec<StoreError>) -> Arc<Self> {
        Self::over(Arc::default(), ALL, submits, records)
    }

    /// Lets everything pass, over a store that outlives this one, until it is [cut](Self::cut).
    pub(crate) fn over_shared(memory: Arc<MemoryStore>) -> Arc<Self> {
        Self::over(memory, ALL, Vec::new(), Vec::new())
    }

    /// From now on, no write arrives any more and none is answered.
    pub(crate) fn cut(&self) {
        for trouble in [&self.submits, &self.records] {
            trouble.gate.forget_permits(usize::MAX);
        }
    }

    fn over(
        memory: Arc<MemoryStore>,
        permits: usize,
        mut submits: Vec<StoreError>,
        mut records: Vec<StoreError>,
    ) -> Arc<Self> {
        submits.reverse();
        records.reverse();
        let (submits, records) = (Trouble::new(permits, submits), Trouble::new(permits, records));
        Arc::new(Self { memory, submits, records, reads: Mutex::default() })
    }

    /// Fails the next read of a workflow.
    pub(crate) fn fail_read(&self, error: StoreError) {
        self.reads.lock().unwrap().push(error);
    }

    /// Lets so many writes of new workflows through.
    pub(crate) fn pass_submits(&self, count: usize) {
        self.submits.gate.add_permits(count);
    }

    /// Lets so many writes of changes through.
    pub(crate) fn pass_records(&self, count: usize) {
        self.records.gate.add_permits(count);
    }

    /// Lets everything through from now on.
    pub(crate) fn open(&self) {
        self.pass_submits(ALL);
        self.pass_records(ALL);
    }

    /// Writes of changes that have arrived so far.
    pub(crate) fn records_arrived(&self) -> usize {
        self.records.arrived.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Store for Unruly {
    fn describe(&self) -> String {
        "memory, for a test".into()
    }

    async fn submit(&self, new: Vec<NewWorkflow>) -> Result<Vec<Submitted>, StoreError> {
        match self.submits.meet().await {
            Some(error @ StoreError::Unknown { .. }) => {
                self.memory.submit(new).await?;
                Err(error)
            }
            Some(error) => Err(error),
            None => self.memory.submit(new).await,
        }
    }

    async fn record(&self, changes: Vec<WorkflowChange>) -> Result<(), StoreError> {
        match self.records.meet().await {
            Some(error @ StoreError::Unknown { .. }) => {
                self.memory.record(changes).await?;
                Err(error)
            }
            Some(error) => Err(error),
            None => self.memory.record(changes).await,
        }
    }

    async fn unsettled(&self) -> Result<Vec<WorkflowRecord>, StoreError> {
        self.memory.unsettled().await
    }

    async fn workflow(&self, id: &WorkflowId) -> Result<Option<WorkflowRecord>, StoreError> {
        let error = self.reads.lock().unwrap().pop();
        match error {
            Some(error) => Err(error),
            None => self.memory.workflow(id).await,
        }
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
