//! What a person sees while workflows run: on a terminal a line for each running task and a bar for
//! all of them; elsewhere a plain line for each task that ends, so that a log of ten minutes is not
//! silent. Of many tasks, one line each ten seconds.
//!
//! Fed with the workflow's events. Errors of tasks that failed for good are left to the report.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use console::{Term, truncate_str};
use gleitzeit_domain::{
    event::{Event, EventData},
    id::{TaskId, WorkflowId},
    printable,
    task::TaskStatus,
    workflow::WorkflowRecord,
};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::{
    output,
    report::{mark, seconds, style},
};

/// Running tasks that get a line of their own.
const DRAWN: usize = 8;
/// Tasks up to which each end is a line.
const LINES: usize = 50;
/// Failures that are lines where there are more tasks.
const FAILURES: usize = 20;
/// Between two lines that count.
const COUNTING: Duration = Duration::from_secs(10);

/// How progress is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProgressMode {
    /// Not at all.
    Nothing,
    /// As lines that follow one another.
    Lines,
    /// As lines that are drawn over.
    Drawing,
}

/// The progress of some workflows.
pub(crate) struct Progress {
    view: View,
    total: usize,
    settled: usize,
    /// Tasks whose end was printed, if each end is printed.
    reported: HashSet<(WorkflowId, TaskId)>,
    /// An earlier command printed the ends before this.
    since: DateTime<Utc>,
}

enum View {
    Nothing,
    Lines { failures: usize, counted: Instant },
    Drawing(Drawing),
}

struct Drawing {
    lines: MultiProgress,
    all: ProgressBar,
    running: HashMap<TaskId, ProgressBar>,
    width: usize,
}

impl Progress {
    /// `settled` of `total` tasks were settled before.
    pub(crate) fn new(mode: ProgressMode, total: usize, settled: usize) -> Self {
        let view = match mode {
            ProgressMode::Nothing => View::Nothing,
            ProgressMode::Lines => View::Lines { failures: 0, counted: Instant::now() },
            ProgressMode::Drawing => View::Drawing(Drawing::new(total, settled)),
        };
        Self {
            view,
            total,
            settled,
            reported: HashSet::new(),
            since: gleitzeit_actors::clock::utc_now(),
        }
    }

    /// Sets how many tasks are settled, after events were missed. Which of them run is then not
    /// known any more.
    pub(crate) fn set_settled(&mut self, settled: usize) {
        self.settled = settled;
        if let View::Drawing(drawing) = &mut self.view {
            drawing.running.drain().for_each(|(_, line)| line.finish_and_clear());
            drawing.all.set_position(settled as u64);
        }
    }

    /// Takes note of what happened.
    pub(crate) fn event(&mut self, event: &Event) {
        if self.total <= LINES
            && let Some(id) = &event.workflow_id
            && let EventData::TaskCompleted { task_id, .. }
            | EventData::TaskFailed { task_id, .. }
            | EventData::TaskCancelled { task_id, .. }
            | EventData::TaskSkipped { task_id, .. }
            | EventData::TaskUpstreamFailed { task_id, .. } = &event.data
        {
            self.reported.insert((id.clone(), task_id.clone()));
        }
        match &event.data {
            EventData::TaskStarted { task_id, attempt, .. } => {
                if let View::Drawing(drawing) = &mut self.view {
                    drawing.start(task_id, *attempt);
                }
            }
            EventData::TaskCompleted { task_id, execution_time, .. } => {
                let what = format!("completed in {}", seconds(*execution_time));
                self.settle(task_id, TaskStatus::Completed, &what);
            }
            EventData::TaskFailed { task_id, .. } => {
                self.settle(task_id, TaskStatus::Failed, "failed");
            }
            EventData::TaskCancelled { task_id, reason } => {
                self.settle(task_id, TaskStatus::Cancelled, &format!("cancelled: {reason}"));
            }
            EventData::TaskSkipped { task_id, because, condition } => {
                let what = if because == task_id {
                    format!("skipped, because `{condition}` does not hold")
                } else {
                    format!("skipped, because {because} was: `{condition}` does not hold")
                };
                self.settle(task_id, TaskStatus::Skipped, &what);
            }
            EventData::TaskUpstreamFailed { task_id, failed_task_id } => {
                let what = format!("never ran, because {failed_task_id} did not complete");
                self.settle(task_id, TaskStatus::UpstreamFailed, &what);
            }
            EventData::TaskRetryScheduled {
                task_id, delay, error_message, attempt_count, ..
            } => {
                let delay = seconds(*delay);
                let what =
                    format!("attempt {attempt_count} failed, again in {delay}: {error_message}");
                self.line(task_id, TaskStatus::RetryPending, &what);
            }
            EventData::TaskOutcomeUnknown { task_id, .. } => {
                self.line(task_id, TaskStatus::OutcomeUnknown, "outcome unknown");
            }
            _ => {}
        }
    }

