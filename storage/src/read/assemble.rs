//! Assembles records from rows.
//!
//! Invariant: rows that contradict each other are an error that names their workflow; no value is
//! invented for them.

use std::{collections::HashMap, sync::Arc};

use gleitzeit_domain::{
    id::{ProviderId, TaskId},
    store::StoreError,
    task::{TaskRecord, TaskStatus},
    workflow::{WorkflowRecord, WorkflowSpec, WorkflowStatus},
};

use crate::{
    encode::{self, Hash, count_of, parse, refused, time_of, time_of_nullable, unescape},
    entity::{task, workflow},
    fault::ReadError,
};

/// The last sequence of a workflow whose event numbers are out of range.
pub(super) const NO_SEQUENCE: i64 = i64::MAX;

/// Workflows assembled between two yields: a tenth of a millisecond.
const YIELD_AFTER: usize = 32;

/// The record of a workflow from its row, spec and tasks.
pub(crate) fn record_of(
    row: workflow::Model,
    spec: Arc<WorkflowSpec>,
    tasks: Vec<TaskRecord>,
    last_sequence: u64,
) -> Result<WorkflowRecord, StoreError> {
    Ok(WorkflowRecord {
        id: unescape(row.id).into(),
        name: unescape(row.name).into(),
        status: workflow_status(&row.status)?,
        created_at: time_of(row.created_at)?,
        started_at: time_of_nullable(row.started_at)?,
        completed_at: time_of_nullable(row.completed_at)?,
        error: row.error.as_deref().map(parse).transpose()?.map(Arc::new),
        last_sequence,
        spec,
        tasks,
    })
}

/// The record of a task from its row and result.
pub(crate) fn task_of(
    index: u32,
    row: task::Model,
    result: Option<Arc<serde_json::Value>>,
) -> Result<TaskRecord, StoreError> {
    let id = TaskId::from(unescape(row.id));
    let name = row.name.map_or_else(|| id.shared(), |name| unescape(name).into());
    Ok(TaskRecord {
        index,
        id,
        name,
        status: task_status(&row.status)?,
        attempts: count_of(row.attempts)?,
        provider_id: row.provider_id.map(|id| ProviderId::from(unescape(id))),
        started_at: time_of_nullable(row.started_at)?,
        completed_at: time_of_nullable(row.completed_at)?,
        due_at: time_of_nullable(row.due_at)?,
        duration: row.duration,
        result,
        error: row.error.as_deref().map(parse).transpose()?.map(Arc::new),
    })
}

/// A payload of a blob. A result is parsed as soon as its row is read, so that the texts and values
/// of a page are not in memory together.
#[derive(Debug)]
pub(super) enum Blob {
    Text(String),
    Result(Arc<serde_json::Value>),
}

/// Workflows that were read.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) records: Vec<WorkflowRecord>,
    /// Their keys, in the same order.
    pub(crate) keys: Vec<i64>,
    /// The ids of broken workflows, and why they are broken.
    pub(crate) broken: Vec<(String, StoreError)>,
}

impl Loaded {
    /// The result of a query for one workflow.
    pub(crate) fn only(mut self) -> Result<Option<WorkflowRecord>, ReadError> {
        match self.broken.pop() {
            Some((_, error)) => Err(ReadError(error)),
            None => Ok(self.records.pop()),
        }
    }
}

/// Rows of workflows, with their tasks, blobs and last sequences.
#[derive(Default)]
pub(super) struct LoadedRows {
    pub(super) rows: Vec<workflow::Model>,
    pub(super) tasks: HashMap<i64, Vec<task::Model>>,
    pub(super) blobs: HashMap<Vec<u8>, Blob>,
    pub(super) sequences: HashMap<i64, i64>,
    /// The keys of workflows with an unreadable row of a task, and the error.
    pub(super) unreadable: HashMap<i64, StoreError>,
}

impl LoadedRows {
    /// Assembles the workflows, in the order of the rows. Yields in between: another task of this
    /// thread reads the next answer of the database and sends the next query.
    pub(super) async fn complete(mut self, loaded: &mut Loaded) {
        for (count, row) in self.rows.into_iter().enumerate() {
            if count % YIELD_AFTER == YIELD_AFTER - 1 {
                tokio::task::yield_now().await;
            }
            let parts = Parts {
                tasks: self.tasks.remove(&row.key).unwrap_or_default(),
                last_sequence: self.sequences.get(&row.key).copied().unwrap_or(0),
                blobs: &self.blobs,
            };
            let (key, id) = (row.key, row.id.clone());
            let record = match self.unreadable.remove(&key) {
                None => parts.complete(row),
                Some(error) => Err(error),
            };
            match record {
                Ok(record) => {
                    loaded.records.push(record);
                    loaded.keys.push(key);
                }
                Err(error) => {
                    let ReadError(error) = naming(&id, error);
                    loaded.broken.push((id, error));
                }
            }
        }
    }
}

