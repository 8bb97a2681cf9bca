//! Opens databases: the connection that writes, those that read, and the schema.
//!
//! Invariants: of all connections of a store, one writes; those that read cannot. Who only looks
//! makes nothing, migrates nothing, and waits for no lock.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use futures_util::future::try_join;
use gleitzeit_domain::store::StoreError;
use gleitzeit_migrations::{MigrateError, Schema};
use sea_orm::{
    ConnectOptions, ConnectionTrait as _, Database, DatabaseConnection, DbBackend, DbErr,
    RuntimeErr, Statement, sqlx,
};

use super::{
    SqlOptions,
    admin::refusal,
    database_file::{self, DatabaseFile},
    fault::Fault,
    location::Location,
    patience::Patience,
};
use crate::Durability;

/// Connections that read.
const READERS: u32 = 4;

/// How long a reader waits for one of the connections, on a file.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a connection to a server may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The same for the connection that writes when it was lost: intake waits for it, and is to be told
/// soon. What is kept is tried again.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a server waits for the next statement of a transaction. A process that stands still
/// within one holds its locks no longer than that: others wait for them to take over its work.
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
    pub(super) options: SqlOptions,
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// By the store's writer.
    Write,
    /// By those who ask the store.
    Read,
    /// By someone who looks at some of it, past any store; cannot write.
    Look,
    /// By someone who looks through all of it, once; cannot write.
    Inspect,
    /// By upkeep.
    Maintain,
}

impl Use {
    fn is_reading(self) -> bool {
        matches!(self, Self::Read | Self::Look | Self::Inspect)
    }
}

impl Connector {
    /// For whoever opens no store: what a commit survives matters to nobody who commits nothing of
    /// the store's.
    pub(super) fn past_any_store(location: Location) -> Self {
        Self { location, options: SqlOptions::default() }
    }

    /// How long a statement may go unanswered. SQLite answers by itself: it waits for locks for a
    /// known time, and for nothing else.
    pub(super) fn patience(&self) -> Patience {
        match self.location {
            Location::Sqlite(_) => Patience::endless(),
            Location::Postgres(_) => Patience::of(self.options.statement_timeout),
        }
    }

    /// Opens the connection that writes. Makes what is missing and brings the schema up to date,
    /// unless that is left to a person.
    pub(super) async fn open(&self) -> Result<DatabaseConnection, StoreError> {
        if self.options.auto_migrate {
            return self.migrate().await.map(|(db, _)| db);
        }
        if let Location::Sqlite(path) = &self.location
            && !path.exists()
        {
            return Err(StoreError::Open {
                detail: format!(
                    "there is no file `{}`; `gleitzeit db migrate` makes it, for \
                     storage.auto_migrate is false",
                    path.display()
                ),
            });
        }
        let db = self.first_writer().await?;
        let schema = self.schema(&db).await?;
        match refusal(&schema) {
            None => Ok(db),
            Some(why) => Err(StoreError::Open { detail: format!("the database {why}") }),
        }
    }

    /// Opens the connection that writes as [`open`](Self::open) does, and those that read.
    pub(super) async fn open_all(
        &self,
    ) -> Result<(DatabaseConnection, DatabaseConnection), StoreError> {
        match self.location {
            // Without the file there is nothing to read.
            Location::Sqlite(_) => Ok((self.open().await?, self.readers().await?)),
            // Secure connections to a server take longer to come about than all that follows.
            Location::Postgres(_) => {
                self.check_reachable().await?;
                let (writer, readers) = try_join(self.open(), self.readers()).await?;
                let checked = self.check_session(&writer, &readers);
                let checked = self.patience().wait_for_one(checked).await;
                checked.map_err(|silent| self.cannot_open(silent))??;
                Ok((writer, readers))
            }
        }
    }

