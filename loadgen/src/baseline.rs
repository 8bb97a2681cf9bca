//! The database without the engine: what a commit costs, and how fast a plain loop writes the rows of
//! workflows.
//!
//! The connection is the store's, and so are the rows: those of a workflow that the engine has run,
//! under other ids. Each statement is a message of its own.
//!
//! Invariant: what is timed is the database's work alone; rows are encoded before the clock runs.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use gleitzeit::{
    Event, WorkflowId,
    settings::StoreUrl,
    storage::{
        self, SqlOptions,
        entity::{blob, task, workflow},
    },
};
use sea_orm::{
    ColumnTrait as _, ConnectionTrait as _, DatabaseConnection, DatabaseTransaction, DbBackend,
    DbErr, EntityTrait as _, QueryFilter as _, QueryOrder as _, SqliteTransactionMode, Statement,
    TransactionOptions, TransactionTrait as _, Value,
};

/// Of one small column, in the same database; there while a [`Baseline`] is.
const TABLE: &str = "gleitzeit_bench";

/// Rows of one statement, as many as the store's greatest has.
const ROWS: usize = 256;

/// A connection that writes, and nothing around it.
///
/// It must be the only one that writes while it is used: a store over the same file waits for it.
#[derive(Debug)]
pub(crate) struct Baseline {
    db: DatabaseConnection,
}

/// The rows of a settled workflow.
#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) workflow: workflow::Model,
    pub(crate) tasks: Vec<task::Model>,
    /// Its spec, if that is large, and large results.
    blobs: Vec<blob::Model>,
}

/// Rows that belong to one workflow, beside its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Change<'a> {
    pub(crate) tasks: &'a [task::Model],
    pub(crate) events: &'a [Event],
    /// Its own row is updated to this one.
    pub(crate) state: Option<&'a workflow::Model>,
}

/// The rows of one transaction.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    workflows: Vec<[Value; 13]>,
    blobs: Vec<[Value; 2]>,
    tasks: Vec<(Owner, [Value; 14])>,
    events: Vec<(Owner, [Value; 4])>,
    states: Vec<(Owner, [Value; 6])>,
}

/// A workflow by its key, or by its number among the new ones of a batch.
#[derive(Debug, Clone, Copy)]
enum Owner {
    Key(i64),
    New(usize),
}

impl Batch {
    /// Adds a new workflow of the sample's shape, with `rest`.
    ///
    /// # Errors
    /// If an event is no JSON.
    pub(crate) fn add(
        &mut self,
        id: &WorkflowId,
        sample: &Sample,
        row: &workflow::Model,
        rest: Change<'_>,
    ) -> anyhow::Result<()> {
        let owner = Owner::New(self.workflows.len());
        self.workflows.push([
            id.as_str().into(),
            row.name.clone().into(),
            row.status.clone().into(),
            row.created_at.into(),
            row.started_at.into(),
            row.completed_at.into(),
            row.task_count.into(),
            row.last_sequence.into(),
            // Nobody owns it, and nobody knows what it needs.
            0_i64.into(),
            row.error.clone().into(),
            row.spec.clone().into(),
            row.spec_blob.clone().into(),
            0_i64.into(),
        ]);
        if self.blobs.is_empty() {
            let row = |blob: &blob::Model| [blob.hash.clone().into(), blob.body.clone().into()];
            self.blobs = sample.blobs.iter().map(row).collect();
        }
        self.push(owner, rest)
    }

    /// Adds a change of the workflow of `key`.
    ///
    /// # Errors
    /// If an event is no JSON.
    pub(crate) fn change(&mut self, key: i64, change: Change<'_>) -> anyhow::Result<()> {
        self.push(Owner::Key(key), change)
    }

    fn push(&mut self, owner: Owner, change: Change<'_>) -> anyhow::Result<()> {
        self.tasks.extend(change.tasks.iter().map(|task| (owner, task_values(task))));
        if let Some(first) = change.events.first() {
            let events = change.events.iter();
            let body: Vec<_> =
                events.map(|it| (it.timestamp.timestamp_micros(), &it.data)).collect();
            let values = [
                Value::BigInt(None),
                i64::try_from(first.sequence)?.into(),
                i64::try_from(body.len())?.into(),
                serde_json::to_string(&body)?.into(),
            ];
            self.events.push((owner, values));
        }
        if let Some(state) = change.state {
            let values = [
                Value::BigInt(None),
                state.status.clone().into(),
                state.started_at.into(),
                state.completed_at.into(),
                state.error.clone().into(),
                state.last_sequence.into(),
            ];
            self.states.push((owner, values));
        }
        Ok(())
    }
}

