//! The database schema of gleitzeit, as migrations that run at start.
//!
//! The storage and `gleitzeit db` run them. They use no entity, so that a migration does not change
//! with an entity. Tables and the list of applied migrations have names of their own
//! (`gleitzeit_…`): they may share a database with the tables of a host service.
//!
//! Invariant: all pending migrations are applied in one transaction under a lock. A database is never
//! partly migrated, and two processes that start together migrate it once.

use std::time::SystemTime;

use sea_orm_migration::{
    MigrationTrait, MigratorTrait,
    sea_orm::{
        ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, DynIden,
        SqliteTransactionMode, Statement, TransactionOptions, TransactionTrait as _,
        prelude::ChronoDateTimeUtc,
    },
    sea_query::{Alias, IntoIden as _},
};

mod m20261123_000001_workflows;
mod m20261124_000001_leases;
mod m20261124_000002_heirs;
mod m20261129_000001_needs;
mod m20261130_000001_epochs;
mod m20261130_000002_lease_transfers;
mod m20261130_000003_id_order;

/// The table of applied migrations.
const APPLIED: &str = "gleitzeit_migrations";

/// The key of the advisory lock of a migration on PostgreSQL.
const LOCK: i64 = 0x676c_6569_747a_6974;

/// All migrations, in order.
#[derive(Debug)]
pub struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m20261123_000001_workflows::Migration),
            Box::new(m20261124_000001_leases::Migration),
            Box::new(m20261124_000002_heirs::Migration),
            Box::new(m20261129_000001_needs::Migration),
            Box::new(m20261130_000001_epochs::Migration),
            Box::new(m20261130_000002_lease_transfers::Migration),
            Box::new(m20261130_000003_id_order::Migration),
        ]
    }

    fn migration_table_name() -> DynIden {
        Alias::new(APPLIED).into_iden()
    }
}

/// The failure of a migration.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
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
        now: ChronoDateTimeUtc,
    },
    /// The database failed.
    #[error("the database could not be migrated: {0}")]
    Database(#[from] DbErr),
}

/// One migration, and whether a database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The name of the migration.
    pub name: String,
    /// True if the database has it.
    pub applied: bool,
}

/// The schema of a database, by its list of applied migrations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema {
    /// The migrations of this program, in order.
    pub steps: Vec<Step>,
    /// The applied migrations of a newer program.
    pub newer: Vec<String>,
}

impl Schema {
    /// The last migration that the database has; `None` for an empty one.
    pub fn version(&self) -> Option<&str> {
        let known = self.steps.iter().filter(|step| step.applied).map(|step| &step.name);
        self.newer.iter().chain(known).max().map(String::as_str)
    }

    /// The migrations that a start would apply, in order.
    pub fn pending(&self) -> Vec<&str> {
        let pending = self.steps.iter().filter(|step| !step.applied);
        pending.map(|step| step.name.as_str()).collect()
    }

    /// True if it is the schema of this program.
    pub fn is_current(&self) -> bool {
        self.newer.is_empty() && self.steps.iter().all(|step| step.applied)
    }
}

/// The names of the migrations of this program, in order.
pub fn names() -> Vec<String> {
    Migrator::migrations().iter().map(|migration| migration.name().to_owned()).collect()
}

/// Migrates the schema to that of this program; returns the applied migrations, in order.
///
/// # Errors
/// [`MigrateError`]; then nothing was changed.
pub async fn migrate(db: &DatabaseConnection) -> Result<Vec<String>, MigrateError> {
    let transaction = begin(db).await?;
    let steps = steps(&transaction).await?;
    let pending: Vec<String> =
        steps.into_iter().filter(|step| !step.applied).map(|step| step.name).collect();
    if !pending.is_empty() {
        check_clock()?;
        Migrator::up(&transaction, None).await?;
    }
    transaction.commit().await?;
    Ok(pending)
}

/// `Migrator::up` panics if the clock is before 1970.
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
pub async fn inspect<C: ConnectionTrait>(db: &C) -> Result<Schema, DbErr> {
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

/// The steps of a [`migrate`]; changes nothing.
///
/// # Errors
/// [`MigrateError`].
pub async fn status(db: &DatabaseConnection) -> Result<Vec<Step>, MigrateError> {
    let transaction = begin(db).await?;
    let steps = steps(&transaction).await?;
    transaction.rollback().await?;
    Ok(steps)
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
    let applied: Vec<String> = Migrator::get_migration_models(transaction)
        .await?
        .into_iter()
        .map(|model| model.version)
        .collect();
    match applied.iter().find(|version| !known.contains(version)) {
        Some(version) => Err(MigrateError::Newer { version: version.clone() }),
        None => Ok(known
            .into_iter()
            .map(|name| Step { applied: applied.contains(&name), name })
            .collect()),
    }
}
