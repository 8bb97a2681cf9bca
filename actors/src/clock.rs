//! A wall clock that follows the monotonic clock.

use std::time::SystemTime;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::Instant;

/// The time of this machine's clock. `Utc::now` panics if the clock stands before 1970, as it does on
/// a board without a battery; a wrong time is no reason to stop.
pub fn utc_now() -> DateTime<Utc> {
    SystemTime::now().into()
}

/// Wall-clock time that follows tokio's clock: it never jumps back, and a paused test clock pauses
/// it too.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    wall: DateTime<Utc>,
    begun: Instant,
}

impl Clock {
    /// A clock that is right now.
    pub fn start() -> Self {
        Self { wall: utc_now(), begun: Instant::now() }
    }

    /// Sets the clock to `now`, the store's time at `at`, so that all machines on one store use one
    /// clock. Returns the correction, if one was made.
    pub fn correct(&mut self, now: DateTime<Utc>, at: Instant) -> Option<TimeDelta> {
        let wrong_by = now - (self.wall + at.saturating_duration_since(self.begun));
        // The way of the answer takes some of a second: corrections below it would be noise, and
        // each step back a time that is stored twice.
        if wrong_by.abs() < TimeDelta::seconds(1) {
            return None;
        }
        *self = Self { wall: now, begun: at };
        Some(wrong_by)
    }

    /// The time.
    pub fn now(&self) -> DateTime<Utc> {
        self.wall + self.begun.elapsed()
    }
}
