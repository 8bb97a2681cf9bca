//! Opens databases: the connection that writes, those that read, and the schema.
//!
//! Invariant: of all connections of a store, one writes; those that read cannot.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use futures_util::future::try_join;
use gleitzeit_domain::store::StoreError;
use gleitzeit_migrations::MigrateError;
use sea_orm::{ConnectOptions, Database, DatabaseConnection, DbErr, RuntimeErr, sqlx};

use super::{fault::Fault, location::Location};
use crate::settings::Durability;

/// Connections that read.
const READERS: u32 = 4;

/// How long a reader waits for one of the connections.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a connection to a server may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The same for the connection that writes when it was lost: intake waits for it, and is to be told
/// soon. What is kept is tried again.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a server waits for the next statement of a transaction. A process that stands still
/// within one holds its locks no longer than that: others wait for them to take over its work.
#[cfg(feature = "postgres")]
const STANDSTILL: &str = "3s";

/// Each statement has an index to go by, in its order. A table that has just grown has no statistics
/// yet, and the planner would walk through all of it, or sort all that is free, for each page; what
/// it then takes for expensive is not worth compiling either.
#[cfg(feature = "postgres")]
const PLANS: [(&str, &str); 3] =
    [("enable_seqscan", "off"), ("enable_bitmapscan", "off"), ("jit", "off")];

/// Before a file that others are making is opened again.
const LOCKED_PAUSE: Duration = Duration::from_millis(10);

/// Statements that a connection keeps prepared: more than the writer has shapes.
const PREPARED: usize = 512;

/// Opens connections to one database.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    pub(super) location: Location,
    pub(super) durability: Durability,
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// By the store's writer.
    Write,
    /// By those who ask the store.
    Read,
    /// By someone who looks through all of it, once; cannot write.
    Inspect,
    /// By upkeep.
    Maintain,
}

impl Connector {
    /// Opens the connection that writes, makes what is missing, and brings the schema up to date.
    pub(super) async fn open(&self) -> Result<DatabaseConnection, StoreError> {
        self.migrate().await.map(|(db, _)| db)
    }

    /// Opens the connection that writes as [`open`](Self::open) does, and those that read.
    pub(super) async fn open_all(
        &self,
    ) -> Result<(DatabaseConnection, DatabaseConnection), StoreError> {
        match self.location {
            // Without the file there is nothing to read.
            Location::Sqlite(_) => Ok((self.open().await?, self.readers().await?)),
            // Secure connections to a server take longer to come about than all that follows.
            Location::Postgres(_) => try_join(self.open(), self.readers()).await,
        }
    }

    /// The connection that writes, with the migrations that it took.
    pub(super) async fn migrate(&self) -> Result<(DatabaseConnection, Vec<String>), StoreError> {
        if let Location::Sqlite(path) = &self.location {
            make_folder(path)?;
        }
        gleitzeit_actors::failpoint!("store.open.before");
        let db = self.first_writer().await.map_err(|error| self.cannot_open(error))?;
        gleitzeit_actors::failpoint!("store.open.connected");
        let applied = match gleitzeit_migrations::migrate(&db).await {
            Ok(applied) => applied,
            Err(error @ MigrateError::Newer { .. }) => {
                return Err(StoreError::Open { detail: error.to_string() });
            }
            Err(MigrateError::Database(error)) => return Err(self.cannot_open(error)),
        };
        if !applied.is_empty() {
            tracing::info!(?applied, "database schema brought up to date");
        }
        gleitzeit_actors::failpoint!("store.open.migrated");
        Ok((db, applied))
    }

    /// One connection for a person's questions, or for upkeep; nothing is made or migrated.
    pub(super) async fn one(&self, to: Use) -> Result<DatabaseConnection, StoreError> {
        Database::connect(self.options(to)).await.map_err(|error| self.cannot_open(error))
    }

    /// The same, however many processes make the file at once: while one of them turns the log on,
    /// the others are refused at once, whatever time they would wait.
    async fn first_writer(&self) -> Result<DatabaseConnection, DbErr> {
        let begun = Instant::now();
        loop {
            match self.writer().await {
                Err(error) if is_locked(&error) && begun.elapsed() < CONNECT_TIMEOUT => {
                    tokio::time::sleep(LOCKED_PAUSE).await;
                }
                answer => return answer,
            }
        }
    }

