//! Needs: what a process must know to run a workflow, and which dead lease left it behind.
//!
//! Each distinct set of methods is one row; a workflow names it by its hash, 0 being a set that
//! nobody wrote down. So a claim that every method of is known to costs what it did before.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::DbBackend;

/// Sets of methods.
#[derive(Debug)]
pub(crate) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m20261129_000001_needs"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let db = manager.get_connection();
        let (table, integer) = match db.get_database_backend() {
            DbBackend::Postgres => (POSTGRES, "BIGINT"),
            DbBackend::Sqlite => (SQLITE, "INTEGER"),
            other => {
                return Err(DbErr::Migration(format!("{other:?} is not supported")));
            }
        };
        db.execute_unprepared(table).await?;
        for column in ["needs", "left_by"] {
            let add = format!(
                "ALTER TABLE gleitzeit_workflows ADD COLUMN {column} {integer} NOT NULL DEFAULT 0"
            );
            db.execute_unprepared(&add).await?;
        }
        db.execute_unprepared(INDEX).await?;
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for statement in DOWN {
            manager.get_connection().execute_unprepared(statement).await?;
        }
        Ok(())
    }
}

const SQLITE: &str = "CREATE TABLE gleitzeit_needs (
        hash INTEGER NOT NULL PRIMARY KEY,
        body TEXT NOT NULL
    ) STRICT";

const POSTGRES: &str = "CREATE TABLE gleitzeit_needs (
        hash BIGINT NOT NULL PRIMARY KEY,
        body TEXT NOT NULL
    )";

/// For a process that does not know all that is free: what it does know is found without a look at
/// the rest. Like the index over what is free, it holds nothing that is owned.
const INDEX: &str = "CREATE INDEX gleitzeit_workflows_free_by_needs
        ON gleitzeit_workflows (needs, key)
        WHERE lease_epoch = 0 AND status IN ('pending', 'running')";

const DOWN: &[&str] = &[
    "DROP INDEX gleitzeit_workflows_free_by_needs",
    "ALTER TABLE gleitzeit_workflows DROP COLUMN left_by",
    "ALTER TABLE gleitzeit_workflows DROP COLUMN needs",
    "DROP TABLE gleitzeit_needs",
];
