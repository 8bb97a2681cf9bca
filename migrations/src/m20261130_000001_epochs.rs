//! Epochs that no other database gives: each database counts from a number of its own.
//!
//! An epoch is the fencing token of a lease. A process whose database was replaced under it holds
//! one of the old database; where both count from 1, the new database soon gives the same number to
//! another process, and the writes of the first are taken for those of the second.

use crate::{Database, Step, texts};

/// A number of its own to count epochs from.
#[derive(Debug)]
pub(crate) struct Migration;

impl Step for Migration {
    fn name(&self) -> &'static str {
        "m20261130_000001_epochs"
    }

    fn up(&self, database: Database) -> Vec<String> {
        texts(match database {
            Database::Postgres => POSTGRES,
            Database::Sqlite => SQLITE,
        })
    }

    /// An epoch is never given twice: the count goes on from where it is.
    fn down(&self, _database: Database) -> Vec<String> {
        Vec::new()
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
