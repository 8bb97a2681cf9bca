//! The cost of a commit: what the disk and the database charge, beside what the engine makes of it.

use std::{
    fs::File,
    io::{self, Seek as _, SeekFrom, Write as _},
    path::Path,
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::figures::{median, ms};

/// Flushes that are timed in a row.
const FLUSHES: usize = 50;

/// Bytes of each, as SQLite writes one page.
const PAGE: usize = 4096;

/// Pages of the file, written over and over, as a log is.
const PAGES: usize = 256;

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

/// Times flushes of a file in `folder`, which is removed again.
///
/// # Errors
/// Those of the system.
pub(crate) fn flush(folder: &Path) -> io::Result<Vec<Duration>> {
    let path = folder.join(format!("gleitzeit-bench-{}.tmp", std::process::id()));
    let mut file = File::create_new(&path)?;
    let flushed = time_flushes(&mut file);
    std::fs::remove_file(&path)?;
    flushed
}

fn time_flushes(file: &mut File) -> io::Result<Vec<Duration>> {
    file.write_all(&vec![1; PAGE * PAGES])?;
    file.sync_all()?;
    let page = [2; PAGE];
    let mut flushes = Vec::with_capacity(FLUSHES);
    for number in 0..FLUSHES {
        let at = (number % PAGES) * PAGE;
        let begun = Instant::now();
        file.seek(SeekFrom::Start(at as u64))?;
        file.write_all(&page)?;
        file.sync_data()?;
        flushes.push(begun.elapsed());
    }
    Ok(flushes)
}

/// The load: processes that ran or waited for a core, averaged over the last minute; `None` if the
/// system does not report it. A figure of a busy machine is no figure.
pub(crate) fn load() -> Option<f64> {
    let load = std::fs::read_to_string("/proc/loadavg").ok()?;
    load.split_whitespace().next()?.parse().ok()
}
