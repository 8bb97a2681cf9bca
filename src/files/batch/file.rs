//! Decodes batch files.

use std::path::{Path, PathBuf};

use gleitzeit_domain::workflow::TaskSpec;
use serde_json::{Map, Value};

use super::{
    error::BatchError,
    find::{compile, find},
    task::{sorted, task},
};
use crate::files::{
    context::FileContext,
    decode,
    findings::Findings,
    keys::{self, Fields},
    node::{Entry, Kind, Node, to_map},
    shared_fields::{missing, priority, retry},
};

/// The method of a batch whose template names none.
const DEFAULT_METHOD: &str = "llm/chat";

/// True if the file is a batch: it has `type: batch`, or it has a `batch` and no tasks.
pub(in crate::files) fn is_batch(root: &Node) -> bool {
    let says_so = root.entry("type").is_some_and(
        |entry| matches!(&entry.value.kind, Kind::String(text) if text.eq_ignore_ascii_case("batch")),
    );
    says_so || root.entry("batch").is_some()
}

/// Turns the place of a task of a batch into the place in its file that made it so.
pub(in crate::files) fn redirect(root: &Node, segments: &mut Vec<String>) {
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
pub(in crate::files) fn tasks(
    fields: &Fields<'_>,
    around: &FileContext<'_>,
    findings: &mut Findings,
) -> (Vec<TaskSpec>, Vec<String>) {
    if let Some(entry) = fields.entry("tasks") {
        let found = "a batch file makes its tasks from `template`";
        findings.error_with_help(entry.key_span, found, "leave `tasks` or `batch` out");
    }
    let template = template(fields, findings);
    let Some(batch) = fields.get("batch") else {
        let example = "batch: { directory: <folder>, pattern: \"*\" }";
        missing(fields, "a batch file", "batch", example, findings);
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
fn files(batch: &Entry, around: &FileContext<'_>, findings: &mut Findings) -> Option<Vec<PathBuf>> {
    let fields = Fields::of(&batch.value, batch.location(), &keys::BATCH, findings)?;
    let pattern = pattern(&fields, findings);
    let Some(entry) = fields.get("directory") else {
        missing(&fields, "`batch`", "directory", "directory: <folder>", findings);
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

/// The pattern, checked; `*` if it is left out.
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

/// The common parts of the tasks of a batch file.
struct BatchTemplate {
    protocol: Option<String>,
    method: String,
    parameters: Map<String, Value>,
    common: TaskSpec,
}

impl BatchTemplate {
    fn task(&self, file: &Path, number: usize) -> Result<TaskSpec, BatchError> {
        let protocol = self.protocol.as_deref();
        let mut task = task(file, number, protocol, &self.method, self.parameters.clone())?;
        task.priority = self.common.priority;
        task.retry.clone_from(&self.common.retry);
        Ok(task)
    }
}

fn template(fields: &Fields<'_>, findings: &mut Findings) -> Option<BatchTemplate> {
    let Some(entry) = fields.get("template") else {
        let example = "template: { method: <protocol>/<method> }";
        missing(fields, "a batch file", "template", example, findings);
        return None;
    };
    let inner = Fields::of(&entry.value, entry.location(), &keys::TEMPLATE, findings)?;
    let mut common = TaskSpec::new("", "");
    common.priority = priority(&inner, findings);
    common.retry = retry(&inner, findings);
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
    Some(BatchTemplate { protocol, method, parameters, common })
}
