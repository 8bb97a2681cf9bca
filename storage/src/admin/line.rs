//! The lines of an export: JSON, one value a line.
//!
//! ```text
//! {"gleitzeit_export":1,"program":"0.1.0","exported_at":"2026-01-01T00:00:00Z"}
//! {"workflow":{…},"events":[[1767225600000000,{…}],…],"needs":["echo/v1.0+:echo"]}
//!                                                           one for each workflow, by age
//! {"end":{"workflows":2}}
//! ```
//!
//! A workflow is as [`WorkflowRecord`] serializes, with its results in it, however large. An event
//! is its time in microseconds since 1970 and its data; their sequences are 1, 2, 3 …
//!
//! Invariant: a reader knows from the first line whether it understands the rest, and from the last
//! one that it has seen all of it.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use gleitzeit_domain::{
    event::{Event, EventData},
    needs::Needs,
    store::{NewWorkflow, audit},
    task::{TaskRecord, TaskStatus},
    workflow::WorkflowRecord,
};
use serde::{Deserialize, Serialize};

use crate::{encode::time_of, machine_clock::machine_now};

/// The version of the format; another one is refused.
pub(super) const FORMAT: u32 = 1;

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

/// A line of a workflow.
#[derive(Debug, Serialize)]
pub(super) struct WorkflowLine {
    pub(super) workflow: WorkflowRecord,
    pub(super) events: Vec<(i64, EventData)>,
    /// The methods that it calls; empty where nobody wrote them down.
    pub(super) needs: Vec<Arc<str>>,
}

/// The last line.
#[derive(Debug, Serialize)]
pub(super) struct End {
    pub(super) end: Count,
}

/// What stands before the last line.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Count {
    pub(super) workflows: u64,
}

/// Any line but the first, as it is read: an error then names what is wrong in it.
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
    /// The last one.
    End(Count),
}

impl TryFrom<Any> for Line {
    type Error = &'static str;

    fn try_from(line: Any) -> Result<Self, Self::Error> {
        match line {
            Any { workflow: Some(mut workflow), events: Some(events), needs, end: None } => {
                workflow.tasks.iter_mut().for_each(keep_null);
                Ok(Self::Workflow(Box::new(WorkflowLine { workflow, events, needs })))
            }
            Any { workflow: None, events: None, end: Some(end), needs } if needs.is_empty() => {
                Ok(Self::End(end))
            }
            _ => Err("expected `workflow` with `events`, or `end`"),
        }
    }
}

/// A task that gave null has a result all the same; in JSON it looks as if it had none.
fn keep_null(task: &mut TaskRecord) {
    if task.status == TaskStatus::Completed {
        task.result.get_or_insert_default();
    }
}

impl WorkflowLine {
    /// Of what a store holds.
    ///
    /// # Errors
    /// Says where the events have a gap.
    pub(super) fn new(
        workflow: WorkflowRecord,
        events: Vec<Event>,
        needs: &Needs,
    ) -> Result<Self, String> {
        for (event, expected) in events.iter().zip(1_u64..) {
            if event.sequence != expected {
                let found = event.sequence;
                return Err(format!("its events go on with {found} where {expected} belongs"));
            }
        }
        let events = events.into_iter().map(|it| (it.timestamp.timestamp_micros(), it.data));
        let needs = needs.methods().map(Arc::from).collect();
        Ok(Self { workflow, events: events.collect(), needs })
    }

    /// As it is to be stored: it belongs to nobody, so that whoever looks for work takes it up.
    ///
    /// # Errors
    /// Says everything in it that contradicts itself.
    pub(super) fn into_new(self) -> Result<NewWorkflow, String> {
        let Self { workflow: record, events, needs } = self;
        let mut wrong = audit::contradictions(&record);
        if record.last_sequence != events.len() as u64 {
            let (said, is) = (record.last_sequence, events.len());
            wrong.push(format!("its last event is {said}, and it has {is} events"));
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
