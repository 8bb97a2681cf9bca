//! Finds the files of a batch.

use std::{
    io,
    path::{Path, PathBuf, absolute},
};

use globset::{GlobBuilder, GlobMatcher};
use walkdir::WalkDir;

use super::error::BatchError;
use crate::results;

/// The files in `directory` that match, by absolute path, sorted; without those for which
/// `left_out` returns true, and without results of earlier batches.
pub(super) fn find(
    directory: &Path,
    pattern: &str,
    left_out: &dyn Fn(&Path) -> bool,
) -> Result<Vec<PathBuf>, BatchError> {
    let matcher = compile(pattern)?;
    if !directory.is_dir() {
        return Err(BatchError::NoDirectory { directory: directory.to_owned() });
    }
    let root = absolute(directory).unwrap_or_else(|_| directory.to_owned());
    let depth_max = if pattern.contains("**") { usize::MAX } else { segments(pattern) };
    let hidden = names_a_dot(pattern);
    let walk = WalkDir::new(&root).follow_links(true).min_depth(1).max_depth(depth_max);
    let entries = walk.into_iter().filter_entry(|entry| {
        hidden || entry.depth() == 0 || !entry.file_name().as_encoded_bytes().starts_with(b".")
    });
    let mut files = Vec::new();
    for entry in entries {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) if leads_nowhere(&error) => continue,
            Err(error) => {
                let path = error.path().unwrap_or(&root).to_owned();
                return Err(BatchError::Unlisted { path, source: error.into() });
            }
        };
        let inside = entry.path().strip_prefix(&root).unwrap_or(entry.path());
        let is_match = entry.file_type().is_file() && matcher.is_match(inside);
        // The checks open files; a pattern passes over most of them.
        if is_match && !left_out(entry.path()) && !results::is_result(entry.path()) {
            files.push(entry.into_path());
        }
    }
    if files.is_empty() {
        let (directory, pattern) = (root, pattern.to_owned());
        return Err(BatchError::NothingFound { directory, pattern });
    }
    files.sort();
    Ok(files)
}

/// True for a symbolic link in a circle, or to nothing.
fn leads_nowhere(error: &walkdir::Error) -> bool {
    let is_missing = error.io_error().is_some_and(|io| io.kind() == io::ErrorKind::NotFound);
    error.loop_ancestor().is_some() || is_missing
}

pub(super) fn compile(pattern: &str) -> Result<GlobMatcher, BatchError> {
    let pattern = pattern.strip_prefix("./").unwrap_or(pattern);
    match GlobBuilder::new(pattern).literal_separator(true).build() {
        Ok(glob) => Ok(glob.compile_matcher()),
        Err(error) => {
            Err(BatchError::Pattern { pattern: pattern.to_owned(), why: error.kind().to_string() })
        }
    }
}

fn segments(pattern: &str) -> usize {
    pattern.strip_prefix("./").unwrap_or(pattern).split('/').count()
}

fn names_a_dot(pattern: &str) -> bool {
    pattern.split('/').any(|segment| segment.starts_with('.') && segment != ".")
}
