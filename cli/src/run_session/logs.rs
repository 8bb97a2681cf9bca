//! `--logs`: what the code of each task wrote, on standard error, as soon as the task has ended.
//!
//! A task's output is stored with its outcome, so that nothing can be printed before.

use std::{collections::HashSet, future, time::Duration};

use chrono::{DateTime, Utc};
use gleitzeit::Handle;
use gleitzeit_domain::{
    event::{Event, EventData},
    id::{TaskId, WorkflowId},
    task::TaskRecord,
    workflow::WorkflowRecord,
};
use tokio::time::{Instant, sleep_until};

use super::super::{
    output::Failure, progress::Progress, report, session::Session, stored::StoredResults,
};

/// Tasks that end within this are asked for together.
const GATHERING: Duration = Duration::from_millis(100);

/// Tasks that have ended, and whose output is not printed yet.
pub(super) struct Logs {
    is_wanted: bool,
    ended: Vec<(WorkflowId, TaskId)>,
    printed: HashSet<(WorkflowId, TaskId)>,
    due: Option<Instant>,
    /// An earlier command printed the tasks that ended before this.
    since: DateTime<Utc>,
}

impl Logs {
    pub(super) fn new(is_wanted: bool) -> Self {
        Self {
            is_wanted,
            ended: Vec::new(),
            printed: HashSet::new(),
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
    pub(super) async fn print(&mut self, handle: &Handle, progress: &Progress) {
        self.due = None;
        self.ended.sort_unstable();
        let ended = std::mem::take(&mut self.ended);
        for group in ended.chunk_by(|a, b| a.0 == b.0) {
            // A workflow that cannot be read now is printed with the rest.
            let Ok(Some(record)) = handle.outline(&group[0].0).await else { continue };
            let tasks: HashSet<&TaskId> = group.iter().map(|(_, task)| task).collect();
            for task in self.unprinted(&record, |task| tasks.contains(&task.id)) {
                let mut task = task.clone();
                if task.is_result_left_out() {
                    match handle.result(&record.id, task.index).await {
                        Ok(Some(result)) => task.result = Some(result),
                        _ => continue,
                    }
                }
                self.show(&record.id, &task, progress);
            }
        }
    }

    /// Prints the output not printed yet of workflows that have settled.
    ///
    /// # Errors
    /// Those of the store, which has the output of some.
    pub(super) async fn print_rest<'r>(
        &mut self,
        session: &Session,
        ended: impl Iterator<Item = &'r WorkflowRecord> + Clone,
        progress: &Progress,
    ) -> Result<(), Failure> {
        if !self.is_wanted {
            return Ok(());
        }
        let results = StoredResults::of(session, ended.clone()).await?;
        let since = self.since;
        for record in ended {
            for task in self.unprinted(record, |it| it.completed_at.is_some_and(|at| at >= since)) {
                let task = results.with_result(&record.id, task).await?;
                self.show(&record.id, &task, progress);
            }
        }
        results.close().await
    }

    /// Settled tasks that are asked for and not printed yet.
    fn unprinted<'r>(
        &self,
        record: &'r WorkflowRecord,
        is_asked: impl Fn(&TaskRecord) -> bool,
    ) -> Vec<&'r TaskRecord> {
        let is_printed =
            |task: &TaskRecord| self.printed.contains(&(record.id.clone(), task.id.clone()));
        let settled = record.tasks.iter().filter(|task| task.status.is_settled());
        settled.filter(|task| is_asked(task) && !is_printed(task)).collect()
    }

    fn show(&mut self, id: &WorkflowId, task: &TaskRecord, progress: &Progress) {
        if self.printed.insert((id.clone(), task.id.clone())) {
            progress.say_lines(&report::logs_text(&[task], false));
        }
    }
}
