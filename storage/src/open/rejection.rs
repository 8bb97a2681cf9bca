//! Explains why a database cannot be opened, and rejects servers that cannot be used.

use std::path::Path;

use gleitzeit_domain::store::StoreError;
use sea_orm::{
    ConnectionTrait as _, DatabaseConnection, DbBackend, DbErr, RuntimeErr, Statement, sqlx,
};

use super::{Connector, IDLE_IN_TX_TIMEOUT};
use crate::{fault::Fault, location::Location};

impl Connector {
    pub(super) fn cannot_open(&self, error: DbErr) -> StoreError {
        let is_read_only = is_read_only(&error);
        let is_of_pooler = is_of_pooler(&error);
        let Fault { detail, .. } = error.into();
        let database = match &self.location {
            Location::Sqlite(path) => format!("`{}`", path.display()),
            // Without the URL: it may hold a password.
            Location::Postgres(_) => "PostgreSQL".to_owned(),
        };
        if is_read_only {
            return read_only(&database, &detail);
        }
        if is_of_pooler || detail.contains("unsupported startup parameter") {
            return StoreError::Open { detail: format!("{database}: {detail}; {NO_POOLER}") };
        }
        if detail.contains("invalid peer certificate") {
            return StoreError::Open { detail: format!("{database}: {detail}; {TRUST}") };
        }
        StoreError::Unavailable { detail: format!("{database}: {detail}") }
    }

    /// Rejects a server that accepts no writes, and a pooler that gives each transaction another
    /// session: prepared statements, locks and `LISTEN` belong to a session, and would fail later,
    /// each in its own way.
    pub(super) async fn check_session(
        &self,
        writer: &DatabaseConnection,
        readers: &DatabaseConnection,
    ) -> Result<(), StoreError> {
        // The last column is 1 if the startup parameters of a connection reached the server.
        let select = "SELECT pg_backend_pid(), current_setting('transaction_read_only'), \
                      CASE WHEN current_setting('default_transaction_read_only') = 'on' \
                      OR current_setting('idle_in_transaction_session_timeout') = $1 \
                      THEN 1 ELSE 0 END";
        let values = [IDLE_IN_TX_TIMEOUT.into()];
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
            let rejected = |what: &str| {
                Err(StoreError::Open { detail: format!("PostgreSQL: {what}; {NO_POOLER}") })
            };
            if ours == theirs {
                return rejected("two connections share a session");
            }
            if (*is_ours, *is_theirs) != (1, 1) {
                return rejected("the parameters of a session do not reach the server");
            }
            if read_only_now == "on" {
                return Err(read_only("PostgreSQL", "a standby, or default_transaction_read_only"));
            }
        }
        Ok(())
    }
}

/// The remedy for a pooler.
const NO_POOLER: &str = "a pooler such as pgbouncer in transaction mode stands between, which \
                         cannot be used: name the server itself, or a pool in session mode that \
                         passes startup parameters on";

/// The remedy for an unknown certificate authority.
const TRUST: &str = "name the certificate of its authority: storage.ca_file, sslrootcert= in the \
                     URL, or the variable SSL_CERT_FILE";

fn read_only(database: &str, detail: &str) -> StoreError {
    StoreError::Open {
        detail: format!(
            "{database} is read-only ({detail}); `gleitzeit list`, `show` and `db export` can read \
             it, and whatever runs or stores workflows needs one that can be written"
        ),
    }
}

/// Rejects a file that cannot be written: SQLite would open it as read-only without an error.
#[cfg(target_os = "linux")]
pub(super) fn check_writable(path: &Path) -> Result<(), StoreError> {
    use nix::{
        errno::Errno,
        unistd::{AccessFlags, access},
    };

    match access(path, AccessFlags::W_OK) {
        Err(error @ (Errno::EROFS | Errno::EACCES)) => {
            Err(read_only(&format!("`{}`", path.display()), error.desc()))
        }
        // SQLite reports every other error itself.
        _ => Ok(()),
    }
}

#[cfg(not(target_os = "linux"))]
#[expect(clippy::unnecessary_wraps, reason = "the same shape on every system")]
pub(super) fn check_writable(_path: &Path) -> Result<(), StoreError> {
    Ok(())
}

/// The code of an error in its database.
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

/// True if SQLite reports a lock of another process: busy, locked.
pub(super) fn is_locked(error: &DbErr) -> bool {
    matches!(sqlite_code(error), Some(5 | 6))
}

/// True if SQLite could not create its files beside the database: read-only, cannot open.
pub(super) fn is_unwritable(error: &DbErr) -> bool {
    matches!(sqlite_code(error), Some(8 | 14))
}

/// True if a prepared statement exists that this session did not prepare, or is missing although it
/// did: the session changes with each transaction.
fn is_of_pooler(error: &DbErr) -> bool {
    matches!(code(error).as_deref(), Some("42P05" | "26000"))
}

/// True if the database accepts no writes.
fn is_read_only(error: &DbErr) -> bool {
    sqlite_code(error) == Some(8) || code(error).as_deref() == Some("25006")
}
