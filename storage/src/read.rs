//! Reads the tables for the store, each answer from one snapshot.
//!
//! The reader runs on the store's thread, on connections that cannot write.
//!
//! Invariant: a broken row hides its own workflow only. The reader leaves that workflow out of every
//! list, logs it once, and returns the error to the caller that asks for it by its id.

pub(super) mod assemble;
mod events;
mod ids;
mod list;
mod load;
mod outline;
mod requests;

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use chrono::{DateTime, Utc};
use gleitzeit_domain::store::StoreError;
use sea_orm::{
    AccessMode, ConnectionTrait as _, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr,
    IsolationLevel, Statement, TransactionOptions, TransactionTrait as _,
};

use super::{
    encode::{time_of, unescape},
    fault::ReadError,
    multi_row::MultiRow,
    open::Connector,
    server_clock::SERVER_NOW,
    size,
    statement_timeout::StatementTimeout,
};

pub(super) use assemble::Loaded;
pub(super) use events::events_of;

/// Reads one database.
#[derive(Debug)]
pub(super) struct Reader {
    /// Replaced after one of them did not answer.
    db: Mutex<DatabaseConnection>,
    backend: DbBackend,
    timeout: StatementTimeout,
    /// Opens new connections; `None` if a lost one is not replaced.
    connector: Option<Connector>,
    /// The ids of the broken workflows that were logged.
    broken: Mutex<HashSet<String>>,
    /// See [`load::LAST_SEQUENCES`].
    last_sequences: MultiRow,
    /// `workflow_key`; returns `workflow_key, status, count`.
    task_counts: MultiRow,
    /// `hash`; returns `hash, body`.
    blobs: MultiRow,
}

type Answer<T> = Result<T, ReadError>;

impl Reader {
    /// A reader without a statement timeout, whose lost connections are not replaced.
    pub(super) fn new(db: DatabaseConnection) -> Self {
        Self::over(db, StatementTimeout::none(), None)
    }

    /// A reader that replaces its connections if one of them does not answer in time.
    pub(super) fn watching(mut db: DatabaseConnection, connector: Connector) -> Self {
        let timeout = connector.timeout();
        timeout.watch(&mut db);
        Self::over(db, timeout, Some(connector))
    }

    fn over(
        db: DatabaseConnection,
        timeout: StatementTimeout,
        connector: Option<Connector>,
    ) -> Self {
        let backend = db.get_database_backend();
        Self {
            db: Mutex::new(db),
            backend,
            timeout,
            connector,
            broken: Mutex::default(),
            last_sequences: MultiRow::new(
                backend,
                load::LAST_SEQUENCES,
                2,
                ") AS v) AS found WHERE last > known",
            ),
            task_counts: MultiRow::new(
                backend,
                "SELECT workflow_key, status, COUNT(*) FROM gleitzeit_tasks \
                 WHERE workflow_key IN (VALUES",
                1,
                ") GROUP BY workflow_key, status",
            ),
            blobs: MultiRow::new(
                backend,
                "SELECT hash, body FROM gleitzeit_blobs WHERE hash IN (VALUES",
                1,
                ")",
            ),
        }
    }

    pub(super) async fn close(&self) {
        if let Err(error) = self.db().close_by_ref().await {
            tracing::debug!(%error, "close of the reading connections failed");
        }
    }

    fn db(&self) -> DatabaseConnection {
        // A clone of the handle: held during a query, the lock would let one read run at a time.
        lock(&self.db).clone()
    }

    /// Waits for a query of few statements, at most for the statement timeout.
    pub(super) async fn soon<T>(&self, asks: impl Future<Output = Answer<T>>) -> Answer<T> {
        let answer = self.timeout.wait_for_one(asks).await;
        self.replace_if_silent(answer).await
    }

    /// Waits for a query of any number of statements, each at most for the statement timeout.
    pub(super) async fn in_time<T>(&self, asks: impl Future<Output = Answer<T>>) -> Answer<T> {
        let answer = self.timeout.wait(asks).await;
        self.replace_if_silent(answer).await
    }

    /// Replaces the connections if one of them did not answer: its answer may still arrive, for a
    /// later query, and the others lead to the same server.
    async fn replace_if_silent<T>(&self, answer: Result<Answer<T>, DbErr>) -> Answer<T> {
        let silent = match answer {
            Ok(answer) => return answer,
            Err(silent) => silent,
        };
        if let Some(connector) = &self.connector {
            let mut fresh = connector.reconnect_readers().await?;
            self.timeout.watch(&mut fresh);
            let old = std::mem::replace(&mut *lock(&self.db), fresh);
            // In the background: the close waits for the connection that does not answer.
            tokio::spawn(async move {
                let _ = old.close().await;
            });
        }
        Err(silent.into())
    }

    /// Logs a broken workflow, once: every list and every recovery meets it again.
    pub(super) fn report(&self, id: &str, error: &StoreError) {
        if lock(&self.broken).insert(id.to_owned()) {
            tracing::error!(
                workflow = %unescape(id.to_owned()),
                %error,
                "workflow cannot be read; left out; `gleitzeit db check` shows why"
            );
        }
    }

    fn report_all(&self, loaded: &Loaded) {
        for (id, error) in &loaded.broken {
            self.report(id, error);
        }
    }

    /// A transaction in which every statement sees the same state.
    pub(super) async fn snapshot(&self) -> Result<DatabaseTransaction, DbErr> {
        snapshot(&self.db()).await
    }

    /// The bytes of the database in use.
    pub(super) async fn in_use(&self) -> Answer<u64> {
        Ok(size::measure(&self.db()).await?)
    }

    /// The time of the server; `None` for a file, whose processes share the clock of a machine.
    pub(super) async fn server_time(&self) -> Answer<Option<DateTime<Utc>>> {
        let backend = self.backend;
        if backend != DbBackend::Postgres {
            return Ok(None);
        }
        let select = Statement::from_string(backend, format!("SELECT {SERVER_NOW}"));
        let Some(row) = self.db().query_one_raw(select).await? else { return Ok(None) };
        Ok(Some(time_of(row.try_get_by_index(0)?)?))
    }

    /// The number of workflows.
    pub(super) async fn count(&self) -> Answer<u64> {
        Ok(size::count(&self.db()).await?)
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A transaction that reads one snapshot.
pub(super) async fn snapshot(db: &DatabaseConnection) -> Result<DatabaseTransaction, DbErr> {
    let options = match db.get_database_backend() {
        // By default each statement of PostgreSQL sees the commits before it: a task could be newer
        // than the row of its workflow.
        DbBackend::Postgres => TransactionOptions {
            isolation_level: Some(IsolationLevel::RepeatableRead),
            access_mode: Some(AccessMode::ReadOnly),
            ..TransactionOptions::default()
        },
        // On SQLite every transaction is a snapshot.
        _ => TransactionOptions::default(),
    };
    db.begin_with_options(options).await
}

async fn query(
    snapshot: &DatabaseTransaction,
    statement: Statement,
) -> Result<Vec<sea_orm::QueryResult>, DbErr> {
    snapshot.query_all_raw(statement).await
}
