//! Encodes submissions and changes as rows.
//!
//! Rows are encoded before the first statement runs, so that a value that cannot be stored rejects
//! its call and not the transaction. They may be encoded before the keys of their workflows are
//! known ([`Prepared`]): until then each row bears the number of its change in place of a key.

mod new;

use gleitzeit_domain::{
    event::Event,
    id::WorkflowId,
    store::{StoreError, WorkflowChange, WorkflowState},
    task::TaskRecord,
};
use sea_orm::Value;

use super::{
    encode::{self, Blobs, refused},
    key_cache::WorkflowKey,
    multi_row::{MultiRow, Part},
    statements::{EVENT_COLUMNS, SEQUENCE_COLUMNS, STATE_COLUMNS, Statements, TASK_COLUMNS},
};

pub(super) use new::{Encoded, EncodedNew, Submissions, encode_all};

/// The rows of a call, encoded before the writer serves it.
#[derive(Debug)]
pub(super) enum Prepared {
    /// The rows of each new workflow.
    Submit(Vec<EncodedNew>),
    /// The rows of changes; each bears the number of its change in place of a key.
    Record(Rows),
}

/// Bytes of large payloads in one statement.
const BLOBS_MAX: usize = 8 * 1024 * 1024;

/// A row with its position: the key of its workflow, and its number within that workflow.
#[derive(Debug)]
pub(super) struct Row<const COLUMNS: usize> {
    key: i64,
    number: u64,
    /// The first one is the key.
    values: [Value; COLUMNS],
}

impl<const COLUMNS: usize> Row<COLUMNS> {
    /// Sets the key of the row's workflow.
    fn set_key(&mut self, key: i64) {
        self.key = key;
        self.values[0] = key.into();
    }
}

fn key_at(keys: &[WorkflowKey], number: i64) -> Option<WorkflowKey> {
    keys.get(usize::try_from(number).ok()?).copied()
}

/// Rows of all tables, in the order of the calls.
#[derive(Debug, Default)]
pub(super) struct Rows {
    pub(super) blobs: Blobs,
    pub(super) tasks: Vec<Row<TASK_COLUMNS>>,
    pub(super) events: Vec<Row<EVENT_COLUMNS>>,
    pub(super) states: Vec<Row<STATE_COLUMNS>>,
    pub(super) sequences: Vec<Row<SEQUENCE_COLUMNS>>,
}

impl Rows {
    /// Adds the rows of a later call.
    pub(super) fn append(&mut self, mut more: Self) {
        self.blobs.append(&mut more.blobs);
        self.tasks.append(&mut more.tasks);
        self.events.append(&mut more.events);
        self.states.append(&mut more.states);
        self.sequences.append(&mut more.sequences);
    }

    /// The number of rows without blobs.
    pub(super) fn len(&self) -> usize {
        self.tasks.len() + self.events.len() + self.states.len() + self.sequences.len()
    }

    /// The statements for each table: blobs, tasks, events, states, sequences.
    pub(super) fn parts(self, statements: &Statements) -> [Part; 5] {
        let blobs =
            self.blobs.into_iter().flat_map(|(hash, body)| [hash.to_vec().into(), body.into()]);
        // By bytes: 256 blobs in one statement could exceed the size of a message.
        let blobs = statements.add_blobs.part_within(blobs.collect(), BLOBS_MAX);
        let parts: [(&MultiRow, Vec<Value>); 4] = [
            (&statements.set_tasks, last_of_each(self.tasks)),
            (&statements.add_events, sorted(self.events)),
            (&statements.set_states, last_of_each(self.states)),
            (&statements.raise_sequences, last_of_each(self.sequences)),
        ];
        let [tasks, events, states, sequences] = parts.map(|(it, rows)| it.part(rows));
        [blobs, tasks, events, states, sequences]
    }

