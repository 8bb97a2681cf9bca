//! A workflow and its tasks, for a program and for a person.

mod workflow;
mod written;

use std::fmt::Write as _;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use gleitzeit_domain::{
    event::Event,
    printable,
    task::TaskStatus,
    workflow::{WorkflowStatus, WorkflowSummary},
};
use serde_json::Value;

use super::output::{Cell, Lines, Style};

pub(crate) use workflow::{View, essence, shows_results, times, workflow_text};
pub(crate) use written::{Written, logs_json, logs_text, why_nothing};

/// One sign for a status.
pub(crate) const fn mark(status: TaskStatus) -> &'static str {
    match status {
        TaskStatus::Completed => "✓",
        TaskStatus::Failed => "✗",
        TaskStatus::Cancelled => "■",
        TaskStatus::Skipped => "○",
        TaskStatus::UpstreamFailed => "-",
        TaskStatus::OutcomeUnknown => "?",
        TaskStatus::Executing => "▶",
        TaskStatus::Pending | TaskStatus::Queued | TaskStatus::RetryPending => "·",
    }
}

/// The style of a status.
pub(crate) const fn style(status: TaskStatus) -> Style {
    match status {
        TaskStatus::Completed => Style::Good,
        TaskStatus::Failed => Style::Bad,
        TaskStatus::Cancelled | TaskStatus::OutcomeUnknown | TaskStatus::RetryPending => Style::Odd,
        TaskStatus::Executing => Style::Busy,
        TaskStatus::Skipped
        | TaskStatus::UpstreamFailed
        | TaskStatus::Pending
        | TaskStatus::Queued => Style::Faint,
    }
}

