//! Batches: one task for each file that a pattern finds.
//!
//! Asked by the decoder for batch files, and by the command line's `batch` command. How a task
//! gets its file depends on its method: Python code finds the path in `context.file_path`, a
//! method called `vision` takes an image as `image_path`, every other method a text as `file_path`.
//! Paths are absolute, so that a stored workflow means the same wherever it is resumed.

mod error;
pub(super) mod file;
mod find;
mod task;

use std::{
    path::{Path, PathBuf, absolute},
    sync::Arc,
};

use gleitzeit_domain::{file_access::FileAccess, workflow::WorkflowSpec};
use serde_json::{Map, Value, json};

use find::find;
use task::{path_value, sorted, task, text_of};

pub use error::BatchError;

/// The work on each file of a batch.
#[derive(Debug, Clone, PartialEq)]
pub enum BatchWork {
    /// A language model answers a prompt about it: `llm/vision` for images, else `llm/chat`.
    Prompt {
        /// The prompt.
        prompt: String,
        /// The model; `None` uses the provider's own.
        model: Option<String>,
    },
    /// A Python script runs with the path of the file in `context.file_path`.
    Script {
        /// The script.
        file: PathBuf,
    },
    /// Any method, with parameters that are the same for all.
    Call {
        /// As in a task of a workflow file: `protocol/method`.
        method: String,
        /// By name; the path of the file is added.
        parameters: Map<String, Value>,
    },
}

/// A workflow of one task for each file in `directory` that matches the glob `pattern` (`*` stays
/// within a folder, `**/` goes into all), in the order of their paths. Names that begin with a dot
/// are found only by a pattern that names the dot. Results of earlier batches and the script itself
/// are passed over.
///
/// The files are stored with the workflow, so that the process that runs it may read them, and no
/// others.
///
/// # Errors
/// [`BatchError`], also when no file is found.
pub fn batch_spec(
    directory: &Path,
    pattern: &str,
    work: &BatchWork,
) -> Result<WorkflowSpec, BatchError> {
    batch_spec_without(directory, pattern, work, &|_| false)
}

/// The same without the files for which `left_out` returns true, such as a database in that
/// directory.
///
/// # Errors
/// As [`batch_spec`].
pub fn batch_spec_without(
    directory: &Path,
    pattern: &str,
    work: &BatchWork,
    left_out: &dyn Fn(&Path) -> bool,
) -> Result<WorkflowSpec, BatchError> {
    let script = match work {
        BatchWork::Script { file } => Some(absolute(file).unwrap_or_else(|_| file.clone())),
        _ => None,
    };
    let is_script = |path: &Path| {
        script.as_ref().is_some_and(|script| {
            script == path
                || script.canonicalize().ok().is_some_and(|it| path.canonicalize().ok() == Some(it))
        })
    };
    let files = find(directory, pattern, &|path| is_script(path) || left_out(path))?;
    let name = format!("Batch of {} files in {}", files.len(), directory.display());
    let mut spec = WorkflowSpec::new(name);
    for (number, file) in files.iter().enumerate() {
        let (method, parameters) = call(work, file)?;
        spec.tasks.push(task(file, number, None, &method, parameters)?);
    }
    let texts = |paths: &[PathBuf]| -> Result<Vec<String>, BatchError> {
        paths.iter().map(|path| text_of(path).map(str::to_owned)).collect()
    };
    let (files, scripts) = (texts(&files)?, texts(script.as_slice())?);
    spec.file_access =
        Some(Arc::new(FileAccess { files: sorted(files), scripts, ..FileAccess::default() }));
    Ok(spec)
}

/// The method and the parameters of one file, without its path.
fn call(work: &BatchWork, file: &Path) -> Result<(String, Map<String, Value>), BatchError> {
    let mut parameters = Map::new();
    let method = match work {
        BatchWork::Prompt { prompt, model } => {
            if let Some(model) = model {
                parameters.insert("model".to_owned(), json!(model));
            }
            if is_image(file) {
                parameters.insert("prompt".to_owned(), json!(prompt));
                "llm/vision"
            } else {
                let messages = json!([{ "role": "user", "content": prompt }]);
                parameters.insert("messages".to_owned(), messages);
                "llm/chat"
            }
        }
        BatchWork::Script { file } => {
            let script = absolute(file).unwrap_or_else(|_| file.clone());
            parameters.insert("file".to_owned(), path_value(&script)?);
            "python/execute"
        }
        BatchWork::Call { method, parameters } => {
            return Ok((method.clone(), parameters.clone()));
        }
    };
    Ok((method.to_owned(), parameters))
}

/// True for the names of images that models for vision commonly read.
fn is_image(file: &Path) -> bool {
    const IMAGES: [&str; 7] = ["png", "jpg", "jpeg", "gif", "bmp", "webp", "tiff"];
    let extension = file.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|found| IMAGES.iter().any(|known| known.eq_ignore_ascii_case(found)))
}