impl Baseline {
    /// Opens the database as a store does, and makes a table for
    /// [`commit_one`](Self::commit_one).
    ///
    /// # Errors
    /// As [`storage::connect`].
    pub(crate) async fn open(url: &StoreUrl, options: SqlOptions) -> anyhow::Result<Self> {
        let db = storage::connect(url, options).await?;
        let make = format!("CREATE TABLE IF NOT EXISTS {TABLE} (a INTEGER)");
        db.execute_unprepared(&make).await?;
        Ok(Self { db })
    }

    /// Commits one small row; returns how long the transaction took.
    ///
    /// # Errors
    /// Those of the database.
    pub(crate) async fn commit_one(&self) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        let transaction = self.begin().await?;
        transaction.execute_unprepared(&format!("INSERT INTO {TABLE} VALUES (1)")).await?;
        transaction.commit().await?;
        Ok(begun.elapsed())
    }

    /// Reads the rows of a settled workflow.
    ///
    /// # Errors
    /// Those of the database; that there is no such workflow.
    pub(crate) async fn sample(&self, id: &WorkflowId) -> anyhow::Result<Sample> {
        let row = workflow::Entity::find().filter(workflow::Column::Id.eq(id.as_str()));
        let Some(workflow) = row.one(&self.db).await? else {
            bail!("workflow {id} is not in the database: it was pruned during the measurement");
        };
        let tasks = task::Entity::find()
            .filter(task::Column::WorkflowKey.eq(workflow.key))
            .order_by_asc(task::Column::Position)
            .all(&self.db)
            .await?;
        let mut hashes: Vec<Vec<u8>> =
            tasks.iter().filter_map(|task| task.result_blob.clone()).collect();
        hashes.extend(workflow.spec_blob.clone());
        hashes.sort_unstable();
        hashes.dedup();
        let mut blobs = Vec::new();
        for hash in hashes {
            blobs.extend(blob::Entity::find_by_id(hash).one(&self.db).await?);
        }
        Ok(Sample { workflow, tasks, blobs })
    }

    /// Writes a batch in one transaction; returns how long that took, and the keys of new workflows
    /// in their order.
    ///
    /// # Errors
    /// Those of the database.
    pub(crate) async fn write(&self, batch: Batch) -> anyhow::Result<(Duration, Vec<i64>)> {
        let backend = self.db.get_database_backend();
        let ids: Vec<Value> = batch.workflows.iter().map(|row| row[0].clone()).collect();
        let begun = Instant::now();
        let transaction = self.begin().await?;
        let keys = add_workflows(&transaction, batch.workflows, &ids).await?;
        let blobs = batch.blobs.into_iter().flatten().collect();
        let statements = BLOBS
            .all(backend, blobs)
            .chain(TASKS.all(backend, owned(batch.tasks, &keys)))
            .chain(EVENTS.all(backend, owned(batch.events, &keys)))
            .chain(STATES.all(backend, owned(batch.states, &keys)));
        for statement in statements {
            transaction.execute_raw(statement).await?;
        }
        transaction.commit().await?;
        Ok((begun.elapsed(), keys))
    }

    /// Removes the table and closes the connection.
    ///
    /// # Errors
    /// Those of the database.
    pub(crate) async fn close(self) -> anyhow::Result<()> {
        let dropped = self.db.execute_unprepared(&format!("DROP TABLE {TABLE}")).await;
        self.db.close().await?;
        dropped.map(drop).context("the table of the benchmark cannot be removed")
    }

    async fn begin(&self) -> Result<DatabaseTransaction, DbErr> {
        let options = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        };
        self.db.begin_with_options(options).await
    }
}

/// Inserts the workflows' own rows; returns their keys. A file has one writer, so that the keys are
/// chosen here: an answer of a row each would cost more than the insert, and the store does without,
/// too. A server chooses them.
async fn add_workflows(
    db: &DatabaseTransaction,
    rows: Vec<[Value; 13]>,
    ids: &[Value],
) -> anyhow::Result<Vec<i64>> {
    let backend = db.get_database_backend();
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    if backend == DbBackend::Sqlite {
        let last = "SELECT seq FROM sqlite_sequence WHERE name = 'gleitzeit_workflows'";
        let last = db.query_one_raw(Statement::from_string(backend, last)).await?;
        let last: i64 = last.map_or(Ok(0), |row| row.try_get_by_index(0))?;
        let keys: Vec<i64> = (last + 1..).take(rows.len()).collect();
        let keyed = keys.iter().zip(rows);
        let values = keyed.flat_map(|(key, row)| std::iter::once(Value::from(*key)).chain(row));
        for statement in KEYED_WORKFLOWS.all(backend, values.collect()) {
            db.execute_raw(statement).await?;
        }
        return Ok(keys);
    }
    let mut keys = Vec::with_capacity(rows.len());
    for statement in WORKFLOWS.all(backend, rows.into_iter().flatten().collect()) {
        for row in db.query_all_raw(statement).await? {
            let id: String = row.try_get_by_index(0)?;
            anyhow::ensure!(ids[keys.len()] == id.into(), "keys came in another order than rows");
            keys.push(row.try_get_by_index(1)?);
        }
    }
    Ok(keys)
}