/// The beginning of a text, on one line.
pub(crate) fn shortened(text: &str, limit: usize) -> String {
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
pub(crate) fn list_text(workflows: &[WorkflowSummary], view: View) -> String {
    let mut table = Lines::new(["", "id", "~name", "status", "tasks", "age"]);
    for it in workflows {
        let (mark, style) = match it.status {
            WorkflowStatus::Completed => ("✓", Style::Good),
            WorkflowStatus::Failed | WorkflowStatus::TimedOut => ("✗", Style::Bad),
            WorkflowStatus::Cancelled => ("■", Style::Odd),
            WorkflowStatus::Running => ("▶", Style::Busy),
            WorkflowStatus::Pending => ("·", Style::Faint),
        };
        let mut tasks = format!("{}/{}", it.settled_count, it.task_count);
        if it.outcome_unknown_count > 0 {
            let _ = write!(tasks, " ({} unknown)", it.outcome_unknown_count);
        }
        // For a provider that is down; `show` says for which, and why.
        match it.waiting_count {
            0 => {}
            1 => tasks.push_str(" (1 waits)"),
            count => {
                let _ = write!(tasks, " ({count} wait)");
            }
        }
        table.add([
            Cell::new(mark, style),
            it.id.as_str().into(),
            Cell::from(&*it.name),
            Cell::new(it.status.as_str(), style),
            tasks.into(),
            age(view.now - it.created_at).into(),
        ]);
    }
    table.render(view.width, view.is_coloured)
}

/// How long ago something was, in its largest unit.
fn age(span: TimeDelta) -> String {
    let seconds = span.num_seconds().max(0);
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
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
    printable::line(line.trim_end()).into_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use gleitzeit_domain::{
        error::TaskError,
        task::TaskRecord,
        workflow::{TaskSpec, WorkflowRecord, WorkflowSpec},
    };
    use serde_json::json;

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

    /// Tools read this shape; no key of it may be removed or added.
    #[test]
    fn the_json_of_a_workflow_has_the_promised_shape() {
        assert_eq!(
            gleitzeit::results::document(&record()),
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
        let text = workflow_text(&record(), VIEW);
        for part in ["Second letter", "250 ms", "[1,2]", "a failed: ", "    line 1", "1 of 2"] {
            assert!(text.contains(part), "no `{part}` in:\n{text}");
        }
        assert_eq!(text.matches("ValueError: no").count(), 1, "told once:\n{text}");
    }

    const VIEW: View =
        View { width: 80, is_coloured: false, is_kept: true, now: DateTime::UNIX_EPOCH };

    /// A person needs the end of what a failing task wrote; a successful one's output is not
    /// printed at all.
    #[test]
    fn the_last_lines_of_a_failing_task_are_printed() {
        let mut record = record();
        let lines = |name: &str| {
            let lines: Vec<String> = (1..=1_100).map(|n| format!("{name} {n}\n")).collect();
            lines.concat()
        };
        let data = json!({"stdout": lines("out"), "stderr": "last words"});
        record.tasks[1].error = Some(Arc::new(TaskError::failed("no").with_data(data)));
        record.tasks[0].result = Some(Arc::new(json!({"result": 1, "stdout": "noise"})));
        let text = workflow_text(&record, VIEW);
        assert!(text.contains("1081 lines before these; all: gleitzeit logs w a\n"), "{text}");
        assert!(text.contains("    out 1082\n") && text.contains("    last words\n"), "{text}");
        assert!(!text.contains("out 1081\n") && !text.contains("noise"), "{text}");
    }

    /// A person needs to know what a task waits for while nothing happens.
    #[test]
    fn waiting_tasks_say_for_what() {
        let mut record = record();
        record.status = WorkflowStatus::Running;
        let task = |id: &str, after: &[&str]| {
            let task = TaskSpec::new(id, "echo/echo");
            after.iter().fold(task, |task, after| task.after(*after))
        };
        let spec = ["b", "a"].iter().fold(WorkflowSpec::new("w"), |it, id| it.task(task(id, &[])));
        record.spec = Arc::new(spec.task(task("c", &["a", "b"])));
        record.tasks.push(TaskRecord::pending(2, "c".into(), "c".into()));
        let waits = |record: &WorkflowRecord| workflow_text(record, VIEW);
        record.tasks[1].status = TaskStatus::Executing;
        record.tasks[1].provider_id = Some("python".into());
        record.tasks[1].started_at = Some(DateTime::UNIX_EPOCH - TimeDelta::seconds(3));
        let text = waits(&record);
        assert!(text.contains("runs for 3.00 s by python"), "{text}");
        assert!(text.contains("waits for a\n"), "b is settled: {text}");
        record.tasks[1].status = TaskStatus::Queued;
        record.tasks[1].error = Some(Arc::new(TaskError::failed("waits for a provider: llm")));
        assert!(waits(&record).contains("waits for a provider: llm"), "{}", waits(&record));
    }

    /// Of many tasks only those that need attention have a line; the others are counted.
    #[test]
    fn many_tasks_are_summed_up() {
        let mut record = record();
        for index in 2..=60 {
            let mut task = TaskRecord::pending(index, format!("t{index}").into(), "n".into());
            task.status = TaskStatus::Completed;
            record.tasks.push(task);
        }
        let text = workflow_text(&record, VIEW);
        assert!(text.starts_with("61 tasks: 60 completed, 1 failed\n"), "{text}");
        assert!(!text.contains("t30"), "{text}");
        assert!(text.lines().count() < 12, "{text}");
    }

    /// Nothing that comes from outside is seen as more than text, coloured or not.
    #[test]
    fn values_drive_no_terminal() {
        let evil = "\u{1b}[31mx\u{1b}]0;t\u{7}\r\u{202e}\u{9b}";
        let mut record = record();
        record.name = evil.into();
        record.id = evil.into();
        record.tasks[1].id = evil.into();
        record.tasks[0].name = evil.into();
        record.tasks[0].result = Some(Arc::new(json!({ "result": evil })));
        let data = json!({ "stdout": evil, "stderr": evil });
        record.tasks[1].error = Some(Arc::new(TaskError::failed(evil).with_data(data)));
        for is_coloured in [true, false] {
            let text = workflow_text(&record, View { is_coloured, ..VIEW });
            let own = ["\u{1b}[32m", "\u{1b}[1;31m", "\u{1b}[2m", "\u{1b}[0m"];
            let left = own.iter().fold(text, |text, own| text.replace(own, ""));
            let hidden = left.chars().find(|c| printable::is_hidden(*c) && *c != '\n');
            assert_eq!(hidden, None, "{left:?}");
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
    fn spans_are_printed_in_the_unit_that_fits() {
        assert_eq!(seconds(0.000_012), "12 µs");
        assert_eq!(seconds(0.0123), "12 ms");
        assert_eq!(seconds(0.9999), "1.00 s");
        assert_eq!(seconds(1.5), "1.50 s");
        assert_eq!(seconds(180.0), "3.0 min");
    }
}
