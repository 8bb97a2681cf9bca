//! The task that a batch makes for one file.

use std::path::Path;

use gleitzeit_domain::{reference, workflow::TaskSpec};
use serde_json::{Map, Value, json};

use super::error::BatchError;

/// The task of one file; `number` counts from 0.
pub(super) fn task(
    file: &Path,
    number: usize,
    protocol: Option<&str>,
    method: &str,
    mut parameters: Map<String, Value>,
) -> Result<TaskSpec, BatchError> {
    let path = path_value(file)?;
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let (prefix, bare) = method.rsplit_once(['/', ':']).unwrap_or(("", method));
    let owner = protocol.unwrap_or(prefix).split('/').next().unwrap_or_default();
    if owner == "python" {
        let context = parameters.entry("context").or_insert_with(|| json!({}));
        if let Value::Object(context) = context {
            context.insert("file_path".to_owned(), path);
        }
    } else if bare == "vision" {
        parameters.insert("image_path".to_owned(), path);
    } else {
        parameters.insert("file_path".to_owned(), path);
    }
    let id = format!("process-{}-{number}", name.replace('.', "-"));
    let mut task = TaskSpec::new(id, method).named(format!("Process {name}")).params(parameters);
    task.protocol = protocol.map(str::to_owned);
    Ok(task)
}

/// In the order of their bytes, in which a place is searched.
pub(super) fn sorted(mut paths: Vec<String>) -> Vec<String> {
    paths.sort_unstable();
    paths
}

/// A path as a parameter, with references escaped.
pub(super) fn path_value(path: &Path) -> Result<Value, BatchError> {
    Ok(Value::from(reference::escape(text_of(path)?)))
}

pub(super) fn text_of(path: &Path) -> Result<&str, BatchError> {
    path.to_str().ok_or_else(|| BatchError::NotText { path: path.to_owned() })
}
