//! The content of one write of changes, and the consequence when it is stored, refused or fails.
//!
//! At most one write is under way. Changes that occur meanwhile form the next one, so that a single
//! change never waits for others, and under load many share the cost of a commit.
//!
//! Invariant: a task becomes ready only after the write that holds what made it ready.

use std::{collections::HashSet, time::Duration};

use rustc_hash::FxHashSet;

use crate::run::{RunKey, Unstored};

/// First and longest pause before a failed write is tried again.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Outcomes of more bytes are not written together if they are of several workflows: on the way to
/// the disk a store holds each of them several times.
const GROUP_MAX_BYTES: u64 = 16 * 1024 * 1024;

/// Tasks of a run that become ready together.
pub(super) type ReadyTasks = (RunKey, Vec<u32>);

/// The changes that wait to be written, and those of the write under way.
#[derive(Debug, Default)]
pub(super) struct WriteBatcher {
    /// Runs that changed since their last write.
    dirty: Vec<RunKey>,
    /// Tasks that become ready once the changes of their runs are stored.
    ready: Vec<ReadyTasks>,
    /// The same, of the write under way.
    writing: Vec<RunKey>,
    writing_ready: Vec<ReadyTasks>,
    /// Ended calls of the write under way, which count as not stored until then.
    unstored: Unstored,
    is_busy: bool,
    failures: u32,
}

impl WriteBatcher {
    /// True when nothing waits to be written or is being written.
    pub(super) fn is_idle(&self) -> bool {
        !self.is_busy && self.dirty.is_empty()
    }

    /// True while the store refuses writes.
    pub(super) fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// A run has something to be written.
    pub(super) fn mark_dirty(&mut self, run: RunKey) {
        self.dirty.push(run);
    }

    /// Tasks become ready once what has changed by now is stored.
    pub(super) fn ready_after_write(&mut self, run: RunKey, tasks: Vec<u32>) {
        if !tasks.is_empty() {
            self.ready.push((run, tasks));
        }
    }

    /// Runs that a write would hold if it began now; 0 while one is under way.
    pub(super) fn waiting(&self) -> usize {
        if self.is_busy { 0 } else { self.dirty.len() }
    }

    /// Begins a write if none is under way and something changed: calls `add` for run after run,
    /// which returns the ended calls of its change, until the group is large enough.
    pub(super) fn begin(&mut self, mut add: impl FnMut(RunKey) -> Unstored) -> bool {
        if self.is_busy || self.dirty.is_empty() {
            return false;
        }
        let mut keys = std::mem::take(&mut self.dirty);
        let mut count = 0;
        for key in &keys {
            count += 1;
            self.unstored += add(*key);
            if self.unstored.bytes >= GROUP_MAX_BYTES {
                break;
            }
        }
        self.dirty = keys.split_off(count);
        self.writing = keys;
        self.writing_ready = std::mem::take(&mut self.ready);
        if !self.dirty.is_empty() {
            // A run that waits for a later write must not start what only that write stores.
            let later: FxHashSet<RunKey> = self.dirty.iter().copied().collect();
            self.ready =
                self.writing_ready.extract_if(.., |(run, _)| later.contains(run)).collect();
        }
        self.is_busy = true;
        true
    }

