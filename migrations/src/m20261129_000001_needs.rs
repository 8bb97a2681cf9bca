//! Needs: what a process must know to run a workflow, and which dead lease left it behind.
//!
//! Each distinct set of methods is one row; a workflow names it by its hash, 0 being a set that
//! nobody wrote down. So a claim that every method of is known to costs what it did before.

use crate::{Database, Step, texts};

/// Sets of methods.
#[derive(Debug)]
pub(crate) struct Migration;

impl Step for Migration {
    fn name(&self) -> &'static str {
        "m20261129_000001_needs"
    }

    fn up(&self, database: Database) -> Vec<String> {
        let table = match database {
            Database::Postgres => POSTGRES,
            Database::Sqlite => SQLITE,
        };
        let integer = database.integer();
        let add = |column| {
            format!(
                "ALTER TABLE gleitzeit_workflows ADD COLUMN {column} {integer} NOT NULL DEFAULT 0"
            )
        };
        vec![table.to_owned(), add("needs"), add("left_by"), INDEX.to_owned()]
    }

    fn down(&self, _database: Database) -> Vec<String> {
        texts(DOWN)
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
