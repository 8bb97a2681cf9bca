//! Stores that misbehave on purpose, each over one in memory.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use async_trait::async_trait;
use gleitzeit_actors::memory_store::MemoryStore;
use gleitzeit_domain::{event::Event, store::StoreError, task::TaskRecord};
use tokio::{sync::Semaphore, time::Duration};

use super::hooked_store::{Decision, Hook, HookedStore, Operation};

/// More writes than a test makes.
const ALL: usize = Semaphore::MAX_PERMITS >> 4;

/// One less, unless it is none; true if it was not.
fn take_one(left: &AtomicUsize) -> bool {
    left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

// ---- writes that are held back or fail ----

/// One kind of write: held back until the test lets it through, and failing as scripted.
#[derive(Debug)]
struct Writes {
    gate: Semaphore,
    /// The next error is the last one here.
    errors: Mutex<Vec<StoreError>>,
    /// Writes that have arrived so far, let through or not.
    arrived: AtomicUsize,
}

impl Writes {
    fn new(permits: usize, mut errors: Vec<StoreError>) -> Self {
        errors.reverse();
        let (gate, errors) = (Semaphore::new(permits), Mutex::new(errors));
        Self { gate, errors, arrived: AtomicUsize::new(0) }
    }

    async fn decide(&self) -> Decision {
        self.arrived.fetch_add(1, Ordering::SeqCst);
        self.gate.acquire().await.unwrap().forget();
        match self.errors.lock().unwrap().pop() {
            None => Decision::Pass,
            Some(error @ StoreError::Unknown { .. }) => Decision::PassThenFail(error),
            Some(error) => Decision::Refuse(error),
        }
    }
}

/// Holds writes back, or fails some.
#[derive(Debug)]
pub(crate) struct Flaky {
    submits: Writes,
    records: Writes,
    /// Errors of the next reads of one workflow.
    reads: Mutex<Vec<StoreError>>,
}

pub(crate) type FlakyStore = HookedStore<Flaky>;

impl FlakyStore {
    /// Holds back every write until it is let through.
    pub(crate) fn gated() -> Arc<Self> {
        Self::new(Arc::default(), 0, Vec::new(), Vec::new())
    }

    /// Answers the first writes of new workflows and of changes with these errors. A write that is
    /// answered with [`StoreError::Unknown`] is committed before.
    pub(crate) fn flaky(submits: Vec<StoreError>, records: Vec<StoreError>) -> Arc<Self> {
        Self::new(Arc::default(), ALL, submits, records)
    }

    /// Lets everything pass, over a store that outlives this one, until it is [cut](Flaky::cut).
    pub(crate) fn over_shared(memory: Arc<MemoryStore>) -> Arc<Self> {
        Self::new(memory, ALL, Vec::new(), Vec::new())
    }

    fn new(
        memory: Arc<MemoryStore>,
        permits: usize,
        submits: Vec<StoreError>,
        records: Vec<StoreError>,
    ) -> Arc<Self> {
        let (submits, records) = (Writes::new(permits, submits), Writes::new(permits, records));
        Self::over(memory, Flaky { submits, records, reads: Mutex::default() })
    }
}

impl Flaky {
    /// From now on, no write arrives any more and none is answered.
    pub(crate) fn cut(&self) {
        for writes in [&self.submits, &self.records] {
            writes.gate.forget_permits(usize::MAX);
        }
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
impl Hook for Flaky {
    async fn on(&self, operation: Operation<'_>) -> Decision {
        match operation {
            Operation::Submit(_) => self.submits.decide().await,
            Operation::Record(_) => self.records.decide().await,
            Operation::Workflow => {
                let error = self.reads.lock().unwrap().pop();
                error.map_or(Decision::Pass, Decision::Refuse)
            }
            _ => Decision::Pass,
        }
    }
}

// ---- leases that are refused ----

/// Refuses the first leases, and everything once it is cut; several engines share it.
#[derive(Debug)]
pub(crate) struct Refusing {
    refusals: AtomicUsize,
    /// Workflows that were released.
    released: AtomicUsize,
    is_cut: AtomicBool,
}

pub(crate) type RefusingStore = HookedStore<Refusing>;

impl RefusingStore {
    pub(crate) fn new(memory: Arc<MemoryStore>, refusals: usize) -> Arc<Self> {
        let refusals = AtomicUsize::new(refusals);
        let (released, is_cut) = (AtomicUsize::new(0), AtomicBool::new(false));
        Self::over(memory, Refusing { refusals, released, is_cut })
    }
}

impl Refusing {
    /// From now on nothing is written any more, and the lease is neither renewed nor closed: for the
    /// others, the engine over this one has died.
    pub(crate) fn cut(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
    }

    /// Workflows that were released so far.
    pub(crate) fn released(&self) -> usize {
        self.released.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Hook for Refusing {
    async fn on(&self, operation: Operation<'_>) -> Decision {
        let is_cut = self.is_cut.load(Ordering::SeqCst);
        match operation {
            // At once: the engine must bear an answer that arrives while it still asks.
            Operation::OpenLease if take_one(&self.refusals) => {
                Decision::Refuse(StoreError::Unavailable { detail: "not now".into() })
            }
            Operation::OpenLease
            | Operation::Workflow
            | Operation::Events
            | Operation::Other
            | Operation::OtherLease => Decision::Pass,
            _ if is_cut => Decision::Refuse(StoreError::Closed),
            Operation::Release(ids) => {
                self.released.fetch_add(ids.len(), Ordering::SeqCst);
                Decision::Pass
            }
            _ => Decision::Pass,
        }
    }

    fn has_leases(&self) -> bool {
        true
    }
}

// ---- values that are refused ----

/// A word that no result and no error may hold.
pub(crate) const POISON: &str = "poison";

/// Refuses results and errors that hold [`POISON`], as a database refuses a value for what is in it,
/// whatever else is written with it.
#[derive(Debug, Default)]
pub(crate) struct Strict {
    refused: AtomicUsize,
    /// Writes of changes that fail and may be repeated: so many, after the first that was refused.
    unavailable: AtomicUsize,
}

pub(crate) type StrictStore = HookedStore<Strict>;

impl StrictStore {
    pub(crate) fn new() -> Arc<Self> {
        Self::over(Arc::default(), Strict::default())
    }
}

impl Strict {
    /// Fails the next so many writes of changes once one was refused.
    pub(crate) fn become_unavailable(&self, writes: usize) {
        self.unavailable.store(writes, Ordering::SeqCst);
    }

    fn check<'a>(
        &self,
        mut tasks: impl Iterator<Item = &'a TaskRecord>,
        mut events: impl Iterator<Item = &'a Event>,
    ) -> Decision {
        let is_bad = |task: &TaskRecord| {
            let result = task.result.as_ref().is_some_and(|it| it.to_string().contains(POISON));
            result || task.error.as_ref().is_some_and(|it| format!("{it:?}").contains(POISON))
        };
        let has_word = |event: &Event| format!("{:?}", event.data).contains(POISON);
        if tasks.any(is_bad) || events.any(has_word) {
            self.refused.fetch_add(1, Ordering::SeqCst);
            let detail = "a value is not allowed".into();
            return Decision::Refuse(StoreError::Refused { detail });
        }
        Decision::Pass
    }
}

#[async_trait]
impl Hook for Strict {
    async fn on(&self, operation: Operation<'_>) -> Decision {
        match operation {
            Operation::Submit(new) => {
                // As with a database, the answer is not there within the same step.
                tokio::time::sleep(Duration::from_millis(1)).await;
                let tasks = new.iter().flat_map(|new| &new.record.tasks);
                self.check(tasks, new.iter().flat_map(|new| &new.events))
            }
            Operation::Record(changes) => {
                tokio::time::sleep(Duration::from_millis(1)).await;
                if self.refused.load(Ordering::SeqCst) > 0 && take_one(&self.unavailable) {
                    let detail = "cut".into();
                    return Decision::Refuse(StoreError::Unavailable { detail });
                }
                let tasks = changes.iter().flat_map(|change| &change.tasks);
                self.check(tasks, changes.iter().flat_map(|change| &change.events))
            }
            _ => Decision::Pass,
        }
    }
}