    /// The connection that writes, with the migrations that it took.
    pub(super) async fn migrate(&self) -> Result<(DatabaseConnection, Vec<String>), StoreError> {
        if let Location::Sqlite(path) = &self.location {
            make_folder(path)?;
            database_file::make_private(path).map_err(|error| StoreError::Open {
                detail: format!("cannot make `{}`: {error}", path.display()),
            })?;
        }
        gleitzeit_failpoint::failpoint!("store.open.before");
        let db = self.first_writer().await?;
        gleitzeit_failpoint::failpoint!("store.open.connected");
        let applied = if self.schema(&db).await?.is_current() {
            Vec::new()
        } else {
            self.apply_migrations(&db).await?
        };
        gleitzeit_failpoint::failpoint!("store.open.migrated");
        Ok((db, applied))
    }

    /// Brings the schema up to date; returns the names of the migrations that it took.
    async fn apply_migrations(&self, db: &DatabaseConnection) -> Result<Vec<String>, StoreError> {
        match gleitzeit_migrations::migrate(db).await {
            Ok(applied) => {
                if !applied.is_empty() {
                    tracing::info!(?applied, "database schema brought up to date");
                }
                Ok(applied)
            }
            Err(error @ (MigrateError::Newer { .. } | MigrateError::Clock { .. })) => {
                Err(StoreError::Open { detail: error.to_string() })
            }
            Err(MigrateError::Database(error)) => Err(self.cannot_open(error)),
        }
    }

    /// The schema that a database has.
    pub(super) async fn schema(&self, db: &DatabaseConnection) -> Result<Schema, StoreError> {
        let patience = self.patience();
        let schema = patience.wait_for_one(gleitzeit_migrations::look(db)).await;
        schema.flatten().map_err(|error| self.cannot_open(error))
    }

    /// The file that the connections have opened; `None` on a server.
    pub(super) fn file(&self) -> Result<Option<DatabaseFile>, StoreError> {
        match &self.location {
            Location::Sqlite(path) => DatabaseFile::of_open(path).map(Some),
            Location::Postgres(_) => Ok(None),
        }
    }

    /// One connection for a person's questions, or for upkeep; nothing is made or migrated.
    pub(super) async fn one(&self, to: Use) -> Result<DatabaseConnection, StoreError> {
        self.check_reachable().await?;
        let Location::Sqlite(path) = &self.location else {
            return Database::connect(self.options(to)).await.map_err(|it| self.cannot_open(it));
        };
        match readable(self.options(to)).await {
            Ok(db) => Ok(db),
            Err(error) if to.is_reading() && is_unwritable(&error) => self.frozen(path, to).await,
            Err(error) => Err(self.cannot_open(error)),
        }
    }

    /// A connection to a file where nothing can be written. To read beside those who write SQLite
    /// needs `-shm`, which cannot be made there; but then nobody writes, either.
    async fn frozen(&self, path: &Path, to: Use) -> Result<DatabaseConnection, StoreError> {
        let log = database_file::named(path, "-wal");
        if log.metadata().is_ok_and(|found| found.len() > 0) {
            return Err(StoreError::Open {
                detail: format!(
                    "`{}` lies where nothing can be written, and its log `{}` holds what was not \
                     moved into it yet; copy both to a place that can be written, and look there",
                    path.display(),
                    log.display()
                ),
            });
        }
        readable(self.options_for(to, true)).await.map_err(|error| self.cannot_open(error))
    }

