//! How many tasks of one workflow are queued or dispatched at once, and which wait for that to fall.
//!
//! Invariant: no task waits while a slot is free, except one that is no longer queued.

use std::collections::VecDeque;

/// The slots of one workflow.
#[derive(Debug)]
pub(super) struct Slots {
    used: u32,
    max: u32,
    backlog: VecDeque<u32>,
}

impl Slots {
    /// So many slots; `None` for no limit.
    pub(super) fn new(max: Option<u32>) -> Self {
        Self { used: 0, max: max.unwrap_or(u32::MAX), backlog: VecDeque::new() }
    }

    /// True if the task has a slot now; otherwise it waits in the backlog.
    pub(super) fn acquire(&mut self, index: u32) -> bool {
        if self.used < self.max {
            self.used += 1;
            return true;
        }
        self.backlog.push_back(index);
        false
    }

    /// A slot is free: calls `start` for tasks of the backlog that have one now, in their order. A
    /// task that is no longer queued leaves the backlog without a slot.
    pub(super) fn release(&mut self, is_queued: impl Fn(u32) -> bool, mut start: impl FnMut(u32)) {
        self.used = self.used.saturating_sub(1);
        while self.used < self.max {
            let Some(index) = self.backlog.pop_front() else { return };
            // A task cancelled in the backlog has no slot: one counted for it would never be freed.
            if is_queued(index) {
                self.used += 1;
                start(index);
            }
        }
    }

    /// True for a task without a slot.
    pub(super) fn is_waiting(&self, index: u32) -> bool {
        self.backlog.contains(&index)
    }

    /// Tasks without a slot.
    pub(super) fn waiting(&self) -> usize {
        self.backlog.len()
    }

    /// The workflow has ended: nothing waits any more.
    pub(super) fn clear_backlog(&mut self) {
        self.backlog.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    /// A cancelled task leaves no hole: the next one gets the slot.
    #[test]
    fn a_cancelled_task_does_not_keep_a_slot() {
        let mut slots = Slots::new(Some(1));
        assert!(slots.acquire(0));
        assert!(!slots.acquire(1));
        assert!(!slots.acquire(2));
        let mut started = Vec::new();
        slots.release(|index| index != 1, |index| started.push(index));
        assert_eq!((started, slots.waiting()), (vec![2], 0));
    }

    proptest! {
        /// Never more than `max` at once, never fewer than could be, and each starts once, in order.
        #[test]
        fn slots_are_used_and_never_exceeded(max in 1_u32..5, ops in prop::collection::vec(any::<bool>(), 0..60)) {
            let mut slots = Slots::new(Some(max));
            let mut running: HashSet<u32> = HashSet::new();
            let mut begun = Vec::new();
            let mut next = 0;
            for acquires in ops {
                if acquires {
                    if slots.acquire(next) {
                        running.insert(next);
                        begun.push(next);
                    }
                    next += 1;
                } else if let Some(&ended) = running.iter().next() {
                    running.remove(&ended);
                    slots.release(|_| true, |index| { running.insert(index); begun.push(index); });
                }
                prop_assert!(running.len() <= max as usize);
                prop_assert!(slots.waiting() == 0 || running.len() == max as usize);
            }
            let order: Vec<u32> = (0..u32::try_from(begun.len()).unwrap()).collect();
            prop_assert_eq!(begun, order);
        }
    }
}
