//! The file access of a stored workflow: the directories of relative paths, the files that its
//! tasks may read, and the directory of its results.
//!
//! The reader of a workflow file or the start of a batch fills it in. Providers get it with every
//! call, and the runtime reads it after the workflow has settled. Without it, a workflow would mean
//! something else in each process that resumes it.
//!
//! Invariant: every path is absolute. A workflow without a place reads relative paths from the
//! working directory of the process that runs it.

use serde::{Deserialize, Serialize};

/// The file access of a workflow. Stored with its spec.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FileAccess {
    /// A relative path of a parameter is looked for in each of these directories, in this order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub directories: Vec<String>,
    /// Files that tasks may read, wherever they are, sorted. The code of a task sees those that its
    /// parameters name, read-only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
    /// Files of code that tasks may run, wherever they are, sorted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scripts: Vec<String>,
    /// The directory that gets the results as `ID.json` and `ID.md` once the workflow has settled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
}

impl FileAccess {
    /// True when there is nothing to store.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::workflow::WorkflowSpec;

    use super::*;

    /// A row of an earlier version has no place, and one without a place is stored as before.
    #[test]
    fn a_spec_without_file_access_reads_and_writes_as_before() {
        let row = json!({"name": "w", "tasks": [{"method": "echo/echo"}]});
        let spec: WorkflowSpec = serde_json::from_value(row).unwrap();
        assert_eq!(spec.file_access, None);
        let written = serde_json::to_value(&spec).unwrap();
        assert!(written.get("place").is_none(), "{written}");
    }

    /// Keys that a version does not know are left out, and the rest is read back as it was.
    #[test]
    fn file_access_is_stored_without_its_empty_parts() {
        let file_access =
            FileAccess { directories: vec!["/srv/a".into()], ..FileAccess::default() };
        let written = serde_json::to_value(&file_access).unwrap();
        assert_eq!(written, json!({"directories": ["/srv/a"]}));
        assert_eq!(serde_json::from_value::<FileAccess>(written).unwrap(), file_access);
    }
}
