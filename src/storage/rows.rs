//! The rows that a group of calls writes: encoded before the first statement runs, so that what
//! cannot be stored is known by then.

use std::collections::HashMap;

use gleitzeit_domain::{
    event::Event,
    id::WorkflowId,
    store::{Epoch, NewWorkflow, StoreError, WorkflowChange, WorkflowState},
    task::TaskRecord,
    workflow::WorkflowRecord,
};
use sea_orm::Value;

use super::{
    encode::{self, Blobs, refused},
    group::Place,
    statements::{EVENT_COLUMNS, SEQUENCE_COLUMNS, STATE_COLUMNS, TASK_COLUMNS, WORKFLOW_COLUMNS},
};

/// A row with what it is found by: its workflow's key, and its number within that workflow.
#[derive(Debug)]
pub(super) struct Row<const COLUMNS: usize> {
    key: i64,
    number: u64,
    /// The first one is the key.
    values: [Value; COLUMNS],
}

impl<const COLUMNS: usize> Row<COLUMNS> {
    /// Moves the row to the workflow of `key`.
    fn place(mut self, key: i64) -> Self {
        self.key = key;
        self.values[0] = key.into();
        self
    }
}

/// Rows to be written, in the order of the calls.
#[derive(Debug, Default)]
pub(super) struct Rows {
    pub(super) blobs: Blobs,
    pub(super) tasks: Vec<Row<TASK_COLUMNS>>,
    pub(super) events: Vec<Row<EVENT_COLUMNS>>,
    pub(super) states: Vec<Row<STATE_COLUMNS>>,
    pub(super) sequences: Vec<Row<SEQUENCE_COLUMNS>>,
}

impl Rows {
    /// Adds what a call writes.
    pub(super) fn append(&mut self, mut more: Self) {
        self.blobs.append(&mut more.blobs);
        self.tasks.append(&mut more.tasks);
        self.events.append(&mut more.events);
        self.states.append(&mut more.states);
        self.sequences.append(&mut more.sequences);
    }

