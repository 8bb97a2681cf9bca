//! The transactions of the writer: begin, retry, commit, and the loss of a connection or a file.
//!
//! Invariant: a transaction is repeated only if it certainly did not commit.

use std::{
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use gleitzeit_domain::{id::WorkflowId, store::StoreError};
use sea_orm::{
    DatabaseConnection, DatabaseTransaction, DbErr, SqliteTransactionMode, TransactionOptions,
    TransactionTrait as _,
};

use super::{Writer, close};
use crate::{
    database_file,
    fault::{Cause, Fault, ReadError, RequestError},
    key_cache::CommitEffects,
    leases::LeaseTable,
    location::Location,
    queue::Answer,
    read::{self, Reader},
    write_call::WriteCall,
};

/// Attempts at a group while another process is in the way, or the connection breaks before the
/// commit.
const ATTEMPTS: usize = 3;

/// Limit on the attempts to reach a lost database: after it the caller gets the error, and repeats
/// its call.
const RECONNECT_LIMIT: Duration = Duration::from_secs(2);

impl Writer {
    /// Writes calls in one transaction; retries if that is safe.
    pub(super) async fn transact(
        &mut self,
        calls: &[&WriteCall],
    ) -> Result<Vec<Answer>, GroupError> {
        let mut budget = RetryBudget::new();
        loop {
            match self.attempt(calls).await {
                Ok((answers, effects)) => {
                    // All three after the commit: a rollback must leave no trace in this process.
                    if effects.leaves_free {
                        self.lease_table.notify_local();
                    }
                    self.added += effects.added;
                    self.key_cache.apply(effects);
                    return Ok(answers);
                }
                Err(TxError::RolledBack(fault)) => {
                    self.reset().await;
                    if !fault.is_retryable() || budget.is_spent(&fault) {
                        let is_data_error = fault.cause == Cause::Data;
                        let error = self.explain(fault).of_write();
                        return Err(GroupError { is_data_error, error });
                    }
                    tracing::debug!(detail = fault.detail, "write group retried");
                }
                Err(failed @ TxError::NotCommitted(_)) => {
                    self.reset().await;
                    let error = failed.into_store_error();
                    return Err(GroupError { is_data_error: false, error });
                }
            }
        }
    }

    async fn attempt(
        &mut self,
        calls: &[&WriteCall],
    ) -> Result<(Vec<Answer>, CommitEffects), TxError> {
        gleitzeit_failpoint::failpoint!("store.begin.before");
        let timeout = self.timeout.clone();
        let transaction =
            timeout.wait(pin!(self.begin())).await.map_err(TxError::rolled_back)??;
        gleitzeit_failpoint::failpoint!("store.begin.after");
        let written = timeout.wait(pin!(self.write(&transaction, calls))).await;
        self.end(transaction, written.flatten()).await
    }

    /// Does `work` in a transaction of its own; retries if that is safe.
    pub(super) async fn transact_alone<T>(
        &mut self,
        mut work: impl AsyncFnMut(&DatabaseTransaction, &mut LeaseTable) -> Result<T, RequestError>,
    ) -> Result<T, StoreError> {
        let mut budget = RetryBudget::new();
        loop {
            let timeout = self.timeout.clone();
            let begun =
                timeout.wait(pin!(self.begin())).await.map_err(TxError::rolled_back).flatten();
            let done = match begun {
                Ok(transaction) => {
                    let worked =
                        timeout.wait(pin!(work(&transaction, &mut self.lease_table))).await;
                    match worked.map_err(RequestError::from).flatten() {
                        Ok(done) => self.end(transaction, Ok(done)).await,
                        Err(RequestError::Database(error)) => {
                            self.end(transaction, Err(error)).await
                        }
                        Err(RequestError::Answer(error)) => {
                            self.roll_back(transaction).await;
                            if error.is_transient() {
                                self.reset().await;
                            }
                            return Err(error);
                        }
                    }
                }
                Err(failed) => Err(failed),
            };
            let fault = match done {
                Ok(done) => return Ok(done),
                Err(TxError::RolledBack(fault)) => fault,
                Err(failed @ TxError::NotCommitted(_)) => {
                    self.reset().await;
                    return Err(failed.into_store_error());
                }
            };
            self.reset().await;
            if !fault.is_retryable() || budget.is_spent(&fault) {
                return Err(self.explain(fault).of_write());
            }
        }
    }

    /// Adds the process that holds the lock to an error about a locked file.
    fn explain(&self, mut fault: Fault) -> Fault {
        if fault.cause == Cause::Locked
            && let Location::Sqlite(path) = &self.connector.location
            && let Some(who) = database_file::who_writes(path)
        {
            fault.detail = format!("{}; {who}", fault.detail);
        }
        fault
    }

    /// Queries the database outside a transaction; retries on a new connection.
    pub(super) async fn query<T>(
        &mut self,
        mut ask: impl AsyncFnMut(&DatabaseConnection) -> Result<T, DbErr>,
    ) -> Result<T, StoreError> {
        let mut budget = RetryBudget::new();
        loop {
            let timeout = self.timeout.clone();
            let answer = timeout.wait(async { ask(self.connection().await?).await });
            let answer = answer.await.flatten();
            let fault = match answer {
                Ok(answer) => return Ok(answer),
                Err(error) => Fault::from(error),
            };
            self.reset().await;
            if !fault.is_retryable() || budget.is_spent(&fault) {
                return Err(fault.of_read());
            }
        }
    }

    /// Reads a snapshot on the writer's connection, without the write lock.
    pub(super) async fn read<T>(
        &mut self,
        ask: impl AsyncFnOnce(&DatabaseTransaction, &LeaseTable) -> Result<T, ReadError>,
    ) -> Result<T, StoreError> {
        let timeout = self.timeout.clone();
        let db = self.connection().await.map_err(|error| Fault::from(error).of_read())?.clone();
        let lease_table = &self.lease_table;
        let asks = async {
            let snapshot = read::snapshot(&db).await?;
            let answer = ask(&snapshot, lease_table).await?;
            snapshot.commit().await?;
            Ok(answer)
        };
        let answer = match timeout.wait(asks).await {
            Ok(answer) => answer.map_err(|ReadError(error)| error),
            Err(silent) => Err(Fault::from(silent).of_read()),
        };
        if answer.is_err() {
            // The clone first: a connection with a second owner would not close in `reset`.
            drop(db);
            self.reset().await;
        }
        answer
    }

    pub(super) fn apply(&mut self, effects: CommitEffects) {
        self.key_cache.apply(effects);
    }

    /// Drops every cached key: another process may delete workflows of a lease that is gone.
    pub(super) fn forget_keys(&mut self) {
        self.key_cache.forget_all();
    }

    pub(super) fn forget_key(&mut self, id: &WorkflowId) {
        self.key_cache.forget(std::slice::from_ref(id));
    }

    pub(super) fn reader(&self) -> Arc<Reader> {
        Arc::clone(&self.reader)
    }

    async fn connection(&mut self) -> Result<&DatabaseConnection, DbErr> {
        let db = if let Some(db) = self.db.take() {
            db
        } else {
            let mut db = self.connector.reconnect_writer().await?;
            self.timeout.watch(&mut db);
            db
        };
        Ok(self.db.insert(db))
    }

    pub(super) async fn begin(&mut self) -> Result<DatabaseTransaction, TxError> {
        if let Some(gone) = &*self.lost.borrow() {
            return Err(TxError::RolledBack(Fault::gone(gone)));
        }
        let db = self.connection().await.map_err(TxError::rolled_back)?;
        let options = TransactionOptions {
            // BEGIN IMMEDIATE takes SQLite's write lock at the start and waits for it. A deferred
            // transaction takes it at its first write, and fails at once with SQLITE_BUSY if
            // another process committed since its first read; no waiting helps then.
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        };
        db.begin_with_options(options).await.map_err(TxError::rolled_back)
    }

    /// Commits, or rolls back if `written` is an error or the database is gone.
    pub(super) async fn end<T>(
        &mut self,
        transaction: DatabaseTransaction,
        written: Result<T, DbErr>,
    ) -> Result<T, TxError> {
        let written = match written {
            Ok(written) => written,
            Err(error) => {
                self.roll_back(transaction).await;
                return Err(TxError::rolled_back(error));
            }
        };
        // Directly before the commit: SQLite commits to a file that was removed without an error,
        // and nobody would find again what the caller takes for stored.
        if let Some(gone) = self.find_loss() {
            self.roll_back(transaction).await;
            return Err(TxError::RolledBack(Fault::gone(&gone)));
        }
        match self.timeout.wait(pin!(Self::commit_now(transaction))).await.flatten() {
            Ok(()) => {
                gleitzeit_failpoint::failpoint!("store.commit.after");
                self.commits.fetch_add(1, Ordering::Relaxed);
                self.written.notify_one();
                Ok(written)
            }
            Err(error) => Err(TxError::NotCommitted(error.into())),
        }
    }

    /// Rolls back. If that fails or times out, the database does it when the connection closes.
    async fn roll_back(&self, transaction: DatabaseTransaction) {
        let _ = self.timeout.wait(pin!(transaction.rollback())).await;
    }

    /// Checks that the path of a file still leads to the open database. A loss is final: another
    /// process may have written to a new file at that path meanwhile.
    pub(super) fn find_loss(&mut self) -> Option<StoreError> {
        if self.lost.borrow().is_some() {
            return self.lost.borrow().clone();
        }
        let detail = self.file.as_mut()?.loss().or_else(|| self.lease_table.loss())?;
        let gone = StoreError::Gone { detail };
        tracing::error!(error = %gone, "database gone; the store writes nothing more");
        self.lost.send_replace(Some(gone.clone()));
        Some(gone)
    }

    async fn commit_now(transaction: DatabaseTransaction) -> Result<(), DbErr> {
        gleitzeit_failpoint::failpoint!("store.commit.before");
        transaction.commit().await
    }

    /// Drops a connection that may be in any state, and everything that was read over it.
    pub(super) async fn reset(&mut self) {
        self.key_cache.forget_all();
        self.data_version = None;
        if let Some(file) = &mut self.file {
            // SQLite deletes `-wal` and `-shm` with the last connection: without this line the next
            // check would report their loss.
            file.forget_companions();
        }
        let Some(db) = self.db.take() else { return };
        if self.file.is_some() {
            // Waits: a connection that is still open may hold the write lock, and the next BEGIN
            // IMMEDIATE would wait for it until the busy timeout.
            close(db).await;
        } else {
            // In the background: a server that does not answer would delay the next transaction.
            tokio::spawn(close(db));
        }
    }
}

/// The attempts left for one transaction.
struct RetryBudget {
    failed: usize,
    since: Instant,
}

impl RetryBudget {
    fn new() -> Self {
        Self { failed: 0, since: Instant::now() }
    }

    /// Counts a failed attempt; returns true if it was the last.
    fn is_spent(&mut self, fault: &Fault) -> bool {
        self.failed += 1;
        let is_away = fault.cause == Cause::Connection && self.since.elapsed() > RECONNECT_LIMIT;
        self.failed == ATTEMPTS || is_away
    }
}

/// The failure of a transaction.
#[derive(Debug)]
pub(super) enum TxError {
    /// The transaction certainly did not commit.
    RolledBack(Fault),
    /// The database did not confirm the commit.
    NotCommitted(Fault),
}

impl TxError {
    pub(super) fn rolled_back(error: DbErr) -> Self {
        Self::RolledBack(error.into())
    }

    /// The answer to the caller of the transaction.
    pub(super) fn into_store_error(self) -> StoreError {
        match self {
            Self::RolledBack(fault) => fault.of_write(),
            Self::NotCommitted(fault) => fault.of_commit(),
        }
    }
}

/// The failure of a group.
#[derive(Debug)]
pub(super) struct GroupError {
    /// True if a value in the group is at fault, and not the database.
    pub(super) is_data_error: bool,
    pub(super) error: StoreError,
}
