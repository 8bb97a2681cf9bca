//! The lines of an export: JSON, one value a line.
//!
//! ```text
//! {"gleitzeit_export":2,"program":"0.1.0","exported_at":"2026-01-01T00:00:00Z"}
//! {"workflow":{…},"events":[[1767225600000000,{…}],…],"needs":["echo/v1.0+:echo"]}
//!                                       (one for each workflow, in the order of submission)
//! {"end":{"workflows":2}}
//! ```
//!
//! A workflow has the form of [`WorkflowRecord`], with all of its results. An event is its time in
//! microseconds since 1970 and its data; the sequences are 1, 2, 3 …
//!
//! Invariant: a reader knows from the first line whether it can read the rest, and from the last one
//! that the export is complete.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use gleitzeit_domain::{
    error::ErrorCode,
    event::{Event, EventData},
    needs::Needs,
    store::{NewWorkflow, audit},
    task::{TaskRecord, TaskStatus},
    workflow::WorkflowRecord,
};
use serde::{Deserialize, Serialize};

use crate::{encode::time_of, machine_clock::machine_now};

/// The version of the format. An import reads those before it, and rejects every later one. Version 1
/// has `skipped` for tasks that are `upstream_failed`.
pub(super) const FORMAT: u32 = 2;

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) gleitzeit_export: u32,
    pub(super) program: String,
    pub(super) exported_at: DateTime<Utc>,
}

impl Header {
    pub(super) fn now() -> Self {
        Self {
            gleitzeit_export: FORMAT,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            exported_at: machine_now(),
        }
    }
}

/// The line of a workflow.
#[derive(Debug, Serialize)]
pub(super) struct WorkflowLine {
    pub(super) workflow: WorkflowRecord,
    pub(super) events: Vec<(i64, EventData)>,
    /// The methods that it calls; empty if none are recorded.
    pub(super) needs: Vec<Arc<str>>,
}

/// The last line.
#[derive(Debug, Serialize)]
pub(super) struct End {
    pub(super) end: Count,
}

/// The content of the last line.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Count {
    pub(super) workflows: u64,
}

/// Any line but the first, in a form whose errors name the wrong field.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Any {
    workflow: Option<WorkflowRecord>,
    events: Option<Vec<(i64, EventData)>>,
    #[serde(default)]
    needs: Vec<Arc<str>>,
    end: Option<Count>,
}

/// Any line but the first.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Any")]
pub(super) enum Line {
    /// A workflow.
    Workflow(Box<WorkflowLine>),
    /// The last line.
    End(Count),
}

impl TryFrom<Any> for Line {
    type Error = &'static str;

    fn try_from(line: Any) -> Result<Self, Self::Error> {
        match line {
            Any { workflow: Some(mut workflow), events: Some(events), needs, end: None } => {
                workflow.tasks.iter_mut().for_each(keep_null);
                workflow.tasks.iter_mut().for_each(rename_skipped);
                Ok(Self::Workflow(Box::new(WorkflowLine { workflow, events, needs })))
            }
            Any { workflow: None, events: None, end: Some(end), needs } if needs.is_empty() => {
                Ok(Self::End(end))
            }
            _ => Err("expected `workflow` with `events`, or `end`"),
        }
    }
}

/// Restores a null result of a completed task, which JSON does not distinguish from none.
fn keep_null(task: &mut TaskRecord) {
    if task.status == TaskStatus::Completed {
        task.result.get_or_insert_default();
    }
}

/// Version 1 of the format had one status for what never ran.
fn rename_skipped(task: &mut TaskRecord) {
    let because = task.error.as_ref().map(|error| error.code);
    if task.status == TaskStatus::Skipped && because == Some(ErrorCode::TaskDependencyFailed) {
        task.status = TaskStatus::UpstreamFailed;
    }
}

impl WorkflowLine {
    /// The line of a stored workflow.
    ///
    /// # Errors
    /// Names a gap between the events.
    pub(super) fn new(
        workflow: WorkflowRecord,
        events: Vec<Event>,
        needs: &Needs,
    ) -> Result<Self, String> {
        // Checked here: a line has no sequences, so that an import would close the gap unseen.
        for (event, expected) in events.iter().zip(1_u64..) {
            if event.sequence != expected {
                let found = event.sequence;
                return Err(format!("its events continue with {found} instead of {expected}"));
            }
        }
        let events = events.into_iter().map(|it| (it.timestamp.timestamp_micros(), it.data));
        let needs = needs.methods().map(Arc::from).collect();
        Ok(Self { workflow, events: events.collect(), needs })
    }

    /// The workflow of the line, without a lease, so that any engine may claim it.
    ///
    /// # Errors
    /// Names all contradictions in it.
    pub(super) fn into_new(self) -> Result<NewWorkflow, String> {
        let Self { workflow: record, events, needs } = self;
        let mut wrong = audit::contradictions(&record);
        if record.last_sequence != events.len() as u64 {
            let (stored, found) = (record.last_sequence, events.len());
            wrong.push(format!("its last event is {stored}, and it has {found} events"));
        }
        let events: Result<Vec<Event>, _> = events
            .into_iter()
            .zip(1_u64..)
            .map(|((micros, data), sequence)| {
                let timestamp = time_of(micros)?;
                Ok(Event { timestamp, workflow_id: Some(record.id.clone()), sequence, data })
            })
            .collect();
        match events {
            Ok(events) if wrong.is_empty() => {
                // Without a lease: an epoch of the other database may name the lease of another
                // process here.
                let needs = needs.into_iter().collect();
                Ok(NewWorkflow { record, events, epoch: None, needs })
            }
            Ok(_) => Err(wrong.join("; ")),
            Err(error) => {
                let error: gleitzeit_domain::store::StoreError = error;
                Err(error.to_string())
            }
        }
    }
}
