//! The tree of a file to the workflow it describes.
//!
//! Used by [`parse`](super::parse). It checks the shape only, and reports everything wrong with it
//! at once. The submission checks whether tasks, protocols and methods exist.

use std::sync::Arc;

use gleitzeit_domain::{
    file_access::FileAccess,
    resources::ResourceRequirements,
    task::OnDependencyFailure,
    workflow::{TaskSpec, WorkflowSpec},
};
use serde_json::Value;

use super::{
    batch::file as batch,
    conditions,
    context::FileContext,
    decode,
    findings::Findings,
    input,
    keys::{self, Fields},
    node::{Entry, Kind, Node, to_map},
    older,
    shared_fields::{missing, priority, retry},
};

/// The workflow of a file. Not to be used when there are findings.
pub(super) fn workflow(
    root: &Node,
    around: &FileContext<'_>,
    findings: &mut Findings,
) -> WorkflowSpec {
    let mut spec = WorkflowSpec::new("");
    let location = decode::item_location(root);
    if matches!(root.kind, Kind::Null) {
        findings.error_with_help(
            location,
            "the file is empty",
            "a workflow has at least name and tasks",
        );
        return spec;
    }
    let Some(fields) = Fields::of(root, location, &keys::WORKFLOW, findings) else { return spec };
    spec.id = fields.get("id").and_then(|entry| decode::text(entry, findings)).map(Into::into);
    spec.description =
        fields.get("description").and_then(|entry| decode::free_text(entry, findings));
    spec.timeout = fields.get("timeout").and_then(|entry| decode::limit(entry, findings));
    spec.max_parallel_tasks =
        fields.get("max_parallel_tasks").and_then(|entry| decode::small_count(entry, 1, findings));
    if let Some(entry) = fields.get("inputs") {
        match &entry.value.kind {
            Kind::Object(entries) => {
                spec.inputs = to_map(entries);
                spec.spellings = input::spellings(entries);
            }
            _ => decode::refuse(entry, "a mapping of names to values", findings),
        }
    }
    if let Some(entry) = fields.get("type") {
        decode::choice(entry, &[("batch", ()), ("workflow", ())], findings);
    }
    let is_batch = batch::is_batch(root);
    let name = name(&fields, is_batch, findings);
    if is_batch {
        let (tasks, files) = batch::tasks(&fields, around, findings);
        spec.tasks = tasks;
        spec.file_access = Some(Arc::new(FileAccess { files, ..FileAccess::default() }));
    } else {
        spec.tasks = tasks(&fields, findings);
        older::expand(&mut spec);
    }
    spec.name = name.unwrap_or_else(|| format!("Batch of {} files", spec.tasks.len()));
    spec
}

/// The name. Older files may leave it out if they have an id, or are batches.
fn name(fields: &Fields<'_>, is_batch: bool, findings: &mut Findings) -> Option<String> {
    if let Some(entry) = fields.get("name").or_else(|| fields.get("id")) {
        return decode::text(entry, findings);
    }
    match fields.entry("name") {
        Some(entry) => decode::refuse(entry, "a text", findings),
        None if is_batch => {}
        None => missing(fields, "a workflow", "name", "name: <text>", findings),
    }
    None
}

fn tasks(fields: &Fields<'_>, findings: &mut Findings) -> Vec<TaskSpec> {
    for key in ["template", "protocol"] {
        if let Some(entry) = fields.entry(key) {
            let found = format!("`{key}` belongs to a batch file");
            findings.error_with_help(entry.key_span, found, "a batch file has `type: batch`");
        }
    }
    let Some(entry) = fields.entry("tasks") else {
        missing(fields, "a workflow", "tasks", "tasks: […]", findings);
        return Vec::new();
    };
    let Some(items) = decode::items(entry, "a list of tasks", findings) else { return Vec::new() };
    if items.is_empty() {
        decode::refuse(entry, "at least one task", findings);
    }
    let numbered = items.iter().zip(1..);
    numbered.map(|(item, number)| task(item, number, findings)).collect()
}

