//! The database without the engine: what a commit costs, and what a plain loop gets out of it.
//!
//! Asked by `gleitzeit bench` and the benchmark of the store, which set their figures beside these:
//! disks differ by forty times in the price of a flush. The connection, the statements and the rows
//! are those of the store's writer; each statement is a message of its own.
//!
//! Invariant: what is timed is the database's work alone; rows are encoded before the clock runs.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use gleitzeit_domain::{
    id::WorkflowId,
    store::{NewWorkflow, StoreError, WorkflowChange},
};
use sea_orm::{
    ConnectionTrait as _, DatabaseConnection, DatabaseTransaction, DbErr, SqliteTransactionMode,
    TransactionOptions, TransactionTrait as _,
};

use super::{
    SqlOptions,
    fault::Fault,
    group::Place,
    insert,
    location::Location,
    open::Connector,
    rows::{self, Rows, Submissions},
    statements::Statements,
};
use crate::StoreUrl;

/// Of one small column, in the same database; there while a [`Plain`] is.
const TABLE: &str = "gleitzeit_bench";

/// A connection that writes, and nothing around it.
///
/// It must be the only one that writes while it is used: a store over the same file waits for it.
#[derive(Debug)]
pub struct Plain {
    db: DatabaseConnection,
    statements: Box<Statements>,
    places: HashMap<WorkflowId, Place>,
}

impl Plain {
    /// Opens the database as a store would, and makes a table for
    /// [`commit_one`](Self::commit_one).
    ///
    /// # Errors
    /// As [`SqlStore::connect`](super::SqlStore::connect).
    pub async fn open(url: &StoreUrl, options: SqlOptions) -> Result<Self, StoreError> {
        let location = Location::of(url)?;
        location.check_build()?;
        let connector = Connector { location, options };
        let db = connector.open().await?;
        let make = format!("CREATE TABLE IF NOT EXISTS {TABLE} (a INTEGER)");
        db.execute_unprepared(&make).await.map_err(of_write)?;
        let statements = Box::new(Statements::new(db.get_database_backend()));
        Ok(Self { db, statements, places: HashMap::new() })
    }

    /// Commits one small row; how long the transaction took.
    ///
    /// # Errors
    /// What the database says.
    pub async fn commit_one(&self) -> Result<Duration, StoreError> {
        let begun = Instant::now();
        let commit = async {
            let transaction = self.begin().await?;
            transaction.execute_unprepared(&format!("INSERT INTO {TABLE} VALUES (1)")).await?;
            transaction.commit().await
        };
        commit.await.map_err(of_write)?;
        Ok(begun.elapsed())
    }

    /// Writes new workflows, and changes of workflows that were written here before, in one
    /// transaction; how long that took.
    ///
    /// # Errors
    /// What the database says, and [`StoreError::Integrity`] for what cannot be stored.
    pub async fn write(
        &mut self,
        news: &[NewWorkflow],
        changes: &[WorkflowChange],
    ) -> Result<Duration, StoreError> {
        let mut submissions = Submissions::default();
        submissions.add(news, None)?;
        let outcomes = rows::of_changes(changes, |id| self.places.get(id).copied())?;
        let begun = Instant::now();
        let made = self.transact(submissions, outcomes).await.map_err(of_write)?;
        let took = begun.elapsed();
        self.places.extend(made);
        Ok(took)
    }

    /// Lets go of the database, and removes the table.
    ///
    /// # Errors
    /// What the database says.
    pub async fn close(self) -> Result<(), StoreError> {
        let dropped = self.db.execute_unprepared(&format!("DROP TABLE {TABLE}")).await;
        self.db.close().await.map_err(of_write)?;
        dropped.map(drop).map_err(of_write)
    }

    async fn begin(&self) -> Result<DatabaseTransaction, DbErr> {
        let options = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        };
        self.db.begin_with_options(options).await
    }

    /// Where the new workflows are.
    async fn transact(
        &self,
        submissions: Submissions<'_>,
        mut rows: Rows,
    ) -> Result<Vec<(WorkflowId, Place)>, DbErr> {
        let statements = &self.statements;
        let transaction = self.begin().await?;
        let mut made = Vec::with_capacity(submissions.new.len());
        for new in insert::add(&transaction, statements, submissions).await? {
            made.push((new.id.clone(), new.place));
            rows.append(new.rows);
        }
        for statement in rows.parts(statements).into_iter().flat_map(|part| part.statements) {
            transaction.execute_raw(statement).await?;
        }
        transaction.commit().await?;
        Ok(made)
    }
}

fn of_write(error: DbErr) -> StoreError {
    Fault::from(error).of_write()
}

#[cfg(all(test, feature = "sqlite"))]
mod tests {
    use std::time::Duration;

    use gleitzeit_domain::{
        store::{Store as _, conformance::sample},
        workflow::WorkflowStatus,
    };

    use super::*;
    use crate::SqlStore;

    /// A loop that wrote less than the store does would be no measure for it; and nothing of the
    /// measuring stays in the database.
    #[tokio::test]
    async fn a_plain_loop_leaves_what_the_store_would_have_left() {
        let folder = tempfile::TempDir::new().unwrap();
        let url: StoreUrl = format!("sqlite:{}/a.db", folder.path().display()).parse().unwrap();
        let new = sample::workflow("w", 3);
        let change = WorkflowChange {
            tasks: vec![sample::completed(&new.record.tasks[1], serde_json::json!({"a": 1}))],
            events: sample::events(&new.record.id, 2, 4),
            last_sequence: 5,
            ..sample::settles(&new, WorkflowStatus::Completed, sample::at(7))
        };
        let mut plain = Plain::open(&url, SqlOptions::default()).await.unwrap();
        assert!(plain.write(std::slice::from_ref(&new), &[]).await.unwrap() > Duration::ZERO);
        plain.write(&[], std::slice::from_ref(&change)).await.unwrap();
        assert!(plain.commit_one().await.unwrap() > Duration::ZERO);
        plain.close().await.unwrap();

        let store = SqlStore::connect(&url, SqlOptions::default()).await.unwrap();
        let mut expected = new.record.clone();
        sample::apply(&mut expected, &change);
        assert_eq!(store.workflow(&new.record.id).await.unwrap(), Some(expected));
        assert_eq!(store.events(&new.record.id, 0, 9).await.unwrap().len(), 5);
        store.close(Duration::from_secs(5)).await.unwrap();
        let db = sea_orm::Database::connect(format!("sqlite:{}/a.db", folder.path().display()));
        let db = db.await.unwrap();
        assert!(db.execute_unprepared(&format!("SELECT * FROM {TABLE}")).await.is_err());
    }
}
