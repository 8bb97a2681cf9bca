//! The invariants of a workflow's events, whatever happened to it.

use std::collections::HashMap;

use gleitzeit_domain::{
    event::{Event, EventData},
    id::TaskId,
    task::{OnDependencyFailure, TaskStatus},
    workflow::{WorkflowRecord, WorkflowStatus},
};

/// The walk of one task through its events.
#[derive(Debug, Clone, Copy)]
struct Walk {
    status: TaskStatus,
    starts: u32,
}

/// Sequences without a gap, in the order of time, up to the one that the record names.
pub(crate) fn check_sequences(record: &WorkflowRecord, events: &[Event]) {
    let sequences: Vec<u64> = events.iter().map(|event| event.sequence).collect();
    let expected: Vec<u64> = (1..=record.last_sequence).collect();
    assert_eq!(sequences, expected, "sequences of {}", record.id);
    assert!(events.is_sorted_by_key(|event| event.timestamp), "times of {}", record.id);
}

/// Sequences without a gap, every task on allowed steps only and to the status of the record, no
/// task before its dependencies, one end of the workflow and nothing behind it.
pub(crate) fn check_events(record: &WorkflowRecord, events: &[Event]) {
    check_sequences(record, events);
    assert_eq!(events[0].data.event_type(), "workflow:submitted");
    let mut walks: HashMap<&TaskId, Walk> = HashMap::new();
    for task in &record.tasks {
        walks.insert(&task.id, Walk { status: TaskStatus::Pending, starts: 0 });
    }
    let mut ended = None;
    for event in events {
        assert_eq!(ended, None, "{}: {:?} after its end", record.id, event.data);
        match &event.data {
            EventData::WorkflowCompleted { .. } => ended = Some(WorkflowStatus::Completed),
            EventData::WorkflowCancelled { .. } => ended = Some(WorkflowStatus::Cancelled),
            EventData::WorkflowFailed { status, .. } => ended = WorkflowStatus::from_name(status),
            _ => {}
        }
        if let Some(to) = status_after(&event.data) {
            let task = event.data.task_id().unwrap();
            if to == TaskStatus::Executing {
                check_dependencies(record, task, &walks);
            }
            step(walks.get_mut(task).unwrap(), to, event);
        }
    }
    assert_eq!(ended, record.status.is_settled().then_some(record.status), "{}", record.id);
    for task in &record.tasks {
        let walk = walks[&task.id];
        if record.status.is_settled() {
            assert_eq!(walk.status, task.status, "task {} by its events", task.id);
        }
        assert!(walk.starts <= task.attempts, "task {} began {} times", task.id, walk.starts);
        let has_result = task.result.is_some();
        assert_eq!(has_result, task.status == TaskStatus::Completed, "result of {}", task.id);
    }
}

/// The status after an event; `None` if the event is no step of a task.
fn status_after(data: &EventData) -> Option<TaskStatus> {
    Some(match data {
        EventData::TaskQueued { .. } => TaskStatus::Queued,
        EventData::TaskStarted { .. } => TaskStatus::Executing,
        EventData::TaskCompleted { .. } => TaskStatus::Completed,
        EventData::TaskFailed { .. } => TaskStatus::Failed,
        EventData::TaskRetryScheduled { .. } => TaskStatus::RetryPending,
        EventData::TaskCancelled { .. } => TaskStatus::Cancelled,
        EventData::TaskSkipped { .. } => TaskStatus::Skipped,
        EventData::TaskUpstreamFailed { .. } => TaskStatus::UpstreamFailed,
        EventData::TaskOutcomeUnknown { .. } => TaskStatus::OutcomeUnknown,
        _ => return None,
    })
}

fn step(walk: &mut Walk, to: TaskStatus, event: &Event) {
    assert!(walk.status.can_become(to), "{} to {to}: {:?}", walk.status, event);
    walk.status = to;
    if let EventData::TaskStarted { attempt, .. } = &event.data {
        walk.starts += 1;
        assert!(*attempt >= walk.starts, "{event:?}");
    }
}

/// A task starts only after all its dependencies have settled as its policy demands.
fn check_dependencies(record: &WorkflowRecord, task: &TaskId, walks: &HashMap<&TaskId, Walk>) {
    let spec = record.spec.tasks.iter().find(|spec| spec.id == task.as_str()).unwrap();
    let runs_anyway = spec.on_dependency_failure == OnDependencyFailure::Run;
    for before in &spec.dependencies {
        let status = walks[&TaskId::from(before.as_str())].status;
        let satisfied = matches!(status, TaskStatus::Completed | TaskStatus::Skipped)
            || (runs_anyway && status.is_settled());
        assert!(satisfied, "{task} starts while {before} is {status}");
    }
}
