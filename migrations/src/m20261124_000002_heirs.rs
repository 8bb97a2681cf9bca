//! The successors of ended leases, so that a takeover costs no write for each workflow. A later
//! migration renames the table to `gleitzeit_lease_transfers`.

use crate::{Database, Step, texts};

/// Ended leases and their successors.
#[derive(Debug)]
pub(crate) struct Migration;

impl Step for Migration {
    fn name(&self) -> &'static str {
        "m20261124_000002_heirs"
    }

    fn up(&self, database: Database) -> Vec<String> {
        let table = match database {
            Database::Postgres => POSTGRES,
            Database::Sqlite => SQLITE,
        };
        vec![table.to_owned()]
    }

    fn down(&self, _database: Database) -> Vec<String> {
        texts(DOWN)
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
