//! Migration and vacuum of a database.

use gleitzeit_domain::store::StoreError;
use sea_orm::{ConnectionTrait as _, DatabaseConnection, DbBackend, DbErr};

use super::{OpenDatabase, TABLES, of_read, of_write, rejection, rows, size, status::Size};
use crate::{StoreUrl, location::Location, open::Connector, open::Role};

/// The size of a database before and after a vacuum.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Vacuumed {
    /// The size before.
    pub before: Size,
    /// The size after.
    pub after: Size,
}

/// Migrates a database, and creates a SQLite file that does not exist; returns the applied
/// migrations, in order. Two calls at once wait for each other.
///
/// # Errors
/// [`StoreError::Open`] if a newer program has migrated it, [`StoreError::Unavailable`]; then
/// nothing has changed.
pub async fn migrate(url: &StoreUrl) -> Result<Vec<String>, StoreError> {
    let location = Location::of(url)?;
    location.check_build()?;
    let connector = Connector::without_store(location);
    let (db, applied) = connector.migrate().await?;
    db.close().await.map_err(of_write)?;
    Ok(applied)
}

/// The effects of a [`migrate`].
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct MigrationPlan {
    /// The migrations that it would apply, in order.
    pub pending: Vec<String>,
    /// True if it would create the SQLite file.
    pub makes_file: bool,
}

/// Returns the effects that [`migrate`] would have; changes nothing.
///
/// # Errors
/// [`StoreError::Open`] if a newer program has migrated it, [`StoreError::Unavailable`].
pub async fn plan_migration(url: &StoreUrl) -> Result<MigrationPlan, StoreError> {
    let location = Location::of(url)?;
    location.check_build()?;
    if let Location::Sqlite(path) = &location
        && !path.exists()
    {
        let pending = crate::migrate::names();
        return Ok(MigrationPlan { pending, makes_file: true });
    }
    let database = OpenDatabase::open(url, Role::Inspect).await?;
    let schema = crate::migrate::inspect(&database.db).await.map_err(of_read);
    let name = database.name.clone();
    database.close().await;
    let schema = schema?;
    match rejection(&schema) {
        Some(why) if !schema.newer.is_empty() => {
            Err(StoreError::Open { detail: format!("`{name}` {why}") })
        }
        _ => {
            let pending = schema.pending().into_iter().map(str::to_owned).collect();
            Ok(MigrationPlan { pending, makes_file: false })
        }
    }
}

/// Migrates a database that has a schema; creates none. Returns the applied migrations.
///
/// # Errors
/// As [`migrate`].
pub async fn migrate_existing(url: &StoreUrl) -> Result<Vec<String>, StoreError> {
    let plan = plan_migration(url).await?;
    // Nothing applied means no tables of gleitzeit: this call must not create them in the database
    // of a host.
    let is_new = plan.pending.len() == crate::migrate::names().len();
    if is_new || plan.pending.is_empty() {
        return Ok(Vec::new());
    }
    migrate(url).await
}

/// Reclaims unused space. On SQLite it rewrites the file, which takes up to its size in free disk
/// space and blocks other writers, and then truncates the log. On PostgreSQL it frees the space of
/// dead rows for reuse, and updates the planner's statistics, while others work on.
///
/// # Errors
/// [`StoreError::Open`] if there is no such database, [`StoreError::Unavailable`] if another process
/// kept it locked, [`StoreError::Write`] if the disk is full.
pub async fn vacuum(url: &StoreUrl) -> Result<Vacuumed, StoreError> {
    let database = OpenDatabase::open_current(url, Role::Maintain).await?;
    let vacuumed = async {
        let before = size(&database.db, &database.location).await?;
        run(&database.db).await?;
        Ok(Vacuumed { before, after: size(&database.db, &database.location).await? })
    };
    let vacuumed = vacuumed.await.map_err(|error| match of_write(error) {
        StoreError::Unavailable { detail } => StoreError::Unavailable {
            detail: format!(
                "`{}`: {detail}; another process writes to it: try again",
                database.name
            ),
        },
        other => other,
    });
    database.close().await;
    vacuumed
}

async fn run(db: &DatabaseConnection) -> Result<(), DbErr> {
    if db.get_database_backend() == DbBackend::Postgres {
        // Table by table: a VACUUM without a name would process the tables of the host, too.
        for table in TABLES {
            db.execute_unprepared(&format!("VACUUM (ANALYZE) {table}")).await?;
        }
        return Ok(());
    }
    db.execute_unprepared("VACUUM").await?;
    // VACUUM writes the whole file into the log: without the checkpoint the database would take
    // twice its size.
    let emptied = rows(db, "PRAGMA wal_checkpoint(TRUNCATE)", Vec::new()).await?;
    if let Some(row) = emptied.first()
        && row.try_get_by_index::<i32>(0)? != 0
    {
        tracing::warn!(
            "log not truncated: another process is reading; the next checkpoint after it does so"
        );
    }
    Ok(())
}
