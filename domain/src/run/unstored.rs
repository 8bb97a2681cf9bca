//! How many ended calls may wait for the store: a crash runs them again, and they take memory.

use std::ops::{AddAssign, SubAssign};

/// Fewer calls with an effect than this are never too many.
const CALLS_MIN: u64 = 1_024;

/// The approximate size of an outcome besides its payload: its record and its events.
const OVERHEAD: u64 = 512;

/// Ended calls whose outcomes are not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unstored {
    /// Calls that may have had an effect: each runs again after a crash.
    pub calls: u64,
    /// Bytes of all outcomes, those of pure calls included.
    pub bytes: u64,
}

impl Unstored {
    /// One ended call with a payload of so many bytes.
    pub const fn of_call(has_effect: bool, bytes: u64) -> Self {
        Self { calls: has_effect as u64, bytes: bytes.saturating_add(OVERHEAD) }
    }
}

impl AddAssign for Unstored {
    fn add_assign(&mut self, other: Self) {
        self.calls = self.calls.saturating_add(other.calls);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

impl SubAssign for Unstored {
    fn sub_assign(&mut self, other: Self) {
        self.calls = self.calls.saturating_sub(other.calls);
        self.bytes = self.bytes.saturating_sub(other.bytes);
    }
}

/// Beyond these, dispatch pauses until outcomes are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnstoredLimits {
    /// Calls with an effect that run, or have ended and are not stored.
    pub calls: u64,
    /// Bytes of outcomes that are not stored.
    pub bytes: u64,
}

impl UnstoredLimits {
    /// For so many tasks at once: 1,024 calls, or four times as many as run at once.
    pub fn new(max_concurrent_tasks: u64, bytes: u64) -> Self {
        Self { calls: CALLS_MIN.max(max_concurrent_tasks.saturating_mul(4)), bytes }
    }

    /// How many more calls with an effect may begin while `running` calls run.
    pub fn room_for_effects(&self, unstored: Unstored, running: u64) -> u64 {
        if self.is_full(unstored) {
            return 0;
        }
        self.calls.saturating_sub(unstored.calls).saturating_sub(running)
    }

    /// True when no call may begin, not even a pure one: the memory is used up.
    pub fn is_full(&self, unstored: Unstored) -> bool {
        unstored.bytes >= self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bound is the larger of 1,024 and four times the tasks at once.
    #[test]
    fn the_bound_follows_the_tasks_at_once() {
        assert_eq!(UnstoredLimits::new(16, 1).calls, 1_024);
        assert_eq!(UnstoredLimits::new(256, 1).calls, 1_024);
        assert_eq!(UnstoredLimits::new(1_000, 1).calls, 4_000);
        assert_eq!(UnstoredLimits::new(u64::MAX, 1).calls, u64::MAX);
    }

    /// Running calls count: each of them may end before anything is stored.
    #[test]
    fn calls_that_run_take_room_of_those_that_ended() {
        let limits = UnstoredLimits::new(1, 10_000);
        let mut unstored = Unstored::default();
        assert_eq!(limits.room_for_effects(unstored, 24), 1_000);
        unstored += Unstored { calls: 1_000, bytes: 9_999 };
        assert_eq!(limits.room_for_effects(unstored, 24), 0);
        assert!(!limits.is_full(unstored));
        unstored += Unstored::of_call(false, 0);
        assert_eq!(unstored.calls, 1_000, "a pure call may run again");
        assert!(limits.is_full(unstored));
        unstored -= Unstored { calls: 1_000, bytes: 9_999 };
        assert_eq!(limits.room_for_effects(unstored, 0), 1_024);
    }
}
