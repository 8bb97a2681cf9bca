//! Administration of a database: status, check, export, import, migration and vacuum.
//!
//! For `gleitzeit db`, and for the tools of a host; on any tokio runtime. It needs no store and no
//! engine, and works while others are open. Each call opens a connection of its own and closes it.
//!
//! Invariant: [`status`], [`check`] and [`export`] write nothing and create no file, and their memory
//! does not grow with the number of workflows.

use gleitzeit_domain::store::StoreError;
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DbBackend, DbErr, QueryResult, Statement, Value,
};

use super::{
    StoreUrl,
    fault::Fault,
    location::Location,
    migrate,
    open::{Connector, Role},
    schema::rejection,
};

mod activity;
mod check;
mod export;
mod export_format;
mod import;
mod pages;
mod status;
mod upkeep;

pub use self::{
    activity::{Activity, ProviderActivity, Settled, TaskCounts, activity},
    check::{Checked, Finding, Rule, check},
    export::{Exported, export},
    import::{ImportError, Imported, import},
    status::{Contents, SchemaStatus, Size, Span, Status, holder, status},
    upkeep::{MigrationPlan, Vacuumed, migrate, migrate_existing, plan_migration, vacuum},
};
pub use super::leases::Holder;

/// The tables of the store.
const TABLES: [&str; 8] = [
    "gleitzeit_blobs",
    "gleitzeit_events",
    "gleitzeit_lease_transfers",
    "gleitzeit_leases",
    "gleitzeit_needs",
    "gleitzeit_requests",
    "gleitzeit_tasks",
    "gleitzeit_workflows",
];

/// A connection to an existing database.
struct OpenDatabase {
    location: Location,
    /// The URL without the password.
    name: String,
    db: DatabaseConnection,
}

impl OpenDatabase {
    /// Opens a database; creates and migrates nothing.
    async fn open(url: &StoreUrl, role: Role) -> Result<Self, StoreError> {
        let location = Location::of(url)?;
        location.check_build()?;
        // Checked here: the error of SQLite about a missing file names neither the file nor a
        // remedy.
        if let Location::Sqlite(path) = &location
            && !path.exists()
        {
            let path = path.display();
            let detail = format!("there is no file `{path}`; name the database with --store");
            return Err(StoreError::Open { detail });
        }
        let connector = Connector::without_store(location.clone());
        let db = connector.connect(role).await?;
        Ok(Self { location, name: url.to_string(), db })
    }

    /// Opens a database whose schema is that of this program.
    async fn open_current(url: &StoreUrl, role: Role) -> Result<Self, StoreError> {
        let database = Self::open(url, role).await?;
        let schema = migrate::inspect(&database.db).await.map_err(of_read)?;
        match rejection(&schema) {
            None => Ok(database),
            Some(why) => {
                let detail = format!("`{}` {why}", database.name);
                database.close().await;
                Err(StoreError::Open { detail })
            }
        }
    }

    async fn close(self) {
        if let Err(error) = self.db.close().await {
            tracing::debug!(%error, "connection close failed");
        }
    }
}

fn of_read(error: DbErr) -> StoreError {
    Fault::from(error).of_read()
}

fn of_write(error: DbErr) -> StoreError {
    Fault::from(error).of_write()
}

/// All rows of a statement that returns few.
async fn rows<C: ConnectionTrait>(
    db: &C,
    sql: impl Into<String>,
    values: Vec<Value>,
) -> Result<Vec<QueryResult>, DbErr> {
    let statement = Statement::from_sql_and_values(db.get_database_backend(), sql, values);
    db.query_all_raw(statement).await
}

/// The number that a statement returns; 0 if it returns none.
async fn number<C: ConnectionTrait>(db: &C, sql: impl Into<String>) -> Result<i64, DbErr> {
    match rows(db, sql, Vec::new()).await?.first() {
        Some(row) => Ok(row.try_get_by_index::<Option<i64>>(0)?.unwrap_or(0)),
        None => Ok(0),
    }
}

/// The bytes of a database on disk: the file and its log, or the tables with their indexes.
async fn size(db: &DatabaseConnection, location: &Location) -> Result<Size, DbErr> {
    let mut size = Size::default();
    match location {
        Location::Sqlite(path) => {
            let length = |path: &std::path::Path| path.metadata().map_or(0, |it| it.len());
            size.bytes = length(path);
            let mut log = path.as_os_str().to_owned();
            log.push("-wal");
            size.log_bytes = Some(length(std::path::Path::new(&log)));
            let unused =
                number(db, "PRAGMA freelist_count").await? * number(db, "PRAGMA page_size").await?;
            size.unused_bytes = u64::try_from(unused).ok();
        }
        Location::Postgres(_) => {
            for table in TABLES {
                // `to_regclass` returns null for a missing table: the size of an older schema is no
                // error.
                let total = format!("SELECT pg_total_relation_size(to_regclass('{table}'))");
                let total = u64::try_from(number(db, total).await?).unwrap_or(0);
                size.tables.insert(table.to_owned(), total);
                size.bytes += total;
            }
        }
    }
    Ok(size)
}

/// The name and version of the database's program.
async fn product(db: &DatabaseConnection) -> Result<String, DbErr> {
    let (name, sql) = match db.get_database_backend() {
        DbBackend::Postgres => ("PostgreSQL", "SHOW server_version"),
        _ => ("SQLite", "SELECT sqlite_version()"),
    };
    let version: String = match rows(db, sql, Vec::new()).await?.first() {
        Some(row) => row.try_get_by_index(0)?,
        None => String::new(),
    };
    Ok(format!("{name} {version}"))
}
