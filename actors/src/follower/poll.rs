//! The follower's task: when the store is read, and what of it.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::{FutureExt as _, StreamExt as _, stream};
use gleitzeit_domain::{
    event::{Event, EventData},
    id::WorkflowId,
    store::{LeaseStore, StoreError},
};
use tokio::time::{Instant, sleep_until};

use super::{Change, Shared, watch::Watched};
use crate::guard::panic_text;

/// Between two rounds of reads, however often the store notifies: a busy database does so for every
/// commit of every workflow.
const ROUND_PAUSE: Duration = Duration::from_millis(100);

/// Between two polls of a store that does not notify of every commit.
const POLL: Duration = Duration::from_millis(100);

/// Between two polls of a store that does, for a notification that is lost.
const POLL_RARELY: Duration = Duration::from_secs(2);

/// A round is followed by a pause of so many times its length: however many workflows are watched,
/// the reads take a fifth of one connection at the most.
const PAUSE_FACTOR: u32 = 4;

/// Events of a workflow that are read at once.
const PAGE: usize = 1_000;

/// The task's hold on the follower. Dropped before it is released, because the runtime ends or by
/// a panic, it ends every watch: a watcher would else wait for a task that is gone.
pub(super) struct Running {
    shared: Arc<Shared>,
    is_released: bool,
}

impl Running {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, is_released: false }
    }

    /// True if nobody watches any more; then a later watch starts a task of its own.
    fn release_if_idle(&mut self) -> bool {
        let mut state = self.shared.lock();
        if state.watched.is_empty() {
            // Both under one lock: a watch that begins later sees that no task runs.
            state.is_running = false;
            self.is_released = true;
        }
        self.is_released
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.is_released {
            let mut state = self.shared.lock();
            state.is_running = false;
            state.watched.clear();
        }
    }
}

/// A workflow to read, and how.
struct Task {
    id: WorkflowId,
    last: Option<u64>,
    is_whole: bool,
    needs_state: bool,
}

/// Reads what is watched until nothing is.
pub(super) async fn run(mut running: Running) {
    let shared = Arc::clone(&running.shared);
    let leases = shared.store.leases();
    let mut notifications =
        leases.map_or_else(|| stream::pending().boxed(), |leases| leases.notifications());
    let mut is_notified = false;
    let mut round = Round { ended: Instant::now(), took: Duration::ZERO };
    let mut is_failing = false;
    while !running.release_if_idle() {
        // Asked each time: a listener of the store may start late, or be lost.
        let is_every_commit = leases.is_some_and(LeaseStore::notifies_every_commit);
        let pause = match (is_notified, is_every_commit) {
            (true, _) => ROUND_PAUSE,
            (false, true) => POLL_RARELY,
            (false, false) => POLL,
        };
        tokio::select! {
            // Only what is new: a watch must not wait for the next round, nor bring it forward for
            // all others.
            () = shared.changed.notified() => shared.read(true, &mut is_failing).await,
            notified = notifications.next(), if !is_notified => match notified {
                Some(()) => is_notified = true,
                None => notifications = stream::pending().boxed(),
            },
            () = sleep_until(round.next(pause)) => {
                is_notified = false;
                let begun = Instant::now();
                shared.read(false, &mut is_failing).await;
                round = Round { ended: Instant::now(), took: begun.elapsed() };
            }
        }
    }
}

/// The last round of reads.
struct Round {
    ended: Instant,
    took: Duration,
}

impl Round {
    fn next(&self, pause: Duration) -> Instant {
        self.ended + pause.max(self.took * PAUSE_FACTOR)
    }
}

impl Shared {
    /// Reads every watched workflow, or those with a new watch only, one after the other.
    async fn read(&self, only_new: bool, is_failing: &mut bool) {
        let tasks: Vec<Task> = {
            let mut state = self.lock();
            let due = state.watched.iter_mut().filter(|(_, it)| it.is_new || !only_new);
            due.map(|(id, it)| Task {
                id: id.clone(),
                last: it.last,
                is_whole: it.is_whole,
                needs_state: std::mem::take(&mut it.is_new) || it.last.is_none(),
            })
            .collect()
        };
        for task in tasks {
            let read = AssertUnwindSafe(self.read_one(&task)).catch_unwind().await;
            let read = read.unwrap_or_else(|panic| {
                let detail = format!("the store panicked: {}", panic_text(&*panic));
                Err(StoreError::Read { detail })
            });
            match read {
                Ok(()) => *is_failing = false,
                Err(error) => self.failed(&task, error, is_failing),
            }
        }
    }

    /// Hands on an error that is final; any other is followed by the next round.
    fn failed(&self, task: &Task, error: StoreError, is_failing: &mut bool) {
        let mut state = self.lock();
        // Nobody watches any more: the store may be closed by now, which is no failure.
        let Some(watched) = state.watched.get_mut(&task.id) else { return };
        if !std::mem::replace(is_failing, true) {
            tracing::warn!(workflow = %task.id, %error, "read of a watched workflow failed");
        }
        // The watchers still have no state.
        watched.is_new |= task.needs_state;
        if !error.is_transient() {
            let _ = watched.changes.send(Change::Failed(error));
        }
    }

    async fn read_one(&self, task: &Task) -> Result<(), StoreError> {
        // Before the state, which is then at least as new as the events.
        let (mut has_events, mut has_ended) = (false, false);
        if let Some(mut last) = task.last {
            loop {
                let events = self.store.events(&task.id, last, PAGE).await?;
                let Some(newest) = events.last() else { break };
                last = newest.sequence;
                has_events = true;
                has_ended = events.iter().any(|event| is_end(&event.data));
                let is_all = events.len() < PAGE;
                self.publish_events(&task.id, last, events);
                if is_all {
                    break;
                }
            }
        }
        let is_old = || self.lock().watched.get(&task.id).is_some_and(Watched::is_state_old);
        if task.needs_state || has_ended || (!has_events && is_old()) {
            self.read_state(task).await?;
        }
        Ok(())
    }

    async fn read_state(&self, task: &Task) -> Result<(), StoreError> {
        let record = if task.is_whole {
            self.store.workflow(&task.id).await?
        } else {
            self.store.outline(&task.id).await?
        };
        if let Some(watched) = self.lock().watched.get_mut(&task.id) {
            watched.state_read = Some(Instant::now());
            // From here on, every event is read; a watcher has the earlier ones in the state or reads
            // them itself.
            watched.last = watched.last.or(record.as_ref().map(|it| it.last_sequence));
            let record = record.map(Arc::new);
            let _ = watched.changes.send(Change::State { record, is_whole: task.is_whole });
        }
        Ok(())
    }

    fn publish_events(&self, id: &WorkflowId, last: u64, events: Vec<Event>) {
        if let Some(watched) = self.lock().watched.get_mut(id) {
            watched.last = Some(last);
            let _ = watched.changes.send(Change::Events(events.into()));
        }
    }
}

/// True for the last event of a workflow, unless it is opened again.
fn is_end(data: &EventData) -> bool {
    matches!(
        data,
        EventData::WorkflowCompleted { .. }
            | EventData::WorkflowFailed { .. }
            | EventData::WorkflowCancelled { .. }
    )
}
