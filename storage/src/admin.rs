//! A database under an operator's hand: what is in it, whether it is sound, and its upkeep.
//!
//! Asked by `gleitzeit db`, and by a host that has tools of its own; on any tokio runtime. Needs no
//! store and no engine, and works beside those that are open. Each call opens a connection of its
//! own and lets go of it.
//!
//! Invariant: [`status`], [`check`] and [`export`] write nothing, and make no file; what they hold in
//! memory does not grow with the number of workflows.

use gleitzeit_domain::store::StoreError;
use gleitzeit_migrations::Schema;
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DbBackend, DbErr, QueryResult, Statement, Value,
};

use super::{
    fault::Fault,
    location::Location,
    open::{Connector, Use},
};
use crate::StoreUrl;

mod activity;
mod check;
mod export;
mod import;
mod line;
mod pages;
mod status;
mod upkeep;

pub use self::{
    activity::{Activity, ProviderActivity, Settled, TaskCounts, activity},
    check::{Checked, Finding, Rule, check},
    export::{Exported, export},
    import::{ImportError, Imported, import},
    status::{Contents, Holder, SchemaStatus, Size, Span, Status, holder, status},
    upkeep::{MigrationPlan, Vacuumed, migrate, migrate_existing, plan_migration, vacuum},
};

/// The tables of the store, by their names.
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

/// A database that is there.
struct Place {
    location: Location,
    /// Without the password.
    name: String,
    db: DatabaseConnection,
}

impl Place {
    /// Opens a database; makes and migrates nothing.
    async fn open(url: &StoreUrl, to: Use) -> Result<Self, StoreError> {
        let location = Location::of(url)?;
        location.check_build()?;
        if let Location::Sqlite(path) = &location
            && !path.exists()
        {
            let path = path.display();
            let detail = format!("there is no file `{path}`; name the database with --store");
            return Err(StoreError::Open { detail });
        }
        let connector = Connector::past_any_store(location.clone());
        let db = connector.one(to).await?;
        Ok(Self { location, name: url.to_string(), db })
    }

    /// Opens one whose schema is that of this program.
    async fn open_current(url: &StoreUrl, to: Use) -> Result<Self, StoreError> {
        let place = Self::open(url, to).await?;
        let schema = gleitzeit_migrations::look(&place.db).await.map_err(of_read)?;
        match refusal(&schema) {
            None => Ok(place),
            Some(why) => {
                let detail = format!("`{}` {why}", place.name);
                place.close().await;
                Err(StoreError::Open { detail })
            }
        }
    }

    async fn close(self) {
        if let Err(error) = self.db.close().await {
            tracing::debug!(%error, "connection closed with an error");
        }
    }
}

/// Why a database of this schema cannot be read by this program.
pub(super) fn refusal(schema: &Schema) -> Option<String> {
    if let Some(newer) = schema.newer.first() {
        return Some(format!(
            "was migrated by a newer gleitzeit (its schema has `{newer}`, which this program does \
             not know); use that program"
        ));
    }
    if schema.version().is_none() {
        return Some(
            "holds no workflows of gleitzeit; `gleitzeit db migrate` makes its tables".into(),
        );
    }
    let pending = schema.pending();
    (!pending.is_empty()).then(|| {
        format!("lacks {}; `gleitzeit db migrate` brings its schema up to date", pending.join(", "))
    })
}

fn of_read(error: DbErr) -> StoreError {
    Fault::from(error).of_read()
}

fn of_write(error: DbErr) -> StoreError {
    Fault::from(error).of_write()
}

/// All rows of a statement that gives few.
async fn rows<C: ConnectionTrait>(
    db: &C,
    sql: impl Into<String>,
    values: Vec<Value>,
) -> Result<Vec<QueryResult>, DbErr> {
    let statement = Statement::from_sql_and_values(db.get_database_backend(), sql, values);
    db.query_all_raw(statement).await
}

/// The one number that a statement gives; 0 where it gives none.
async fn number<C: ConnectionTrait>(db: &C, sql: impl Into<String>) -> Result<i64, DbErr> {
    match rows(db, sql, Vec::new()).await?.first() {
        Some(row) => Ok(row.try_get_by_index::<Option<i64>>(0)?.unwrap_or(0)),
        None => Ok(0),
    }
}

/// What a database takes on disk, in bytes: the file and its log, or the tables with their indexes.
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
                let total = format!("SELECT pg_total_relation_size(to_regclass('{table}'))");
                let total = u64::try_from(number(db, total).await?).unwrap_or(0);
                size.tables.insert(table.to_owned(), total);
                size.bytes += total;
            }
        }
    }
    Ok(size)
}

/// The name and the version of the database's program.
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
