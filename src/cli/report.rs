//! A workflow and its tasks, for a program and for a person.

use std::fmt::Write as _;

use chrono::{DateTime, SecondsFormat, Utc};
use gleitzeit_domain::{
    event::Event,
    task::{TaskRecord, TaskStatus},
    workflow::{WorkflowRecord, WorkflowStatus, WorkflowSummary},
};
use serde_json::{Map, Value, json};

use super::output;

/// Characters of a result that a table shows.
const RESULT_SHOWN: usize = 160;

/// `{"workflow_id","name","status","tasks":{"<id>":{…}}}`, the tasks by id.
pub(crate) fn workflow_json(record: &WorkflowRecord) -> Value {
    let tasks: Map<String, Value> =
        record.tasks.iter().map(|task| (task.id.to_string(), task_json(task))).collect();
    json!({
        "workflow_id": record.id,
        "name": record.name,
        "status": record.status,
        "tasks": tasks,
    })
}

fn task_json(task: &TaskRecord) -> Value {
    json!({
        "name": task.name,
        "status": task.status,
        "attempts": task.attempts,
        "provider_id": task.provider_id,
        "duration": task.duration,
        "result": task.result,
        "error": task.error.as_deref().map(output::error_json),
    })
}

/// The workflow as a table, with every error in full below it.
pub(crate) fn workflow_text(record: &WorkflowRecord) -> String {
    let mut table = output::table(["", "task", "status", "tries", "time", "result"]);
    for task in &record.tasks {
        table.add_row([
            mark(task.status).to_owned(),
            task_title(task),
            task.status.to_string(),
            task.attempts.to_string(),
            task.duration.map(seconds).unwrap_or_default(),
            result_line(task),
        ]);
    }
    let mut text = table.trim_fmt();
    for task in &record.tasks {
        if task.status == TaskStatus::Failed
            && let Some(error) = &task.error
        {
            let _ = write!(text, "\n\n{} failed: {error}", task.id);
            text.push_str(&indented_output(error.data.as_deref()));
        }
    }
    let _ = write!(text, "\n\n{}", summary_line(record));
    text
}

/// What Python code wrote before it failed, where the error tells.
fn indented_output(data: Option<&Value>) -> String {
    let mut text = String::new();
    for stream in ["stdout", "stderr"] {
        let written = data.and_then(|data| data.get(stream)).and_then(Value::as_str);
        for line in written.unwrap_or_default().lines() {
            let _ = write!(text, "\n    {line}");
        }
    }
    text
}

fn task_title(task: &TaskRecord) -> String {
    if *task.name == *task.id.as_str() {
        task.id.to_string()
    } else {
        format!("{}\n{}", task.id, task.name)
    }
}

fn summary_line(record: &WorkflowRecord) -> String {
    let done = record.tasks.iter().filter(|it| it.status == TaskStatus::Completed).count();
    let mut line = format!(
        "workflow {} `{}` {}: {done} of {} tasks completed",
        record.id,
        record.name,
        record.status,
        record.tasks.len()
    );
    if let (Some(from), Some(to)) = (record.started_at, record.completed_at) {
        let spent = (to - from).to_std().unwrap_or_default();
        let _ = write!(line, " in {}", seconds(spent.as_secs_f64()));
    }
    if record.status != WorkflowStatus::Completed
        && let Some(error) = &record.error
    {
        let _ = write!(line, "\n{error}");
    }
    line
}

/// One sign for a status.
pub(crate) const fn mark(status: TaskStatus) -> &'static str {
    match status {
        TaskStatus::Completed => "✓",
        TaskStatus::Failed => "✗",
        TaskStatus::Cancelled => "■",
        TaskStatus::Skipped => "-",
        TaskStatus::OutcomeUnknown => "?",
        TaskStatus::Executing => "▶",
        TaskStatus::Pending | TaskStatus::Queued | TaskStatus::RetryPending => "·",
    }
}

/// What there is to say of a task in one line: its result, or why there is none.
fn result_line(task: &TaskRecord) -> String {
    let text = match (&task.error, &task.result) {
        (Some(error), _) => error.message.to_string(),
        (None, Some(result)) => essence(result),
        (None, None) => String::new(),
    };
    shortened(&text, RESULT_SHOWN)
}

/// The part of a provider's result that a person looks for.
fn essence(result: &Value) -> String {
    let inner = ["result", "response", "embedding"].iter().find_map(|key| result.get(key));
    match inner.unwrap_or(result) {
        Value::String(text) => text.trim_end().to_owned(),
        other => other.to_string(),
    }
}

fn shortened(text: &str, limit: usize) -> String {
    let line = text.lines().map(str::trim_end).collect::<Vec<_>>().join(" ⏎ ");
    if line.chars().count() <= limit {
        return line;
    }
    let mut short: String = line.chars().take(limit - 1).collect();
    short.push('…');
    short
}

