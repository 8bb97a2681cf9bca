//! A workflow for a person: its tasks in a table, every error once and in full, a summary.

use std::{collections::BTreeMap, fmt::Write as _};

use chrono::{DateTime, Utc};
use gleitzeit_domain::{
    id::WorkflowId,
    plan::Draft,
    printable,
    task::{TaskRecord, TaskStatus},
    workflow::{WorkflowRecord, WorkflowStatus},
};
use serde_json::Value;

use super::{
    super::output::{self, Cell, Lines, Style},
    mark, moment, seconds, style, written,
};

/// Tasks that have a line of their own; of more, only those that did not complete.
const LINES: usize = 50;
/// The most errors that are printed in full.
const ERRORS: usize = 20;
/// The most characters of a result that are printed.
const RESULT_CHARS_MAX: usize = 1_000;

/// The layout of a report, and whether it may name the workflow to other commands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View {
    /// Columns.
    pub(crate) width: usize,
    /// True paints states.
    pub(crate) is_coloured: bool,
    /// True if another command can find the workflow.
    pub(crate) is_kept: bool,
    /// What is now.
    pub(crate) now: DateTime<Utc>,
}

impl View {
    /// What standard output can show.
    pub(crate) fn new(is_kept: bool) -> Self {
        Self {
            width: output::width(),
            is_coloured: output::is_coloured(),
            is_kept,
            now: gleitzeit_actors::clock::utc_now(),
        }
    }
}

/// The workflow as a table, with every error in full below it.
pub(crate) fn workflow_text(record: &WorkflowRecord, view: View) -> String {
    let visible = visible(record);
    let mut text = String::new();
    if visible.len() < record.tasks.len() {
        text.push_str(&counts(record));
        text.push('\n');
    }
    if !visible.is_empty() {
        text.push_str(&table(record, &visible, view));
        text.push('\n');
    }
    text.push_str(&errors(record, view));
    if !text.is_empty() {
        text.push('\n');
    }
    text.push_str(&summary(record, view));
    text
}

/// The tasks that have a line: all, or, of many, those that a person may have to act on.
fn visible(record: &WorkflowRecord) -> Vec<&TaskRecord> {
    if record.tasks.len() <= LINES {
        return record.tasks.iter().collect();
    }
    let urgency = |task: &TaskRecord| match task.status {
        TaskStatus::Failed | TaskStatus::OutcomeUnknown => Some(0),
        TaskStatus::RetryPending => Some(1),
        TaskStatus::Executing => Some(2),
        _ => None,
    };
    let mut tasks: Vec<&TaskRecord> =
        record.tasks.iter().filter(|task| urgency(task).is_some()).collect();
    tasks.sort_by_key(|task| urgency(task));
    tasks.truncate(LINES);
    tasks
}

/// True if the table has a line for each completed task, which shows its result.
pub(crate) fn shows_results(record: &WorkflowRecord) -> bool {
    record.tasks.len() <= LINES
}

/// `100000 tasks: 99990 completed, 10 failed`.
fn counts(record: &WorkflowRecord) -> String {
    let mut counts = BTreeMap::new();
    for task in &record.tasks {
        *counts.entry(task.status.as_str()).or_insert(0_usize) += 1;
    }
    let counts: Vec<String> =
        counts.into_iter().map(|(status, count)| format!("{count} {status}")).collect();
    format!("{} tasks: {}\n", record.tasks.len(), counts.join(", "))
}

fn table(record: &WorkflowRecord, tasks: &[&TaskRecord], view: View) -> String {
    let waits = Waits::of(record);
    let mut table = Lines::new(["", "~task", "status", "tries", "time", "~result"]);
    for task in tasks {
        let style = style(task.status);
        table.add([
            Cell::new(mark(task.status), style),
            title(task).into(),
            Cell::new(task.status.as_str(), style),
            task.attempts.to_string().into(),
            task.duration.map(seconds).unwrap_or_default().into(),
            what(task, &waits, view.now).into(),
        ]);
    }
    table.render(view.width, view.is_coloured)
}

fn title(task: &TaskRecord) -> String {
    if *task.name == *task.id.as_str() {
        task.id.to_string()
    } else {
        format!("{}: {}", task.id, task.name)
    }
}

/// What there is to say of a task in one line: its result, or what it waits for. Errors of failed
/// tasks follow below the table.
fn what(task: &TaskRecord, waits: &Waits, now: DateTime<Utc>) -> String {
    let error = || task.error.as_ref().map_or("", |error| &error.message);
    match task.status {
        TaskStatus::Completed => task.result.as_deref().map(essence).unwrap_or_default(),
        TaskStatus::Failed => String::new(),
        TaskStatus::Executing => {
            let since = task.started_at.map_or(String::new(), |at| {
                let spent = (now - at).to_std().unwrap_or_default();
                format!(" for {}", seconds(spent.as_secs_f64()))
            });
            let by = task.provider_id.as_ref().map_or(String::new(), |id| format!(" by {id}"));
            format!("runs{since}{by}")
        }
        TaskStatus::RetryPending => {
            let when = task.due_at.map_or("soon".to_owned(), moment);
            format!("next attempt at {when}: {}", error())
        }
        TaskStatus::OutcomeUnknown => "gleitzeit resolve says what became of it".to_owned(),
        TaskStatus::Pending | TaskStatus::Queued => match task.waits_for_provider() {
            Some(_) => error().to_owned(),
            None => waits.for_what(task),
        },
        TaskStatus::Cancelled | TaskStatus::Skipped | TaskStatus::UpstreamFailed => {
            error().to_owned()
        }
    }
}

