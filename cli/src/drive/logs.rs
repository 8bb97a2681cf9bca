//! `--logs`: what the code of each task wrote, on standard error, as soon as the task has ended.
//!
//! A task's output comes with its outcome, so that there is nothing to show before.

use std::{collections::HashSet, future, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use gleitzeit::{Handle, actors::execution_engine::WaitAnswer};
use gleitzeit_domain::{
    event::{Event, EventData},
    id::{TaskId, WorkflowId},
    task::TaskRecord,
    workflow::WorkflowRecord,
};
use tokio::time::{Instant, sleep_until};

use super::super::{progress::Progress, report};

/// Tasks that end within this are asked for together.
const GATHERING: Duration = Duration::from_millis(100);

/// Tasks that have ended, and whose output is still to be shown.
pub(super) struct Logs {
    is_wanted: bool,
    ended: Vec<(WorkflowId, TaskId)>,
    shown: HashSet<(WorkflowId, TaskId)>,
    due: Option<Instant>,
    /// A task that ended before this was shown by an earlier command.
    since: DateTime<Utc>,
}

impl Logs {
    pub(super) fn new(is_wanted: bool) -> Self {
        Self {
            is_wanted,
            ended: Vec::new(),
            shown: HashSet::new(),
            due: None,
            since: gleitzeit_actors::clock::utc_now(),
        }
    }

    /// Takes note of a task that has ended.
    pub(super) fn event(&mut self, event: &Event) {
        if !self.is_wanted {
            return;
        }
        if let EventData::TaskCompleted { task_id, .. } | EventData::TaskFailed { task_id, .. } =
            &event.data
            && let Some(id) = &event.workflow_id
        {
            self.ended.push((id.clone(), task_id.clone()));
            self.due.get_or_insert_with(|| Instant::now() + GATHERING);
        }
    }

    /// Waits until there is something to show.
    pub(super) async fn due(&self) {
        match self.due {
            Some(due) => sleep_until(due).await,
            None => future::pending().await,
        }
    }

    /// Shows what the tasks wrote that have ended since.
    pub(super) async fn tell(&mut self, handle: &Handle, progress: &Progress) {
        self.due = None;
        self.ended.sort_unstable();
        let ended = std::mem::take(&mut self.ended);
        for group in ended.chunk_by(|a, b| a.0 == b.0) {
            // What cannot be asked for now is shown with the rest.
            let Ok(Some(record)) = handle.workflow(&group[0].0).await else { continue };
            let tasks: HashSet<&TaskId> = group.iter().map(|(_, task)| task).collect();
            self.show(&record, |task| tasks.contains(&task.id), progress);
        }
    }

    /// Shows what has not been shown of workflows that have settled.
    pub(super) fn tell_rest(&mut self, answers: &[WaitAnswer], progress: &Progress) {
        if !self.is_wanted {
            return;
        }
        for record in answers.iter().flatten() {
            let since = self.since;
            self.show(record, |task| task.completed_at.is_some_and(|at| at >= since), progress);
        }
    }

    fn show(
        &mut self,
        record: &Arc<WorkflowRecord>,
        is_asked: impl Fn(&TaskRecord) -> bool,
        progress: &Progress,
    ) {
        for task in record.tasks.iter().filter(|task| task.status.is_settled() && is_asked(task)) {
            if self.shown.insert((record.id.clone(), task.id.clone())) {
                progress.say_lines(&report::logs_text(&[task], false));
            }
        }
    }
}
