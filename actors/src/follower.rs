//! Reads workflows that other processes run, once for all who watch them here.
//!
//! Asked by the engine for callers that wait, by the runtime's handle for listeners that follow, and
//! by the commands that show a workflow until its end; asks the store. A read follows a notification
//! of the store, at most ten times a second. Not every store notifies of every commit, and a
//! notification may be lost, so the store is polled as well: every 100 ms, or every 2 s if it
//! notifies of every commit ([`LeaseStore::notifies_every_commit`]).
//!
//! Invariants: a change of a watched workflow is read once, however many watch it. While nobody
//! watches, no task runs and nothing is read.
//!
//! [`LeaseStore::notifies_every_commit`]: gleitzeit_domain::store::LeaseStore::notifies_every_commit

mod poll;
mod watch;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use gleitzeit_domain::{
    error::{ErrorCode, TaskError},
    event::Event,
    id::WorkflowId,
    store::{Store, StoreError},
    workflow::WorkflowRecord,
};
use tokio::{
    runtime,
    sync::{Notify, broadcast},
};

pub use watch::Watch;
use watch::Watched;

/// The follower of one process, for one store. Clones share it.
#[derive(Clone)]
pub struct Follower(Arc<Shared>);

impl fmt::Debug for Follower {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Follower").field("watched", &self.0.lock().watched.len()).finish()
    }
}

/// Something new about a watched workflow.
#[derive(Debug, Clone)]
pub enum Change {
    /// Events that were stored since the last ones, in the order of their sequences.
    Events(Arc<[Event]>),
    /// The stored state: for each new watch, after the event of an end, and about once a second
    /// while nothing happens.
    State {
        /// `None` if the store has no such workflow.
        record: Option<Arc<WorkflowRecord>>,
        /// False if large results are left out.
        is_whole: bool,
    },
    /// The store refuses to read, and a repetition would not help.
    Failed(StoreError),
    /// The watcher was slower than the changes: some are missing, and the store has them.
    Missed,
}

struct Shared {
    store: Arc<dyn Store>,
    /// The runtime of the task: a watcher may be on a thread without a runtime of tokio.
    runtime: runtime::Handle,
    state: Mutex<State>,
    /// Wakes the task for a new watch, and after the last one.
    changed: Notify,
}

#[derive(Default)]
struct State {
    watched: HashMap<WorkflowId, Watched>,
    /// A task reads for them.
    is_running: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Under this lock nothing is called that can panic half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Follower {
    /// A follower that reads `store` on the current runtime of tokio.
    ///
    /// # Panics
    /// When called outside a runtime of tokio.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self(Arc::new(Shared {
            store,
            runtime: runtime::Handle::current(),
            state: Mutex::default(),
            changed: Notify::new(),
        }))
    }

    /// Watches a workflow from now on; its state comes first. `is_whole` asks for large results with
    /// the state.
    pub fn watch(&self, id: &WorkflowId, is_whole: bool) -> Watch {
        let (watch, must_start) = {
            let mut state = self.0.lock();
            let watched = state.watched.entry(id.clone()).or_insert_with(Watched::new);
            // Stays set while anybody watches: results are read for all rather than twice.
            watched.is_whole |= is_whole;
            watched.is_new = true;
            let changes = watched.changes.subscribe();
            // Under the lock in which the task ends: else it could end without seeing this watch, and
            // no task would read for it.
            let must_start = !std::mem::replace(&mut state.is_running, true);
            (Watch::new(self.clone(), id.clone(), changes), must_start)
        };
        self.0.changed.notify_one();
        if must_start {
            self.0.runtime.spawn(poll::run(poll::Running::new(Arc::clone(&self.0))));
        }
        watch
    }

    /// How many workflows are watched now.
    pub fn watched(&self) -> usize {
        self.0.lock().watched.len()
    }

    /// Waits until a workflow has settled, and returns it as it is stored. Without `is_whole`, large
    /// results may be left out.
    ///
    /// # Errors
    /// `WORKFLOW_NOT_FOUND` if the store has no such workflow, or has none any more; those of the
    /// store that a repetition would not change; `SYSTEM_SHUTDOWN` if the runtime ends before.
    pub async fn settled(
        &self,
        id: &WorkflowId,
        is_whole: bool,
    ) -> Result<Arc<WorkflowRecord>, TaskError> {
        let mut watch = self.watch(id, is_whole);
        loop {
            match watch.next().await {
                // The state may have been read for another watch, which needs no results.
                Some(Change::State { is_whole: false, .. }) if is_whole => {}
                Some(Change::State { record: Some(record), .. }) if record.status.is_settled() => {
                    return Ok(record);
                }
                Some(Change::State { record: None, .. }) => return Err(not_found(id)),
                Some(Change::Failed(error)) => return Err(error.into()),
                // The end may be among what is missing.
                Some(Change::Missed) => watch.refresh(),
                Some(Change::State { .. } | Change::Events(_)) => {}
                None => {
                    let message = "the runtime has stopped; wait again after its next start";
                    return Err(TaskError::new(ErrorCode::SystemShutdown, message));
                }
            }
        }
    }
}

fn not_found(id: &WorkflowId) -> TaskError {
    TaskError::new(ErrorCode::WorkflowNotFound, format!("no workflow has the id `{id}`"))
}

/// Changes that wait for a slow watcher; it reads the store itself beyond them.
const CHANGES_KEPT: usize = 32;

/// The channel of one workflow.
fn channel() -> broadcast::Sender<Change> {
    broadcast::Sender::new(CHANGES_KEPT)
}
