//! The status of tasks that never ran because of another one: `upstream_failed`, and no longer `skipped`,
//! which is that of tasks that a condition leaves out.

use crate::{Database, Step};

/// Tasks that are `skipped` become `upstream_failed`.
#[derive(Debug)]
pub(crate) struct Migration;

impl Step for Migration {
    fn name(&self) -> &'static str {
        "m20261201_000001_statuses"
    }

    fn up(&self, _: Database) -> Vec<String> {
        rename("skipped", "upstream_failed")
    }

    fn down(&self, _: Database) -> Vec<String> {
        rename("upstream_failed", "skipped")
    }
}

fn rename(from: &str, to: &str) -> Vec<String> {
    vec![format!("UPDATE gleitzeit_tasks SET status = '{to}' WHERE status = '{from}'")]
}
