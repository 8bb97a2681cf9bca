//! Opens databases: the writing connection, the reading ones, and the schema.
//!
//! Invariants: one connection of a store writes; the others cannot. A command that only shows a
//! database creates nothing, migrates nothing, and waits for no lock.

mod options;
mod rejection;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use futures_util::future::try_join;
use gleitzeit_domain::store::StoreError;
use sea_orm::{
    ConnectOptions, ConnectionTrait as _, Database, DatabaseConnection, DbBackend, DbErr, Statement,
};

use super::{
    database_file::{self, DatabaseFile},
    location::Location,
    migrate::{self, MigrateError, Schema},
    options::SqlOptions,
    schema,
    statement_timeout::StatementTimeout,
};

use self::rejection::{check_writable, is_locked, is_unwritable};

/// Limit on opening a connection to a server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Limit of the server on the wait for the next statement of a transaction: a process that has
/// stopped within one holds its locks no longer, and others can take over its work.
const IDLE_IN_TX_TIMEOUT: &str = "3s";

/// Limit on replacing the writing connection: a submission waits for it, and must fail soon. The
/// engine repeats the writes that it keeps.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// The pause before another attempt to open a file that other processes are creating.
const LOCKED_PAUSE: Duration = Duration::from_millis(10);

/// Opens connections to one database.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    pub(super) location: Location,
    pub(super) options: SqlOptions,
}

/// The role of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// The writer of a store.
    Write,
    /// The readers of a store.
    Read,
    /// A query without a store; cannot write.
    Show,
    /// A scan of whole tables without a store; cannot write.
    Inspect,
    /// Maintenance by an operator.
    Maintain,
}

impl Role {
    fn is_reading(self) -> bool {
        matches!(self, Self::Read | Self::Show | Self::Inspect)
    }
}

impl Connector {
    /// A connector for use without a store, with the default options.
    pub(super) fn without_store(location: Location) -> Self {
        Self { location, options: SqlOptions::default() }
    }

    /// The limit on the answer to a statement; none on SQLite, which waits for locks for a known time,
    /// and for nothing else.
    pub(super) fn timeout(&self) -> StatementTimeout {
        match self.location {
            Location::Sqlite(_) => StatementTimeout::none(),
            Location::Postgres(_) => StatementTimeout::of(self.options.statement_timeout),
        }
    }

    /// Opens the writing connection. Creates a missing database and migrates its schema if the
    /// options say so.
    pub(super) async fn open(&self) -> Result<DatabaseConnection, StoreError> {
        if self.options.auto_migrate {
            return self.migrate().await.map(|(db, _)| db);
        }
        if let Location::Sqlite(path) = &self.location
            && !path.exists()
        {
            return Err(StoreError::Open {
                detail: format!(
                    "there is no file `{}`; create it with `gleitzeit db migrate`, because \
                     storage.auto_migrate is false",
                    path.display()
                ),
            });
        }
        let db = self.first_writer().await?;
        let schema = self.schema(&db).await?;
        match schema::rejection(&schema) {
            None => Ok(db),
            Some(why) => Err(StoreError::Open { detail: format!("the database {why}") }),
        }
    }

    /// Opens the writing connection, as [`open`](Self::open) does, and the reading ones.
    pub(super) async fn open_all(
        &self,
    ) -> Result<(DatabaseConnection, DatabaseConnection), StoreError> {
        match self.location {
            // One after the other: a reader cannot open a file that does not exist yet.
            Location::Sqlite(_) => Ok((self.open().await?, self.readers().await?)),
            // Together: two TLS handshakes take longer than the rest of the start.
            Location::Postgres(_) => {
                // Before the pool, which would retry a closed port until its limit.
                self.check_reachable().await?;
                let (writer, readers) = try_join(self.open(), self.readers()).await?;
                let checked = self.check_session(&writer, &readers);
                let checked = self.timeout().wait_for_one(checked).await;
                checked.map_err(|silent| self.cannot_open(silent))??;
                Ok((writer, readers))
            }
        }
    }

    /// Opens the writing connection and migrates the schema; returns the applied migrations.
    pub(super) async fn migrate(&self) -> Result<(DatabaseConnection, Vec<String>), StoreError> {
        if let Location::Sqlite(path) = &self.location {
            create_folder(path)?;
            // Before SQLite creates it, with a mode by the umask that lets others read it.
            database_file::make_private(path).map_err(|error| StoreError::Open {
                detail: format!("cannot create `{}`: {error}", path.display()),
            })?;
        }
        gleitzeit_failpoint::failpoint!("store.open.before");
        let db = self.first_writer().await?;
        gleitzeit_failpoint::failpoint!("store.open.connected");
        // Read first: most starts have nothing to migrate, and need not wait for the lock of a
        // migration.
        let applied = if self.schema(&db).await?.is_current() {
            Vec::new()
        } else {
            self.apply_migrations(&db).await?
        };
        gleitzeit_failpoint::failpoint!("store.open.migrated");
        Ok((db, applied))
    }

    /// Migrates the schema; returns the names of the applied migrations.
    async fn apply_migrations(&self, db: &DatabaseConnection) -> Result<Vec<String>, StoreError> {
        match migrate::migrate(db).await {
            Ok(applied) => {
                if !applied.is_empty() {
                    tracing::info!(?applied, "database schema migrated");
                }
                Ok(applied)
            }
            Err(error @ (MigrateError::Newer { .. } | MigrateError::Clock { .. })) => {
                Err(StoreError::Open { detail: error.to_string() })
            }
            Err(MigrateError::Database(error)) => Err(self.cannot_open(error)),
        }
    }

