//! Batches: one task for each file that a pattern finds.
//!
//! Asked by the decoder for batch files, and by the command line's `batch` command. How a task
//! gets its file depends on its method: Python code finds the path in `context.file_path`, a
//! method called `vision` takes an image as `image_path`, every other method a text as `file_path`.
//! Paths are absolute, so that a stored workflow means the same wherever it is resumed.

use std::{
    io,
    path::{Path, PathBuf, absolute},
    sync::Arc,
};

use gleitzeit_domain::{
    file_access::FileAccess,
    reference,
    workflow::{TaskSpec, WorkflowSpec},
};
use globset::{GlobBuilder, GlobMatcher};
use serde_json::{Map, Value, json};
use walkdir::WalkDir;

use super::{
    Around, decode,
    keys::{self, Fields},
    node::{Entry, Findings, Kind, Node, to_map},
    spec,
};
use crate::results;

/// What a task gets where the template of a batch names no method.
const DEFAULT_METHOD: &str = "llm/chat";

/// Why a batch has no tasks.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// The pattern is no glob.
    #[error("the pattern `{pattern}` cannot be read: {why}")]
    Pattern {
        /// The pattern as given.
        pattern: String,
        /// What is wrong with it.
        why: String,
    },
    /// There is no such folder.
    #[error("`{}` is no folder", directory.display())]
    NoDirectory {
        /// Where it was looked for.
        directory: PathBuf,
    },
    /// The folder cannot be listed.
    #[error("`{}` cannot be listed: {source}", path.display())]
    Unlisted {
        /// What cannot be listed.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No file is found.
    #[error("no file in `{}` matches `{pattern}`", directory.display())]
    NothingFound {
        /// Where it was looked for.
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

/// What is done with each file of a batch.
#[derive(Debug, Clone, PartialEq)]
pub enum BatchWork {
    /// A language model answers a prompt about it: `llm/vision` for images, else `llm/chat`.
    Prompt {
        /// What is asked.
        prompt: String,
        /// Which model is asked; the provider's own where absent.
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
/// The files are stored with the workflow, so that whoever runs it may read them, and no others.
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

/// The same without the files that `left_out` says, such as a database that is kept there.
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

/// The task of one file; `number` counts from 0.
fn task(
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
fn sorted(mut paths: Vec<String>) -> Vec<String> {
    paths.sort_unstable();
    paths
}

/// A path as a parameter: what looks like a reference in it is none.
fn path_value(path: &Path) -> Result<Value, BatchError> {
    Ok(Value::from(reference::escape(text_of(path)?)))
}

fn text_of(path: &Path) -> Result<&str, BatchError> {
    path.to_str().ok_or_else(|| BatchError::NotText { path: path.to_owned() })
}

/// The files in `directory` that match, by absolute path, sorted; without those that `left_out`
/// says, and without results of earlier batches.
fn find(
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

fn compile(pattern: &str) -> Result<GlobMatcher, BatchError> {
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

/// True when the file is a batch: it says so, or it has a `batch` and no tasks.
pub(super) fn is_batch(root: &Node) -> bool {
    let says_so = root.entry("type").is_some_and(
        |entry| matches!(&entry.value.kind, Kind::String(text) if text.eq_ignore_ascii_case("batch")),
    );
    says_so || root.entry("batch").is_some()
}

/// Turns the place of a task of a batch into the place in its file that made it so.
pub(super) fn redirect(root: &Node, segments: &mut Vec<String>) {
    if segments.first().is_none_or(|first| first != "tasks") {
        return;
    }
    if segments.len() == 1 {
        "batch".clone_into(&mut segments[0]);
        return;
    }
    segments.splice(..2, ["template".to_owned()]);
    let is_flat = |name: &String| {
        let template = root.entry("template").map(|entry| &entry.value);
        template.is_some_and(|template| template.entry(name).is_some())
    };
    if segments.get(1).is_some_and(|s| s == "parameters") && segments.get(2).is_some_and(is_flat) {
        segments.remove(1);
    }
}

/// The tasks of a batch file, and the files that they work on.
pub(super) fn tasks(
    fields: &Fields<'_>,
    around: &Around<'_>,
    findings: &mut Findings,
) -> (Vec<TaskSpec>, Vec<String>) {
    if let Some(entry) = fields.entry("tasks") {
        let found = "a batch file makes its tasks from `template`";
        findings.error_with_help(entry.key_span, found, "leave `tasks` or `batch` out");
    }
    let template = template(fields, findings);
    let Some(batch) = fields.get("batch") else {
        let example = "batch: { directory: <folder>, pattern: \"*\" }";
        spec::missing(fields, "a batch file", "batch", example, findings);
        return Default::default();
    };
    let Some(files) = files(batch, around, findings) else { return Default::default() };
    let Some(template) = template else { return Default::default() };
    let mut tasks = Vec::with_capacity(files.len());
    for (number, file) in files.iter().enumerate() {
        match template.task(file, number) {
            Ok(task) => tasks.push(task),
            Err(error) => findings.wrong(batch.key_span, error.to_string()),
        }
    }
    let paths = files.iter().filter_map(|file| file.to_str().map(str::to_owned)).collect();
    (tasks, sorted(paths))
}

/// The files of `batch: {directory, pattern}`. A relative folder is looked for beside the workflow
/// file, then in the current one, where older files expect it.
fn files(batch: &Entry, around: &Around<'_>, findings: &mut Findings) -> Option<Vec<PathBuf>> {
    let fields = Fields::of(&batch.value, batch.location(), &keys::BATCH, findings)?;
    let pattern = pattern(&fields, findings);
    let Some(entry) = fields.get("directory") else {
        spec::missing(&fields, "`batch`", "directory", "directory: <folder>", findings);
        return None;
    };
    let written = PathBuf::from(decode::text(entry, findings)?);
    let beside = around.folder.join(&written);
    let directory = if beside.is_dir() || !written.is_dir() { beside } else { written };
    match find(&directory, &pattern?, around.left_out) {
        Ok(files) => Some(files),
        Err(error @ BatchError::NothingFound { .. }) => {
            let location = fields.get("pattern").unwrap_or(entry).location();
            findings.wrong(location, error.to_string());
            None
        }
        Err(error) => {
            findings.wrong(entry.location(), error.to_string());
            None
        }
    }
}

/// The pattern, checked; every file where it is left out.
fn pattern(fields: &Fields<'_>, findings: &mut Findings) -> Option<String> {
    let Some(entry) = fields.get("pattern") else { return Some("*".to_owned()) };
    let pattern = decode::text(entry, findings)?;
    match compile(&pattern) {
        Ok(_) => Some(pattern),
        Err(error) => {
            findings.wrong(entry.location(), error.to_string());
            None
        }
    }
}

/// What the tasks of a batch file have in common.
struct Template {
    protocol: Option<String>,
    method: String,
    parameters: Map<String, Value>,
    common: TaskSpec,
}

impl Template {
    fn task(&self, file: &Path, number: usize) -> Result<TaskSpec, BatchError> {
        let protocol = self.protocol.as_deref();
        let mut task = task(file, number, protocol, &self.method, self.parameters.clone())?;
        task.priority = self.common.priority;
        task.retry.clone_from(&self.common.retry);
        Ok(task)
    }
}

fn template(fields: &Fields<'_>, findings: &mut Findings) -> Option<Template> {
    let Some(entry) = fields.get("template") else {
        let example = "template: { method: <protocol>/<method> }";
        spec::missing(fields, "a batch file", "template", example, findings);
        return None;
    };
    let inner = Fields::of(&entry.value, entry.location(), &keys::TEMPLATE, findings)?;
    let mut common = TaskSpec::new("", "");
    common.priority = spec::priority(&inner, findings);
    common.retry = spec::retry(&inner, findings);
    let protocol = inner.get("protocol").or_else(|| fields.get("protocol"));
    let protocol = protocol.and_then(|entry| decode::text(entry, findings));
    let method = match inner.get("method") {
        Some(entry) => decode::text(entry, findings).unwrap_or_default(),
        None => DEFAULT_METHOD.to_owned(),
    };
    let mut parameters = match inner.get("parameters").map(|entry| (entry, &entry.value.kind)) {
        Some((_, Kind::Object(entries))) => to_map(entries),
        Some((entry, _)) => {
            decode::refuse(entry, "a mapping of parameters", findings);
            Map::new()
        }
        None => Map::new(),
    };
    let others = inner.others.iter().map(|entry| (entry.key.clone(), entry.value.to_value()));
    parameters.extend(others);
    Some(Template { protocol, method, parameters, common })
}
