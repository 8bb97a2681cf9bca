//! Live progress on a terminal: a line for each running task, and a bar for all of them.
//!
//! Fed with the workflow's events; draws nothing where standard error is no terminal.

use std::{collections::HashMap, time::Duration};

use gleitzeit_domain::{
    event::{Event, EventData},
    id::TaskId,
    task::TaskStatus,
};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::report::{mark, seconds};

/// Running tasks that get a line of their own.
const LINES: usize = 8;

/// What is drawn, or nothing.
pub(crate) struct Progress {
    drawing: Option<Drawing>,
}

struct Drawing {
    lines: MultiProgress,
    all: ProgressBar,
    running: HashMap<TaskId, ProgressBar>,
    width: usize,
}

impl Progress {
    /// Draws where `shown`; `settled` of `total` tasks were settled before.
    pub(crate) fn new(shown: bool, total: usize, settled: usize) -> Self {
        let drawing = shown.then(|| {
            let lines = MultiProgress::new();
            let all = lines.add(ProgressBar::new(total as u64));
            all.set_style(style("{bar:30} {pos}/{len} tasks  {elapsed}"));
            all.set_position(settled as u64);
            all.enable_steady_tick(Duration::from_millis(200));
            Drawing { lines, all, running: HashMap::new(), width: 0 }
        });
        Self { drawing }
    }

    /// Sets how many tasks are settled, after events were missed. Which of them run is then not
    /// known any more.
    pub(crate) fn set_settled(&mut self, settled: usize) {
        if let Some(drawing) = &mut self.drawing {
            drawing.running.drain().for_each(|(_, line)| line.finish_and_clear());
            drawing.all.set_position(settled as u64);
        }
    }

    /// Takes note of what happened.
    pub(crate) fn event(&mut self, event: &Event) {
        let Some(drawing) = &mut self.drawing else { return };
        match &event.data {
            EventData::TaskStarted { task_id, attempt, .. } => drawing.start(task_id, *attempt),
            EventData::TaskCompleted { task_id, execution_time, .. } => {
                drawing.settle(task_id, TaskStatus::Completed, &seconds(*execution_time));
            }
            EventData::TaskFailed { task_id, error_message, .. } => {
                drawing.settle(task_id, TaskStatus::Failed, error_message);
            }
            EventData::TaskCancelled { task_id, reason } => {
                drawing.settle(task_id, TaskStatus::Cancelled, reason);
            }
            EventData::TaskSkipped { task_id, failed_task_id } => {
                let why = format!("skipped, because {failed_task_id} did not complete");
                drawing.settle(task_id, TaskStatus::Skipped, &why);
            }
            EventData::TaskRetryScheduled { task_id, delay, error_message, .. } => {
                let why = format!("again in {}: {error_message}", seconds(*delay));
                drawing.say(task_id, TaskStatus::RetryPending, &why);
            }
            _ => {}
        }
    }

    /// Says a line above what is drawn.
    pub(crate) fn say(&self, text: &str) {
        match &self.drawing {
            Some(drawing) => {
                let _ = drawing.lines.println(text);
            }
            None => super::output::note(text),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(drawing) = &mut self.drawing {
            drawing.running.clear();
            drawing.all.finish_and_clear();
            let _ = drawing.lines.clear();
        }
    }
}

impl Drawing {
    fn start(&mut self, task: &TaskId, attempt: u32) {
        if self.running.len() >= LINES {
            return;
        }
        let line = self.lines.insert_before(&self.all, ProgressBar::new_spinner());
        line.set_style(style("{spinner} {msg}  {elapsed}"));
        let again = if attempt > 1 { format!(" (attempt {attempt})") } else { String::new() };
        line.set_message(format!("{task}{again}"));
        line.enable_steady_tick(Duration::from_millis(100));
        self.running.insert(task.clone(), line);
    }

    fn settle(&mut self, task: &TaskId, status: TaskStatus, what: &str) {
        self.say(task, status, what);
        self.all.inc(1);
    }

    fn say(&mut self, task: &TaskId, status: TaskStatus, what: &str) {
        if let Some(line) = self.running.remove(task) {
            line.finish_and_clear();
        }
        self.width = self.width.max(task.as_str().chars().count());
        let what = what.lines().next().unwrap_or_default();
        let _ = self.lines.println(format!("{} {task:<w$}  {what}", mark(status), w = self.width));
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
