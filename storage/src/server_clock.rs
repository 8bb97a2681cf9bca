//! The server's clock, as of the last time that it was asked.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};

/// After so long the server is asked again: clocks of machines drift apart by milliseconds a minute.
const GOOD_FOR: Duration = Duration::from_mins(1);

/// What it said, and when by the monotonic clock: this machine's own clock may be set meanwhile.
#[derive(Debug, Default)]
pub(super) struct ServerClock(Mutex<Option<(DateTime<Utc>, Instant)>>);

impl ServerClock {
    /// The time; `None` where it must be asked for.
    pub(super) fn now(&self) -> Option<DateTime<Utc>> {
        let (told, at) = (*self.0.lock().unwrap_or_else(PoisonError::into_inner))?;
        let since = at.elapsed();
        (since < GOOD_FOR).then(|| told + since)
    }

    pub(super) fn set(&self, now: Option<DateTime<Utc>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) =
            now.map(|now| (now, Instant::now()));
    }
}
