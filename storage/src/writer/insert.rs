//! Inserts the rows of new workflows, and assigns their keys.
//!
//! A [`group`](super::group) calls it within its transaction. PostgreSQL chooses the keys, and
//! returns a row for each workflow that did not exist. SQLite has one writer at a time, so for many
//! workflows the keys are chosen here: a returned row each would cost more than the insert.
//!
//! Invariant: no key is assigned twice. A late write about a deleted workflow would otherwise change
//! another one.

use std::collections::{HashMap, HashSet};

use gleitzeit_domain::id::WorkflowId;
use sea_orm::{ConnectionTrait, DbBackend, DbErr, Statement, Value};

use crate::{
    encode::unescape,
    key_cache::WorkflowKey,
    rows::{Encoded, Rows, Submissions},
    statements::Statements,
};

/// The least number of new workflows whose keys are chosen here; that takes one more query.
const MANY: usize = 8;

/// A workflow that did not exist before.
#[derive(Debug)]
pub(crate) struct Inserted<'a> {
    pub(crate) id: &'a WorkflowId,
    pub(crate) key: WorkflowKey,
    /// Its tasks, events and blobs.
    pub(crate) rows: Rows,
}

impl<'a> Inserted<'a> {
    fn new(id: &'a WorkflowId, key: i64, encoded: Encoded) -> Self {
        let rows_of = WorkflowKey { key, task_count: encoded.task_count };
        Self { id, key: rows_of, rows: encoded.with_key(key) }
    }
}

/// Inserts the rows of workflows; returns those that did not exist, in no order.
pub(crate) async fn add<'a, C: ConnectionTrait>(
    db: &C,
    statements: &Statements,
    submissions: Submissions<'a>,
) -> Result<Vec<Inserted<'a>>, DbErr> {
    if db.get_database_backend() == DbBackend::Sqlite && submissions.new.len() >= MANY {
        add_with_keys(db, statements, submissions).await
    } else {
        add_returning(db, statements, submissions).await
    }
}

/// The database chooses the keys.
async fn add_returning<'a, C: ConnectionTrait>(
    db: &C,
    statements: &Statements,
    Submissions { new, workflow_rows, .. }: Submissions<'a>,
) -> Result<Vec<Inserted<'a>>, DbErr> {
    let mut inserted = Vec::with_capacity(new.len());
    // By id: PostgreSQL returns the inserted rows in no order, and the existing ones not at all.
    let mut new: HashMap<&WorkflowId, Encoded> = new.into_iter().collect();
    let values = workflow_rows.into_iter().flatten().collect();
    for statement in statements.add_workflows.statements(values) {
        for row in db.query_all_raw(statement).await? {
            let id = WorkflowId::from(unescape(row.try_get_by_index(0)?));
            let key = row.try_get_by_index(1)?;
            if let Some((id, encoded)) = new.remove_entry(&id) {
                inserted.push(Inserted::new(id, key, encoded));
            }
        }
    }
    Ok(inserted)
}

/// Assigns the keys after the last one that was ever assigned.
async fn add_with_keys<'a, C: ConnectionTrait>(
    db: &C,
    statements: &Statements,
    Submissions { new, workflow_rows, .. }: Submissions<'a>,
) -> Result<Vec<Inserted<'a>>, DbErr> {
    // Safe only under the write lock of BEGIN IMMEDIATE: otherwise another process could read the
    // same last key and insert the same ones.
    let first = last_key(db).await? + 1;
    let with_key = |(key, row): (i64, _)| std::iter::once(Value::from(key)).chain(row);
    let values = (first..).zip(workflow_rows).flat_map(with_key).collect();
    let mut count = 0;
    for statement in statements.add_keyed_workflows.statements(values) {
        count += db.execute_raw(statement).await?.rows_affected();
    }
    let all = (first..).zip(new).map(|(key, (id, encoded))| Inserted::new(id, key, encoded));
    let mut inserted: Vec<Inserted<'a>> = all.collect();
    // Only if some existed: the query would otherwise be one more for every group.
    if count != inserted.len() as u64 {
        let stored = keys_from(db, first).await?;
        inserted.retain(|new| stored.contains(&new.key.key));
    }
    Ok(inserted)
}

/// The greatest key that any workflow of a file ever had: `AUTOINCREMENT` keeps it in
/// `sqlite_sequence` after the workflow was deleted.
async fn last_key<C: ConnectionTrait>(db: &C) -> Result<i64, DbErr> {
    let select = "SELECT seq FROM sqlite_sequence WHERE name = 'gleitzeit_workflows'";
    let row = db.query_one_raw(Statement::from_string(DbBackend::Sqlite, select)).await?;
    row.map_or(Ok(0), |row| row.try_get_by_index(0))
}

/// The stored keys from `first` on: all of this transaction, which holds the write lock.
async fn keys_from<C: ConnectionTrait>(db: &C, first: i64) -> Result<HashSet<i64>, DbErr> {
    let select = "SELECT key FROM gleitzeit_workflows WHERE key >= ?";
    let select = Statement::from_sql_and_values(DbBackend::Sqlite, select, [first.into()]);
    let rows = db.query_all_raw(select).await?;
    rows.iter().map(|row| row.try_get_by_index(0)).collect()
}

#[cfg(all(test, feature = "sqlite"))]
mod tests {
    use std::time::Duration;

    use gleitzeit_domain::{
        store::{Store as _, conformance::sample},
        workflow::WorkflowStatus,
    };
    use sea_orm::{Database, EntityTrait as _};

    use super::*;
    use crate::{SqlOptions, SqlStore, StoreUrl, entity::workflow};

    /// One workflow or many, after the last one was deleted, and by another process.
    #[tokio::test]
    async fn a_key_is_never_assigned_twice() {
        let folder = tempfile::TempDir::new().unwrap();
        let url: StoreUrl = format!("sqlite:{}/a.db", folder.path().display()).parse().unwrap();
        let open = || SqlStore::connect(&url, SqlOptions::default());
        let (one, other) = (open().await.unwrap(), open().await.unwrap());
        let db = Database::connect(url.expose()).await.unwrap();
        let mut seen = HashSet::new();
        for (round, count) in [(0, 1), (1, MANY), (2, MANY + 1), (3, 1), (4, 2 * MANY)] {
            let store = if round % 2 == 0 { &one } else { &other };
            let new = |it| sample::workflow(&format!("r{round}-{it}"), 1);
            let workflows: Vec<_> = (0..count).map(new).collect();
            store.submit(workflows.clone()).await.unwrap();
            let stored = workflow::Entity::find().all(&db).await.unwrap();
            let keys: HashSet<i64> = stored.into_iter().map(|workflow| workflow.key).collect();
            assert_eq!(keys.len(), count);
            assert!(keys.is_disjoint(&seen), "{keys:?} after {seen:?}");
            seen.extend(keys);
            let ends = |new| sample::settles(new, WorkflowStatus::Completed, sample::at(1));
            store.record(workflows.iter().map(ends).collect()).await.unwrap();
            assert_eq!(store.prune(sample::at(2), count).await.unwrap(), count);
        }
        db.close().await.unwrap();
        for store in [one, other] {
            store.close(Duration::from_secs(5)).await.unwrap();
        }
    }
}