    /// Replaces the numbers of changes by keys; `None` if a workflow does not have one of the tasks.
    fn with_keys(mut self, keys: &[WorkflowKey]) -> Option<Self> {
        for row in &mut self.tasks {
            let workflow = key_at(keys, row.key)?;
            // Checked here: the number of tasks is known with the key only.
            if row.number >= u64::from(workflow.task_count) {
                return None;
            }
            row.set_key(workflow.key);
        }
        for row in &mut self.events {
            row.set_key(key_at(keys, row.key)?.key);
        }
        for row in &mut self.states {
            row.set_key(key_at(keys, row.key)?.key);
        }
        for row in &mut self.sequences {
            row.set_key(key_at(keys, row.key)?.key);
        }
        Some(self)
    }

    fn add_events(&mut self, key: i64, events: &[Event]) -> Result<(), StoreError> {
        if let Some(first) = events.first() {
            // One row for all events of a change: a row for each would cost more than the row of
            // the task.
            let [sequence, count, body] = encode::events(events)?;
            let values = [key.into(), sequence, count, body];
            self.events.push(Row { key, number: first.sequence, values });
        }
        Ok(())
    }

    fn add_task(&mut self, key: i64, task: &TaskRecord) -> Result<(), StoreError> {
        let [result, result_blob] = encode::result(task, &mut self.blobs)?;
        let values = [
            key.into(),
            i64::from(task.index).into(),
            encode::text(task.id.as_str()),
            // NULL for a name that equals the id, as most do: it would double the texts of the row.
            if *task.name == *task.id.as_str() {
                None::<String>.into()
            } else {
                encode::text(&task.name)
            },
            encode::name(task.status.as_str()),
            i64::from(task.attempts).into(),
            task.provider_id
                .as_ref()
                .map_or_else(|| None::<String>.into(), |id| encode::text(id.as_str())),
            encode::time(task.started_at),
            encode::time(task.completed_at),
            encode::time(task.due_at),
            task.duration.into(),
            encode::error(task.error.as_ref())?,
            result,
            result_blob,
        ];
        self.tasks.push(Row { key, number: task.index.into(), values });
        Ok(())
    }

    fn add_state(
        &mut self,
        key: i64,
        state: &WorkflowState,
        last_sequence: u64,
    ) -> Result<(), StoreError> {
        let values = [
            key.into(),
            encode::name(state.status.as_str()),
            encode::time(state.started_at),
            encode::time(state.completed_at),
            encode::error(state.error.as_ref())?,
            encode::count(last_sequence)?,
        ];
        self.states.push(Row { key, number: 0, values });
        Ok(())
    }

    fn add_change(
        &mut self,
        workflow: WorkflowKey,
        change: &WorkflowChange,
    ) -> Result<(), StoreError> {
        for task in &change.tasks {
            if task.index >= workflow.task_count {
                return Err(refused(format!(
                    "it has {} tasks, and none of index {}",
                    workflow.task_count, task.index
                )));
            }
            self.add_task(workflow.key, task)?;
        }
        self.add_events(workflow.key, &change.events)?;
        match &change.workflow {
            Some(state) => self.add_state(workflow.key, state, change.last_sequence),
            // The last sequence follows from the events. An update of the workflow's row would be
            // one more write for every task.
            None if !change.events.is_empty() => Ok(()),
            None => {
                let values = [workflow.key.into(), encode::count(change.last_sequence)?];
                self.sequences.push(Row { key: workflow.key, number: 0, values });
                Ok(())
            }
        }
    }
}

/// Encodes changes; those of workflows without a key are skipped.
pub(super) fn of_changes(
    changes: &[WorkflowChange],
    find: impl Fn(&WorkflowId) -> Option<WorkflowKey>,
) -> Result<Rows, StoreError> {
    let mut rows = Rows::default();
    for change in changes {
        if let Some(workflow) = find(&change.id) {
            rows.add_change(workflow, change).map_err(|error| naming(&change.id, error))?;
        }
    }
    Ok(rows)
}

/// Encodes changes with their numbers, from `first` on, in place of keys.
pub(super) fn by_number(changes: &[WorkflowChange], first: i64) -> Result<Rows, StoreError> {
    let mut rows = Rows::default();
    for (change, number) in changes.iter().zip(first..) {
        rows.add_change(WorkflowKey { key: number, task_count: u32::MAX }, change)?;
    }
    Ok(rows)
}

