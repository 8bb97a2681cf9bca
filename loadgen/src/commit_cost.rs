//! The cost of a commit: what the disk and the database charge, beside what the engine makes of it.

use std::time::Duration;

use serde::Serialize;

use crate::figures::{median, ms};

/// What a commit costs, in milliseconds: medians.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct CommitCost {
    /// Of one page written into an existing file, and `fdatasync`; `None` if the database is no
    /// file.
    pub(crate) raw_flush_ms: Option<f64>,
    /// Of a transaction of one small row, through sea-orm, in the same database.
    pub(crate) bare_commit_ms: f64,
}

/// Commits and flushes that were timed before and after each round.
#[derive(Debug, Default)]
pub(crate) struct CommitCosts {
    pub(crate) raw_flushes: Vec<Duration>,
    pub(crate) bare_commits: Vec<Duration>,
}

impl CommitCosts {
    pub(crate) fn add(&mut self, more: Self) {
        self.raw_flushes.extend(more.raw_flushes);
        self.bare_commits.extend(more.bare_commits);
    }

    /// `None` if there is no database.
    pub(crate) fn medians(&self) -> Option<CommitCost> {
        let of = |spans: &[Duration]| median(spans.iter().copied().map(ms));
        let raw_flush_ms = (!self.raw_flushes.is_empty()).then(|| of(&self.raw_flushes));
        (!self.bare_commits.is_empty())
            .then(|| CommitCost { raw_flush_ms, bare_commit_ms: of(&self.bare_commits) })
    }
}

/// The load: processes that ran or waited for a core, averaged over the last minute; `None` if the
/// system does not report it. A figure of a busy machine is no figure.
pub(crate) fn load() -> Option<f64> {
    let load = std::fs::read_to_string("/proc/loadavg").ok()?;
    load.split_whitespace().next()?.parse().ok()
}
