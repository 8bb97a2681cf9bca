//! What the disk and the database charge, measured beside what the engine makes of it.

use std::{
    fs::File,
    io::{self, Seek as _, SeekFrom, Write as _},
    path::Path,
    time::{Duration, Instant},
};

use serde::Serialize;

use super::figures::{median, ms};

/// Flushes that are timed in a row.
const FLUSHES: usize = 50;

/// Bytes of each, as SQLite writes one page.
const PAGE: usize = 4096;

/// Pages of the file, written over and over, as a log is.
const PAGES: usize = 256;

/// Prices in milliseconds, medians.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Price {
    /// Of one page written into a file that is there, and `fdatasync`; where the database is a
    /// file.
    pub(super) raw_flush_ms: Option<f64>,
    /// Of a transaction of one small row, through sea-orm, in the same database.
    pub(super) bare_commit_ms: f64,
}

/// Prices as they were met, before and behind each round.
#[derive(Debug, Default)]
pub(super) struct Prices {
    pub(super) raw_flushes: Vec<Duration>,
    pub(super) bare_commits: Vec<Duration>,
}

impl Prices {
    pub(super) fn add(&mut self, more: Self) {
        self.raw_flushes.extend(more.raw_flushes);
        self.bare_commits.extend(more.bare_commits);
    }

    /// `None` where there is no database.
    pub(super) fn medians(&self) -> Option<Price> {
        let of = |spans: &[Duration]| median(spans.iter().copied().map(ms));
        let raw_flush_ms = (!self.raw_flushes.is_empty()).then(|| of(&self.raw_flushes));
        (!self.bare_commits.is_empty())
            .then(|| Price { raw_flush_ms, bare_commit_ms: of(&self.bare_commits) })
    }
}

/// Flushes a file in `folder`, which is removed again.
///
/// # Errors
/// What the system says.
pub(super) fn flush(folder: &Path) -> io::Result<Vec<Duration>> {
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

/// How many processes have run or waited for a core in the last minute, on average, where the
/// system tells it: a figure of a busy machine is no figure.
pub(super) fn load() -> Option<f64> {
    let load = std::fs::read_to_string("/proc/loadavg").ok()?;
    load.split_whitespace().next()?.parse().ok()
}
