//! Splits a change of one workflow into smaller ones that may be written one after the other.
//!
//! The engine splits a change that a store rejects for its content: the rejected part names the task
//! at fault, and the parts before it are stored.

use std::collections::HashMap;

use super::{WorkflowChange, WorkflowState};
use crate::{id::TaskId, task::TaskRecord, workflow::WorkflowStatus};

impl WorkflowChange {
    /// Parts with at most one task each, in the order of the tasks' last events. Written in this order
    /// they have the effect of the change, and the workflow is consistent after each of them: it is
    /// running until the last part.
    pub fn into_parts(self) -> Vec<Self> {
        let Self { id, workflow, tasks, mut events, last_sequence, epoch } = self;
        let mut ends: HashMap<&TaskId, usize> = HashMap::new();
        for (event, end) in events.iter().zip(1..) {
            if let Some(task) = event.data.task_id() {
                ends.insert(task, end);
            }
        }
        let end_of = |task: &TaskRecord| ends.get(&task.id).copied().unwrap_or(0);
        let mut tasks: Vec<(usize, TaskRecord)> =
            tasks.into_iter().map(|task| (end_of(&task), task)).collect();
        tasks.sort_by_key(|(end, task)| (*end, task.index));
        let begun = workflow.as_ref().map(|state| WorkflowState {
            status: WorkflowStatus::Running,
            started_at: state.started_at,
            completed_at: None,
            error: None,
        });
        let count = events.len() as u64;
        let mut taken = 0;
        let mut parts: Vec<Self> = Vec::with_capacity(tasks.len().max(1));
        for (end, task) in tasks {
            let rest = events.split_off(end - taken);
            taken = end;
            parts.push(Self {
                id: id.clone(),
                workflow: None,
                tasks: vec![task],
                events: std::mem::replace(&mut events, rest),
                last_sequence: last_sequence.saturating_sub(count - end as u64),
                epoch,
            });
        }
        if parts.is_empty() {
            parts.push(Self {
                id,
                workflow: None,
                tasks: Vec::new(),
                events: Vec::new(),
                last_sequence,
                epoch,
            });
        }
        if let Some(first) = parts.first_mut() {
            first.workflow = begun.filter(|state| state.started_at.is_some());
        }
        if let Some(last) = parts.last_mut() {
            last.events.append(&mut events);
            last.last_sequence = last_sequence;
            last.workflow = workflow.or_else(|| last.workflow.take());
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{event::EventData, store::conformance::sample, task::Priority};

    fn queued(task: &str) -> EventData {
        EventData::TaskQueued { task_id: task.into(), priority: Priority::default() }
    }

    /// The events of a part end with the last one of its task; none is lost or out of order.
    #[test]
    fn parts_follow_the_events() {
        let new = sample::workflow("w", 3);
        let mut events = sample::events(&new.record.id, 4, 5);
        for (event, task) in events.iter_mut().zip(["t1", "t0", "t1", "t2"]) {
            event.data = queued(task);
        }
        events[4].data = EventData::WorkflowCompleted { duration: 1.0 };
        let state = WorkflowState {
            status: WorkflowStatus::Completed,
            started_at: Some(sample::at(1)),
            completed_at: Some(sample::at(2)),
            error: None,
        };
        let change = WorkflowChange {
            workflow: Some(state),
            tasks: new.record.tasks.iter().map(|it| sample::completed(it, json!(1))).collect(),
            events,
            ..sample::change(&new.record.id, 8)
        };
        let parts = change.into_parts();
        let seen: Vec<_> = parts
            .iter()
            .map(|part| {
                let status = part.workflow.as_ref().map(|state| state.status);
                let task = part.tasks[0].index;
                let sequences: Vec<u64> = part.events.iter().map(|it| it.sequence).collect();
                (task, sequences, part.last_sequence, status)
            })
            .collect();
        assert_eq!(
            seen,
            [
                (0, vec![4, 5], 5, Some(WorkflowStatus::Running)),
                (1, vec![6], 6, None),
                (2, vec![7, 8], 8, Some(WorkflowStatus::Completed)),
            ]
        );
    }

    /// A change of the workflow alone is one part.
    #[test]
    fn a_change_without_tasks_is_one_part() {
        let new = sample::workflow("w", 1);
        let change = WorkflowChange {
            events: sample::events(&new.record.id, 3, 1),
            ..sample::change(&new.record.id, 3)
        };
        let parts = change.into_parts();
        assert_eq!((parts.len(), parts[0].events.len(), parts[0].last_sequence), (1, 1, 3));
    }
}