    fn add_events(&mut self, key: i64, events: &[Event]) -> Result<(), StoreError> {
        if let Some(first) = events.first() {
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

    fn add_change(&mut self, place: Place, change: &WorkflowChange) -> Result<(), StoreError> {
        for task in &change.tasks {
            if task.index >= place.task_count {
                return Err(refused(format!(
                    "it has {} tasks, and none of index {}",
                    place.task_count, task.index
                )));
            }
            self.add_task(place.key, task)?;
        }
        self.add_events(place.key, &change.events)?;
        match &change.workflow {
            Some(state) => self.add_state(place.key, state, change.last_sequence),
            // The events themselves tell the last sequence: no need to touch the workflow's row.
            None if !change.events.is_empty() => Ok(()),
            None => {
                let values = [place.key.into(), encode::count(change.last_sequence)?];
                self.sequences.push(Row { key: place.key, number: 0, values });
                Ok(())
            }
        }
    }
}

/// A new workflow, ready to be written once its key is known.
#[derive(Debug)]
pub(super) struct Encoded {
    pub(super) task_count: u32,
    rows: Rows,
}

impl Encoded {
    /// What is written beside the workflow's own row.
    pub(super) fn place(self, key: i64) -> Rows {
        let Rows { blobs, tasks, events, states, sequences } = self.rows;
        Rows {
            blobs,
            tasks: tasks.into_iter().map(|row| row.place(key)).collect(),
            events: events.into_iter().map(|row| row.place(key)).collect(),
            states,
            sequences,
        }
    }
}

/// The new workflows of all calls of a group, each id once.
#[derive(Debug, Default)]
pub(super) struct Submissions<'a> {
    pub(super) by_id: HashMap<&'a WorkflowId, Encoded>,
    /// The workflows' own rows, in the order of the calls.
    pub(super) workflow_rows: Vec<Value>,
}

impl<'a> Submissions<'a> {
    /// Takes in a call, whole or not at all.
    pub(super) fn add(&mut self, news: &'a [NewWorkflow]) -> Result<(), StoreError> {
        let mut encoded = Vec::with_capacity(news.len());
        for new in news {
            let id = &new.record.id;
            if !self.by_id.contains_key(id) {
                encoded.push((id, encode_new(new).map_err(|error| naming(id, error))?));
            }
        }
        for (id, (row, rest)) in encoded {
            // The same id twice in one call: the first one counts.
            if !self.by_id.contains_key(id) {
                self.workflow_rows.extend(row);
                self.by_id.insert(id, rest);
            }
        }
        Ok(())
    }
}

fn encode_new(
    NewWorkflow { record, events, epoch }: &NewWorkflow,
) -> Result<([Value; WORKFLOW_COLUMNS], Encoded), StoreError> {
    let mut rows = Rows::default();
    let task_count = u32::try_from(record.tasks.len())
        .map_err(|_| refused(format!("{} tasks are too many", record.tasks.len())))?;
    for (task, index) in record.tasks.iter().zip(0..) {
        if task.index != index {
            return Err(refused(format!("task {} stands where task {index} belongs", task.index)));
        }
        let spec = record.spec.tasks.get(index as usize);
        if !spec.is_some_and(|spec| encode::is_waiting(task, index, spec)) {
            rows.add_task(0, task)?;
        }
    }
    rows.add_events(0, events)?;
    let row = workflow_row(record, task_count, *epoch, &mut rows.blobs)?;
    Ok((row, Encoded { task_count, rows }))
}

fn workflow_row(
    record: &WorkflowRecord,
    task_count: u32,
    epoch: Option<Epoch>,
    blobs: &mut Blobs,
) -> Result<[Value; WORKFLOW_COLUMNS], StoreError> {
    let [spec, spec_blob] = encode::spec(&record.spec, blobs)?;
    Ok([
        encode::text(record.id.as_str()),
        encode::text(&record.name),
        encode::name(record.status.as_str()),
        encode::time(Some(record.created_at)),
        encode::time(record.started_at),
        encode::time(record.completed_at),
        i64::from(task_count).into(),
        encode::count(record.last_sequence)?,
        encode::count(epoch.map_or(0, |epoch| epoch.0))?,
        encode::error(record.error.as_ref())?,
        spec,
        spec_blob,
    ])
}

/// What a call that records writes; changes of workflows without a place are passed over.
pub(super) fn of_changes(
    changes: &[WorkflowChange],
    place: impl Fn(&WorkflowId) -> Option<Place>,
) -> Result<Rows, StoreError> {
    let mut rows = Rows::default();
    for change in changes {
        if let Some(place) = place(&change.id) {
            rows.add_change(place, change).map_err(|error| naming(&change.id, error))?;
        }
    }
    Ok(rows)
}

fn naming(id: &WorkflowId, error: StoreError) -> StoreError {
    match error {
        StoreError::Integrity { detail } => refused(format!("workflow `{id}`: {detail}")),
        other => other,
    }
}

/// The values of all rows, by workflow and number: neighbours in the table are written together.
pub(super) fn sorted<const COLUMNS: usize>(mut rows: Vec<Row<COLUMNS>>) -> Vec<Value> {
    rows.sort_by_key(|row| (row.key, row.number));
    rows.into_iter().flat_map(|row| row.values).collect()
}

/// The same, with the last one of rows that are written to the same place: no statement can
/// update a row twice.
pub(super) fn last_of_each<const COLUMNS: usize>(mut rows: Vec<Row<COLUMNS>>) -> Vec<Value> {
    rows.sort_by_key(|row| (row.key, row.number));
    let mut values: Vec<Value> = Vec::with_capacity(rows.len() * COLUMNS);
    let mut before = None;
    for row in rows {
        let here = (row.key, row.number);
        if before == Some(here) {
            values.truncate(values.len() - COLUMNS);
        }
        before = Some(here);
        values.extend(row.values);
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(key: i64, number: u64, mark: &str) -> Row<2> {
        Row { key, number, values: [key.into(), mark.into()] }
    }

    /// PostgreSQL refuses a statement that updates a row twice, and the last word must stand.
    #[test]
    fn the_last_row_of_each_place_stands() {
        let rows = vec![row(2, 0, "a"), row(1, 1, "b"), row(2, 0, "c"), row(1, 0, "d")];
        let expected: Vec<Value> =
            vec![1_i64.into(), "d".into(), 1_i64.into(), "b".into(), 2_i64.into(), "c".into()];
        assert_eq!(last_of_each(rows), expected);
    }
}
