//! Who holds a lease, and whether it lives: for people. Changes nothing, and ends nothing.
//!
//! Asked by [`admin`](crate::storage::admin), on a connection that only reads.

use std::{io, path::Path, time::Duration};

use sea_orm::{ConnectionTrait, DbErr};

use super::{
    file_locks::FileLocks,
    process::Process,
    sql::{self, Stored},
};
use crate::storage::{admin::Holder, encode::unescape, location::Location};

/// Every lease, the oldest first. Whether its process lives is told as the store itself would
/// judge.
pub(in crate::storage) async fn look<C: ConnectionTrait>(
    db: &C,
    location: &Location,
) -> Result<Vec<Holder>, DbErr> {
    let mut judge = Judge::of(location);
    let mut holders = Vec::new();
    for (stored, owner, workflows) in sql::holders(db).await? {
        let is_alive = judge.is_alive(&stored).unwrap_or_else(|error| {
            tracing::warn!(epoch = %stored.epoch, %error, "cannot tell whether a lease is held");
            true
        });
        holders.push(Holder {
            epoch: stored.epoch,
            owner: unescape(owner),
            process_id: Process::id_of(&stored.process),
            is_alive,
            runs_out_in: stored.left.map(left),
            workflows: u64::try_from(workflows).unwrap_or(0),
        });
    }
    Ok(holders)
}

fn left(micros: i64) -> Duration {
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

/// How a lease lives; as the writer's desk has it.
enum Judge {
    /// `None` where there is no file of locks: nobody holds any.
    Locks(Option<FileLocks>),
    Terms(Option<Process>),
}

impl Judge {
    fn of(location: &Location) -> Self {
        match location {
            Location::Sqlite(path) => {
                let path = path.canonicalize().unwrap_or_else(|_| path.clone());
                // To ask after a lock would make the file.
                Self::Locks(has_locks(&path).then(|| FileLocks::beside(&path)))
            }
            Location::Postgres(_) => Self::Terms(Process::this()),
        }
    }

    fn is_alive(&mut self, lease: &Stored) -> io::Result<bool> {
        match self {
            Self::Locks(None) => Ok(false),
            Self::Locks(Some(locks)) => locks.is_held(lease.epoch),
            Self::Terms(process) => {
                let is_gone = process
                    .as_ref()
                    .is_some_and(|process| process.knows_to_be_gone(&lease.process));
                Ok(!is_gone && lease.left.is_none_or(|left| left > 0))
            }
        }
    }
}

#[cfg(target_os = "linux")]
fn has_locks(path: &Path) -> bool {
    let mut name = path.as_os_str().to_owned();
    name.push("-leases");
    Path::new(&name).exists()
}

/// Elsewhere each lease has a file of its own, which asking does not make.
#[cfg(not(target_os = "linux"))]
fn has_locks(_path: &Path) -> bool {
    true
}
