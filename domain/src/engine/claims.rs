//! The questions and answers by which stored workflows are loaded to be run here.

use std::{collections::HashMap, sync::Arc};

use super::{Callers, Engine};
use crate::{id::WorkflowId, plan::Plan, store::Epoch, workflow::WorkflowRecord};

/// The room for the next claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimBudget {
    /// A part, for this lease.
    Part(Epoch),
    /// Everything, from a store without leases.
    Everything,
    /// Nothing: there is no room.
    NoRoom,
}

/// The purpose of a recovery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RecoverOptions {
    /// Runs again what did not complete in a settled workflow.
    pub reopen: bool,
    /// Loads without running anything, as for a cancellation.
    pub hold: bool,
}

/// A stored workflow, planned again.
#[derive(Debug)]
pub struct StoredWorkflow {
    /// The plan.
    pub plan: Arc<Plan>,
    /// The stored record.
    pub record: WorkflowRecord,
    /// The expired lease that owned it.
    pub left_by: Option<Epoch>,
    /// False if this process cannot run it.
    pub is_fit: bool,
}

/// Why a stored workflow is not run here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResumeError {
    /// It runs here, or did a moment ago.
    #[error("it runs here, or did a moment ago")]
    Runs,
    /// Every task of it completed.
    #[error("every task of it completed")]
    Complete,
    /// The runtime stops.
    #[error("the runtime stops")]
    Stopping,
    /// Another process may run it by now.
    #[error("another process may run it by now")]
    Lost,
}

/// Recoveries under way, and the workflows that settled here meanwhile: what was read of one of
/// those before that is not to be run.
#[derive(Debug, Default)]
pub(super) struct Recoveries {
    under_way: usize,
    /// When each settled, counted in settlements.
    settled: HashMap<WorkflowId, u64>,
    count: u64,
}

impl Recoveries {
    /// A recovery begins now; the time comes back, in settlements.
    fn begin(&mut self) -> u64 {
        self.under_way += 1;
        self.count
    }

    fn end(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
        if self.under_way == 0 {
            self.settled = HashMap::new();
        }
    }

    /// A workflow settled here.
    pub(super) fn note_settled(&mut self, id: &WorkflowId) {
        // Without a recovery no reader has an older state of it, and the map would grow for ever.
        if self.under_way > 0 {
            self.count += 1;
            self.settled.insert(id.clone(), self.count);
        }
    }

    /// True when a workflow settled after a recovery of that time began.
    pub(super) fn has_settled_since(&self, id: &WorkflowId, begun: u64) -> bool {
        self.settled.get(id).is_some_and(|at| *at > begun)
    }
}

impl<C: Callers> Engine<C> {
    /// A recovery begins; its time is passed to [`resume_run`](Self::resume_run).
    pub fn begin_recovery(&mut self) -> u64 {
        self.recoveries.begin()
    }

    /// A recovery has ended.
    pub fn end_recovery(&mut self) {
        self.recoveries.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A workflow that settles after a recovery has read it is not run again by that recovery; one
    /// that begins later may read it as it is.
    #[test]
    fn what_settles_during_a_recovery_is_remembered_until_its_end() {
        let mut recoveries = Recoveries::default();
        let id: WorkflowId = "w".into();
        recoveries.note_settled(&id);
        let first = recoveries.begin();
        assert!(!recoveries.has_settled_since(&id, first));
        recoveries.note_settled(&id);
        let second = recoveries.begin();
        assert!(recoveries.has_settled_since(&id, first));
        assert!(!recoveries.has_settled_since(&id, second));
        recoveries.end();
        assert!(recoveries.has_settled_since(&id, first), "another is under way");
        recoveries.end();
        assert!(recoveries.settled.is_empty());
    }
}
