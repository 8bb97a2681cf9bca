//! What a database's complaint means: for the caller, and for the writer that must decide whether
//! to try again, to write one by one, or to give up.

use gleitzeit_domain::store::StoreError;
use sea_orm::{DbErr, RuntimeErr, sqlx};

/// What the writer can do about a complaint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// Something in what was written: the rest of the group may pass without it.
    Content,
    /// Another process was in the way: the same again passes.
    Contention,
    /// Another process holds the file, and was waited for long enough.
    Locked,
    /// The connection: a new one may pass.
    Connection,
    /// The disk under a file is full. A commit that met it has certainly not happened: its last
    /// page was not written.
    Full,
    /// The database takes no writes at all: full, read-only, broken.
    Database,
    /// The database is no longer where it was.
    Gone,
}

/// A complaint and what it means.
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
    /// What the writer itself found: nothing may be written any more.
    pub(super) fn gone(error: &StoreError) -> Self {
        let detail = match error {
            StoreError::Gone { detail } => detail.clone(),
            other => other.to_string(),
        };
        Self { cause: Cause::Gone, detail }
    }

    /// True when what was rolled back may be tried again at once.
    pub(super) fn may_pass_again(&self) -> bool {
        matches!(self.cause, Cause::Contention | Cause::Connection)
    }

    /// As the answer to a write that was rolled back.
    pub(super) fn of_write(self) -> StoreError {
        match self.cause {
            Cause::Connection | Cause::Contention | Cause::Locked => {
                StoreError::Unavailable { detail: self.detail }
            }
            Cause::Full => StoreError::Write {
                detail: format!("{}; make room on the disk: it is tried again", self.detail),
            },
            // The same again is refused again, whatever else is stored.
            Cause::Content => StoreError::Refused { detail: self.detail },
            Cause::Database => StoreError::Write { detail: self.detail },
            Cause::Gone => StoreError::Gone { detail: self.detail },
        }
    }

    /// As the answer to a read.
    pub(super) fn of_read(self) -> StoreError {
        match self.cause {
            Cause::Connection | Cause::Contention | Cause::Locked => {
                StoreError::Unavailable { detail: self.detail }
            }
            Cause::Content | Cause::Full | Cause::Database => {
                StoreError::Read { detail: self.detail }
            }
            Cause::Gone => StoreError::Gone { detail: self.detail },
        }
    }

    /// As the answer to a commit: only a database that answered, and refused, has surely not
    /// committed.
    pub(super) fn of_commit(self) -> StoreError {
        match self.cause {
            Cause::Connection | Cause::Database => StoreError::Unknown { detail: self.detail },
            Cause::Contention | Cause::Locked | Cause::Content | Cause::Full | Cause::Gone => {
                self.of_write()
            }
        }
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
                | sqlx::Error::InvalidArgument(_) => Cause::Content,
                _ => Cause::Connection,
            }
        }
        _ => Cause::Content,
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
            18 | 19 | 20 | 25 => Cause::Content,
            // no memory, read-only, interrupted, I/O, corrupt, cannot open, not a database; an error
            // in a statement, as after a table was dropped: no item is at fault
            _ => Cause::Database,
        },
        _ => match code {
            // serialization failure, deadlock, lock not available
            "40001" | "40P01" | "55P03" => Cause::Contention,
            // this process stood still within a transaction
            "25P03" => Cause::Connection,
            // read-only transaction
            "25006" => Cause::Database,
            _ => match code.get(..2) {
                // connection, operator intervention (shutdown, crash)
                Some("08" | "57") => Cause::Connection,
                // data, integrity, limits of the program, a trigger's own complaint
                Some("22" | "23" | "54" | "P0") => Cause::Content,
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

    /// The runtime refuses intake, repeats or gives up by this; a full disk must never be taken
    /// for a bad item.
    #[test]
    fn codes_of_both_databases_are_told_apart() {
        for (code, cause) in [
            ("5", Cause::Locked),
            ("517", Cause::Locked),
            ("13", Cause::Full),
            ("8", Cause::Database),
            ("1032", Cause::Database),
            ("778", Cause::Database),
            ("787", Cause::Content),
            ("1555", Cause::Content),
            ("40P01", Cause::Contention),
            ("53100", Cause::Database),
            ("57P01", Cause::Connection),
            ("25P03", Cause::Connection),
            ("08006", Cause::Connection),
            ("25006", Cause::Database),
            ("18", Cause::Content),
            ("1", Cause::Database),
            ("23505", Cause::Content),
            ("54000", Cause::Content),
            ("42P01", Cause::Database),
            ("22021", Cause::Content),
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
        assert!(matches!(fault(Cause::Content).of_commit(), StoreError::Refused { .. }));
        assert!(matches!(fault(Cause::Contention).of_commit(), StoreError::Unavailable { .. }));
    }
}