    /// The connection that writes.
    async fn writer(&self) -> Result<DatabaseConnection, DbErr> {
        Database::connect(self.options(Use::Write)).await
    }

    /// Another connection that writes, for one that was lost.
    pub(super) async fn writer_again(&self) -> Result<DatabaseConnection, DbErr> {
        let mut options = self.options(Use::Write);
        options.connect_timeout(RECONNECT_TIMEOUT).acquire_timeout(RECONNECT_TIMEOUT);
        Database::connect(options).await
    }

    /// The connections that read.
    pub(super) async fn readers(&self) -> Result<DatabaseConnection, StoreError> {
        Database::connect(self.options(Use::Read)).await.map_err(|error| self.cannot_open(error))
    }

    fn cannot_open(&self, error: DbErr) -> StoreError {
        let Fault { detail, .. } = error.into();
        let detail = match &self.location {
            Location::Sqlite(path) => format!("`{}`: {detail}", path.display()),
            // The address is left out: it may hold a password.
            Location::Postgres(_) => format!("PostgreSQL: {detail}"),
        };
        StoreError::Unavailable { detail }
    }

    fn options(&self, to: Use) -> ConnectOptions {
        let mut options = match &self.location {
            Location::Sqlite(_) => ConnectOptions::new("sqlite:"),
            Location::Postgres(url) => ConnectOptions::new(url),
        };
        options
            .sqlx_logging(false)
            .record_stmt_in_spans(false)
            .max_connections(if to == Use::Read { READERS } else { 1 })
            .min_connections(u32::from(to == Use::Write))
            .connect_timeout(CONNECT_TIMEOUT)
            // The writer has its connection for itself: it waits for the server alone.
            .acquire_timeout(if to == Use::Write { CONNECT_TIMEOUT } else { ACQUIRE_TIMEOUT })
            // Connections stay: an idle store wakes up for nothing.
            .idle_timeout(None)
            .max_lifetime(None)
            // A lost connection shows in the first statement, which is then tried on a new one.
            .test_before_acquire(false);
        match &self.location {
            Location::Sqlite(path) => self.sqlite(&mut options, path, to),
            Location::Postgres(_) => self.postgres(&mut options, to),
        }
        options
    }

    #[cfg(feature = "sqlite")]
    fn sqlite(&self, options: &mut ConnectOptions, path: &Path, to: Use) {
        use sea_orm::sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};

        /// Rows that SQLite's thread may be ahead of whoever reads them. With few of them, the two
        /// wake each other more than they work.
        const ROWS: usize = 2_048;

        /// The same for someone who looks through everything, and must not hold much of it.
        const ROWS_INSPECTED: usize = 16;

        /// How long a statement waits for another process that writes to the same file.
        const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

