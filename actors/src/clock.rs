//! The wall clock, told by the monotonic one.

use chrono::{DateTime, Utc};
use tokio::time::Instant;

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
        Self { wall: Utc::now(), begun: Instant::now() }
    }

    /// The time.
    pub fn now(&self) -> DateTime<Utc> {
        self.wall + self.begun.elapsed()
    }
}
