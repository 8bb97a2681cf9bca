//! Outcomes that the store rejects for their content: their own task fails.
//!
//! Invariant: the numbers of the events stay as they are, so that what was stored before and what is
//! written next join without a gap.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::Run;
use crate::{
    error::{ErrorCode, TaskError},
    event::{Event, EventData},
    store::{NewWorkflow, WorkflowChange},
    task::{TaskRecord, TaskStatus},
    workflow::WorkflowStatus,
};

/// A cause is cut beyond so many characters: it goes into every place that the outcome was to.
const CAUSE_MAX: usize = 500;

/// The effect on a task whose outcome the store rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It had completed, and has failed now: its dependents must be resolved again.
    Failed,
    /// It had not completed; its error is replaced.
    Replaced,
}

impl Run {
    /// Returns changes that are not stored: `left`, of which the store rejects the first for its
    /// content because of `why`. The outcome is replaced by an error, which is written in its
    /// place.
    ///
    /// `None` if there is nothing to replace: `left` names no task, or an attempt that was replaced
    /// before. Then nothing has changed, and the workflow cannot be stored.
    pub fn refuse(
        &mut self,
        left: Vec<WorkflowChange>,
        why: &str,
        now: DateTime<Utc>,
    ) -> Option<(u32, Refused)> {
        let [first, ..] = left.as_slice() else { return None };
        let [task] = first.tasks.as_slice() else { return None };
        let index = task.index;
        let status = self.task(index).status;
        let has_content = status == TaskStatus::Completed || self.task(index).error.is_some();
        if !has_content || !self.refused.insert((index, task.attempts)) {
            return None;
        }
        self.mark_unwritten(left);
        self.open_end();
        let why: String = why.chars().take(CAUSE_MAX).collect();
        let task = &mut self.record.tasks[index as usize];
        let became = if status == TaskStatus::Completed {
            let message = format!(
                "the result cannot be stored: {why}; the call has run and is not repeated, let it \
                 return another value"
            );
            task.status = TaskStatus::Failed;
            task.result = None;
            task.error = Some(Arc::new(TaskError::new(ErrorCode::TaskResultInvalid, message)));
            self.first_failure.get_or_insert(index);
            Refused::Failed
        } else {
            if let Some(error) = &mut task.error {
                let message = format!("the error of this task cannot be stored: {why}");
                let retryable = error.retryable;
                *error = Arc::new(TaskError::new(error.code, message));
                Arc::make_mut(error).retryable = retryable;
            }
            Refused::Replaced
        };
        self.replace_in_events(index);
        if became == Refused::Replaced {
            // The end of the workflow names the error.
            self.conclude(now);
        }
        Some((index, became))
    }

    /// Marks everything in `left` as to be written again.
    fn mark_unwritten(&mut self, left: Vec<WorkflowChange>) {
        self.outstanding = false;
        self.storing.clear();
        let mut events = Vec::new();
        for mut change in left {
            self.dirty.extend(change.tasks.iter().map(|task| task.index));
            self.workflow_dirty |= change.workflow.is_some();
            events.append(&mut change.events);
        }
        events.append(&mut self.unsaved);
        self.unsaved = events;
    }

    /// Takes back that the workflow has settled by its tasks: one of them ends otherwise. The event
    /// of it is the last one, and not stored.
    fn open_end(&mut self) {
        if !matches!(self.record.status, WorkflowStatus::Completed | WorkflowStatus::Failed) {
            return;
        }
        let is_end = |event: &Event| {
            matches!(
                event.data,
                EventData::WorkflowCompleted { .. } | EventData::WorkflowFailed { .. }
            )
        };
        if self.unsaved.pop_if(|event| is_end(event)).is_some() {
            self.record.last_sequence -= 1;
            self.unpublished.pop_if(|event| is_end(event));
            self.record.status = WorkflowStatus::Running;
            self.record.completed_at = None;
            self.record.error = None;
            self.workflow_dirty = true;
        }
    }

    /// The events of a task that are not stored say no more than its record.
    fn replace_in_events(&mut self, index: u32) {
        let task = &self.record.tasks[index as usize];
        let Some(error) = task.error.clone() else { return };
        let attempt_count = task.attempts;
        let task_id = task.id.clone();
        let max_retries = self.plan.tasks[index as usize].retry.max_attempts.saturating_sub(1);
        for event in self.unsaved.iter_mut().chain(&mut self.unpublished) {
            if event.data.task_id() != Some(&task_id) {
                continue;
            }
            match &mut event.data {
                completed @ EventData::TaskCompleted { .. } => {
                    *completed = EventData::TaskFailed {
                        task_id: task_id.clone(),
                        error_code: error.code,
                        error_message: error.message.as_ref().into(),
                        is_retryable: false,
                        attempt_count,
                        max_retries,
                    };
                }
                EventData::TaskFailed { error_message, .. }
                | EventData::TaskRetryScheduled { error_message, .. } => {
                    *error_message = error.message.as_ref().into();
                }
                _ => {}
            }
        }
    }

    /// True when a task of a new workflow has ended: [`take_new`](Run::take_new) writes its outcome.
    pub fn has_outcomes(&self) -> bool {
        self.record.tasks.iter().any(has_outcome)
    }

    /// The first record without what has happened since, which becomes a change after it. For a
    /// store that rejected the two together.
    pub fn take_bare(&mut self) -> NewWorkflow {
        self.outstanding = true;
        self.begun = false;
        let mut record = self.record.clone();
        let is_of_submission = |event: &Event| {
            matches!(event.data, EventData::WorkflowSubmitted { .. } | EventData::TaskQueued { .. })
        };
        let bare = self.unsaved.iter().take_while(|event| is_of_submission(event)).count();
        let rest = self.unsaved.split_off(bare);
        let events = std::mem::replace(&mut self.unsaved, rest);
        record.last_sequence = events.last().map_or(0, |event| event.sequence);
        record.status = WorkflowStatus::Pending;
        (record.started_at, record.completed_at, record.error) = (None, None, None);
        for task in &mut record.tasks {
            *task = TaskRecord::pending(task.index, task.id.clone(), Arc::clone(&task.name));
        }
        let ended = self.record.tasks.iter().filter(|task| has_outcome(task));
        self.dirty = ended.map(|task| task.index).collect();
        self.workflow_dirty = true;
        NewWorkflow { record, events, epoch: self.epoch, needs: self.plan.needs.clone() }
    }
}

/// True where more is to be stored of a task than that it waits.
fn has_outcome(task: &TaskRecord) -> bool {
    match task.status {
        TaskStatus::Pending | TaskStatus::Queued => task.attempts > 0,
        TaskStatus::Executing => task.attempts > 1,
        _ => true,
    }
}
