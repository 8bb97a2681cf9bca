//! The database schema of gleitzeit, as steps of SQL for SQLite and PostgreSQL.
//!
//! The storage applies the steps at a start. This package has no dependency, so that a step does not
//! change with a library or an entity. Tables and the list of applied steps have names of their own
//! (`gleitzeit_…`): they may share a database with the tables of a host service.

mod m20261123_000001_workflows;
mod m20261124_000001_leases;
mod m20261124_000002_heirs;
mod m20261129_000001_needs;
mod m20261130_000001_epochs;
mod m20261130_000002_lease_transfers;
mod m20261130_000003_id_order;
mod m20261201_000001_statuses;

/// The table of applied steps.
pub const APPLIED: &str = "gleitzeit_migrations";

/// The key of the advisory lock that a PostgreSQL database is migrated under.
pub const LOCK: i64 = 0x676c_6569_747a_6974;

/// A kind of database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Database {
    /// One file.
    Sqlite,
    /// A server.
    Postgres,
}

impl Database {
    /// The type of a whole number of 64 bits.
    fn integer(self) -> &'static str {
        match self {
            Self::Sqlite => "INTEGER",
            Self::Postgres => "BIGINT",
        }
    }
}

/// One step of the schema.
pub trait Step: Send + Sync {
    /// The name of the step in the list; steps are applied in the order of their names.
    fn name(&self) -> &'static str;

    /// The statements that apply this step to the schema of the step before, in order.
    fn up(&self, database: Database) -> Vec<String>;

    /// The statements that revert this step, in order.
    fn down(&self, database: Database) -> Vec<String>;
}

/// Every step, in order.
pub fn steps() -> Vec<Box<dyn Step>> {
    vec![
        Box::new(m20261123_000001_workflows::Migration),
        Box::new(m20261124_000001_leases::Migration),
        Box::new(m20261124_000002_heirs::Migration),
        Box::new(m20261129_000001_needs::Migration),
        Box::new(m20261130_000001_epochs::Migration),
        Box::new(m20261130_000002_lease_transfers::Migration),
        Box::new(m20261130_000003_id_order::Migration),
        Box::new(m20261201_000001_statuses::Migration),
    ]
}

/// The statement that makes the list of applied steps, in the form of every earlier version.
pub fn create_list(database: Database) -> String {
    let integer = match database {
        Database::Sqlite => "integer",
        Database::Postgres => "bigint",
    };
    format!(
        "CREATE TABLE IF NOT EXISTS \"{APPLIED}\" \
         ( \"version\" varchar NOT NULL PRIMARY KEY, \"applied_at\" {integer} NOT NULL )"
    )
}

fn texts<'a>(statements: impl IntoIterator<Item = &'a &'static str>) -> Vec<String> {
    statements.into_iter().map(|&statement| statement.to_owned()).collect()
}