    /// The runs of the write under way and those that wait for one.
    pub(super) fn unsettled(&self) -> impl Iterator<Item = RunKey> + '_ {
        self.writing.iter().chain(&self.dirty).copied()
    }

    /// The write failed; the same is to be written after the pause that is returned.
    pub(super) fn failed(&mut self) -> Duration {
        let doublings = self.failures.min(16);
        self.failures += 1;
        PAUSE_MIN.saturating_mul(1 << doublings).min(PAUSE_MAX)
    }

    /// The write is stored, as far as it was not refused: its runs, and its ended calls.
    pub(super) fn stored(&mut self) -> (Vec<RunKey>, Unstored) {
        // Before anything follows from it: a change made by what follows begins the next write.
        self.is_busy = false;
        self.failures = 0;
        (std::mem::take(&mut self.writing), std::mem::take(&mut self.unstored))
    }

    /// The tasks that became ready by the write that was stored last.
    pub(super) fn take_ready(&mut self) -> Vec<ReadyTasks> {
        std::mem::take(&mut self.writing_ready)
    }

    /// The change of a run is not stored after all, and is to be written again.
    pub(super) fn put_off(&mut self, run: RunKey) {
        self.writing.retain(|writing| *writing != run);
        self.ready.extend(self.writing_ready.extract_if(.., |(of, _)| *of == run));
    }

    /// Tasks of a run do not become ready by what was decided before.
    pub(super) fn forget_ready(&mut self, run: RunKey, tasks: &HashSet<u32>) {
        for (_, ready) in self.ready.iter_mut().filter(|(of, _)| *of == run) {
            ready.retain(|task| !tasks.contains(task));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn small(_: RunKey) -> Unstored {
        Unstored { calls: 1, bytes: 1 }
    }

    /// A failing store is asked at growing intervals, and not less often than every 5 s.
    #[test]
    fn the_pause_doubles_up_to_a_limit() {
        let mut batcher = WriteBatcher::default();
        let pauses: Vec<u64> =
            (0..9).map(|_| u64::try_from(batcher.failed().as_millis()).unwrap()).collect();
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
        assert!(batcher.is_failing());
        batcher.stored();
        assert!(!batcher.is_failing());
    }

    /// A change that is put off takes the tasks that wait for it along; those of others stay.
    #[test]
    fn a_change_put_off_starts_nothing() {
        let mut batcher = WriteBatcher::default();
        for run in [RunKey(1), RunKey(2)] {
            batcher.mark_dirty(run);
            batcher.ready_after_write(run, vec![7]);
        }
        assert!(batcher.begin(small));
        batcher.put_off(RunKey(1));
        assert_eq!(batcher.stored().0, [RunKey(2)]);
        assert_eq!(batcher.take_ready(), [(RunKey(2), vec![7])]);
        batcher.forget_ready(RunKey(1), &HashSet::from([7]));
        batcher.mark_dirty(RunKey(1));
        assert!(batcher.begin(small));
        batcher.stored();
        assert_eq!(batcher.take_ready(), [(RunKey(1), vec![])]);
    }

    #[derive(Debug, Clone)]
    enum Op {
        Change(u64, u64),
        Begin,
        Stored,
        Failed,
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            3 => (0_u64..6, prop_oneof![Just(1_u64), Just(GROUP_MAX_BYTES)]).prop_map(|(run, bytes)| Op::Change(run, bytes)),
            2 => Just(Op::Begin),
            2 => Just(Op::Stored),
            1 => Just(Op::Failed),
        ]
    }

    proptest! {
        /// Whatever the order: one write at a time, every change is written, in the order of its run,
        /// and a task becomes ready after the write of the change before it, once.
        #[test]
        fn changes_are_written_before_what_follows(ops in prop::collection::vec(op(), 0..80)) {
            let mut batcher = WriteBatcher::default();
            let (mut changes, mut written, mut storing) = ([(0_u32, 0_u64); 6], [0_u32; 6], Vec::new());
            let mut ready = Vec::new();
            let mut expected = 0;
            let drain = ops.iter().cloned().chain((0..20).flat_map(|_| [Op::Begin, Op::Stored]));
            for op in drain {
                match op {
                    Op::Change(run, bytes) => {
                        let change = &mut changes[usize::try_from(run).unwrap()];
                        change.0 += 1;
                        change.1 += bytes;
                        batcher.mark_dirty(RunKey(run));
                        batcher.ready_after_write(RunKey(run), vec![change.0]);
                        expected += 1;
                    }
                    Op::Begin => {
                        let was_busy = !storing.is_empty();
                        let begun = batcher.begin(|key| {
                            let at = usize::try_from(key.0).unwrap();
                            storing.push((at, changes[at].0));
                            Unstored { calls: 0, bytes: std::mem::take(&mut changes[at].1) }
                        });
                        prop_assert!(!(was_busy && begun), "two writes at once");
                    }
                    Op::Stored if !storing.is_empty() => {
                        batcher.stored();
                        for (run, change) in storing.drain(..) {
                            written[run] = change;
                        }
                        for (run, tasks) in batcher.take_ready() {
                            for task in tasks {
                                prop_assert!(task <= written[usize::try_from(run.0).unwrap()]);
                                ready.push((run, task));
                            }
                        }
                    }
                    Op::Failed if !storing.is_empty() => { batcher.failed(); }
                    Op::Stored | Op::Failed => {}
                }
            }
            prop_assert!(batcher.is_idle());
            let count = ready.len();
            ready.sort_unstable();
            ready.dedup();
            prop_assert_eq!((ready.len(), count), (expected, expected), "each once, and none lost");
        }
    }
}