/// The values of rows, with the key of each one's workflow in the first column.
fn owned<const COLUMNS: usize>(rows: Vec<(Owner, [Value; COLUMNS])>, keys: &[i64]) -> Vec<Value> {
    let mut values = Vec::with_capacity(rows.len() * COLUMNS);
    for (owner, mut row) in rows {
        row[0] = match owner {
            Owner::Key(key) => key,
            Owner::New(number) => keys[number],
        }
        .into();
        values.extend(row);
    }
    values
}

fn task_values(task: &task::Model) -> [Value; 14] {
    [
        Value::BigInt(None),
        task.position.into(),
        task.id.clone().into(),
        task.name.clone().into(),
        task.status.clone().into(),
        task.attempts.into(),
        task.provider_id.clone().into(),
        task.started_at.into(),
        task.completed_at.into(),
        task.due_at.into(),
        task.duration.into(),
        task.error.clone().into(),
        task.result.clone().into(),
        task.result_blob.clone().into(),
    ]
}

/// A statement with a list of rows in it.
struct MultiRow {
    head: &'static str,
    columns: usize,
    tail: &'static str,
}

const BLOBS: MultiRow = MultiRow {
    head: "INSERT INTO gleitzeit_blobs (hash, body) VALUES",
    columns: 2,
    tail: " ON CONFLICT DO NOTHING",
};

const WORKFLOWS: MultiRow = MultiRow {
    head: "INSERT INTO gleitzeit_workflows (id, name, status, created_at, started_at, completed_at, \
           task_count, last_sequence, lease_epoch, error, spec, spec_blob, needs) VALUES",
    columns: 13,
    tail: " ON CONFLICT (id) DO NOTHING RETURNING id, key",
};

const KEYED_WORKFLOWS: MultiRow = MultiRow {
    head: "INSERT INTO gleitzeit_workflows (key, id, name, status, created_at, started_at, \
           completed_at, task_count, last_sequence, lease_epoch, error, spec, spec_blob, needs) \
           VALUES",
    columns: 14,
    tail: " ON CONFLICT (id) DO NOTHING",
};

const TASKS: MultiRow = MultiRow {
    head: "INSERT INTO gleitzeit_tasks (workflow_key, position, id, name, status, attempts, \
           provider_id, started_at, completed_at, due_at, duration, error, result, result_blob) \
           VALUES",
    columns: 14,
    tail: " ON CONFLICT (workflow_key, position) DO UPDATE SET id = excluded.id, \
           name = excluded.name, status = excluded.status, attempts = excluded.attempts, \
           provider_id = excluded.provider_id, started_at = excluded.started_at, \
           completed_at = excluded.completed_at, due_at = excluded.due_at, \
           duration = excluded.duration, error = excluded.error, result = excluded.result, \
           result_blob = excluded.result_blob",
};

const EVENTS: MultiRow = MultiRow {
    head: "INSERT INTO gleitzeit_events (workflow_key, first_sequence, event_count, body) VALUES",
    columns: 4,
    tail: " ON CONFLICT DO NOTHING",
};

const STATES: MultiRow = MultiRow {
    head: "UPDATE gleitzeit_workflows SET status = v.column2, started_at = v.column3, \
           completed_at = v.column4, error = v.column5, last_sequence = v.column6 FROM (VALUES",
    columns: 6,
    tail: ") AS v WHERE gleitzeit_workflows.key = v.column1",
};

impl MultiRow {
    /// The statements that together take all rows. A connection keeps each of their few texts
    /// prepared.
    fn all(&self, backend: DbBackend, values: Vec<Value>) -> impl Iterator<Item = Statement> {
        let mut rows = values.into_iter();
        let mut text = (0, String::new());
        std::iter::from_fn(move || {
            let values: Vec<Value> = rows.by_ref().take(self.columns * ROWS).collect();
            if values.is_empty() {
                return None;
            }
            if text.0 != values.len() {
                text = (values.len(), self.text(backend, values.len() / self.columns));
            }
            Some(Statement::from_sql_and_values(backend, &text.1, values))
        })
    }

    fn text(&self, backend: DbBackend, rows: usize) -> String {
        let mut text = self.head.to_owned();
        let mut number = 0;
        for row in 0..rows {
            text.push_str(if row == 0 { " (" } else { ", (" });
            for column in 0..self.columns {
                number += 1;
                if column > 0 {
                    text.push(',');
                }
                match backend {
                    DbBackend::Postgres => {
                        // Writing to a text cannot fail.
                        let _ = write!(text, "${number}");
                    }
                    _ => text.push('?'),
                }
            }
            text.push(')');
        }
        text + self.tail
    }
}

// With a path, because a bench includes this file, and its modules would be looked for beside it.
#[cfg(all(test, feature = "sqlite"))]
#[path = "baseline/tests.rs"]
mod tests;
