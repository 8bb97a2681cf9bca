//! What the code of tasks wrote to standard output and standard error: the last lines for a
//! failure, all of it for `logs`.

use std::fmt::Write as _;

use gleitzeit_domain::{
    id::WorkflowId,
    printable,
    task::{TaskRecord, TaskStatus},
};
use serde_json::{Map, Value, json};

/// Lines of output that a failure shows.
const TAIL: usize = 20;

/// What a task's last attempt wrote.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Written<'t> {
    pub(crate) stdout: &'t str,
    pub(crate) stderr: &'t str,
}

impl<'t> Written<'t> {
    /// Of the result, or of the error's data.
    pub(crate) fn of(task: &'t TaskRecord) -> Self {
        let from = match (&task.result, &task.error) {
            (Some(result), _) => Some(&**result),
            (None, Some(error)) => error.data.as_deref(),
            (None, None) => None,
        };
        let stream = |name: &str| {
            from.and_then(|from| from.get(name)).and_then(Value::as_str).unwrap_or_default()
        };
        Self { stdout: stream("stdout"), stderr: stream("stderr") }
    }

    /// True if there is nothing.
    pub(crate) fn is_empty(self) -> bool {
        self.stdout.is_empty() && self.stderr.is_empty()
    }

    /// Its lines, those of standard output first.
    pub(crate) fn lines(self) -> impl Iterator<Item = &'t str> {
        self.stdout.lines().chain(self.stderr.lines())
    }
}

/// The last lines of a failed task, indented; how many came before them, and where they are.
pub(super) fn tail(task: &TaskRecord, kept_as: Option<&WorkflowId>) -> String {
    let written = Written::of(task);
    let count = written.lines().count();
    let mut text = String::new();
    if count > TAIL {
        let _ = write!(text, "\n    … {} lines before these", count - TAIL);
        if let Some(id) = kept_as {
            let hint = format!("; all: gleitzeit logs {id} {}", task.id);
            text.push_str(&printable::line(&hint));
        }
    }
    for line in written.lines().skip(count.saturating_sub(TAIL)) {
        let _ = write!(text, "\n    {}", printable::block(line));
    }
    text
}

/// All that tasks wrote, each line with the task before it; without it where `alone`.
pub(crate) fn logs_text(tasks: &[&TaskRecord], alone: bool) -> String {
    let width = tasks
        .iter()
        .map(|task| printable::line(task.id.as_str()).chars().count())
        .max()
        .unwrap_or(0);
    let mut text = String::new();
    for task in tasks {
        let id = printable::line(task.id.as_str());
        for line in Written::of(task).lines() {
            let line = printable::block(line);
            let _ = if alone {
                writeln!(text, "{line}")
            } else {
                writeln!(text, "{id:<width$} | {line}")
            };
        }
    }
    text
}

/// `{"<task>":{"status","stdout","stderr"}}`.
pub(crate) fn logs_json(tasks: &[&TaskRecord]) -> Value {
    let tasks: Map<String, Value> = tasks
        .iter()
        .map(|task| {
            let Written { stdout, stderr } = Written::of(task);
            let written = json!({ "status": task.status, "stdout": stdout, "stderr": stderr });
            (task.id.to_string(), written)
        })
        .collect();
    Value::Object(tasks)
}

/// The reason why a task has no output to print, if it has none.
pub(crate) fn why_nothing(task: &TaskRecord) -> &'static str {
    match task.status {
        TaskStatus::Pending | TaskStatus::Queued => "has not started",
        TaskStatus::Executing => "is running; its output is stored when it ends",
        TaskStatus::Skipped => "was left out by a condition",
        TaskStatus::UpstreamFailed => "never ran, because a task that it needs did not complete",
        _ => "wrote nothing",
    }
}
