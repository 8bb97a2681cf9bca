//! The options of a database: durability, size limit, migration and statement timeout.

use std::time::Duration;

use crate::Durability;

/// The options of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SqlOptions {
    /// The failures that a commit survives.
    pub durability: Durability,
    /// Upper limit of the bytes in use; above it the oldest settled workflows are deleted. `None`
    /// sets no limit.
    pub max_bytes: Option<u64>,
    /// True creates the database and migrates its schema if needed; false rejects a database whose
    /// schema is not current.
    pub auto_migrate: bool,
    /// Limit on the answer of a server to one statement. The store replaces the connection when it
    /// expires. SQLite ignores it.
    pub statement_timeout: Duration,
}

impl Default for SqlOptions {
    fn default() -> Self {
        Self {
            durability: Durability::default(),
            max_bytes: None,
            auto_migrate: true,
            statement_timeout: Duration::from_secs(10),
        }
    }
}