/// The tasks, blobs and last sequence of one workflow.
struct Parts<'a> {
    tasks: Vec<task::Model>,
    last_sequence: i64,
    blobs: &'a HashMap<Vec<u8>, Blob>,
}

impl Parts<'_> {
    fn complete(self, row: workflow::Model) -> Result<WorkflowRecord, StoreError> {
        // The greater one: a change with events does not update the row of its workflow.
        let last_sequence = row.last_sequence.max(self.last_sequence);
        if last_sequence == NO_SEQUENCE {
            return Err(refused("the numbers of its events are out of range".into()));
        }
        let last_sequence = count_of(last_sequence)?;
        let spec = match (&row.spec, &row.spec_blob) {
            (Some(json), _) => parse::<WorkflowSpec>(json)?,
            (None, None) => return Err(missing("its spec")),
            (None, Some(hash)) => match self.blob(hash)? {
                Blob::Text(json) => parse(json)?,
                Blob::Result(_) => return Err(missing("its spec")),
            },
        };
        let spec = Arc::new(spec);
        let tasks = self.tasks(&spec, count_of(row.task_count)?)?;
        record_of(row, spec, tasks, last_sequence)
    }

    /// The tasks of a workflow; those without a row as its spec describes them.
    fn tasks(mut self, spec: &WorkflowSpec, count: u32) -> Result<Vec<TaskRecord>, StoreError> {
        // Sorted here: the database would sort the tasks of all workflows of a page together.
        self.tasks.sort_unstable_by_key(|row| row.position);
        let mut rows = std::mem::take(&mut self.tasks).into_iter().peekable();
        // Bounded: a broken row may have any count, and the capacity would exhaust the memory.
        let mut tasks = Vec::with_capacity((count as usize).min(spec.tasks.len() + rows.len()));
        for index in 0..count {
            let row = rows.next_if(|row| row.position == i64::from(index));
            tasks.push(match (row, spec.tasks.get(index as usize)) {
                (Some(row), _) => self.task(index, row)?,
                (None, Some(spec)) => encode::waiting(index, spec),
                (None, None) => return Err(missing(&format!("its task {index}"))),
            });
        }
        match rows.next() {
            None => Ok(tasks),
            // An error: a task beyond the count would be lost without a trace.
            Some(stray) => {
                let position = stray.position;
                Err(refused(format!("it has {count} tasks, and one at {position}")))
            }
        }
    }

    fn task(&self, index: u32, mut row: task::Model) -> Result<TaskRecord, StoreError> {
        let result = match (row.result.take(), &row.result_blob) {
            (Some(json), _) => Some(Arc::new(parse(&json)?)),
            (None, None) => None,
            (None, Some(hash)) => Some(match self.blob(hash)? {
                Blob::Text(json) => Arc::new(parse(json)?),
                Blob::Result(result) => Arc::clone(result),
            }),
        };
        task_of(index, row, result)
    }

    fn blob(&self, hash: &[u8]) -> Result<&Blob, StoreError> {
        self.blobs.get(hash).ok_or_else(|| lacking(hash))
    }
}

/// The error about a missing blob.
pub(super) fn lacking(hash: &[u8]) -> StoreError {
    missing(&format!("the blob {}", hash_text(hash)))
}

pub(crate) fn hash_text(hash: &[u8]) -> String {
    Hash::try_from(hash).map_or_else(
        |_| format!("of {} bytes", hash.len()),
        |hash| blake3::Hash::from(hash).to_hex().to_string(),
    )
}

fn missing(what: &str) -> StoreError {
    refused(format!("{what} is missing"))
}

pub(super) fn naming(id: &str, error: StoreError) -> ReadError {
    ReadError(match error {
        StoreError::Integrity { detail } => refused(format!("workflow `{id}`: {detail}")),
        other => other,
    })
}

pub(super) fn workflow_status(name: &str) -> Result<WorkflowStatus, StoreError> {
    WorkflowStatus::from_name(name)
        .ok_or_else(|| refused(format!("`{name}` is no status of a workflow")))
}

pub(super) fn task_status(name: &str) -> Result<TaskStatus, StoreError> {
    TaskStatus::from_name(name).ok_or_else(|| refused(format!("`{name}` is no status of a task")))
}
