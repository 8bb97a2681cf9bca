//! Lease transfers: renames the table of ended leases and their successors, and its columns, to the
//! names of the program.

use crate::{Database, Step, texts};

/// `gleitzeit_heirs` becomes `gleitzeit_lease_transfers`.
#[derive(Debug)]
pub(crate) struct Migration;

impl Step for Migration {
    fn name(&self) -> &'static str {
        "m20261130_000002_lease_transfers"
    }

    fn up(&self, _database: Database) -> Vec<String> {
        texts(UP)
    }

    fn down(&self, _database: Database) -> Vec<String> {
        texts(DOWN)
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