    /// The connection that writes, however many processes make the file at once: while one of them
    /// turns the log on, the others are refused at once, whatever time they would wait.
    async fn first_writer(&self) -> Result<DatabaseConnection, StoreError> {
        if let Location::Sqlite(path) = &self.location {
            check_writable(path)?;
            database_file::warn_if_open_to_all(path);
        }
        let begun = Instant::now();
        loop {
            match self.writer().await {
                Err(error) if is_locked(&error) && begun.elapsed() < CONNECT_TIMEOUT => {
                    tokio::time::sleep(LOCKED_PAUSE).await;
                }
                answer => return answer.map_err(|error| self.cannot_open(error)),
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

    /// Others that read, for some of which one did not answer. Each comes about when it is needed.
    pub(super) async fn readers_again(&self) -> Result<DatabaseConnection, DbErr> {
        let mut options = self.options(Use::Read);
        options.connect_lazy(true);
        Database::connect(options).await
    }

    fn cannot_open(&self, error: DbErr) -> StoreError {
        let is_read_only = is_read_only(&error);
        let is_of_pooler = is_of_pooler(&error);
        let Fault { detail, .. } = error.into();
        let (place, detail) = match &self.location {
            Location::Sqlite(path) => (format!("`{}`", path.display()), detail),
            // The address is left out: it may hold a password.
            Location::Postgres(_) => ("PostgreSQL".to_owned(), detail),
        };
        if is_read_only {
            return read_only(&place, &detail);
        }
        if is_of_pooler || detail.contains("unsupported startup parameter") {
            return StoreError::Open { detail: format!("{place}: {detail}; {NO_POOLER}") };
        }
        if detail.contains("invalid peer certificate") {
            return StoreError::Open { detail: format!("{place}: {detail}; {TRUST}") };
        }
        StoreError::Unavailable { detail: format!("{place}: {detail}") }
    }

    fn options(&self, to: Use) -> ConnectOptions {
        self.options_for(to, false)
    }

    /// `is_frozen` has SQLite take it that nobody changes the file.
    fn options_for(&self, to: Use, is_frozen: bool) -> ConnectOptions {
        let mut options = match &self.location {
            Location::Sqlite(_) => ConnectOptions::new("sqlite:"),
            Location::Postgres(url) => ConnectOptions::new(url),
        };
        let acquire_timeout = match (to, &self.location) {
            // The writer has its connection for itself: it waits for the server alone.
            (Use::Write, _) => CONNECT_TIMEOUT,
            // The patience of who asks ends before, and then all of them are replaced.
            (_, Location::Postgres(_)) => self.options.statement_timeout * 2,
            (_, Location::Sqlite(_)) => ACQUIRE_TIMEOUT,
        };
        options
            .sqlx_logging(false)
            .record_stmt_in_spans(false)
            .max_connections(if to == Use::Read { READERS } else { 1 })
            .min_connections(u32::from(to == Use::Write))
            .connect_timeout(CONNECT_TIMEOUT)
            .acquire_timeout(acquire_timeout)
            // Connections stay: an idle store wakes up for nothing.
            .idle_timeout(None)
            .max_lifetime(None)
            // A lost connection shows in the first statement, which is then tried on a new one.
            .test_before_acquire(false);
        match &self.location {
            Location::Sqlite(path) => self.sqlite(&mut options, path, to, is_frozen),
            Location::Postgres(_) => self.postgres(&mut options, to),
        }
        options
    }

    #[cfg(feature = "sqlite")]
    fn sqlite(&self, options: &mut ConnectOptions, path: &Path, to: Use, is_frozen: bool) {
        use sea_orm::sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};

        /// Rows that SQLite's thread may be ahead of whoever reads them. With few of them, the two
        /// wake each other more than they work.
        const ROWS: usize = 2_048;

        /// The same for someone who looks through everything, and must not hold much of it.
        const ROWS_INSPECTED: usize = 16;

        /// How long a statement waits for another process that writes to the same file.
        const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

        let synchronous = match self.options.durability {
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
                Use::Read | Use::Look | Use::Inspect if is_frozen => {
                    sqlite.read_only(true).immutable(true)
                }
                Use::Read | Use::Look | Use::Inspect => sqlite.pragma("query_only", "on"),
                Use::Maintain => sqlite,
            }
        });
    }

    #[cfg(not(feature = "sqlite"))]
    #[expect(clippy::unused_self, reason = "the same shape in every build")]
    fn sqlite(&self, _options: &mut ConnectOptions, _path: &Path, _to: Use, _is_frozen: bool) {}

