//! Migrates the schema of a database, and reports the schema that a database has.
//!
//! The opening of a store and `gleitzeit db` call it; `gleitzeit-migrations` has the steps.
//!
//! Invariant: all pending migrations are applied in one transaction under a lock, so that a
//! database is never partly migrated, and two processes that start together migrate it once.

use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};
use gleitzeit_migrations::{APPLIED, Database, LOCK};
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr,
    SqliteTransactionMode, Statement, TransactionOptions, TransactionTrait as _,
};

#[cfg(test)]
mod tests;

/// The failure of a migration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MigrateError {
    /// A newer program has migrated the database; nothing was changed.
    #[error(
        "the database was migrated by a newer gleitzeit (its schema has `{version}`, which this \
         program does not know); use that program, or another database"
    )]
    Newer {
        /// The first migration that this program does not know.
        version: String,
    },
    /// The clock is before 1970, and the list of migrations holds later times only; nothing was changed.
    #[error(
        "the database cannot be migrated: the clock of this machine says {now}, and the list of \
         migrations holds no time before 1970; set the clock"
    )]
    Clock {
        /// The time of the machine's clock.
        now: DateTime<Utc>,
    },
    /// The database failed.
    #[error("the database could not be migrated: {0}")]
    Database(#[from] DbErr),
}

/// One migration, and whether a database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    /// The name of the migration.
    pub(crate) name: String,
    /// True if the database has it.
    pub(crate) applied: bool,
}

/// The schema of a database, by its list of applied migrations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Schema {
    /// The migrations of this program, in order.
    pub(crate) steps: Vec<Step>,
    /// The applied migrations of a newer program.
    pub(crate) newer: Vec<String>,
}

impl Schema {
    /// The last migration that the database has; `None` for an empty one.
    pub(crate) fn version(&self) -> Option<&str> {
        let known = self.steps.iter().filter(|step| step.applied).map(|step| &step.name);
        self.newer.iter().chain(known).max().map(String::as_str)
    }

    /// The migrations that a start would apply, in order.
    pub(crate) fn pending(&self) -> Vec<&str> {
        let pending = self.steps.iter().filter(|step| !step.applied);
        pending.map(|step| step.name.as_str()).collect()
    }

    /// True if it is the schema of this program.
    pub(crate) fn is_current(&self) -> bool {
        self.newer.is_empty() && self.steps.iter().all(|step| step.applied)
    }
}

/// The names of the migrations of this program, in order.
pub(crate) fn names() -> Vec<String> {
    gleitzeit_migrations::steps().iter().map(|step| step.name().to_owned()).collect()
}

/// Migrates the schema to that of this program; returns the applied migrations, in order.
///
/// # Errors
/// [`MigrateError`]; then nothing was changed.
pub(crate) async fn migrate(db: &DatabaseConnection) -> Result<Vec<String>, MigrateError> {
    let transaction = begin(db).await?;
    let steps = steps(&transaction).await?;
    let pending: Vec<String> =
        steps.into_iter().filter(|step| !step.applied).map(|step| step.name).collect();
    if !pending.is_empty() {
        check_clock()?;
        up(&transaction, None).await?;
    }
    transaction.commit().await?;
    Ok(pending)
}

/// The list of migrations holds seconds since 1970.
fn check_clock() -> Result<(), MigrateError> {
    let now = SystemTime::now();
    if now < SystemTime::UNIX_EPOCH {
        return Err(MigrateError::Clock { now: now.into() });
    }
    Ok(())
}

/// Reads the schema of a database, which may be newer than this program's. Writes nothing and takes
/// no lock; the connection may be read-only.
///
/// # Errors
/// The error of the database.
pub(crate) async fn inspect<C: ConnectionTrait>(db: &C) -> Result<Schema, DbErr> {
    let backend = db.get_database_backend();
    let exists = match backend {
        DbBackend::Postgres => format!("SELECT 1 WHERE to_regclass('{APPLIED}') IS NOT NULL"),
        _ => format!("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = '{APPLIED}'"),
    };
    let mut applied: Vec<String> = Vec::new();
    if db.query_one_raw(Statement::from_string(backend, exists)).await?.is_some() {
        let select = format!("SELECT version FROM {APPLIED} ORDER BY version");
        for row in db.query_all_raw(Statement::from_string(backend, select)).await? {
            applied.push(row.try_get_by_index(0)?);
        }
    }
    let known = names();
    let newer = applied.iter().filter(|version| !known.contains(version)).cloned().collect();
    let steps = known.into_iter().map(|name| Step { applied: applied.contains(&name), name });
    Ok(Schema { steps: steps.collect(), newer })
}

