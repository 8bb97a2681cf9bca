//! What can be known of a workflow on this machine: what it needs beyond what there is, and files
//! that are not there.

use std::path::{Path, PathBuf};

use gleitzeit::Settings;
use gleitzeit_domain::{
    error::ErrorCode,
    problem::Problem,
    protocol::catalog::ProtocolCatalog,
    reference::has_reference,
    workflow::{TaskSpec, WorkflowSpec},
};
use serde_json::Value;

/// Tasks that can never run: they need more than all there is.
pub(super) fn above_the_total(spec: &WorkflowSpec, settings: &Settings) -> Vec<Problem> {
    let total = settings.resources.totals(settings.engine.max_concurrent_tasks.get());
    let mut problems = Vec::new();
    for (index, task) in spec.tasks.iter().enumerate() {
        let Some(need) = task.resources.as_ref().map(|it| it.amounts().with_slots(1)) else {
            continue;
        };
        let amounts = [
            ("cpu_cores", "thousandths of a core", need.cpu_millicores, total.cpu_millicores),
            ("memory_mb", "MiB", need.memory_mib, total.memory_mib),
            ("gpu_memory_mb", "MiB", need.gpu_memory_mib, total.gpu_memory_mib),
            ("disk_space_mb", "MiB", need.disk_mib, total.disk_mib),
            ("network_bandwidth_mbps", "Mbit/s", need.bandwidth_mbps, total.bandwidth_mbps),
        ];
        for (name, unit, need, total) in amounts.into_iter().filter(|(_, _, need, all)| need > all)
        {
            let pointer = format!("/tasks/{index}/resources/{name}");
            let message =
                format!("`{name}` is {need} {unit}, more than the {total} that there are in all");
            let problem = Problem::new(ErrorCode::ResourceExhausted, pointer, message);
            problems.push(problem.help(format!("ask for less, or raise `resources.{name}`")));
        }
    }
    problems
}

/// Files that tasks name and that are not there: a script is an error, data may still be made.
pub(super) fn missing_files(
    spec: &WorkflowSpec,
    catalog: &ProtocolCatalog,
    errors: &mut Vec<Problem>,
    warnings: &mut Vec<Problem>,
) {
    for (index, task) in spec.tasks.iter().enumerate() {
        let is_python = is_python(task, catalog);
        let names: &[&str] = if is_python { &["file"] } else { &["file_path", "image_path"] };
        for name in names {
            let Some(path) = text(task, name) else { continue };
            if find(spec, path).is_some() {
                continue;
            }
            let pointer = format!("/tasks/{index}/parameters/{name}");
            let message = format!("`{path}` is not there{}", searched_in(spec, path));
            let problem = Problem::new(ErrorCode::TaskParameterError, pointer, message);
            if is_python { errors.push(problem) } else { warnings.push(problem) }
        }
    }
}

/// True for a task that runs Python code.
pub(super) fn is_python(task: &TaskSpec, catalog: &ProtocolCatalog) -> bool {
    catalog.resolve(task.protocol.as_deref(), &task.method).is_ok_and(|method| {
        method.capability.protocol.name() == "python" && &*method.capability.method == "execute"
    })
}

/// A parameter that is a text without references.
pub(super) fn text<'t>(task: &'t TaskSpec, name: &str) -> Option<&'t str> {
    let text = task.parameters.get(name).and_then(Value::as_str)?;
    (!has_reference(text)).then_some(text)
}

/// The file that a parameter names, where the workflow's relative paths lead.
pub(super) fn find(spec: &WorkflowSpec, path: &str) -> Option<PathBuf> {
    let path = Path::new(path);
    let directories = spec.file_access.iter().flat_map(|access| &access.directories);
    let candidates = directories.map(|it| Path::new(it).join(path)).chain([path.to_owned()]);
    candidates.into_iter().find(|candidate| candidate.is_file())
}

fn searched_in(spec: &WorkflowSpec, path: &str) -> String {
    let directories: Vec<String> = spec
        .file_access
        .iter()
        .filter(|_| Path::new(path).is_relative())
        .flat_map(|access| &access.directories)
        .map(|directory| format!("`{directory}`"))
        .collect();
    if directories.is_empty() {
        String::new()
    } else {
        format!("; searched in {}", directories.join(" and "))
    }
}