/// Which tasks each task waits for.
struct Waits {
    edges: Vec<(u32, u32)>,
    ids: Vec<(String, bool)>,
}

impl Waits {
    /// Of a workflow that is not settled; nothing waits in another.
    fn of(record: &WorkflowRecord) -> Self {
        if record.status.is_settled() {
            return Self { edges: Vec::new(), ids: Vec::new() };
        }
        let (draft, _) = Draft::read((*record.spec).clone());
        let ids =
            record.tasks.iter().map(|it| (it.id.to_string(), it.status.is_settled())).collect();
        Self { edges: draft.edges, ids }
    }

    fn for_what(&self, task: &TaskRecord) -> String {
        let open = |needed: &u32| self.ids.get(*needed as usize).filter(|(_, settled)| !settled);
        let mut waits: Vec<&str> = self
            .edges
            .iter()
            .filter(|(waiting, _)| *waiting == task.index)
            .filter_map(|(_, needed)| open(needed))
            .map(|(id, _)| id.as_str())
            .collect();
        waits.sort_unstable();
        waits.dedup();
        if waits.is_empty() { String::new() } else { format!("waits for {}", waits.join(", ")) }
    }
}

/// The part of a provider's result that a person reads first; the essence of an essence is itself.
pub(crate) fn essence(result: &Value) -> String {
    let inner = ["result", "response", "embedding"].iter().find_map(|key| result.get(key));
    let text = match inner.unwrap_or(result) {
        Value::String(text) => text.trim_end().to_owned(),
        other => other.to_string(),
    };
    super::shortened(&text, RESULT_CHARS_MAX)
}

/// The error of each failed task, with the last lines that its code wrote.
fn errors(record: &WorkflowRecord, view: View) -> String {
    let failed = record.tasks.iter().filter(|task| task.status == TaskStatus::Failed);
    let kept_as: Option<&WorkflowId> = view.is_kept.then_some(&record.id);
    let mut text = String::new();
    for task in failed.clone().take(ERRORS) {
        let Some(error) = &task.error else { continue };
        let title = Style::Bad.paint(&format!("{} failed:", task.id), view.is_coloured);
        let message = printable::block(&error.to_string()).trim_end().replace('\n', "\n  ");
        let _ = write!(text, "\n{title} {message}{}\n", written::tail(task, kept_as));
    }
    // The cause stands at the end of what the table cuts off.
    let waiting = record.tasks.iter().filter(|task| task.waits_for_provider().is_some());
    for task in waiting.take(ERRORS) {
        let Some(error) = &task.error else { continue };
        let message = printable::line(&error.message);
        let _ = write!(text, "\n{} {message}\n", printable::line(task.id.as_str()));
    }
    let more = failed.count().saturating_sub(ERRORS);
    if more > 0 {
        let _ = write!(text, "\n{more} more tasks failed");
        if let Some(id) = kept_as {
            let id = printable::line(id.as_str());
            let _ = write!(text, "; all: gleitzeit --json show {id}");
        }
        text.push('\n');
    }
    text
}

fn summary(record: &WorkflowRecord, view: View) -> String {
    let done = record.tasks.iter().filter(|it| it.status == TaskStatus::Completed).count();
    let style = match record.status {
        WorkflowStatus::Completed => Style::Good,
        status if status.is_settled() => Style::Bad,
        _ => Style::Busy,
    };
    let mut line = format!(
        "workflow {} `{}` {}: {done} of {} tasks completed",
        printable::line(record.id.as_str()),
        printable::line(&record.name),
        style.paint(record.status.as_str(), view.is_coloured),
        record.tasks.len()
    );
    if let (Some(from), Some(to)) = (record.started_at, record.completed_at) {
        let spent = (to - from).to_std().unwrap_or_default();
        let _ = write!(line, " in {}", seconds(spent.as_secs_f64()));
    }
    // That of a failed task is above already.
    let is_reported = record.status == WorkflowStatus::Failed
        && record.tasks.iter().any(|task| task.status == TaskStatus::Failed);
    if record.status != WorkflowStatus::Completed
        && !is_reported
        && let Some(error) = &record.error
    {
        let _ = write!(line, "\n{}", printable::block(&error.to_string()).replace('\n', "\n  "));
    }
    line
}

/// When the workflow was accepted, started and ended, in one line.
pub(crate) fn times(record: &WorkflowRecord) -> String {
    let mut line = format!("accepted {}", moment(record.created_at));
    for (what, at) in [("started", record.started_at), ("ended", record.completed_at)] {
        if let Some(at) = at {
            let _ = write!(line, ", {what} {}", moment(at));
        }
    }
    line
}
