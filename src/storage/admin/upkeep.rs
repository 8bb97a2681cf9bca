//! What makes a database ready for this program, and what keeps it small.

use gleitzeit_domain::store::StoreError;
use sea_orm::{ConnectionTrait as _, DatabaseConnection, DbBackend, DbErr};

use super::{Place, TABLES, of_write, rows, size, status::Size};
use crate::{
    settings::{Durability, StoreUrl},
    storage::{location::Location, open::Connector, open::Use},
};

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
    let connector = Connector { location, durability: Durability::Full };
    let (db, applied) = connector.migrate().await?;
    db.close().await.map_err(of_write)?;
    Ok(applied)
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
