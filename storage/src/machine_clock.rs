//! The clock of this machine, for times that are not compared with those of other machines.

use std::time::SystemTime;

use chrono::{DateTime, Utc};

/// The time. `Utc::now` panics if the clock is before 1970; a wrong time is no reason to stop.
pub(crate) fn machine_now() -> DateTime<Utc> {
    SystemTime::now().into()
}
