//! Stores with a workflow where its relative paths lead.
//!
//! Asked once a file is read. A workflow that names no file needs no place, and is stored without.

use std::{
    env,
    path::{Path, absolute},
    sync::Arc,
};

use gleitzeit_domain::{file_access::FileAccess, workflow::WorkflowSpec};
use serde_json::Value;

/// Parameters that name files.
const NAMING: [&str; 6] = ["file", "file_path", "image_path", "images", "files", "image_paths"];

/// Gives a workflow that names files the folder of its file, and the working directory, where older
/// files expect theirs.
pub(super) fn settle(spec: &mut WorkflowSpec, folder: &Path) {
    let names_files = |parameters: &Value| NAMING.iter().any(|name| parameters.get(name).is_some());
    if !spec.tasks.iter().any(|task| names_files(&task.parameters)) {
        return;
    }
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let beside = absolute(folder).ok();
    let mut directories: Vec<String> = Vec::new();
    for directory in beside.into_iter().chain(env::current_dir()) {
        // A path that is not UTF-8 cannot be stored; such a directory is left out.
        let real = directory.canonicalize().unwrap_or(directory);
        if let Some(text) = real.to_str()
            && !directories.iter().any(|known| known == text)
        {
            directories.push(text.to_owned());
        }
    }
    let file_access = spec.file_access.get_or_insert_with(|| Arc::new(FileAccess::default()));
    Arc::make_mut(file_access).directories = directories;
}
