//! Workflows to write: plain, but with every field in use.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::{
    error::{ErrorCode, TaskError},
    event::{Event, EventData},
    id::{TaskId, WorkflowId},
    needs::Needs,
    store::{NewWorkflow, WorkflowChange, WorkflowState},
    task::{TaskRecord, TaskStatus},
    workflow::{TaskSpec, WorkflowRecord, WorkflowSpec, WorkflowStatus},
};

/// A time, `micros` microseconds after the start of 2026.
pub fn at(micros: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(1_767_225_600_000_000 + micros).unwrap_or_default()
}

/// Events of a workflow, numbered from `first`.
pub fn events(id: &WorkflowId, first: u64, count: u64) -> Vec<Event> {
    let event = |sequence: u64| Event {
        timestamp: at(i64::try_from(sequence).unwrap_or_default()),
        workflow_id: Some(id.clone()),
        sequence,
        data: EventData::TaskCancelled {
            task_id: format!("t{sequence}").into(),
            reason: "because".into(),
        },
    };
    (first..first + count).map(event).collect()
}

/// A workflow of `tasks` tasks that wait, with one event.
pub fn workflow(id: &str, tasks: u32) -> NewWorkflow {
    let mut spec = WorkflowSpec::new(format!("name of {id}")).id(id).input("of", id);
    for index in 0..tasks {
        let task = TaskSpec::new(format!("t{index}"), "echo/echo");
        spec.tasks.push(task.params(json!({"index": index})));
    }
    of_spec(id, spec)
}

/// The workflow that a spec describes; ids and names of tasks as the format says.
pub fn of_spec(id: &str, spec: WorkflowSpec) -> NewWorkflow {
    let tasks = spec.tasks.iter().zip(0_u32..).map(|(task, index)| {
        let id = if task.id.is_empty() { format!("task-{}", index + 1) } else { task.id.clone() };
        let name = task.name.clone().unwrap_or_else(|| id.clone());
        TaskRecord::pending(index, TaskId::from(id), name.into())
    });
    let id = WorkflowId::from(id);
    NewWorkflow {
        events: events(&id, 1, 1),
        record: WorkflowRecord {
            id,
            name: spec.name.as_str().into(),
            status: WorkflowStatus::Pending,
            created_at: at(1),
            started_at: None,
            completed_at: None,
            error: None,
            last_sequence: 1,
            tasks: tasks.collect(),
            spec: Arc::new(spec),
        },
        epoch: None,
        needs: Needs::default(),
    }
}

/// A task that completed with `result`.
pub fn completed(task: &TaskRecord, result: Value) -> TaskRecord {
    TaskRecord {
        status: TaskStatus::Completed,
        attempts: 2,
        provider_id: Some("echo-1".into()),
        started_at: Some(at(2_000_001)),
        completed_at: Some(at(3_000_002)),
        duration: Some(1.000_001),
        result: Some(Arc::new(result)),
        ..task.clone()
    }
}

/// A task whose next attempt is due.
pub fn retry_pending(task: &TaskRecord) -> TaskRecord {
    TaskRecord {
        status: TaskStatus::RetryPending,
        attempts: 1,
        provider_id: Some("echo-1".into()),
        started_at: Some(at(2)),
        due_at: Some(at(9_999_999)),
        duration: Some(0.25),
        error: Some(Arc::new(failure())),
        ..task.clone()
    }
}

/// An error with every field set.
pub fn failure() -> TaskError {
    TaskError::new(ErrorCode::ProviderOverloaded, "busy: \u{0}\"ÿ")
        .with_data(json!({"status": 503, "text": "a\u{0}b"}))
        .retry_after(std::time::Duration::from_millis(1500))
}

/// The state of a workflow that reached `status`.
pub fn state(status: WorkflowStatus) -> WorkflowState {
    let error = matches!(status, WorkflowStatus::Failed | WorkflowStatus::TimedOut);
    WorkflowState {
        status,
        started_at: Some(at(2)),
        completed_at: status.is_settled().then(|| at(5)),
        error: error.then(|| Arc::new(failure())),
    }
}

/// A change that touches nothing yet, after `last_sequence` events.
pub fn change(id: &WorkflowId, last_sequence: u64) -> WorkflowChange {
    WorkflowChange {
        id: id.clone(),
        workflow: None,
        tasks: Vec::new(),
        events: Vec::new(),
        last_sequence,
        epoch: None,
    }
}

/// The change by which a workflow reaches `status` at `completed_at`, without further events.
pub fn settles(
    new: &NewWorkflow,
    status: WorkflowStatus,
    completed_at: DateTime<Utc>,
) -> WorkflowChange {
    WorkflowChange {
        workflow: Some(WorkflowState { completed_at: Some(completed_at), ..state(status) }),
        ..change(&new.record.id, new.record.last_sequence)
    }
}

/// Applies a change to a record: the rule that stores are held to.
pub fn apply(record: &mut WorkflowRecord, change: &WorkflowChange) {
    for task in &change.tasks {
        record.tasks[task.index as usize] = task.clone();
    }
    if let Some(state) = &change.workflow {
        record.status = state.status;
        record.started_at = state.started_at;
        record.completed_at = state.completed_at;
        record.error.clone_from(&state.error);
    }
    record.last_sequence = change.last_sequence;
}
