//! The successors of ended leases, so that a takeover costs no write for each workflow. A later
//! migration renames the table to `gleitzeit_lease_transfers`.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::DbBackend;

/// Ended leases and their successors.
#[derive(Debug)]
pub(crate) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m20261124_000002_heirs"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let db = manager.get_connection();
        let table = match db.get_database_backend() {
            DbBackend::Postgres => POSTGRES,
            DbBackend::Sqlite => SQLITE,
            other => {
                return Err(DbErr::Migration(format!("{other:?} is not supported")));
            }
        };
        db.execute_unprepared(table).await?;
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for statement in DOWN {
            manager.get_connection().execute_unprepared(statement).await?;
        }
        Ok(())
    }
}

const SQLITE: &str = "CREATE TABLE gleitzeit_heirs (
        epoch INTEGER NOT NULL PRIMARY KEY,
        heir INTEGER NOT NULL
    ) STRICT";

const POSTGRES: &str = "CREATE TABLE gleitzeit_heirs (
        epoch BIGINT NOT NULL PRIMARY KEY,
        heir BIGINT NOT NULL
    )";

/// Frees the inherited workflows: the first schema of leases has no successors.
const DOWN: &[&str] = &[
    "UPDATE gleitzeit_workflows SET lease_epoch = 0
        WHERE lease_epoch IN (SELECT epoch FROM gleitzeit_heirs)",
    "DROP TABLE gleitzeit_heirs",
];
