//! The number of zygotes that a jail keeps, and the number that jobs need.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicUsize, Ordering},
};

use super::{child::Child, config::ZygoteConfig, slot};
use crate::pool::WorkerPool;

/// How many places there are, and how many jobs need one.
#[derive(Debug)]
pub(super) struct ZygoteSlots {
    /// Weak, for a sandbox has stopped when nothing holds its plan.
    config: Weak<ZygoteConfig>,
    most: usize,
    started: AtomicUsize,
    busy: AtomicUsize,
}

/// A job that needs a place, or has one.
pub(super) struct Busy<'a> {
    slots: &'a ZygoteSlots,
    /// So many there are with it.
    pub(super) number: usize,
}

impl ZygoteSlots {
    /// One place has started.
    pub(super) fn new(config: &Arc<ZygoteConfig>, most: usize) -> Self {
        let (started, busy) = (AtomicUsize::new(1), AtomicUsize::new(0));
        Self { config: Arc::downgrade(config), most, started, busy }
    }

    pub(super) fn enter(&self) -> Busy<'_> {
        Busy { slots: self, number: self.busy.fetch_add(1, Ordering::AcqRel) + 1 }
    }

    /// Starts one more slot if there are fewer than `needed`; false if no slot is left to start.
    pub(super) fn add(&self, pool: &Arc<WorkerPool<Child>>, needed: usize) -> bool {
        let most = self.most.min(needed);
        let one_more = |started: usize| (started < most).then_some(started + 1);
        if self.started.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).is_err() {
            return false;
        }
        let Some(config) = self.config.upgrade() else { return false };
        tokio::spawn(slot::fill_new_slot(Arc::clone(pool), config));
        true
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.slots.busy.fetch_sub(1, Ordering::AcqRel);
    }
}
