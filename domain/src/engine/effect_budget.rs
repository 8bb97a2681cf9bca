//! How many calls with an effect may begin, by what is not stored yet.
//!
//! A crash runs every ended call again whose outcome is not stored, and outcomes that wait for the
//! store take memory. So calls with an effect are bounded by count, all calls by bytes.

use rustc_hash::FxHashSet;

use crate::{
    queue::Pick,
    run::{TaskKey, Unstored, UnstoredLimits},
};

/// Ended calls that are not stored, and calls that were ended with the lease.
#[derive(Debug)]
pub(super) struct EffectBudget {
    limits: UnstoredLimits,
    unstored: Unstored,
    /// Attempts whose calls were ended because the lease ran out; each until its end is known.
    cut_off: FxHashSet<(TaskKey, u32)>,
    is_blocked: bool,
}

impl EffectBudget {
    /// Nothing ran yet.
    pub(super) fn new(limits: UnstoredLimits) -> Self {
        Self {
            limits,
            unstored: Unstored::default(),
            cut_off: FxHashSet::default(),
            is_blocked: false,
        }
    }

    /// Ended calls that are not stored.
    pub(super) fn unstored(&self) -> Unstored {
        self.unstored
    }

    /// So much has ended, and is to be stored.
    pub(super) fn add(&mut self, ended: Unstored) {
        self.unstored += ended;
    }

    /// So much is stored, or never will be.
    pub(super) fn subtract(&mut self, stored: Unstored) {
        self.unstored -= stored;
    }

    /// True while not even pure calls may begin: outcomes fill the memory.
    pub(super) fn is_memory_full(&self) -> bool {
        self.limits.is_full(self.unstored)
    }

    /// The tasks that may be dispatched, and how many with an effect, while `running` calls run.
    pub(super) fn pick(&self, running: usize, may_begin: bool) -> (Pick, u64) {
        let room = self.limits.room_for_effects(self.unstored, running as u64);
        if !may_begin || room == 0 { (Pick::PureOnly, 0) } else { (Pick::Any, room) }
    }

    /// The new state of the gate for tasks on their way, if it changes now.
    pub(super) fn gate_change(&mut self, store_fails: bool) -> Option<bool> {
        let is_blocked = store_fails || self.limits.room_for_effects(self.unstored, 0) == 0;
        // Compared with the last state that was sent, and not with that of the gate, which only
        // the actor has.
        let changes = is_blocked != std::mem::replace(&mut self.is_blocked, is_blocked);
        changes.then_some(is_blocked)
    }

    /// The call of an attempt is ended with the lease.
    pub(super) fn cut_off(&mut self, task: TaskKey, attempt: u32) {
        self.cut_off.insert((task, attempt));
    }

    /// True once for an attempt whose call was ended with the lease.
    pub(super) fn was_cut_off(&mut self, task: TaskKey, attempt: u32) -> bool {
        !self.cut_off.is_empty() && self.cut_off.remove(&(task, attempt))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::RunKey;

    fn budget() -> EffectBudget {
        EffectBudget::new(UnstoredLimits::new(1, 10_000))
    }

    /// The gate is reported when it changes, and not each time.
    #[test]
    fn the_gate_changes_with_what_is_not_stored() {
        let mut budget = budget();
        assert_eq!(budget.gate_change(false), None);
        budget.add(Unstored { calls: 1_024, bytes: 1 });
        assert_eq!(budget.gate_change(false), Some(true));
        assert_eq!(budget.gate_change(true), None);
        budget.subtract(Unstored { calls: 1, bytes: 0 });
        assert_eq!(budget.gate_change(false), Some(false));
        assert_eq!(budget.gate_change(true), Some(true), "a store that fails closes it");
    }

    /// Running calls take room of those that ended; without a lease only pure calls are left.
    #[test]
    fn calls_with_an_effect_are_bounded() {
        let mut budget = budget();
        budget.add(Unstored { calls: 1_000, bytes: 0 });
        assert_eq!(budget.pick(4, true), (Pick::Any, 20));
        assert_eq!(budget.pick(24, true), (Pick::PureOnly, 0));
        assert_eq!(budget.pick(0, false), (Pick::PureOnly, 0));
        budget.add(Unstored { calls: 0, bytes: 10_000 });
        assert!(budget.is_memory_full());
    }

    /// A call is cut off once: a later end of the same attempt is an ordinary one.
    #[test]
    fn an_attempt_is_cut_off_once() {
        let mut budget = budget();
        let task = TaskKey { run: RunKey(1), index: 0 };
        budget.cut_off(task, 2);
        assert!(!budget.was_cut_off(task, 1));
        assert!(budget.was_cut_off(task, 2));
        assert!(!budget.was_cut_off(task, 2));
    }
}
