//! The order of ids: that of their bytes on a server, too, so that those that begin with a text are
//! one range of the index. On a file they always were.

use sea_orm_migration::{prelude::*, sea_orm::DbBackend};

/// The column `id` of workflows gets the collation `C`.
#[derive(Debug)]
pub(crate) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m20261130_000003_id_order"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        collate(manager, "C").await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        collate(manager, "default").await
    }
}

async fn collate(manager: &SchemaManager<'_>, collation: &str) -> Result<(), DbErr> {
    if manager.get_database_backend() != DbBackend::Postgres {
        return Ok(());
    }
    let alter = format!(
        "ALTER TABLE gleitzeit_workflows ALTER COLUMN id TYPE TEXT COLLATE \"{collation}\""
    );
    manager.get_connection().execute_unprepared(&alter).await.map(drop)
}