    #[cfg(feature = "postgres")]
    fn postgres(&self, options: &mut ConnectOptions, to: Use) {
        let synchronous_commit = match self.options.durability {
            Durability::Full => "on",
            Durability::Normal => "off",
        };
        let limit = format!("{}ms", self.options.statement_timeout.as_millis().max(1));
        let Location::Postgres(url) = &self.location else { return };
        let url: std::sync::Arc<str> = url.as_str().into();
        let of_pool = std::sync::Arc::clone(&url);
        options.map_sqlx_postgres_pool_opts(move |pool| {
            let url = std::sync::Arc::clone(&of_pool);
            pool.after_connect(move |connection, _| {
                let url = std::sync::Arc::clone(&url);
                Box::pin(async move { super::server::prepare(connection, &url).await })
            })
        });
        options.map_sqlx_postgres_opts(move |postgres| {
            let postgres = super::server::trusting(postgres, &url)
                .application_name("gleitzeit")
                .statement_cache_capacity(PREPARED)
                .options([("synchronous_commit", synchronous_commit)]);
            let postgres = match to {
                Use::Write | Use::Read | Use::Look => postgres.options(PLANS),
                // Where whole tables are read, the planner knows best.
                Use::Inspect | Use::Maintain => postgres,
            };
            match to {
                // The server's own limit: what it works on for a client that has given up would
                // hold its locks, and each new try would wait behind it.
                Use::Write => postgres.options([
                    ("idle_in_transaction_session_timeout", STANDSTILL),
                    ("statement_timeout", &limit),
                ]),
                Use::Read | Use::Look | Use::Inspect => {
                    postgres.options([("default_transaction_read_only", "on")])
                }
                Use::Maintain => postgres,
            }
        });
    }

    #[cfg(not(feature = "postgres"))]
    #[expect(clippy::unused_self, reason = "the same shape in every build")]
    fn postgres(&self, _options: &mut ConnectOptions, _to: Use) {}

    /// Says at once where nobody listens: a pool would go on trying until its time is over.
    #[cfg(feature = "postgres")]
    async fn check_reachable(&self) -> Result<(), StoreError> {
        match &self.location {
            Location::Sqlite(_) => Ok(()),
            Location::Postgres(url) => super::server::check_reachable(url, CONNECT_TIMEOUT).await,
        }
    }

