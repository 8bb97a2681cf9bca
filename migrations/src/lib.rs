//! The database schema of gleitzeit, as migrations that run at start.
//!
//! Asked by the root package's storage and by `gleitzeit db`; knows no entity, so that a migration
//! stays what it was when an entity changes. Tables and the list of applied migrations bear names
//! of their own (`gleitzeit_…`): they may share a database with the tables of a host service.
//!
//! Invariant: all pending migrations are applied in one transaction under a lock, so that a
//! database is never half migrated, and two processes that start together migrate it once.

use sea_orm_migration::{
    MigrationTrait, MigratorTrait,
    sea_orm::{
        ConnectionTrait as _, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, DynIden,
        SqliteTransactionMode, TransactionOptions, TransactionTrait as _,
    },
    sea_query::{Alias, IntoIden as _},
};

mod m20261123_000001_workflows;
mod m20261124_000001_leases;

/// The table of applied migrations.
const APPLIED: &str = "gleitzeit_migrations";

/// The key of the advisory lock that a PostgreSQL database is migrated under.
const LOCK: i64 = 0x676c_6569_747a_6974;

/// Knows every migration, in order.
#[derive(Debug)]
pub struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m20261123_000001_workflows::Migration),
            Box::new(m20261124_000001_leases::Migration),
        ]
    }

    fn migration_table_name() -> DynIden {
        Alias::new(APPLIED).into_iden()
    }
}

/// Why a database has not the schema of this program.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// A newer program has migrated it; nothing was touched.
    #[error(
        "the database was migrated by a newer gleitzeit (its schema has `{version}`, which this \
         program does not know); use that program, or another database"
    )]
    Newer {
        /// The first migration that this program does not know.
        version: String,
    },
    /// The database refused.
    #[error("the database could not be migrated: {0}")]
    Database(#[from] DbErr),
}

/// One migration and whether a database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Its name.
    pub name: String,
    /// True when the database has it.
    pub applied: bool,
}

/// Brings the schema up to this program's; says how many migrations that took.
///
/// # Errors
/// [`MigrateError`]; then nothing was changed.
pub async fn migrate(db: &DatabaseConnection) -> Result<usize, MigrateError> {
    let transaction = begin(db).await?;
    let pending = steps(&transaction).await?.iter().filter(|step| !step.applied).count();
    if pending > 0 {
        Migrator::up(&transaction, None).await?;
    }
    transaction.commit().await?;
    Ok(pending)
}

/// What [`migrate`] would do; changes nothing.
///
/// # Errors
/// [`MigrateError`].
pub async fn status(db: &DatabaseConnection) -> Result<Vec<Step>, MigrateError> {
    let transaction = begin(db).await?;
    let steps = steps(&transaction).await?;
    transaction.rollback().await?;
    Ok(steps)
}

/// Begins a transaction that no other migrating process can be in at the same time.
async fn begin(db: &DatabaseConnection) -> Result<DatabaseTransaction, DbErr> {
    let options = TransactionOptions {
        sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
        ..TransactionOptions::default()
    };
    let transaction = db.begin_with_options(options).await?;
    if transaction.get_database_backend() == DbBackend::Postgres {
        transaction.execute_unprepared(&format!("SELECT pg_advisory_xact_lock({LOCK})")).await?;
    }
    Ok(transaction)
}

async fn steps(transaction: &DatabaseTransaction) -> Result<Vec<Step>, MigrateError> {
    let known: Vec<String> =
        Migrator::migrations().iter().map(|migration| migration.name().to_owned()).collect();
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
