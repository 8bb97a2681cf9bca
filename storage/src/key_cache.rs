//! The keys of recently written workflows, so that a change costs no lookup of its workflow.
//!
//! The [`writer`](super::writer) reads it within a transaction and updates it after the commit.
//!
//! Invariant: the cache holds committed workflows only. A workflow leaves it when it settles,
//! because another process may delete it from then on. Every other workflow of the cache belongs to
//! a lease of this store, or this store alone writes to it.

use std::collections::{HashMap, HashSet};

use gleitzeit_domain::{id::WorkflowId, store::lease::ClaimedWorkflow};

/// The key of a workflow in the database, and the number of its tasks.
#[derive(Debug, Clone, Copy)]
pub(super) struct WorkflowKey {
    pub(super) key: i64,
    pub(super) task_count: u32,
}

/// The keys of the workflows that were written recently.
#[derive(Debug, Default)]
pub(super) struct KeyCache {
    by_id: HashMap<WorkflowId, WorkflowKey>,
    /// The hashes of stored needs, unless another process has deleted them since.
    needs: HashSet<i64>,
}

/// Upper limit of the cached keys, a bound on memory; the cache starts over above it.
const KEYS_MAX: usize = 200_000;

/// Upper limit of the cached hashes of needs; the cache starts over above it.
const NEEDS_MAX: usize = 10_000;

impl KeyCache {
    pub(super) fn get(&self, id: &WorkflowId) -> Option<WorkflowKey> {
        self.by_id.get(id).copied()
    }

    pub(super) fn has_needs(&self, hash: i64) -> bool {
        self.needs.contains(&hash)
    }

    pub(super) fn forget_all(&mut self) {
        self.by_id = HashMap::new();
    }

    pub(super) fn forget(&mut self, ids: &[WorkflowId]) {
        for id in ids {
            self.by_id.remove(id);
        }
    }

    /// The next workflow of these needs writes them again.
    pub(super) fn forget_needs(&mut self, hashes: &[i64]) {
        for hash in hashes {
            self.needs.remove(hash);
        }
    }

    pub(super) fn apply(&mut self, effects: CommitEffects) {
        // A process that took over our lease may delete a workflow and its key: a cached key would
        // then write rows of a workflow that no longer exists.
        if effects.has_lost {
            self.forget_all();
        }
        if self.by_id.len() + effects.found.len() > KEYS_MAX {
            self.forget_all();
        }
        self.by_id.extend(effects.found);
        if self.needs.len() > NEEDS_MAX {
            self.needs.clear();
        }
        self.needs.extend(effects.needs);
        // After the keys that were found: a workflow that was found and has settled leaves again.
        for id in &effects.settled {
            self.by_id.remove(id);
        }
    }
}

/// The effects of a group on the [`KeyCache`], applied after its commit.
#[derive(Debug, Default)]
pub(super) struct CommitEffects {
    pub(super) found: HashMap<WorkflowId, WorkflowKey>,
    pub(super) settled: Vec<WorkflowId>,
    /// The hashes of the needs that were stored.
    pub(super) needs: Vec<i64>,
    /// The number of new workflows.
    pub(super) added: u64,
    /// True if a lease was lost.
    pub(super) has_lost: bool,
    /// True if the group added an unsettled workflow without a lease.
    pub(super) leaves_free: bool,
}

impl CommitEffects {
    /// The keys of claimed workflows.
    pub(super) fn of_claimed(keys: &[i64], claimed: &[ClaimedWorkflow]) -> Self {
        let entry = |(key, ClaimedWorkflow { record, .. }): (&i64, &ClaimedWorkflow)| {
            let task_count = u32::try_from(record.tasks.len()).unwrap_or(u32::MAX);
            (record.id.clone(), WorkflowKey { key: *key, task_count })
        };
        Self { found: keys.iter().zip(claimed).map(entry).collect(), ..Self::default() }
    }
}
