//! The surroundings of a workflow file.

use std::path::Path;

/// The folder that a file is read in, and the files that its batch leaves out.
pub(super) struct FileContext<'a> {
    /// A batch looks for its files here first.
    pub(super) folder: &'a Path,
    /// Files that no batch works on.
    pub(super) left_out: &'a dyn Fn(&Path) -> bool,
}
