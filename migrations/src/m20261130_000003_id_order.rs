//! The order of ids: that of their bytes on a server, too, so that those that begin with a text are
//! one range of the index. On a file they always were.

use crate::{Database, Step};

/// The column `id` of workflows gets the collation `C`.
#[derive(Debug)]
pub(crate) struct Migration;

impl Step for Migration {
    fn name(&self) -> &'static str {
        "m20261130_000003_id_order"
    }

    fn up(&self, database: Database) -> Vec<String> {
        collate(database, "C")
    }

    fn down(&self, database: Database) -> Vec<String> {
        collate(database, "default")
    }
}

fn collate(database: Database, collation: &str) -> Vec<String> {
    match database {
        Database::Sqlite => Vec::new(),
        Database::Postgres => vec![format!(
            "ALTER TABLE gleitzeit_workflows ALTER COLUMN id TYPE TEXT COLLATE \"{collation}\""
        )],
    }
}
