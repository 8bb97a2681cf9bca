//! The ready queue: whose turn it is among the tasks that could run now.
//!
//! Asked by the engine whenever a place for a task is free. Pure: no clock, no actors.
//!
//! The rule: the most urgent priority first, within a priority the oldest. One pick in
//! [`PICKS_PER_OLDEST`] takes the oldest item whatever its priority, so that nothing starves.
//! A pick may be confined to items without an effect; the others keep their places meanwhile.
//!
//! Invariant: an item with `k` older ones beside it is picked within
//! `PICKS_PER_OLDEST * (k + 1)` picks that may take it, whatever is pushed meanwhile. For among that
//! many picks `k + 1` take the oldest item, and nothing pushed later is ever older.

use std::collections::VecDeque;

use crate::task::Priority;

/// One pick in this many takes the oldest item, whatever its priority.
pub const PICKS_PER_OLDEST: u32 = 8;

/// A lane smaller than this keeps its memory.
const CAPACITY_KEPT: usize = 256;

/// Whether running an item changes something outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It changes nothing.
    Pure,
    /// It may change something.
    Effect,
}

impl Kind {
    const ALL: [Self; 2] = [Self::Pure, Self::Effect];
}

/// The items that a pick may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pick {
    /// All of them.
    Any,
    /// Only those that change nothing outside.
    PureOnly,
}

const LANES: usize = Priority::ALL.len() * Kind::ALL.len();

/// Items waiting for their turn; pushing and picking take constant time, amortised.
///
/// Cancelled items may stay until they are met: [`pop_where`](Self::pop_where) throws them away.
#[derive(Debug)]
pub struct ReadyQueue<T> {
    /// One lane for each priority and kind, each in the order of its pushes.
    lanes: [VecDeque<Waiting<T>>; LANES],
    /// The age of the next item; lower is older.
    next_age: u64,
    /// Picks since one took the oldest item.
    picks: u32,
    len: usize,
}

#[derive(Debug)]
struct Waiting<T> {
    age: u64,
    item: T,
}

impl<T> Default for ReadyQueue<T> {
    fn default() -> Self {
        Self { lanes: Default::default(), next_age: 0, picks: 0, len: 0 }
    }
}

impl<T> ReadyQueue<T> {
    /// A queue without items.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an item behind all others of its priority.
    pub fn push(&mut self, priority: Priority, kind: Kind, item: T) {
        self.lanes[lane_of(priority, kind)].push_back(Waiting { age: self.next_age, item });
        self.next_age += 1;
        self.len += 1;
    }

    /// Takes the item whose turn it is among those that `pick` allows.
    pub fn pop(&mut self, pick: Pick) -> Option<T> {
        self.pop_where(pick, |_| true)
    }

    /// Takes the next item that is still wanted, and throws away those before it that are not.
    /// Only the item taken counts as a pick.
    pub fn pop_where(&mut self, pick: Pick, mut still_wanted: impl FnMut(&T) -> bool) -> Option<T> {
        let oldest_turn = self.picks + 1 >= PICKS_PER_OLDEST;
        loop {
            let lane = if oldest_turn { self.oldest_lane(pick) } else { self.first_lane(pick) }?;
            let item = self.take_front(lane)?;
            if still_wanted(&item) {
                self.picks = if oldest_turn { 0 } else { self.picks + 1 };
                return Some(item);
            }
        }
    }

    /// Throws away every item that is not wanted any more. Looks at all of them.
    pub fn retain(&mut self, mut still_wanted: impl FnMut(&T) -> bool) {
        for lane in &mut self.lanes {
            lane.retain(|waiting| still_wanted(&waiting.item));
            shrink(lane);
        }
        self.len = self.lanes.iter().map(VecDeque::len).sum();
    }

    /// How many items wait, those no longer wanted and not yet met included.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many items of this priority wait.
    pub fn len_of(&self, priority: Priority) -> usize {
        Kind::ALL.iter().map(|kind| self.lanes[lane_of(priority, *kind)].len()).sum()
    }

    /// The lane of the oldest item of the most urgent priority.
    fn first_lane(&self, pick: Pick) -> Option<usize> {
        Priority::ALL.iter().find_map(|priority| {
            let first = lane_of(*priority, Kind::Pure);
            self.oldest_of(first..first + kinds(pick))
        })
    }

    fn oldest_lane(&self, pick: Pick) -> Option<usize> {
        let lanes = (0..LANES).filter(|lane| lane % Kind::ALL.len() < kinds(pick));
        self.oldest_of(lanes)
    }

    fn oldest_of(&self, lanes: impl Iterator<Item = usize>) -> Option<usize> {
        lanes.filter_map(|at| Some((self.lanes[at].front()?.age, at))).min().map(|(_, at)| at)
    }

    fn take_front(&mut self, lane: usize) -> Option<T> {
        let waiting = self.lanes[lane].pop_front()?;
        self.len -= 1;
        shrink(&mut self.lanes[lane]);
        Some(waiting.item)
    }
}

/// The lanes of a priority are neighbours, the pure one first.
const fn lane_of(priority: Priority, kind: Kind) -> usize {
    priority.rank() * Kind::ALL.len() + kind as usize
}

/// How many of the lanes of a priority a pick may take from.
const fn kinds(pick: Pick) -> usize {
    match pick {
        Pick::Any => Kind::ALL.len(),
        Pick::PureOnly => 1,
    }
}

