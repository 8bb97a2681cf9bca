//! The cost of a flush: one page written into a file and `fdatasync`, as SQLite does it.

use std::{
    fs::File,
    io::{self, Seek as _, SeekFrom, Write as _},
    path::Path,
    time::{Duration, Instant},
};

/// Flushes that are timed in a row.
const FLUSHES: usize = 50;

/// Bytes of each, as SQLite writes one page.
const PAGE: usize = 4096;

/// Pages of the file, written over and over, as a log is.
const PAGES: usize = 256;

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
