//! A store in memory, empty at each start: for tests, and for embedding without a database.
//!
//! Asked like every [`Store`]; asks no one. Its futures are ready at the first poll: one lock for a
//! whole batch, held only while records are moved in or cloned out.
//!
//! Invariant: at most `settled_max` settled workflows are kept; the oldest settled are dropped first,
//! with their events. A workflow that is not settled is never dropped.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use gleitzeit_domain::{
    event::Event,
    id::WorkflowId,
    store::{
        Amendment, Deletion, Epoch, LeaseStore, ListFilter, NewWorkflow, Store, StoreError,
        Submitted, WorkflowChange,
    },
    workflow::{WorkflowRecord, WorkflowSummary},
};
use tokio::sync::watch;

use self::tables::Tables;

mod lease_table;
mod leases;
mod tables;

/// Settled workflows that [`MemoryStore::default`] keeps.
pub const SETTLED_MAX: usize = 1_000;

/// Keeps workflows in memory.
///
/// ```
/// use gleitzeit_actors::memory_store::MemoryStore;
/// use gleitzeit_domain::store::Store as _;
///
/// let store = MemoryStore::new(100);
/// assert_eq!(store.describe(), "memory");
/// ```
#[derive(Debug)]
pub struct MemoryStore {
    /// `None` once closed.
    tables: Mutex<Option<Tables>>,
    /// Changes when another engine may have work.
    notifications: watch::Sender<()>,
    /// True if a lease expires unless it is renewed.
    leases_expire: bool,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new(SETTLED_MAX)
    }
}

impl MemoryStore {
    /// An empty store that keeps at most `settled_max` settled workflows.
    pub fn new(settled_max: usize) -> Self {
        Self {
            tables: Mutex::new(Some(Tables::new(settled_max))),
            notifications: watch::Sender::new(()),
            leases_expire: false,
        }
    }

    /// Sets that leases expire unless they are renewed, by tokio's clock: several engines on
    /// one such store share it as processes share a server.
    #[must_use]
    pub fn with_timed_leases(mut self) -> Self {
        self.leases_expire = true;
        self
    }

    /// Expires every lease as if its process had died: its workflows are free for the next claim. For
    /// tests of a crash; a live engine loses what it runs.
    pub fn end_leases(&self) {
        // A closed store has no leases: nothing to expire is no error.
        let _ = self.with(|tables| tables.lease_table.end_all());
        self.notify();
    }

    /// Notifies the engines that they may have work.
    fn notify(&self) {
        self.notifications.send_replace(());
    }

    fn lock(&self) -> MutexGuard<'_, Option<Tables>> {
        // Every change is checked before the first one is applied, so that no panic leaves a batch
        // half written. Without `into_inner`, one panic would refuse every later call.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, ask: impl FnOnce(&mut Tables) -> T) -> Result<T, StoreError> {
        self.lock().as_mut().map(ask).ok_or(StoreError::Closed)
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn describe(&self) -> String {
        "memory".into()
    }

    fn is_fallible(&self) -> bool {
        self.leases_expire
    }

    fn leases(&self) -> Option<&dyn LeaseStore> {
        Some(self)
    }

    async fn submit(&self, new: Vec<NewWorkflow>) -> Result<Vec<Submitted>, StoreError> {
        let is_free = new.iter().any(|new| new.epoch.is_none());
        let (answers, dropped) = self.with(|tables| {
            for epoch in epochs(new.iter().map(|new| new.epoch)) {
                tables.lease_table.check(epoch)?;
            }
            let answers = new.into_iter().map(|new| tables.add(new)).collect();
            Ok((answers, tables.take_surplus()))
        })??;
        if is_free {
            self.notify();
        }
        // Freeing thousands of records takes longer than moving them in: not under the lock.
        drop(dropped);
        Ok(answers)
    }

    async fn record(&self, changes: Vec<WorkflowChange>) -> Result<(), StoreError> {
        let dropped = self.with(|tables| {
            for epoch in epochs(changes.iter().map(|change| change.epoch)) {
                tables.lease_table.check(epoch)?;
            }
            // All before the first is applied: the port promises a whole batch or none of it.
            for change in &changes {
                tables.check(change)?;
            }
            for change in changes {
                tables.apply(change);
            }
            Ok(tables.take_surplus())
        })?;
        dropped.map(drop)
    }

    async fn unsettled(&self) -> Result<Vec<WorkflowRecord>, StoreError> {
        self.with(|tables| tables.unsettled())
    }

    async fn workflow(&self, id: &WorkflowId) -> Result<Option<WorkflowRecord>, StoreError> {
        self.with(|tables| tables.workflow(id))
    }

    async fn list(&self, filter: ListFilter) -> Result<Vec<WorkflowSummary>, StoreError> {
        self.with(|tables| tables.list(&filter))
    }

    async fn amend(&self, amendment: Amendment) -> Result<bool, StoreError> {
        self.with(|tables| tables.amend(amendment))
    }

    async fn delete(&self, ids: &[WorkflowId]) -> Result<Vec<Deletion>, StoreError> {
        let (answers, deleted) = self.with(|tables| tables.delete(ids))?;
        self.notify();
        drop(deleted);
        Ok(answers)
    }

    async fn events(
        &self,
        id: &WorkflowId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Event>, StoreError> {
        self.with(|tables| tables.events(id, after, limit))
    }

    async fn prune(&self, before: DateTime<Utc>, limit: usize) -> Result<usize, StoreError> {
        let pruned = self.with(|tables| tables.take_settled_before(before, limit))?;
        Ok(pruned.len())
    }

    async fn close(&self, _limit: Duration) -> Result<(), StoreError> {
        let held = self.lock().take();
        // Not under the lock: other callers would wait while thousands of records are freed.
        drop(held);
        Ok(())
    }
}

/// The leases of a batch, mostly a single one; equal neighbours are returned once.
fn epochs(all: impl Iterator<Item = Option<Epoch>>) -> impl Iterator<Item = Option<Epoch>> {
    let mut last = None;
    all.filter(move |epoch| last.replace(*epoch) != Some(*epoch))
}

#[cfg(test)]
mod tests;
