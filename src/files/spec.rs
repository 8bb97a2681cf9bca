//! The tree of a file to the workflow it describes.
//!
//! Asked by [`parse`](super::parse). Checks the shape only, and tells everything wrong with it at
//! once; whether tasks, protocols and methods exist is checked at submission, where they are known.

use std::sync::Arc;

use gleitzeit_domain::{
    error::ErrorCode,
    file_access::FileAccess,
    resources::ResourceRequirements,
    retry::{AnyError, Backoff, RetryOn, RetryPolicy},
    task::{OnDependencyFailure, Priority},
    workflow::{TaskSpec, WorkflowSpec},
};
use serde_json::Value;

use super::{
    Around, batch, decode, input,
    keys::{self, Fields},
    node::{Entry, Findings, Kind, Node, Span, to_map},
    older,
};

/// The workflow of a file. Not to be used when there are findings.
pub(super) fn workflow(root: &Node, around: &Around<'_>, findings: &mut Findings) -> WorkflowSpec {
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

/// The name. Older files may leave it out where they have an id, or are batches.
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

/// Tells that a key is missing, unless one was told that was probably meant to be it.
pub(super) fn missing(
    fields: &Fields<'_>,
    what: &str,
    key: &str,
    example: &str,
    findings: &mut Findings,
) {
    if fields.is_meant(key) {
        return;
    }
    let found = format!("{what} needs `{key}`");
    findings.error_with_help(fields.location, found, format!("add `{example}`"));
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
    match fields.entry("method") {
        Some(entry) => task.method = decode::text(entry, findings).unwrap_or_default(),
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

/// A name, or a number from 0 (urgent) to 3 (low), also in quotes.
pub(super) fn priority(fields: &Fields<'_>, findings: &mut Findings) -> Priority {
    let Some(entry) = fields.get("priority") else { return Priority::default() };
    let number = match &entry.value.kind {
        Kind::Number(number, _) => number.as_u64(),
        Kind::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    let number = number.and_then(|number| usize::try_from(number).ok());
    if let Some(priority) = number.and_then(|number| Priority::ALL.get(number)) {
        return *priority;
    }
    if let Kind::Number(..) = entry.value.kind {
        decode::refuse(entry, "a number from 0 (urgent) to 3 (low)", findings);
        return Priority::default();
    }
    let choices = Priority::ALL.map(|priority| (priority.as_str(), priority));
    decode::choice(entry, &choices, findings).unwrap_or_default()
}

/// The retry policy, with the defaults of the format for what it leaves out.
pub(super) fn retry(fields: &Fields<'_>, findings: &mut Findings) -> Option<RetryPolicy> {
    let entry = fields.get("retry")?;
    let fields = Fields::of(&entry.value, entry.location(), &keys::RETRY, findings)?;
    let mut policy = RetryPolicy::default();
    if let Some(entry) = fields.get("max_attempts") {
        policy.max_attempts = decode::small_count(entry, 1, findings).unwrap_or(1);
    }
    if let Some(entry) = fields.get("backoff") {
        let choices = [
            ("fixed", Backoff::Fixed),
            ("linear", Backoff::Linear),
            ("exponential", Backoff::Exponential),
        ];
        policy.backoff = decode::choice(entry, &choices, findings).unwrap_or_default();
    }
    if let Some(pause) = fields.get("base_delay").and_then(|e| decode::pause(e, findings)) {
        policy.base_delay = pause;
    }
    if let Some(pause) = fields.get("max_delay").and_then(|e| decode::pause(e, findings)) {
        policy.max_delay = pause;
    }
    if let Some(flag) = fields.get("jitter").and_then(|e| decode::flag(e, findings)) {
        policy.jitter = flag;
    }
    if let Some(entry) = fields.get("retry_on") {
        policy.retry_on = retry_on(entry, findings);
    }
    Some(policy)
}

/// `any`, one code, or a list of codes; each by name or number.
fn retry_on(entry: &Entry, findings: &mut Findings) -> RetryOn {
    match &entry.value.kind {
        Kind::String(word) if word == "any" || word == "all" => RetryOn::Any(AnyError::Any),
        Kind::String(word) if word == "retryable" => RetryOn::Retryable,
        Kind::Array(items) => {
            let location = |item: &Node| {
                if item.span.start < item.span.end { item.span } else { entry.key_span }
            };
            let mut code = |item| error_code(item, location(item), findings);
            RetryOn::Codes(items.iter().filter_map(&mut code).collect())
        }
        _ => {
            let code = error_code(&entry.value, entry.location(), findings);
            RetryOn::Codes(code.into_iter().collect())
        }
    }
}

fn error_code(node: &Node, location: Span, findings: &mut Findings) -> Option<ErrorCode> {
    let code = match &node.kind {
        Kind::Number(number, _) => number.as_i64().and_then(ErrorCode::from_number),
        Kind::String(text) => ErrorCode::from_name(text)
            .or_else(|| text.trim().parse().ok().and_then(ErrorCode::from_number)),
        _ => None,
    };
    if code.is_none() {
        let found =
            format!("`retry_on` has {}; expected `any`, or codes of errors", node.describe());
        let names: Vec<String> =
            ErrorCode::ALL.iter().map(|code| code.name().to_lowercase()).collect();
        let near = match &node.kind {
            Kind::String(text) => keys::nearest(text, names.iter().map(String::as_str)),
            _ => None,
        };
        let help = match near {
            Some(name) => format!("did you mean `{}`?", name.to_uppercase()),
            None => "such as `TASK_EXECUTION_FAILED` or -29002".to_owned(),
        };
        findings.error_with_help(location, found, help);
    }
    code
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