/// The methods that older files name without a protocol.
const PYTHON: [&str; 2] = ["execute", "validate"];

fn task(node: &Node, number: usize, findings: &mut Findings) -> TaskSpec {
    let mut task = TaskSpec::new(format!("task-{number}"), "");
    let location = decode::item_location(node);
    let Some(fields) = Fields::of(node, location, &keys::TASK, findings) else { return task };
    if let Some(id) = fields.get("id").and_then(|entry| decode::text(entry, findings)) {
        task.id = id;
    }
    task.name = fields.get("name").and_then(|entry| decode::text(entry, findings));
    task.protocol = fields.get("protocol").and_then(|entry| decode::text(entry, findings));
    conditions::read(&fields, &mut task, findings);
    match fields.entry("method") {
        Some(entry) => task.method = decode::text(entry, findings).unwrap_or_default(),
        None if conditions::stands_for_method(&fields) => {}
        None => missing(&fields, "a task", "method", "method: <protocol>/<method>", findings),
    }
    // A method without a protocol was one of Python's.
    if task.protocol.is_none() && PYTHON.contains(&task.method.as_str()) {
        task.protocol = Some("python/v1".to_owned());
    }
    if let Some(entry) = fields.get("parameters") {
        task.parameters = Arc::new(parameters(entry, findings));
    }
    if let Some(entry) = fields.get("dependencies") {
        task.dependencies = dependencies(entry, findings);
    }
    task.priority = priority(&fields, findings);
    task.timeout = fields.get("timeout").and_then(|entry| decode::limit(entry, findings));
    task.total_timeout =
        fields.get("total_timeout").and_then(|entry| decode::limit(entry, findings));
    task.retry = retry(&fields, findings);
    task.resources = fields.get("resources").map(|entry| resources(entry, findings));
    if let Some(entry) = fields.get("on_dependency_failure") {
        let choices = [
            ("skip", OnDependencyFailure::Skip),
            ("fail", OnDependencyFailure::Fail),
            ("run", OnDependencyFailure::Run),
        ];
        task.on_dependency_failure = decode::choice(entry, &choices, findings).unwrap_or_default();
    }
    task.profile =
        fields.get("profile").and_then(|entry| decode::flag(entry, findings)).unwrap_or_default();
    task
}

/// Parameters by name, or by position.
pub(super) fn parameters(entry: &Entry, findings: &mut Findings) -> Value {
    if !matches!(entry.value.kind, Kind::Object(_) | Kind::Array(_)) {
        decode::refuse(entry, "a mapping of parameters, or a list by position", findings);
        return Value::Null;
    }
    entry.value.to_value()
}

fn dependencies(entry: &Entry, findings: &mut Findings) -> Vec<String> {
    let Some(items) = decode::items(entry, "a list of ids or names of tasks", findings) else {
        return Vec::new();
    };
    let text = |item: &Node| {
        let text = decode::written(item).filter(|text| !text.is_empty());
        if text.is_none() {
            let found =
                format!("a dependency is {}; expected a task's id or name", item.describe());
            let location = if item.span.start < item.span.end { item.span } else { entry.key_span };
            findings.wrong(location, found);
        }
        text
    };
    items.iter().filter_map(text).collect()
}

fn resources(entry: &Entry, findings: &mut Findings) -> ResourceRequirements {
    let mut need = ResourceRequirements::default();
    let Some(fields) = Fields::of(&entry.value, entry.location(), &keys::RESOURCES, findings)
    else {
        return need;
    };
    need.cpu_cores = fields.get("cpu_cores").and_then(|e| decode::amount(e, findings));
    let mut count = |key| fields.get(key).and_then(|entry| decode::count(entry, 0, findings));
    need.memory_mb = count("memory_mb");
    need.gpu_memory_mb = count("gpu_memory_mb");
    need.disk_space_mb = count("disk_space_mb");
    need.network_bandwidth_mbps = count("network_bandwidth_mbps");
    need.execution_timeout =
        fields.get("execution_timeout").and_then(|e| decode::limit(e, findings));
    need
}
