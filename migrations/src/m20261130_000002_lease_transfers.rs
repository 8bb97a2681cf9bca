//! Lease transfers: renames the table of ended leases and their successors, and its columns, to the
//! names of the program.

use sea_orm_migration::prelude::*;

/// `gleitzeit_heirs` becomes `gleitzeit_lease_transfers`.
#[derive(Debug)]
pub(crate) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m20261130_000002_lease_transfers"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for statement in UP {
            manager.get_connection().execute_unprepared(statement).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for statement in DOWN {
            manager.get_connection().execute_unprepared(statement).await?;
        }
        Ok(())
    }
}

const UP: &[&str] = &[
    "ALTER TABLE gleitzeit_heirs RENAME TO gleitzeit_lease_transfers",
    "ALTER TABLE gleitzeit_lease_transfers RENAME COLUMN epoch TO from_epoch",
    "ALTER TABLE gleitzeit_lease_transfers RENAME COLUMN heir TO to_epoch",
];

const DOWN: &[&str] = &[
    "ALTER TABLE gleitzeit_lease_transfers RENAME COLUMN to_epoch TO heir",
    "ALTER TABLE gleitzeit_lease_transfers RENAME COLUMN from_epoch TO epoch",
    "ALTER TABLE gleitzeit_lease_transfers RENAME TO gleitzeit_heirs",
];
