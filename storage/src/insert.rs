//! New workflows: their own rows, and the keys that they get.
//!
//! Asked by the [`group`](super::group), within its transaction. A server gives the keys, and
//! answers with a row for each workflow that was not there before. A file has one writer at a time:
//! there, the keys of many workflows are chosen here, for an answer of a row each would cost more
//! than the insert.
//!
//! Invariant: a key is never given twice, whoever chooses it: a late write about a workflow that
//! was forgotten must not hit another one.

use std::collections::{HashMap, HashSet};

use gleitzeit_domain::id::WorkflowId;
use sea_orm::{ConnectionTrait, DbBackend, DbErr, Statement, Value};

use super::{
    encode::unescape,
    group::Place,
    rows::{Encoded, Rows, Submissions},
    statements::Statements,
};

/// From so many new workflows on, their keys are chosen here: it takes one question more.
const MANY: usize = 8;

/// A workflow that was not there before.
#[derive(Debug)]
pub(super) struct Inserted<'a> {
    pub(super) id: &'a WorkflowId,
    pub(super) place: Place,
    /// What is to be written beside its own row.
    pub(super) rows: Rows,
}

impl<'a> Inserted<'a> {
    fn new(id: &'a WorkflowId, key: i64, encoded: Encoded) -> Self {
        let place = Place { key, task_count: encoded.task_count };
        Self { id, place, rows: encoded.place(key) }
    }
}

/// Inserts the workflows' own rows; those that were not there before, in no order.
pub(super) async fn add<'a, C: ConnectionTrait>(
    db: &C,
    statements: &Statements,
    submissions: Submissions<'a>,
) -> Result<Vec<Inserted<'a>>, DbErr> {
    if db.get_database_backend() == DbBackend::Sqlite && submissions.new.len() >= MANY {
        add_with_keys(db, statements, submissions).await
    } else {
        add_and_ask(db, statements, submissions).await
    }
}

/// The database chooses the keys.
async fn add_and_ask<'a, C: ConnectionTrait>(
    db: &C,
    statements: &Statements,
    Submissions { new, workflow_rows, .. }: Submissions<'a>,
) -> Result<Vec<Inserted<'a>>, DbErr> {
    let mut made = Vec::with_capacity(new.len());
    let mut new: HashMap<&WorkflowId, Encoded> = new.into_iter().collect();
    let values = workflow_rows.into_iter().flatten().collect();
    for statement in statements.add_workflows.statements(values) {
        for row in db.query_all_raw(statement).await? {
            let id = WorkflowId::from(unescape(row.try_get_by_index(0)?));
            let key = row.try_get_by_index(1)?;
            if let Some((id, encoded)) = new.remove_entry(&id) {
                made.push(Inserted::new(id, key, encoded));
            }
        }
    }
    Ok(made)
}

/// The keys are those behind the last one that was ever given.
async fn add_with_keys<'a, C: ConnectionTrait>(
    db: &C,
    statements: &Statements,
    Submissions { new, workflow_rows, .. }: Submissions<'a>,
) -> Result<Vec<Inserted<'a>>, DbErr> {
    let first = last_key(db).await? + 1;
    let with_key = |(key, row): (i64, _)| std::iter::once(Value::from(key)).chain(row);
    let values = (first..).zip(workflow_rows).flat_map(with_key).collect();
    let mut inserted = 0;
    for statement in statements.add_keyed_workflows.statements(values) {
        inserted += db.execute_raw(statement).await?.rows_affected();
    }
    let all = (first..).zip(new).map(|(key, (id, encoded))| Inserted::new(id, key, encoded));
    let mut made: Vec<Inserted<'a>> = all.collect();
    if inserted != made.len() as u64 {
        let there = keys_from(db, first).await?;
        made.retain(|made| there.contains(&made.place.key));
    }
    Ok(made)
}

/// The greatest key that any workflow of a file ever had.
async fn last_key<C: ConnectionTrait>(db: &C) -> Result<i64, DbErr> {
    let select = "SELECT seq FROM sqlite_sequence WHERE name = 'gleitzeit_workflows'";
    let row = db.query_one_raw(Statement::from_string(DbBackend::Sqlite, select)).await?;
    row.map_or(Ok(0), |row| row.try_get_by_index(0))
}

/// The keys from one on; until the transaction ends nobody else can have made any of them.
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

    /// Alone or with others, after the last one was forgotten and by another process.
    #[tokio::test]
    async fn a_key_is_never_given_twice() {
        let folder = tempfile::TempDir::new().unwrap();
        let url: StoreUrl = format!("sqlite:{}/a.db", folder.path().display()).parse().unwrap();
        let open = || SqlStore::connect(&url, SqlOptions::default());
        let (one, other) = (open().await.unwrap(), open().await.unwrap());
        let db = Database::connect(url.expose()).await.unwrap();
        let mut seen = HashSet::new();
        for (round, count) in [(0, 1), (1, MANY), (2, MANY + 1), (3, 1), (4, 2 * MANY)] {
            let store = if round % 2 == 0 { &one } else { &other };
            let new = |it| sample::workflow(&format!("r{round}-{it}"), 1);
            let news: Vec<_> = (0..count).map(new).collect();
            store.submit(news.clone()).await.unwrap();
            let there = workflow::Entity::find().all(&db).await.unwrap();
            let given: HashSet<i64> = there.into_iter().map(|workflow| workflow.key).collect();
            assert_eq!(given.len(), count);
            assert!(given.is_disjoint(&seen), "{given:?} after {seen:?}");
            seen.extend(given);
            let ends = |new| sample::settles(new, WorkflowStatus::Completed, sample::at(1));
            store.record(news.iter().map(ends).collect()).await.unwrap();
            assert_eq!(store.prune(sample::at(2), count).await.unwrap(), count);
        }
        db.close().await.unwrap();
        for store in [one, other] {
            store.close(Duration::from_secs(5)).await.unwrap();
        }
    }
}