/// The rows of a call: its prepared ones if every workflow has a key and every task exists, else
/// encoded again, so that only the affected changes are skipped or rejected.
pub(super) fn of_call(
    changes: &[WorkflowChange],
    prepared: Option<Prepared>,
    find: impl Fn(&WorkflowId) -> Option<WorkflowKey>,
) -> Result<Rows, StoreError> {
    if let Some(Prepared::Record(rows)) = prepared
        && let Some(keys) =
            changes.iter().map(|change| find(&change.id)).collect::<Option<Vec<_>>>()
        && let Some(rows) = rows.with_keys(&keys)
    {
        return Ok(rows);
    }
    of_changes(changes, find)
}

fn naming(id: &WorkflowId, error: StoreError) -> StoreError {
    match error {
        StoreError::Integrity { detail } => refused(format!("workflow `{id}`: {detail}")),
        other => other,
    }
}

/// The values of all rows, sorted by workflow and number: rows of the same page are written
/// together, and two processes lock them in the same order.
fn sorted<const COLUMNS: usize>(mut rows: Vec<Row<COLUMNS>>) -> Vec<Value> {
    rows.sort_by_key(|row| (row.key, row.number));
    rows.into_iter().flat_map(|row| row.values).collect()
}

/// The same, with only the last of several rows of one position: PostgreSQL rejects a statement that
/// updates a row twice.
fn last_of_each<const COLUMNS: usize>(mut rows: Vec<Row<COLUMNS>>) -> Vec<Value> {
    rows.sort_by_key(|row| (row.key, row.number));
    let mut values: Vec<Value> = Vec::with_capacity(rows.len() * COLUMNS);
    let mut previous = None;
    // The sort is stable: of equal positions, the row of the latest call comes last.
    for row in rows {
        let position = (row.key, row.number);
        if previous == Some(position) {
            values.truncate(values.len() - COLUMNS);
        }
        previous = Some(position);
        values.extend(row.values);
    }
    values
}

#[cfg(test)]
mod tests {
    use gleitzeit_domain::store::{NewWorkflow, conformance::sample};
    use serde_json::json;

    use super::*;

    fn row(key: i64, number: u64, text: &str) -> Row<2> {
        Row { key, number, values: [key.into(), text.into()] }
    }

    /// PostgreSQL rejects a statement that updates a row twice, and the last write must win.
    #[test]
    fn the_last_row_of_each_position_is_kept() {
        let rows = vec![row(2, 0, "a"), row(1, 1, "b"), row(2, 0, "c"), row(1, 0, "d")];
        let expected: Vec<Value> =
            vec![1_i64.into(), "d".into(), 1_i64.into(), "b".into(), 2_i64.into(), "c".into()];
        assert_eq!(last_of_each(rows), expected);
    }

    /// Rows encoded before and after their keys are known are equal, and so are the errors.
    #[test]
    fn prepared_rows_equal_those_encoded_with_their_keys() {
        let workflows = [sample::workflow("a", 2), sample::workflow("b", 1)];
        let change = |new: &NewWorkflow| WorkflowChange {
            tasks: new.record.tasks.iter().map(|it| sample::completed(it, json!(1))).collect(),
            events: sample::events(&new.record.id, 2, 3),
            ..sample::change(&new.record.id, 4)
        };
        let changes = [change(&workflows[1]), change(&workflows[0])];
        let prepared = || Some(Prepared::Record(by_number(&changes, 0).unwrap()));
        let find = |tasks| {
            move |id: &WorkflowId| match id.as_str() {
                "a" => Some(WorkflowKey { key: 7, task_count: tasks }),
                _ => (tasks > 0).then_some(WorkflowKey { key: 5, task_count: 1 }),
            }
        };
        for tasks in [2, 1, 0] {
            let text = |rows| format!("{rows:?}");
            let with = of_call(&changes, prepared(), find(tasks)).map(text);
            let without = of_changes(&changes, find(tasks)).map(text);
            assert_eq!(with, without, "{tasks} tasks");
            assert_eq!(with.is_ok(), tasks == 2, "{with:?}");
        }
    }
}
