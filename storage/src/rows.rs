//! The rows that a group of calls writes: encoded before the first statement runs, so that what
//! cannot be stored is known by then.

use std::collections::{BTreeMap, HashSet};

use gleitzeit_domain::{
    event::Event,
    id::WorkflowId,
    needs::Needs,
    store::{Epoch, NewWorkflow, StoreError, WorkflowChange, WorkflowState},
    task::TaskRecord,
    workflow::WorkflowRecord,
};
use sea_orm::Value;

use super::{
    call::Prepared,
    encode::{self, Blobs, refused},
    group::Place,
    multi_row::{MultiRow, Part},
    statements::{
        EVENT_COLUMNS, SEQUENCE_COLUMNS, STATE_COLUMNS, Statements, TASK_COLUMNS, WORKFLOW_COLUMNS,
    },
};

/// Bytes of large payloads that one statement writes.
const BLOBS_MAX: usize = 8 * 1024 * 1024;

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
    fn set_key(&mut self, key: i64) {
        self.key = key;
        self.values[0] = key.into();
    }
}

fn place_at(places: &[Place], number: i64) -> Option<Place> {
    places.get(usize::try_from(number).ok()?).copied()
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

    /// How many there are, blobs aside.
    pub(super) fn len(&self) -> usize {
        self.tasks.len() + self.events.len() + self.states.len() + self.sequences.len()
    }

    /// The statements that write them, table by table: blobs, tasks, events, states, sequences.
    pub(super) fn parts(self, statements: &Statements) -> [Part; 5] {
        let blobs =
            self.blobs.into_iter().flat_map(|(hash, body)| [hash.to_vec().into(), body.into()]);
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

    /// Puts keys in the place of numbers; `None` when a task is not one of its workflow.
    fn placed(mut self, places: &[Place]) -> Option<Self> {
        for row in &mut self.tasks {
            let place = place_at(places, row.key)?;
            if row.number >= u64::from(place.task_count) {
                return None;
            }
            row.set_key(place.key);
        }
        for row in &mut self.events {
            row.set_key(place_at(places, row.key)?.key);
        }
        for row in &mut self.states {
            row.set_key(place_at(places, row.key)?.key);
        }
        for row in &mut self.sequences {
            row.set_key(place_at(places, row.key)?.key);
        }
        Some(self)
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
        let mut rows = self.rows;
        rows.tasks.iter_mut().for_each(|row| row.set_key(key));
        rows.events.iter_mut().for_each(|row| row.set_key(key));
        rows
    }
}

/// The new workflows of all calls of a group, each id once.
#[derive(Debug, Default)]
pub(super) struct Submissions<'a> {
    /// In the order of the calls.
    pub(super) new: Vec<(&'a WorkflowId, Encoded)>,
    /// Their own rows, in the same order.
    pub(super) workflow_rows: Vec<[Value; WORKFLOW_COLUMNS]>,
    /// What they need, each once.
    pub(super) needs: BTreeMap<i64, &'a Needs>,
    seen: HashSet<&'a WorkflowId>,
}

impl<'a> Submissions<'a> {
    /// Takes in a call, whole or not at all.
    pub(super) fn add(
        &mut self,
        news: &'a [NewWorkflow],
        prepared: Option<Prepared>,
    ) -> Result<(), StoreError> {
        let encoded = match prepared {
            Some(Prepared::Submit(encoded)) => encoded,
            _ => encode_all(news)?,
        };
        for (new, EncodedNew { row, rest, needs }) in news.iter().zip(encoded) {
            // The first one of an id counts.
            if self.seen.insert(&new.record.id) {
                if needs != 0 {
                    self.needs.insert(needs, &new.needs);
                }
                self.workflow_rows.push(row);
                self.new.push((&new.record.id, rest));
            }
        }
        Ok(())
    }
}

/// A new workflow's own row, and what belongs to it.
#[derive(Debug)]
pub(super) struct EncodedNew {
    row: [Value; WORKFLOW_COLUMNS],
    rest: Encoded,
    /// The hash of what it needs.
    needs: i64,
}

/// The rows of each new workflow.
pub(super) fn encode_all(news: &[NewWorkflow]) -> Result<Vec<EncodedNew>, StoreError> {
    // Those that come together mostly need the same.
    let mut last: Option<(&Needs, i64)> = None;
    let mut encoded = Vec::with_capacity(news.len());
    for new in news {
        let hash = match last {
            Some((needs, hash)) if *needs == new.needs => hash,
            _ => encode::needs_hash(&new.needs),
        };
        last = Some((&new.needs, hash));
        encoded.push(encode_new(new, hash).map_err(|error| naming(&new.record.id, error))?);
    }
    Ok(encoded)
}

fn encode_new(
    NewWorkflow { record, events, epoch, .. }: &NewWorkflow,
    needs: i64,
) -> Result<EncodedNew, StoreError> {
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
    let row = workflow_row(record, task_count, *epoch, needs, &mut rows.blobs)?;
    Ok(EncodedNew { row, rest: Encoded { task_count, rows }, needs })
}

fn workflow_row(
    record: &WorkflowRecord,
    task_count: u32,
    epoch: Option<Epoch>,
    needs: i64,
    blobs: &mut Blobs,
) -> Result<[Value; WORKFLOW_COLUMNS], StoreError> {
    let [spec, spec_blob] = encode::spec(&record.spec, blobs)?;
    // What is settled belongs to nobody.
    let owner = epoch.filter(|_| !record.status.is_settled());
    Ok([
        encode::text(record.id.as_str()),
        encode::text(&record.name),
        encode::name(record.status.as_str()),
        encode::time(Some(record.created_at)),
        encode::time(record.started_at),
        encode::time(record.completed_at),
        i64::from(task_count).into(),
        encode::count(record.last_sequence)?,
        encode::count(owner.map_or(0, |epoch| epoch.0))?,
        encode::error(record.error.as_ref())?,
        spec,
        spec_blob,
        needs.into(),
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

/// The rows of changes, each with the number of its change for a key, from `first` on.
pub(super) fn by_number(changes: &[WorkflowChange], first: i64) -> Result<Rows, StoreError> {
    let mut rows = Rows::default();
    for (change, number) in changes.iter().zip(first..) {
        rows.add_change(Place { key: number, task_count: u32::MAX }, change)?;
    }
    Ok(rows)
}

/// What a call that records writes: its prepared rows, where all of its workflows have a place and
/// all of its tasks are theirs.
pub(super) fn of_call(
    changes: &[WorkflowChange],
    prepared: Option<Prepared>,
    place: impl Fn(&WorkflowId) -> Option<Place>,
) -> Result<Rows, StoreError> {
    if let Some(Prepared::Record(rows)) = prepared
        && let Some(places) =
            changes.iter().map(|change| place(&change.id)).collect::<Option<Vec<_>>>()
        && let Some(rows) = rows.placed(&places)
    {
        return Ok(rows);
    }
    of_changes(changes, place)
}

fn naming(id: &WorkflowId, error: StoreError) -> StoreError {
    match error {
        StoreError::Integrity { detail } => refused(format!("workflow `{id}`: {detail}")),
        other => other,
    }
}

/// The values of all rows, by workflow and number: neighbours in the table are written together.
fn sorted<const COLUMNS: usize>(mut rows: Vec<Row<COLUMNS>>) -> Vec<Value> {
    rows.sort_by_key(|row| (row.key, row.number));
    rows.into_iter().flat_map(|row| row.values).collect()
}

/// The same, with the last one of rows that are written to the same place: no statement can
/// update a row twice.
fn last_of_each<const COLUMNS: usize>(mut rows: Vec<Row<COLUMNS>>) -> Vec<Value> {
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
    use gleitzeit_domain::store::conformance::sample;
    use serde_json::json;

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

    /// Encoded before their places were known, rows are those that are encoded with them; where
    /// that cannot be, the answer is the same as well.
    #[test]
    fn prepared_rows_are_those_that_are_encoded_in_place() {
        let news = [sample::workflow("a", 2), sample::workflow("b", 1)];
        let change = |new: &NewWorkflow| WorkflowChange {
            tasks: new.record.tasks.iter().map(|it| sample::completed(it, json!(1))).collect(),
            events: sample::events(&new.record.id, 2, 3),
            ..sample::change(&new.record.id, 4)
        };
        let changes = [change(&news[1]), change(&news[0])];
        let prepared = || Some(Prepared::Record(by_number(&changes, 0).unwrap()));
        let place = |tasks| {
            move |id: &WorkflowId| match id.as_str() {
                "a" => Some(Place { key: 7, task_count: tasks }),
                _ => (tasks > 0).then_some(Place { key: 5, task_count: 1 }),
            }
        };
        for tasks in [2, 1, 0] {
            let text = |rows| format!("{rows:?}");
            let with = of_call(&changes, prepared(), place(tasks)).map(text);
            let without = of_changes(&changes, place(tasks)).map(text);
            assert_eq!(with, without, "{tasks} tasks");
            assert_eq!(with.is_ok(), tasks == 2, "{with:?}");
        }
    }
}