/// Begins a transaction that excludes other migrating processes.
async fn begin(db: &DatabaseConnection) -> Result<DatabaseTransaction, DbErr> {
    let options = TransactionOptions {
        // The write lock of SQLite from the start: a second process waits here, and then reads the
        // migrations that the first one applied.
        sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
        ..TransactionOptions::default()
    };
    let transaction = db.begin_with_options(options).await?;
    if transaction.get_database_backend() == DbBackend::Postgres {
        // Without a limit: a step over a large table, or the wait for another process with the same
        // step, may exceed the statement timeout of the connection.
        transaction.execute_unprepared("SET LOCAL statement_timeout = 0").await?;
        transaction.execute_unprepared(&format!("SELECT pg_advisory_xact_lock({LOCK})")).await?;
    }
    Ok(transaction)
}

async fn steps(transaction: &DatabaseTransaction) -> Result<Vec<Step>, MigrateError> {
    let known = names();
    let applied = applied(transaction).await?;
    match applied.iter().find(|version| !known.contains(version)) {
        Some(version) => Err(MigrateError::Newer { version: version.clone() }),
        None => Ok(known
            .into_iter()
            .map(|name| Step { applied: applied.contains(&name), name })
            .collect()),
    }
}

/// The names of the steps that a database has, in order; makes the list if there is none.
async fn applied(db: &DatabaseTransaction) -> Result<Vec<String>, DbErr> {
    let backend = db.get_database_backend();
    db.execute_unprepared(&gleitzeit_migrations::create_list(database(db)?)).await?;
    let select = format!("SELECT version FROM {APPLIED} ORDER BY version");
    let rows = db.query_all_raw(Statement::from_string(backend, select)).await?;
    rows.iter().map(|row| row.try_get_by_index(0)).collect()
}

/// Applies the first `count` pending steps; all of them without a count.
async fn up(db: &DatabaseTransaction, count: Option<usize>) -> Result<(), DbErr> {
    let applied = applied(db).await?;
    let database = database(db)?;
    let steps = gleitzeit_migrations::steps();
    let pending = steps.iter().filter(|step| !applied.iter().any(|name| name == step.name()));
    for step in pending.take(count.unwrap_or(usize::MAX)) {
        for statement in step.up(database) {
            db.execute_unprepared(&statement).await?;
        }
        tracing::info!(migration = step.name(), "migration applied");
        // A clock before 1970 is refused before the first step.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let insert = format!(
            "INSERT INTO {APPLIED} (version, applied_at) VALUES ('{}', {})",
            step.name(),
            now.unwrap_or(Duration::ZERO).as_secs()
        );
        db.execute_unprepared(&insert).await?;
    }
    Ok(())
}

/// Reverts the last `count` steps that the database has; all of them without a count.
#[cfg(test)]
async fn down(db: &DatabaseTransaction, count: Option<usize>) -> Result<(), DbErr> {
    let applied = applied(db).await?;
    let database = database(db)?;
    let steps = gleitzeit_migrations::steps();
    let present = steps.iter().rev().filter(|step| applied.iter().any(|name| name == step.name()));
    for step in present.take(count.unwrap_or(usize::MAX)) {
        for statement in step.down(database) {
            db.execute_unprepared(&statement).await?;
        }
        let delete = format!("DELETE FROM {APPLIED} WHERE version = '{}'", step.name());
        db.execute_unprepared(&delete).await?;
    }
    Ok(())
}

/// The kind of the database, which decides the SQL of a step.
fn database(db: &DatabaseTransaction) -> Result<Database, DbErr> {
    match db.get_database_backend() {
        DbBackend::Postgres => Ok(Database::Postgres),
        DbBackend::Sqlite => Ok(Database::Sqlite),
        other => Err(DbErr::Migration(format!("{other:?} is not supported"))),
    }
}
