//! Classifies the errors of a database: for the caller, and for the writer, which retries, writes
//! the calls one by one, or fails.

use gleitzeit_domain::store::StoreError;
use sea_orm::{DbErr, RuntimeErr, sqlx};

/// The cause of a database error, by the reaction of the writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// A value in the group: the other calls of the group pass without it.
    Data,
    /// A conflict with another process: the same group passes when repeated.
    Contention,
    /// Another process held the lock of the file until the busy timeout.
    Locked,
    /// The connection: the group may pass on a new one.
    Connection,
    /// The disk of a SQLite file is full. A commit that failed with it certainly did not happen:
    /// SQLite could not write its last page.
    Full,
    /// The database accepts no writes: full, read-only, corrupt.
    Database,
    /// The file of the database was removed or replaced.
    Gone,
}

/// A database error and its cause.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) cause: Cause,
    pub(super) detail: String,
}

impl From<DbErr> for Fault {
    fn from(error: DbErr) -> Self {
        Self { cause: cause(&error), detail: error.to_string() }
    }
}

impl Fault {
    /// A loss that the writer found: it writes nothing more.
    pub(super) fn gone(error: &StoreError) -> Self {
        let detail = match error {
            StoreError::Gone { detail } => detail.clone(),
            other => other.to_string(),
        };
        Self { cause: Cause::Gone, detail }
    }

    /// True if a transaction that was rolled back may be repeated at once.
    pub(super) fn is_retryable(&self) -> bool {
        matches!(self.cause, Cause::Contention | Cause::Connection)
    }

    /// The answer to a write that was rolled back.
    pub(super) fn of_write(self) -> StoreError {
        match self.cause {
            Cause::Connection | Cause::Contention | Cause::Locked => {
                StoreError::Unavailable { detail: self.detail }
            }
            Cause::Full => StoreError::Write {
                detail: format!("{}; free disk space: the write is repeated", self.detail),
            },
            // Not `Write`, which the engine repeats: the same values would be rejected for ever.
            Cause::Data => StoreError::Refused { detail: self.detail },
            Cause::Database => StoreError::Write { detail: self.detail },
            Cause::Gone => StoreError::Gone { detail: self.detail },
        }
    }

    /// The answer to a read.
    pub(super) fn of_read(self) -> StoreError {
        match self.cause {
            Cause::Connection | Cause::Contention | Cause::Locked => {
                StoreError::Unavailable { detail: self.detail }
            }
            Cause::Data | Cause::Full | Cause::Database => StoreError::Read { detail: self.detail },
            Cause::Gone => StoreError::Gone { detail: self.detail },
        }
    }

    /// The answer to a commit that failed.
    pub(super) fn of_commit(self) -> StoreError {
        match self.cause {
            // The commit may have reached the disk before the connection or the I/O failed: as a
            // plain error, the caller could report a stored workflow as not stored.
            Cause::Connection | Cause::Database => StoreError::Unknown { detail: self.detail },
            Cause::Contention | Cause::Locked | Cause::Data | Cause::Full | Cause::Gone => {
                self.of_write()
            }
        }
    }
}

/// A [`StoreError`] of a read; `?` converts a database error into it.
#[derive(Debug)]
pub(super) struct ReadError(pub(super) StoreError);

impl From<DbErr> for ReadError {
    fn from(error: DbErr) -> Self {
        Self(Fault::from(error).of_read())
    }
}

impl From<StoreError> for ReadError {
    fn from(error: StoreError) -> Self {
        Self(error)
    }
}

/// The failure of one request within its transaction.
#[derive(Debug)]
pub(super) enum RequestError {
    /// The database failed: the request may be repeated.
    Database(DbErr),
    /// The request is rejected with this answer.
    Answer(StoreError),
}

impl From<DbErr> for RequestError {
    fn from(error: DbErr) -> Self {
        Self::Database(error)
    }
}

impl From<StoreError> for RequestError {
    fn from(error: StoreError) -> Self {
        Self::Answer(error)
    }
}

