//! The options of connections, by their role.

use std::{path::Path, time::Duration};

use sea_orm::ConnectOptions;

#[cfg(feature = "postgres")]
use super::IDLE_IN_TX_TIMEOUT;
use super::{CONNECT_TIMEOUT, Connector, Role};
use crate::{Durability, location::Location};

/// Connections that read.
const READERS: u32 = 4;

/// Limit on the wait of a reader for one of the connections to a file.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(30);

/// Settings of PostgreSQL's planner. Each statement has an index in its order. A table that has just
/// grown has no statistics yet: the planner would scan all of it, or sort all free workflows for
/// each page, and compile the plan because it seems expensive.
#[cfg(feature = "postgres")]
const PLANNER_SETTINGS: [(&str, &str); 3] =
    [("enable_seqscan", "off"), ("enable_bitmapscan", "off"), ("jit", "off")];

/// Prepared statements of a connection: more than the writer has shapes.
const STATEMENT_CACHE: usize = 512;

impl Connector {
    pub(super) fn options(&self, role: Role) -> ConnectOptions {
        self.options_for(role, false)
    }

    /// `is_frozen` makes SQLite assume that nobody changes the file.
    pub(super) fn options_for(&self, role: Role, is_frozen: bool) -> ConnectOptions {
        let mut options = match &self.location {
            Location::Sqlite(_) => ConnectOptions::new("sqlite:"),
            Location::Postgres(url) => ConnectOptions::new(url),
        };
        let acquire_timeout = match (role, &self.location) {
            // The writer's pool has one connection for one user: it waits for the server only.
            (Role::Write, _) => CONNECT_TIMEOUT,
            // Longer than the statement timeout, which replaces all connections when it expires.
            (_, Location::Postgres(_)) => self.options.statement_timeout * 2,
            (_, Location::Sqlite(_)) => ACQUIRE_TIMEOUT,
        };
        options
            .sqlx_logging(false)
            .record_stmt_in_spans(false)
            .max_connections(if role == Role::Read { READERS } else { 1 })
            .min_connections(u32::from(role == Role::Write))
            .connect_timeout(CONNECT_TIMEOUT)
            .acquire_timeout(acquire_timeout)
            // Connections stay open: their replacement would wake an idle store.
            .idle_timeout(None)
            .max_lifetime(None)
            // A test would be one more round trip for every query. A lost connection fails its first
            // statement, which is then repeated on a new one.
            .test_before_acquire(false);
        match &self.location {
            Location::Sqlite(path) => self.sqlite(&mut options, path, role, is_frozen),
            Location::Postgres(_) => self.postgres(&mut options, role),
        }
        options
    }

    #[cfg(feature = "sqlite")]
    fn sqlite(&self, options: &mut ConnectOptions, path: &Path, role: Role, is_frozen: bool) {
        use sea_orm::sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};

        /// Rows that SQLite's thread buffers for the reader. With few, the two threads wake each other
        /// for every few rows.
        const ROWS: usize = 2_048;

        /// The same for a scan of whole tables, which must not hold many rows in memory.
        const ROWS_INSPECTED: usize = 16;

        /// Limit on the wait of a statement for another process that writes to the file.
        const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

        let synchronous = match self.options.durability {
            Durability::Full => SqliteSynchronous::Full,
            Durability::Normal => SqliteSynchronous::Normal,
        };
        let path = path.to_owned();
        options.map_sqlx_sqlite_opts(move |_| {
            // Not from a URL: a path with `?` or `%` would open another file.
            let sqlite = SqliteConnectOptions::new()
                .filename(&path)
                .create_if_missing(role == Role::Write)
                .busy_timeout(BUSY_TIMEOUT)
                .foreign_keys(true)
                .row_buffer_size(if role == Role::Inspect { ROWS_INSPECTED } else { ROWS })
                .statement_cache_capacity(STATEMENT_CACHE);
            match role {
                Role::Write => sqlite
                    .journal_mode(SqliteJournalMode::Wal)
                    .synchronous(synchronous)
                    // Statement journals, with the pages to restore after a failed statement: in a
                    // file they cost more writes than the log.
                    .pragma("temp_store", "memory")
                    // 16 MiB of log between checkpoints, 32 MiB of cache.
                    .pragma("wal_autocheckpoint", "4096")
                    .pragma("journal_size_limit", "67108864")
                    .pragma("cache_size", "-32768"),
                Role::Read | Role::Show | Role::Inspect if is_frozen => {
                    sqlite.read_only(true).immutable(true)
                }
                Role::Read | Role::Show | Role::Inspect => sqlite.pragma("query_only", "on"),
                Role::Maintain => sqlite,
            }
        });
    }

    #[cfg(not(feature = "sqlite"))]
    #[expect(clippy::unused_self, reason = "the same shape in every build")]
    fn sqlite(&self, _options: &mut ConnectOptions, _path: &Path, _role: Role, _is_frozen: bool) {}

    #[cfg(feature = "postgres")]
    fn postgres(&self, options: &mut ConnectOptions, role: Role) {
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
                Box::pin(async move { crate::server::prepare(connection, &url).await })
            })
        });
        options.map_sqlx_postgres_opts(move |postgres| {
            let postgres = crate::server::trusting(postgres, &url)
                .application_name("gleitzeit")
                .statement_cache_capacity(STATEMENT_CACHE)
                .options([("synchronous_commit", synchronous_commit)]);
            let postgres = match role {
                Role::Write | Role::Read | Role::Show => postgres.options(PLANNER_SETTINGS),
                // A scan of whole tables must not use an index.
                Role::Inspect | Role::Maintain => postgres,
            };
            match role {
                // The server's own limit: a statement whose client has timed out would run on with
                // its locks, and each retry would wait for it.
                Role::Write => postgres.options([
                    ("idle_in_transaction_session_timeout", IDLE_IN_TX_TIMEOUT),
                    ("statement_timeout", &limit),
                ]),
                Role::Read | Role::Show | Role::Inspect => {
                    postgres.options([("default_transaction_read_only", "on")])
                }
                Role::Maintain => postgres,
            }
        });
    }

    #[cfg(not(feature = "postgres"))]
    #[expect(clippy::unused_self, reason = "the same shape in every build")]
    fn postgres(&self, _options: &mut ConnectOptions, _role: Role) {}
}