    /// Prints the ends that no event reported before that of the workflow.
    pub(crate) fn rest(&mut self, record: &WorkflowRecord) {
        if self.total > LINES {
            return;
        }
        for task in &record.tasks {
            let is_new = task.completed_at.is_some_and(|at| at >= self.since);
            let key = (record.id.clone(), task.id.clone());
            if is_new && task.status.is_settled() && self.reported.insert(key) {
                let what = match task.duration {
                    Some(duration) if task.status == TaskStatus::Completed => {
                        format!("completed in {}", seconds(duration))
                    }
                    _ => task.status.to_string(),
                };
                self.settle(&task.id, task.status, &what);
            }
        }
    }

    /// Says a line above what is drawn.
    pub(crate) fn say(&self, text: &str) {
        match &self.view {
            View::Drawing(drawing) => drawing.println(text),
            _ => output::note(text),
        }
    }

    /// Writes lines of output above what is drawn.
    pub(crate) fn say_lines(&self, text: &str) {
        for line in text.lines() {
            self.say(line);
        }
    }

    fn settle(&mut self, task: &TaskId, status: TaskStatus, what: &str) {
        self.settled += 1;
        self.line(task, status, what);
        match &mut self.view {
            View::Drawing(drawing) => drawing.all.inc(1),
            View::Lines { counted, .. } if self.total > LINES && counted.elapsed() >= COUNTING => {
                *counted = Instant::now();
                output::note(format_args!("{} of {} tasks settled", self.settled, self.total));
            }
            _ => {}
        }
    }

    fn line(&mut self, task: &TaskId, status: TaskStatus, what: &str) {
        let what = what.lines().next().unwrap_or_default();
        match &mut self.view {
            View::Nothing => {}
            View::Drawing(drawing) => drawing.say(task, status, what),
            View::Lines { failures, .. } => {
                let is_visible = self.total <= LINES
                    || status == TaskStatus::Failed && {
                        *failures += 1;
                        *failures <= FAILURES
                    };
                if is_visible {
                    let (settled, total) = (self.settled, self.total);
                    let line = format!("[{settled}/{total}] {task} {what}");
                    output::note(printable::line(&line));
                }
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let View::Drawing(drawing) = &mut self.view {
            drawing.running.clear();
            drawing.all.finish_and_clear();
            let _ = drawing.lines.clear();
        }
    }
}

impl Drawing {
    fn new(total: usize, settled: usize) -> Self {
        let lines = MultiProgress::new();
        let all = lines.add(ProgressBar::new(total as u64));
        all.set_style(template("{bar:30} {pos}/{len} tasks  {elapsed}"));
        all.set_position(settled as u64);
        all.enable_steady_tick(Duration::from_millis(200));
        Self { lines, all, running: HashMap::new(), width: 0 }
    }

    fn start(&mut self, task: &TaskId, attempt: u32) {
        if self.running.len() >= DRAWN {
            return;
        }
        let line = self.lines.insert_before(&self.all, ProgressBar::new_spinner());
        line.set_style(template("{spinner} {msg}  {elapsed}"));
        let again = if attempt > 1 { format!(" (attempt {attempt})") } else { String::new() };
        line.set_message(format!("{}{again}", printable::line(task.as_str())));
        line.enable_steady_tick(Duration::from_millis(100));
        self.running.insert(task.clone(), line);
    }

    fn say(&mut self, task: &TaskId, status: TaskStatus, what: &str) {
        if let Some(line) = self.running.remove(task) {
            line.finish_and_clear();
        }
        self.width = self.width.max(task.as_str().chars().count());
        let sign = style(status).paint(mark(status), output::errors_are_coloured());
        let text = printable::line(&format!("{task:<w$}  {what}", w = self.width)).into_owned();
        let columns = usize::from(Term::stderr().size().1);
        let text = truncate_str(&text, columns.saturating_sub(2).max(20), "…");
        let _ = self.lines.println(format!("{sign} {text}"));
    }

    fn println(&self, text: &str) {
        let _ = self.lines.println(printable::line(text));
    }
}

fn template(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