impl From<ReadError> for RequestError {
    fn from(ReadError(error): ReadError) -> Self {
        Self::Answer(error)
    }
}

fn cause(error: &DbErr) -> Cause {
    match error {
        DbErr::ConnectionAcquire(_) | DbErr::Conn(_) => Cause::Connection,
        DbErr::Exec(RuntimeErr::SqlxError(error)) | DbErr::Query(RuntimeErr::SqlxError(error)) => {
            match &**error {
                sqlx::Error::Database(error) => of_code(&error.code().unwrap_or_default()),
                sqlx::Error::Encode(_)
                | sqlx::Error::Decode(_)
                | sqlx::Error::ColumnDecode { .. }
                | sqlx::Error::RowNotFound
                | sqlx::Error::InvalidArgument(_) => Cause::Data,
                _ => Cause::Connection,
            }
        }
        _ => Cause::Data,
    }
}

/// SQLite's extended result codes are numbers; those of PostgreSQL have five characters.
fn of_code(code: &str) -> Cause {
    match code.parse::<u32>() {
        Ok(number) if code.len() < 5 => match number & 0xff {
            // busy, locked
            5 | 6 => Cause::Locked,
            13 => Cause::Full,
            // too big, constraint, wrong type, out of range
            18 | 19 | 20 | 25 => Cause::Data,
            // no memory, read-only, interrupted, I/O, corrupt, cannot open, not a database; an error
            // in a statement, as after a table was dropped: no item is at fault
            _ => Cause::Database,
        },
        _ => match code {
            // serialization failure, deadlock, lock not available
            "40001" | "40P01" | "55P03" => Cause::Contention,
            // this process sent no statement within a transaction until the server's idle limit
            "25P03" => Cause::Connection,
            // read-only transaction
            "25006" => Cause::Database,
            _ => match code.get(..2) {
                // connection, operator intervention (shutdown, crash)
                Some("08" | "57") => Cause::Connection,
                // data, integrity, limits of the program, a trigger's own complaint
                Some("22" | "23" | "54" | "P0") => Cause::Data,
                // resources (disk full, too many connections), system, configuration, internal, or a
                // table that is not there: no item is at fault
                _ => Cause::Database,
            },
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The runtime rejects submissions, repeats or fails by the cause; a full disk must never count
    /// as invalid data.
    #[test]
    fn codes_of_both_databases_have_their_causes() {
        for (code, cause) in [
            ("5", Cause::Locked),
            ("517", Cause::Locked),
            ("13", Cause::Full),
            ("8", Cause::Database),
            ("1032", Cause::Database),
            ("778", Cause::Database),
            ("787", Cause::Data),
            ("1555", Cause::Data),
            ("40P01", Cause::Contention),
            ("53100", Cause::Database),
            ("57P01", Cause::Connection),
            ("25P03", Cause::Connection),
            ("08006", Cause::Connection),
            ("25006", Cause::Database),
            ("18", Cause::Data),
            ("1", Cause::Database),
            ("23505", Cause::Data),
            ("54000", Cause::Data),
            ("42P01", Cause::Database),
            ("22021", Cause::Data),
        ] {
            assert_eq!(of_code(code), cause, "{code}");
        }
    }

    /// An unanswered commit may have happened.
    #[test]
    fn an_unanswered_commit_is_unknown() {
        let fault = |cause| Fault { cause, detail: String::new() };
        assert!(matches!(fault(Cause::Connection).of_commit(), StoreError::Unknown { .. }));
        assert!(matches!(fault(Cause::Database).of_commit(), StoreError::Unknown { .. }));
        assert!(matches!(fault(Cause::Full).of_commit(), StoreError::Write { .. }));
        assert!(matches!(fault(Cause::Data).of_commit(), StoreError::Refused { .. }));
        assert!(matches!(fault(Cause::Contention).of_commit(), StoreError::Unavailable { .. }));
    }
}