/// A span in the unit that fits it.
pub(crate) fn seconds(span: f64) -> String {
    if span < 0.000_999_5 {
        format!("{:.0} µs", span * 1e6)
    } else if span < 0.9995 {
        format!("{:.0} ms", span * 1e3)
    } else if span < 120.0 {
        format!("{span:.2} s")
    } else {
        format!("{:.1} min", span / 60.0)
    }
}

/// A moment, to the second.
pub(crate) fn moment(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// Workflows as a table.
pub(crate) fn list_text(workflows: &[WorkflowSummary]) -> String {
    if workflows.is_empty() {
        return "no workflows".to_owned();
    }
    let mut table = output::table(["id", "name", "status", "tasks", "accepted"]);
    for it in workflows {
        let mut tasks = format!("{}/{}", it.settled_count, it.task_count);
        if it.outcome_unknown_count > 0 {
            let _ = write!(tasks, " ({} unknown)", it.outcome_unknown_count);
        }
        table.add_row([
            it.id.to_string(),
            it.name.to_string(),
            it.status.to_string(),
            tasks,
            moment(it.created_at),
        ]);
    }
    table.trim_fmt()
}

/// An event in one line.
pub(crate) fn event_text(event: &Event) -> String {
    let mut line = format!(
        "{} {:>5}  {:<22}",
        event.timestamp.to_rfc3339_opts(SecondsFormat::Millis, true),
        event.sequence,
        event.data.event_type()
    );
    let fields = serde_json::to_value(event).unwrap_or_default();
    if let Some(Value::Object(fields)) = fields.get("data") {
        for (name, value) in fields.iter().filter(|(name, _)| *name != "workflow_id") {
            let value = match value {
                Value::String(text) => shortened(text, 80),
                other => shortened(&other.to_string(), 80),
            };
            let _ = write!(line, " {name}={value}");
        }
    }
    line.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use gleitzeit_domain::{error::TaskError, workflow::WorkflowSpec};

    use super::*;

    fn record() -> WorkflowRecord {
        let mut good = TaskRecord::pending(0, "b".into(), "Second letter".into());
        good.status = TaskStatus::Completed;
        good.attempts = 2;
        good.provider_id = Some("python".into());
        good.duration = Some(0.25);
        good.result = Some(Arc::new(json!({"result": [1, 2], "stdout": ""})));
        let mut bad = TaskRecord::pending(1, "a".into(), "a".into());
        bad.status = TaskStatus::Failed;
        bad.attempts = 1;
        let error = TaskError::failed("ValueError: no").with_data(json!({"stderr": "line 1\n"}));
        bad.error = Some(Arc::new(error));
        WorkflowRecord {
            id: "w".into(),
            name: "letters".into(),
            status: WorkflowStatus::Failed,
            created_at: DateTime::UNIX_EPOCH,
            started_at: None,
            completed_at: None,
            error: None,
            last_sequence: 9,
            spec: Arc::new(WorkflowSpec::new("letters")),
            tasks: vec![good, bad],
        }
    }

    /// Tools read this shape; no key of it may go or come.
    #[test]
    fn the_json_of_a_workflow_has_the_promised_shape() {
        assert_eq!(
            workflow_json(&record()),
            json!({
                "workflow_id": "w", "name": "letters", "status": "failed",
                "tasks": {
                    "b": {
                        "name": "Second letter", "status": "completed", "attempts": 2,
                        "provider_id": "python", "duration": 0.25,
                        "result": {"result": [1, 2], "stdout": ""}, "error": null,
                    },
                    "a": {
                        "name": "a", "status": "failed", "attempts": 1, "provider_id": null,
                        "duration": null, "result": null,
                        "error": {
                            "code": -29002, "name": "TASK_EXECUTION_FAILED",
                            "message": "ValueError: no", "data": {"stderr": "line 1\n"},
                        },
                    },
                },
            })
        );
    }

    /// A person sees the result and not its wrapping, the error and what the code had written.
    #[test]
    fn the_table_shows_results_and_errors() {
        let text = workflow_text(&record());
        for part in ["Second letter", "250 ms", "[1,2]", "a failed: ", "    line 1", "1 of 2"] {
            assert!(text.contains(part), "no `{part}` in:\n{text}");
        }
    }

    /// A long result must not break the table.
    #[test]
    fn long_texts_are_cut_at_characters() {
        assert_eq!(shortened("äöü", 3), "äöü");
        assert_eq!(shortened("äöüß", 3), "äö…");
        assert_eq!(shortened("a\nb", 9), "a ⏎ b");
    }

    /// Three digits that mean something.
    #[test]
    fn spans_are_told_in_the_unit_that_fits() {
        assert_eq!(seconds(0.000_012), "12 µs");
        assert_eq!(seconds(0.0123), "12 ms");
        assert_eq!(seconds(0.9999), "1.00 s");
        assert_eq!(seconds(1.5), "1.50 s");
        assert_eq!(seconds(180.0), "3.0 min");
    }
}
