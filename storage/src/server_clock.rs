//! The clock of a PostgreSQL server, cached between two queries.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};

/// The server's time in microseconds since 1970, as SQL.
pub(super) const SERVER_NOW: &str = "(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::BIGINT";

/// The age after which the time is queried again: clocks of machines drift by milliseconds a minute.
const GOOD_FOR: Duration = Duration::from_mins(1);

/// The server's last time, and its moment by the monotonic clock: the wall clock of this machine may
/// be set meanwhile.
#[derive(Debug, Default)]
pub(super) struct ServerClock(Mutex<Option<(DateTime<Utc>, Instant)>>);

impl ServerClock {
    /// The time; `None` if it must be queried.
    pub(super) fn now(&self) -> Option<DateTime<Utc>> {
        let (then, at) = (*self.0.lock().unwrap_or_else(PoisonError::into_inner))?;
        // By the monotonic clock: a change of the wall clock would shift the time of the server.
        let since = at.elapsed();
        (since < GOOD_FOR).then(|| then + since)
    }

    pub(super) fn set(&self, now: Option<DateTime<Utc>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) =
            now.map(|now| (now, Instant::now()));
    }
}
