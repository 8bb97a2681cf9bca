//! A watch on one workflow: the watcher's end, and what the follower keeps about it.

use std::time::Duration;

use gleitzeit_domain::id::WorkflowId;
use tokio::{sync::broadcast, time::Instant};

use super::{Change, Follower, channel};

/// One watcher's end. Dropping the last one of a workflow ends its reads.
#[derive(Debug)]
pub struct Watch {
    follower: Follower,
    id: WorkflowId,
    changes: broadcast::Receiver<Change>,
}

impl Watch {
    pub(super) fn new(
        follower: Follower,
        id: WorkflowId,
        changes: broadcast::Receiver<Change>,
    ) -> Self {
        Self { follower, id, changes }
    }

    /// The next change; `None` if the runtime that reads has ended. Nothing is lost when the future
    /// is dropped before it is ready.
    pub async fn next(&mut self) -> Option<Change> {
        match self.changes.recv().await {
            Ok(change) => Some(change),
            Err(broadcast::error::RecvError::Lagged(_)) => Some(Change::Missed),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }

    /// Has the state read again.
    pub fn refresh(&self) {
        if let Some(watched) = self.follower.0.lock().watched.get_mut(&self.id) {
            watched.is_new = true;
        }
        self.follower.0.changed.notify_one();
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut state = self.follower.0.lock();
        // This receiver still counts. A watch that begins meanwhile waits for the lock.
        let is_last =
            state.watched.get(&self.id).is_some_and(|it| it.changes.receiver_count() == 1);
        if is_last {
            state.watched.remove(&self.id);
        }
        let is_idle = state.watched.is_empty();
        drop(state);
        if is_idle {
            // Without this the task would run until its next poll.
            self.follower.0.changed.notify_one();
        }
    }
}

/// A workflow that somebody watches.
pub(super) struct Watched {
    /// The sequence of the last event that was handed out; `None` before the first read.
    pub(super) last: Option<u64>,
    /// A watcher has not seen the state yet.
    pub(super) is_new: bool,
    /// A watcher needs large results.
    pub(super) is_whole: bool,
    /// When the state was read last.
    pub(super) state_read: Option<Instant>,
    pub(super) changes: broadcast::Sender<Change>,
}

/// A workflow without new events is looked up this often: it may be gone from the store.
const STATE_AGE_MAX: Duration = Duration::from_secs(1);

impl Watched {
    pub(super) fn new() -> Self {
        let (last, changes) = (None, channel());
        Self { last, is_new: true, is_whole: false, state_read: None, changes }
    }

    /// True if its state is to be read although nothing happened.
    pub(super) fn is_state_old(&self) -> bool {
        self.state_read.is_none_or(|at| at.elapsed() >= STATE_AGE_MAX)
    }
}