/// Halves a lane that a burst has left mostly empty, twice. Between two halvings at least as many
/// items are taken as the second one moves, so a pick stays constant on average.
fn shrink<T>(lane: &mut VecDeque<T>) {
    if lane.capacity() > CAPACITY_KEPT && lane.len() <= lane.capacity() / 8 {
        lane.shrink_to(lane.capacity() / 4);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filled(items: impl IntoIterator<Item = (Priority, u32)>) -> ReadyQueue<u32> {
        let mut queue = ReadyQueue::new();
        for (priority, item) in items {
            queue.push(priority, Kind::Pure, item);
        }
        queue
    }

    /// A person who marks a task urgent sees it run first.
    #[test]
    fn urgency_beats_age() {
        use Priority::{High, Low, Normal, Urgent};
        let mut queue = filled([(Low, 0), (Normal, 1), (High, 2), (Urgent, 3), (Urgent, 4)]);
        let order: Vec<_> = std::iter::from_fn(|| queue.pop(Pick::Any)).collect();
        assert_eq!(order, [3, 4, 2, 1, 0]);
    }

    /// A stream of urgent work delays an old low one by seven picks, not for ever.
    #[test]
    fn an_endless_urgent_stream_does_not_starve_the_oldest() {
        let mut queue = filled([(Priority::Low, u32::MAX)]);
        let mut picks = 0;
        loop {
            queue.push(Priority::Urgent, Kind::Effect, picks);
            picks += 1;
            if queue.pop(Pick::Any) == Some(u32::MAX) {
                break;
            }
        }
        assert_eq!(picks, PICKS_PER_OLDEST);
    }

    /// Cancelled items neither run nor use up a pick.
    #[test]
    fn unwanted_items_are_thrown_away_on_the_way() {
        let mut queue = filled((0..100).map(|n| (Priority::Normal, n)));
        assert_eq!(queue.pop_where(Pick::Any, |n| *n >= 40), Some(40));
        assert_eq!(queue.len(), 59);
        queue.retain(|n| n % 2 == 0);
        assert_eq!((queue.len(), queue.len_of(Priority::Normal)), (29, 29));
        assert_eq!(queue.pop(Pick::Any), Some(42));
        assert_eq!(queue.pop_where(Pick::Any, |_| false), None);
        assert!(queue.is_empty());
    }

    /// A burst of a hundred thousand tasks does not keep its memory for the life of the process.
    #[test]
    fn memory_of_a_burst_is_released() {
        let mut queue = filled((0..100_000).map(|n| (Priority::Normal, n)));
        while queue.pop(Pick::Any).is_some() {}
        assert!(queue.lanes.iter().map(VecDeque::capacity).sum::<usize>() <= 2 * CAPACITY_KEPT);
    }

    /// A task that may not be picked now keeps its place, and its age among all others.
    #[test]
    fn an_effect_that_must_wait_is_passed_by_and_keeps_its_position() {
        use Priority::{High, Normal};
        let mut queue = ReadyQueue::new();
        for (priority, kind, item) in [
            (Normal, Kind::Effect, 0),
            (High, Kind::Effect, 1),
            (Normal, Kind::Pure, 2),
            (High, Kind::Pure, 3),
            (High, Kind::Effect, 4),
        ] {
            queue.push(priority, kind, item);
        }
        let pure: Vec<_> = std::iter::from_fn(|| queue.pop(Pick::PureOnly)).collect();
        assert_eq!((pure, queue.len()), (vec![3, 2], 3));
        queue.push(High, Kind::Pure, 5);
        let all: Vec<_> = std::iter::from_fn(|| queue.pop(Pick::Any)).collect();
        assert_eq!(all, [1, 4, 5, 0]);
    }

    fn priority() -> impl Strategy<Value = Priority> {
        (0..Priority::ALL.len()).prop_map(|rank| Priority::ALL[rank])
    }

    proptest! {
        /// Against a plain list: every item comes out once, in order within its priority, and
        /// within the bound on starvation.
        #[test]
        fn nothing_is_lost_doubled_or_starved(
            steps in prop::collection::vec(
                prop::option::weighted(0.6, (priority(), prop::sample::select(&Kind::ALL[..]))),
                0..400,
            ),
        ) {
            let mut queue = ReadyQueue::new();
            // What waits: its number, its priority, and the pick it must be out by.
            let mut waiting: Vec<(usize, Priority, u64)> = Vec::new();
            let mut picks = 0;
            for (number, step) in steps.into_iter().enumerate() {
                if let Some((priority, kind)) = step {
                    let older = waiting.len() as u64;
                    let bound = picks + u64::from(PICKS_PER_OLDEST) * (older + 1);
                    waiting.push((number, priority, bound));
                    queue.push(priority, kind, number);
                } else if let Some(taken) = queue.pop(Pick::Any) {
                    picks += 1;
                    let at = waiting.iter().position(|(number, ..)| *number == taken);
                    let (_, priority, bound) = waiting.remove(at.expect("taken once, and pushed"));
                    prop_assert!(picks <= bound, "{taken} at pick {picks}, bound {bound}");
                    let passed = waiting.iter().find(|(n, p, _)| *n < taken && *p == priority);
                    prop_assert_eq!(passed, None, "an older one of its priority waits still");
                } else {
                    prop_assert!(waiting.is_empty());
                }
                prop_assert_eq!(queue.len(), waiting.len());
                for each in Priority::ALL {
                    let of = waiting.iter().filter(|(_, priority, _)| *priority == each).count();
                    prop_assert_eq!(queue.len_of(each), of);
                }
            }
            prop_assert!(waiting.iter().all(|(.., bound)| picks < *bound));
        }
    }
}
