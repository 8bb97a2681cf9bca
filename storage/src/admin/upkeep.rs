//! What makes a database ready for this program, and what keeps it small.

use gleitzeit_domain::store::StoreError;
use sea_orm::{ConnectionTrait as _, DatabaseConnection, DbBackend, DbErr};

use super::{Place, TABLES, of_read, of_write, refusal, rows, size, status::Size};
use crate::{StoreUrl, location::Location, open::Connector, open::Use};

/// What a database took on disk.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Vacuumed {
    /// Before.
    pub before: Size,
    /// After.
    pub after: Size,
}

/// Brings the schema up to date; the migrations that were applied, in order. A SQLite file that is
/// not there is made. Two at once apply each once: they wait for each other.
///
/// # Errors
/// [`StoreError::Open`] where a newer program has migrated it, [`StoreError::Unavailable`]; then
/// nothing has changed.
pub async fn migrate(url: &StoreUrl) -> Result<Vec<String>, StoreError> {
    let location = Location::of(url)?;
    location.check_build()?;
    let connector = Connector::past_any_store(location);
    let (db, applied) = connector.migrate().await?;
    db.close().await.map_err(of_write)?;
    Ok(applied)
}

/// What [`migrate`] would do.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct MigrationPlan {
    /// The migrations that it would apply, in order.
    pub pending: Vec<String>,
    /// True when it would make the SQLite file.
    pub makes_file: bool,
}

/// Says what [`migrate`] would do; changes nothing.
///
/// # Errors
/// [`StoreError::Open`] where a newer program has migrated it, [`StoreError::Unavailable`].
pub async fn plan_migration(url: &StoreUrl) -> Result<MigrationPlan, StoreError> {
    let location = Location::of(url)?;
    location.check_build()?;
    if let Location::Sqlite(path) = &location
        && !path.exists()
    {
        let pending = gleitzeit_migrations::names();
        return Ok(MigrationPlan { pending, makes_file: true });
    }
    let place = Place::open(url, Use::Inspect).await?;
    let schema = gleitzeit_migrations::look(&place.db).await.map_err(of_read);
    let name = place.name.clone();
    place.close().await;
    let schema = schema?;
    match refusal(&schema) {
        Some(why) if !schema.newer.is_empty() => {
            Err(StoreError::Open { detail: format!("`{name}` {why}") })
        }
        _ => {
            let pending = schema.pending().into_iter().map(str::to_owned).collect();
            Ok(MigrationPlan { pending, makes_file: false })
        }
    }
}

/// Brings the schema of a database up to date that has one; makes none. The migrations that were
/// applied.
///
/// # Errors
/// As [`migrate`].
pub async fn migrate_existing(url: &StoreUrl) -> Result<Vec<String>, StoreError> {
    let plan = plan_migration(url).await?;
    let is_new = plan.pending.len() == gleitzeit_migrations::names().len();
    if is_new || plan.pending.is_empty() {
        return Ok(Vec::new());
    }
    migrate(url).await
}

/// Gives back what holds nothing. On SQLite the file is written anew, which takes up to its size in
/// free space beside it, and keeps others from writing meanwhile; then its log is emptied. On
/// PostgreSQL the space of dead rows may be used again, and the planner's figures are made anew;
/// others work on.
///
/// # Errors
/// [`StoreError::Open`] where there is no such database, [`StoreError::Unavailable`] where another
/// process kept it locked, [`StoreError::Write`] where the disk is full.
pub async fn vacuum(url: &StoreUrl) -> Result<Vacuumed, StoreError> {
    let place = Place::open_current(url, Use::Maintain).await?;
    let vacuumed = async {
        let before = size(&place.db, &place.location).await?;
        run(&place.db).await?;
        Ok(Vacuumed { before, after: size(&place.db, &place.location).await? })
    };
    let vacuumed = vacuumed.await.map_err(|error| match of_write(error) {
        StoreError::Unavailable { detail } => StoreError::Unavailable {
            detail: format!("`{}`: {detail}; another process writes to it: try again", place.name),
        },
        other => other,
    });
    place.close().await;
    vacuumed
}

async fn run(db: &DatabaseConnection) -> Result<(), DbErr> {
    if db.get_database_backend() == DbBackend::Postgres {
        for table in TABLES {
            db.execute_unprepared(&format!("VACUUM (ANALYZE) {table}")).await?;
        }
        return Ok(());
    }
    db.execute_unprepared("VACUUM").await?;
    let emptied = rows(db, "PRAGMA wal_checkpoint(TRUNCATE)", Vec::new()).await?;
    if let Some(row) = emptied.first()
        && row.try_get_by_index::<i32>(0)? != 0
    {
        tracing::warn!(
            "the log could not be emptied: another process reads; it is when it is done"
        );
    }
    Ok(())
}