        let synchronous = match self.durability {
            Durability::Full => SqliteSynchronous::Full,
            Durability::Normal => SqliteSynchronous::Normal,
        };
        let path = path.to_owned();
        options.map_sqlx_sqlite_opts(move |_| {
            // Not from a URL: a path may hold any character.
            let sqlite = SqliteConnectOptions::new()
                .filename(&path)
                .create_if_missing(to == Use::Write)
                .busy_timeout(BUSY_TIMEOUT)
                .foreign_keys(true)
                .row_buffer_size(if to == Use::Inspect { ROWS_INSPECTED } else { ROWS })
                .statement_cache_capacity(PREPARED);
            match to {
                Use::Write => sqlite
                    .journal_mode(SqliteJournalMode::Wal)
                    .synchronous(synchronous)
                    // The pages that a statement would put back if it failed: by default they go
                    // through a file, and more is written there than to the log.
                    .pragma("temp_store", "memory")
                    // 16 MiB of log between checkpoints, 32 MiB of cache.
                    .pragma("wal_autocheckpoint", "4096")
                    .pragma("journal_size_limit", "67108864")
                    .pragma("cache_size", "-32768"),
                Use::Read | Use::Inspect => sqlite.pragma("query_only", "on"),
                Use::Maintain => sqlite,
            }
        });
    }

    #[cfg(not(feature = "sqlite"))]
    #[expect(clippy::unused_self, reason = "the same shape in every build")]
    fn sqlite(&self, _options: &mut ConnectOptions, _path: &Path, _to: Use) {}

    #[cfg(feature = "postgres")]
    fn postgres(&self, options: &mut ConnectOptions, to: Use) {
        let synchronous_commit = match self.durability {
            Durability::Full => "on",
            Durability::Normal => "off",
        };
        options.map_sqlx_postgres_pool_opts(|pool| {
            pool.after_connect(|connection, _| Box::pin(super::no_delay::set(connection)))
        });
        options.map_sqlx_postgres_opts(move |postgres| {
            let postgres = postgres
                .application_name("gleitzeit")
                .statement_cache_capacity(PREPARED)
                .options([("synchronous_commit", synchronous_commit)]);
            let postgres = match to {
                Use::Write | Use::Read => postgres.options(PLANS),
                // Where whole tables are read, the planner knows best.
                Use::Inspect | Use::Maintain => postgres,
            };
            match to {
                Use::Write => {
                    postgres.options([("idle_in_transaction_session_timeout", STANDSTILL)])
                }
                Use::Read | Use::Inspect => {
                    postgres.options([("default_transaction_read_only", "on")])
                }
                Use::Maintain => postgres,
            }
        });
    }

    #[cfg(not(feature = "postgres"))]
    #[expect(clippy::unused_self, reason = "the same shape in every build")]
    fn postgres(&self, _options: &mut ConnectOptions, _to: Use) {}
}

/// True where SQLite says that another process is in the way.
fn is_locked(error: &DbErr) -> bool {
    let DbErr::Conn(RuntimeErr::SqlxError(error)) = error else { return false };
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    // The low byte of an extended result code: busy, locked.
    code.and_then(|code| code.parse::<u32>().ok()).is_some_and(|code| matches!(code & 0xff, 5 | 6))
}

fn make_folder(path: &Path) -> Result<(), StoreError> {
    let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) else {
        return Ok(());
    };
    std::fs::create_dir_all(folder).map_err(|error| StoreError::Open {
        detail: format!("cannot make the folder `{}`: {error}", folder.display()),
    })
}

#[cfg(test)]
#[cfg(feature = "sqlite")]
mod tests {
    use sea_orm::{ConnectionTrait as _, DbBackend, Statement};

    use super::*;

    async fn pragma(db: &DatabaseConnection, name: &str) -> String {
        let statement = Statement::from_string(DbBackend::Sqlite, format!("PRAGMA {name}"));
        let row = db.query_one_raw(statement).await.unwrap().unwrap();
        row.try_get_by_index::<String>(0)
            .or_else(|_| row.try_get_by_index::<i64>(0).map(|number| number.to_string()))
            .unwrap()
    }

    /// The setting says what a loss of power costs: it must reach the connection that writes.
    #[tokio::test]
    async fn durability_reaches_the_connection_that_writes() {
        let folder = tempfile::TempDir::new().unwrap();
        for (durability, synchronous) in [(Durability::Full, "2"), (Durability::Normal, "1")] {
            let location = Location::Sqlite(folder.path().join(format!("{durability}.db")));
            let db = Connector { location, durability }.open().await.unwrap();
            assert_eq!(pragma(&db, "synchronous").await, synchronous, "{durability}");
            assert_eq!(pragma(&db, "journal_mode").await, "wal");
            assert_eq!(pragma(&db, "foreign_keys").await, "1");
            db.close().await.unwrap();
        }
    }

    /// One writer, by construction: a second one would meet "database is locked".
    #[tokio::test]
    async fn connections_that_read_cannot_write() {
        let folder = tempfile::TempDir::new().unwrap();
        let location = Location::Sqlite(folder.path().join("a.db"));
        let connector = Connector { location, durability: Durability::Full };
        let writer = connector.open().await.unwrap();
        let readers = connector.readers().await.unwrap();
        let refused = readers.execute_unprepared("DELETE FROM gleitzeit_workflows").await;
        assert!(refused.unwrap_err().to_string().contains("readonly"));
        assert!(writer.execute_unprepared("DELETE FROM gleitzeit_workflows").await.is_ok());
    }
}