    /// Reads the schema of a database.
    pub(super) async fn schema(&self, db: &DatabaseConnection) -> Result<Schema, StoreError> {
        let timeout = self.timeout();
        let schema = timeout.wait_for_one(migrate::inspect(db)).await;
        schema.flatten().map_err(|error| self.cannot_open(error))
    }

    /// The open file; `None` on a server.
    pub(super) fn file(&self) -> Result<Option<DatabaseFile>, StoreError> {
        match &self.location {
            Location::Sqlite(path) => DatabaseFile::of_open(path).map(Some),
            Location::Postgres(_) => Ok(None),
        }
    }

    /// Opens one connection without a store; creates and migrates nothing.
    pub(super) async fn connect(&self, role: Role) -> Result<DatabaseConnection, StoreError> {
        self.check_reachable().await?;
        let Location::Sqlite(path) = &self.location else {
            return Database::connect(self.options(role)).await.map_err(|it| self.cannot_open(it));
        };
        match readable(self.options(role)).await {
            Ok(db) => Ok(db),
            Err(error) if role.is_reading() && is_unwritable(&error) => {
                self.connect_frozen(path, role).await
            }
            Err(error) => Err(self.cannot_open(error)),
        }
    }

    /// Opens a file in a folder that cannot be written. SQLite needs `-shm` beside it to read while
    /// others write; nobody can write there, so the file is opened as immutable.
    async fn connect_frozen(
        &self,
        path: &Path,
        role: Role,
    ) -> Result<DatabaseConnection, StoreError> {
        // An immutable file is read without its log: the commits in the log would be missing.
        let log = database_file::named(path, "-wal");
        if log.metadata().is_ok_and(|found| found.len() > 0) {
            return Err(StoreError::Open {
                detail: format!(
                    "`{}` is in a folder that cannot be written, and its log `{}` holds commits \
                     that are not in it yet; copy both to a writable folder, and open the copy",
                    path.display(),
                    log.display()
                ),
            });
        }
        readable(self.options_for(role, true)).await.map_err(|error| self.cannot_open(error))
    }

    /// Opens the first writing connection of a store. Several processes may create the file at once:
    /// while one of them switches its journal mode, SQLite rejects the others at once, whatever their
    /// busy timeout, so this retries.
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

    /// Opens a writing connection.
    async fn writer(&self) -> Result<DatabaseConnection, DbErr> {
        Database::connect(self.options(Role::Write)).await
    }

    /// Opens a writing connection in place of a lost one.
    pub(super) async fn reconnect_writer(&self) -> Result<DatabaseConnection, DbErr> {
        let mut options = self.options(Role::Write);
        options.connect_timeout(RECONNECT_TIMEOUT).acquire_timeout(RECONNECT_TIMEOUT);
        Database::connect(options).await
    }

    /// Opens the reading connections.
    pub(super) async fn readers(&self) -> Result<DatabaseConnection, StoreError> {
        Database::connect(self.options(Role::Read)).await.map_err(|error| self.cannot_open(error))
    }

    /// Opens reading connections in place of silent ones; each is opened when it is first needed.
    pub(super) async fn reconnect_readers(&self) -> Result<DatabaseConnection, DbErr> {
        let mut options = self.options(Role::Read);
        options.connect_lazy(true);
        Database::connect(options).await
    }

    /// Fails at once if nobody listens: a pool would try again until its limit.
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
}

/// Opens a file and reads from it: SQLite opens the log with the first statement, and its error would
/// otherwise appear later.
async fn readable(options: ConnectOptions) -> Result<DatabaseConnection, DbErr> {
    let db = Database::connect(options).await?;
    let first = Statement::from_string(DbBackend::Sqlite, "SELECT 1 FROM sqlite_master LIMIT 1");
    db.query_one_raw(first).await?;
    Ok(db)
}

fn create_folder(path: &Path) -> Result<(), StoreError> {
    let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) else {
        return Ok(());
    };
    std::fs::create_dir_all(folder).map_err(|error| StoreError::Open {
        detail: format!("cannot create the folder `{}`: {error}", folder.display()),
    })
}

#[cfg(test)]
#[cfg(feature = "sqlite")]
mod tests {
    use sea_orm::{ConnectionTrait as _, DbBackend, Statement};

    use super::*;
    use crate::Durability;

    async fn pragma(db: &DatabaseConnection, name: &str) -> String {
        let statement = Statement::from_string(DbBackend::Sqlite, format!("PRAGMA {name}"));
        let row = db.query_one_raw(statement).await.unwrap().unwrap();
        row.try_get_by_index::<String>(0)
            .or_else(|_| row.try_get_by_index::<i64>(0).map(|number| number.to_string()))
            .unwrap()
    }

    /// Durability decides what a loss of power costs: it must reach the writing connection.
    #[tokio::test]
    async fn durability_reaches_the_writing_connection() {
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

    /// A second writing connection would fail with "database is locked".
    #[tokio::test]
    async fn reading_connections_cannot_write() {
        let folder = tempfile::TempDir::new().unwrap();
        let location = Location::Sqlite(folder.path().join("a.db"));
        let connector = Connector::without_store(location);
        let writer = connector.open().await.unwrap();
        let readers = connector.readers().await.unwrap();
        let refused = readers.execute_unprepared("DELETE FROM gleitzeit_workflows").await;
        assert!(refused.unwrap_err().to_string().contains("readonly"));
        assert!(writer.execute_unprepared("DELETE FROM gleitzeit_workflows").await.is_ok());
    }
}
