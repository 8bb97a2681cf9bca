//! The output of a run: its first record, its changes, its events.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::{Results, Run, measure};
use crate::{
    event::{Event, EventData},
    store::{NewWorkflow, WorkflowChange, WorkflowState},
    task::{TaskRecord, TaskStatus},
};

/// Results of more bytes are dropped from memory once they are stored, and read from the store on
/// request. Without the bound, tens of thousands of them fill the memory until their workflow ends.
const KEPT_MAX: u64 = 16 * 1024;

impl Run {
    pub(super) fn log(&mut self, now: DateTime<Utc>, data: EventData) {
        // A clock that was set right meanwhile must not turn the order of events round.
        let now = now.max(self.logged_at);
        self.logged_at = now;
        self.record.last_sequence += 1;
        let event = Event {
            timestamp: now,
            workflow_id: Some(self.record.id.clone()),
            sequence: self.record.last_sequence,
            data,
        };
        if !self.subscribers.is_empty() {
            self.unpublished.push(event.clone());
        }
        self.unsaved.push(event);
    }

    pub(super) fn set_dirty(&mut self, index: u32) {
        // The same task twice is sorted out when the change is taken.
        self.dirty.push(index);
    }

    /// The first record for the store, with everything that has happened since. Queued and first
    /// executing tasks are stored as pending: after a restart they are queued again, so their
    /// status is not worth a row.
    pub fn take_new(&mut self) -> NewWorkflow {
        self.outstanding = true;
        let tasks = std::mem::take(&mut self.dirty);
        self.note_stored_results(&tasks);
        self.workflow_dirty = false;
        self.begun = false;
        let mut record = self.record.clone();
        for task in &mut record.tasks {
            match task.status {
                TaskStatus::Queued => task.status = TaskStatus::Pending,
                // From the second attempt on, those before it are to count.
                TaskStatus::Executing if task.attempts == 1 => {
                    let (id, name) = (task.id.clone(), Arc::clone(&task.name));
                    *task = TaskRecord::pending(task.index, id, name);
                }
                _ => {}
            }
        }
        NewWorkflow {
            record,
            events: std::mem::take(&mut self.unsaved),
            epoch: self.epoch,
            needs: self.plan.needs.clone(),
        }
    }

    /// Notes which results the write that is taken now holds. A task that completes during the write
    /// is not among them: dropped at its commit, its result would be in no write at all.
    fn note_stored_results(&mut self, tasks: &[u32]) {
        self.storing.clear();
        if self.results == Results::Here {
            return;
        }
        let all = &self.record.tasks;
        let is_completed = |at: &&u32| all[**at as usize].status == TaskStatus::Completed;
        self.storing.extend(tasks.iter().filter(is_completed));
    }

    /// The record from [`take_new`](Self::take_new) was not stored and will be taken again.
    pub fn was_not_stored(&mut self, mut events: Vec<Event>) {
        events.append(&mut self.unsaved);
        self.unsaved = events;
    }

    /// The changes since the last call, if they must be written. Until
    /// [`committed`](Self::committed), the next call returns `None`.
    pub fn take_change(&mut self) -> Option<WorkflowChange> {
        if self.outstanding || (self.dirty.is_empty() && !self.workflow_dirty) {
            return None;
        }
        self.outstanding = true;
        let mut tasks = std::mem::take(&mut self.dirty);
        tasks.sort_unstable();
        tasks.dedup();
        self.note_stored_results(&tasks);
        let tasks = tasks.iter().map(|at| self.record.tasks[*at as usize].clone()).collect();
        // The start alone is not worth a write, but its event must not be published a second time
        // after a crash.
        let changed = std::mem::take(&mut self.workflow_dirty) | std::mem::take(&mut self.begun);
        let workflow = changed.then(|| WorkflowState {
            status: self.record.status,
            started_at: self.record.started_at,
            completed_at: self.record.completed_at,
            error: self.record.error.clone(),
        });
        Some(WorkflowChange {
            id: self.record.id.clone(),
            workflow,
            tasks,
            events: std::mem::take(&mut self.unsaved),
            last_sequence: self.record.last_sequence,
            epoch: self.epoch,
        })
    }

    /// The output of [`take_new`](Self::take_new) or [`take_change`](Self::take_change) is stored.
    pub fn committed(&mut self) {
        self.outstanding = false;
        let stored = std::mem::take(&mut self.storing);
        // Readers of a settled workflow are answered from here, so its results must stay.
        if self.results == Results::Here || self.is_settled() {
            return;
        }
        for index in stored {
            self.shed_result(index);
        }
    }

    /// Drops the large results of a run that was loaded from the store, if results are dropped when
    /// stored.
    pub fn shed_stored_results(&mut self) {
        if self.results != Results::Here {
            for index in 0..u32::try_from(self.record.tasks.len()).unwrap_or(u32::MAX) {
                self.shed_result(index);
            }
        }
    }

    pub(super) fn shed_result(&mut self, index: u32) {
        let result = &mut self.record.tasks[index as usize].result;
        if result.as_ref().is_some_and(|result| measure::is_larger(result, KEPT_MAX)) {
            *result = None;
            self.results = Results::Elsewhere;
        }
    }

    /// Appends the events that may be published to `out`: all up to the last stored one, and the
    /// later ones unless an outcome among them is still to be stored.
    pub fn release_events(&mut self, out: &mut Vec<Event>) {
        if self.outstanding {
            return;
        }
        if self.dirty.is_empty() && !self.workflow_dirty {
            out.append(&mut self.unpublished);
        } else {
            let stored = self.unsaved.first().map_or(u64::MAX, |event| event.sequence);
            let count = self.unpublished.partition_point(|event| event.sequence < stored);
            out.extend(self.unpublished.drain(..count));
        }
    }
}