    #[cfg(not(feature = "postgres"))]
    #[expect(clippy::unused_async, clippy::unused_self, reason = "the same shape in every build")]
    async fn check_reachable(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Refuses a server that takes no writes, and one behind a pooler that gives each transaction
    /// another session: prepared statements, locks and `LISTEN` belong to a session, and would fail
    /// later, one after the other.
    async fn check_session(
        &self,
        writer: &DatabaseConnection,
        readers: &DatabaseConnection,
    ) -> Result<(), StoreError> {
        // The last one says whether the parameters arrived that a connection begins with.
        let select = "SELECT pg_backend_pid(), current_setting('transaction_read_only'), \
                      CASE WHEN current_setting('default_transaction_read_only') = 'on' \
                      OR current_setting('idle_in_transaction_session_timeout') = $1 \
                      THEN 1 ELSE 0 END";
        let values = [STANDSTILL.into()];
        let select = Statement::from_sql_and_values(DbBackend::Postgres, select, values);
        let mut sessions = Vec::new();
        for db in [writer, readers] {
            let row = db.query_one_raw(select.clone()).await;
            let row = row.map_err(|error| self.cannot_open(error))?;
            let session = row.map(|row| -> Result<(i32, String, i32), DbErr> {
                Ok((row.try_get_by_index(0)?, row.try_get_by_index(1)?, row.try_get_by_index(2)?))
            });
            sessions.extend(session.transpose().map_err(|error| self.cannot_open(error))?);
        }
        if let [(ours, read_only_now, is_ours), (theirs, _, is_theirs)] = sessions.as_slice() {
            let refused = |what: &str| {
                Err(StoreError::Open { detail: format!("PostgreSQL: {what}; {NO_POOLER}") })
            };
            if ours == theirs {
                return refused("two connections share a session");
            }
            if (*is_ours, *is_theirs) != (1, 1) {
                return refused("the parameters of a session do not reach the server");
            }
            if read_only_now == "on" {
                return Err(read_only("PostgreSQL", "a standby, or default_transaction_read_only"));
            }
        }
        Ok(())
    }
}

/// What to do about a pooler.
const NO_POOLER: &str = "a pooler such as pgbouncer in transaction mode stands between, which \
                         cannot be used: name the server itself, or a pool in session mode that \
                         passes startup parameters on";

/// What to do about a server that nobody here vouches for.
const TRUST: &str = "name the certificate of its authority: storage.ca_file, sslrootcert= in the \
                     URL, or the variable SSL_CERT_FILE";

fn read_only(place: &str, detail: &str) -> StoreError {
    StoreError::Open {
        detail: format!(
            "{place} is read-only ({detail}); `gleitzeit list`, `show` and `db export` can read \
             it, and whatever runs or stores workflows needs one that can be written"
        ),
    }
}

/// Opens a file and reads from it: only the first statement opens its log.
async fn readable(options: ConnectOptions) -> Result<DatabaseConnection, DbErr> {
    let db = Database::connect(options).await?;
    let first = Statement::from_string(DbBackend::Sqlite, "SELECT 1 FROM sqlite_master LIMIT 1");
    db.query_one_raw(first).await?;
    Ok(db)
}

/// Refuses a file that cannot be written, before SQLite opens it as one that is only read.
#[cfg(target_os = "linux")]
fn check_writable(path: &Path) -> Result<(), StoreError> {
    use nix::{
        errno::Errno,
        unistd::{AccessFlags, access},
    };

    match access(path, AccessFlags::W_OK) {
        Err(error @ (Errno::EROFS | Errno::EACCES)) => {
            Err(read_only(&format!("`{}`", path.display()), error.desc()))
        }
        // Whatever else is wrong, SQLite says.
        _ => Ok(()),
    }
}

#[cfg(not(target_os = "linux"))]
#[expect(clippy::unnecessary_wraps, reason = "the same shape on every system")]
fn check_writable(_path: &Path) -> Result<(), StoreError> {
    Ok(())
}

/// What the database calls the error.
fn code(error: &DbErr) -> Option<String> {
    let (DbErr::Conn(RuntimeErr::SqlxError(error))
    | DbErr::Exec(RuntimeErr::SqlxError(error))
    | DbErr::Query(RuntimeErr::SqlxError(error))) = error
    else {
        return None;
    };
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.map(std::borrow::Cow::into_owned)
}

/// The low byte of SQLite's extended result code.
fn sqlite_code(error: &DbErr) -> Option<u32> {
    let code = code(error).filter(|code| code.len() < 5)?;
    code.parse::<u32>().ok().map(|code| code & 0xff)
}

/// True where SQLite says that another process is in the way.
fn is_locked(error: &DbErr) -> bool {
    matches!(sqlite_code(error), Some(5 | 6))
}

/// True where SQLite could not make what it needs beside a file: read-only, cannot open.
fn is_unwritable(error: &DbErr) -> bool {
    matches!(sqlite_code(error), Some(8 | 14))
}

/// True where a prepared statement is there that was not made, or not there that was: the session is
/// another one with each transaction.
fn is_of_pooler(error: &DbErr) -> bool {
    matches!(code(error).as_deref(), Some("42P05" | "26000"))
}

/// True where the database takes no writes.
fn is_read_only(error: &DbErr) -> bool {
    sqlite_code(error) == Some(8) || code(error).as_deref() == Some("25006")
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
            let options = SqlOptions { durability, ..SqlOptions::default() };
            let db = Connector { location, options }.open().await.unwrap();
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
        let connector = Connector::past_any_store(location);
        let writer = connector.open().await.unwrap();
        let readers = connector.readers().await.unwrap();
        let refused = readers.execute_unprepared("DELETE FROM gleitzeit_workflows").await;
        assert!(refused.unwrap_err().to_string().contains("readonly"));
        assert!(writer.execute_unprepared("DELETE FROM gleitzeit_workflows").await.is_ok());
    }
}
