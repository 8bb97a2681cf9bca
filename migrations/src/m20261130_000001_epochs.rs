//! Epochs that no other database gives: each database counts from a number of its own.
//!
//! An epoch is the fencing token of a lease. A process whose database was made anew under it holds
//! one of the old database; where both count from 1, the new database soon gives the same number to
//! another process, and the writes of the first are taken for those of the second.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::DbBackend;

/// A number of its own to count epochs from.
#[derive(Debug)]
pub(crate) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m20261130_000001_epochs"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let db = manager.get_connection();
        let statements = match db.get_database_backend() {
            DbBackend::Postgres => POSTGRES,
            DbBackend::Sqlite => SQLITE,
            other => {
                return Err(DbErr::Migration(format!("{other:?} is not supported")));
            }
        };
        for statement in statements {
            db.execute_unprepared(statement).await?;
        }
        Ok(())
    }

    /// An epoch is never given twice: the count goes on from where it is.
    async fn down(&self, _manager: &SchemaManager) -> Result<(), DbErr> {
        Ok(())
    }
}

/// One of 2^32 numbers, and room for 2^20 leases until the next one; below 2^53, for JSON. Greater
/// than any epoch that was given before.
const SQLITE: &[&str] = &[
    "INSERT INTO sqlite_sequence (name, seq) SELECT 'gleitzeit_leases', 0
        WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'gleitzeit_leases')",
    "UPDATE sqlite_sequence SET seq = MAX(seq, (1 + (random() & 4294967295)) * 1048576)
        WHERE name = 'gleitzeit_leases'",
];

const POSTGRES: &[&str] = &["SELECT setval(sequence, GREATEST(nextval(sequence),
        (1 + FLOOR(random() * 4294967296))::BIGINT * 1048576))
        FROM (SELECT pg_get_serial_sequence('gleitzeit_leases', 'epoch')::REGCLASS AS sequence) AS it"];
