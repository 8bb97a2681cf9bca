//! When a retry, or the limit of a task or workflow, is due.
//!
//! One timer of the actor is armed for the earliest; nothing ticks. Invariant: a run that was
//! removed has no entry.

use std::{collections::BTreeMap, time::Duration};

use super::Moment;
use crate::run::{RunKey, TaskKey};

/// So many keys of entries are kept per workflow before those that were due are removed.
const KEYS_KEPT: usize = 16;

/// Names an entry: when it is due, and a number of its own.
pub(super) type TimerKey = (Moment, u64);

/// The action when a timer is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TimerKind {
    /// Queue a task again.
    Retry(TaskKey),
    /// A task has used up its total time.
    TaskLimit(TaskKey, Duration),
    /// A workflow has used up its time.
    WorkflowLimit(RunKey, Duration),
}

/// The entries of one run, so that they are removed with it.
#[derive(Debug)]
pub(super) struct RunTimers {
    keys: Vec<TimerKey>,
    /// Beyond this many, those that were due are removed.
    keys_max: usize,
}

impl Default for RunTimers {
    fn default() -> Self {
        Self { keys: Vec::new(), keys_max: KEYS_KEPT }
    }
}

/// All entries by time.
#[derive(Debug, Default)]
pub(super) struct Timers {
    due: BTreeMap<TimerKey, TimerKind>,
    next: u64,
    armed: Option<Moment>,
}

impl Timers {
    /// Entries that are not due yet.
    pub(super) fn len(&self) -> usize {
        self.due.len()
    }

    /// Adds an entry `pause` after `now`; one beyond all time is never due, and not added.
    pub(super) fn set(
        &mut self,
        run: &mut RunTimers,
        now: Moment,
        pause: Duration,
        kind: TimerKind,
    ) -> bool {
        let Some(at) = now.checked_add(pause) else { return false };
        // Two entries of the same moment need different keys, or one would replace the other.
        self.next += 1;
        let key = (at, self.next);
        self.due.insert(key, kind);
        run.keys.push(key);
        if run.keys.len() > run.keys_max {
            // Only when the list has doubled, so that an entry costs the same however many there are.
            run.keys.retain(|key| self.due.contains_key(key));
            run.keys_max = 2 * run.keys.len().max(KEYS_KEPT);
        }
        true
    }

    /// The moment for which the timer is to be armed; `None` if it is armed early enough.
    pub(super) fn arm(&mut self) -> Option<Moment> {
        let &(earliest, _) = self.due.keys().next()?;
        if self.armed.is_some_and(|at| at <= earliest) {
            return None;
        }
        self.armed = Some(earliest);
        Some(earliest)
    }

    /// The timer has fired, and is armed no more.
    pub(super) fn fired(&mut self) {
        self.armed = None;
    }

    /// The next entry that is due.
    pub(super) fn next_due(&mut self, now: Moment) -> Option<TimerKind> {
        let entry = self.due.first_entry()?;
        (entry.key().0 <= now).then(|| entry.remove())
    }

    /// Removes the entries of a run.
    pub(super) fn remove(&mut self, run: &RunTimers) {
        for key in &run.keys {
            self.due.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Moment = Duration::from_secs(1);

    fn retry(index: u32) -> TimerKind {
        TimerKind::Retry(TaskKey { run: RunKey(1), index })
    }

    /// A pause beyond all time is no entry, and does not overflow.
    #[test]
    fn a_timer_beyond_all_time_is_never_due() {
        let mut timers = Timers::default();
        assert!(!timers.set(&mut RunTimers::default(), NOW, Duration::MAX, retry(0)));
        assert_eq!((timers.len(), timers.arm()), (0, None));
    }

    /// The timer is armed again only for an earlier entry, or after it has fired.
    #[test]
    fn the_timer_is_armed_for_the_earliest() {
        let mut timers = Timers::default();
        let mut run = RunTimers::default();
        let secs = Duration::from_secs;
        timers.set(&mut run, NOW, secs(5), retry(0));
        assert_eq!(timers.arm(), Some(secs(6)));
        timers.set(&mut run, NOW, secs(9), retry(1));
        assert_eq!(timers.arm(), None);
        timers.set(&mut run, NOW, secs(2), retry(2));
        assert_eq!(timers.arm(), Some(secs(3)));
        timers.fired();
        assert_eq!(timers.next_due(secs(3)), Some(retry(2)));
        assert_eq!((timers.next_due(secs(3)), timers.arm()), (None, Some(secs(6))));
    }

    proptest! {
        /// Every entry is due once, in the order of time; a removed run has none.
        #[test]
        fn entries_are_due_once_and_in_order(pauses in prop::collection::vec((0_u64..50, any::<bool>()), 0..80)) {
            let mut timers = Timers::default();
            let mut runs = [RunTimers::default(), RunTimers::default()];
            let mut expected = Vec::new();
            for (index, (pause, first)) in (0_u32..).zip(&pauses) {
                timers.set(&mut runs[usize::from(!first)], NOW, Duration::from_secs(*pause), retry(index));
                if *first {
                    expected.push((*pause, index));
                }
            }
            timers.remove(&runs[1]);
            expected.sort_unstable();
            let mut due = Vec::new();
            for second in 0..60 {
                while let Some(kind) = timers.next_due(Duration::from_secs(second)) {
                    due.push(kind);
                }
            }
            let expected: Vec<TimerKind> = expected.into_iter().map(|(_, index)| retry(index)).collect();
            prop_assert_eq!(due, expected);
            prop_assert_eq!(timers.len(), 0);
        }
    }
}
