//! Why a batch has no tasks.

use std::{io, path::PathBuf};

/// Why a batch has no tasks.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// The pattern is no glob.
    #[error("the pattern `{pattern}` cannot be read: {why}")]
    Pattern {
        /// The pattern as given.
        pattern: String,
        /// The error.
        why: String,
    },
    /// There is no such folder.
    #[error("`{}` is no folder", directory.display())]
    NoDirectory {
        /// The directory that was searched.
        directory: PathBuf,
    },
    /// The folder cannot be listed.
    #[error("`{}` cannot be listed: {source}", path.display())]
    Unlisted {
        /// The directory or file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No file is found.
    #[error("no file in `{}` matches `{pattern}`", directory.display())]
    NothingFound {
        /// The absolute path.
        directory: PathBuf,
        /// The pattern as given.
        pattern: String,
    },
    /// A path is not UTF-8, and parameters are text.
    #[error("the path `{}` is not UTF-8", path.display())]
    NotText {
        /// The path.
        path: PathBuf,
    },
}
