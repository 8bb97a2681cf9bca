//! Who holds a lease, and whether it lives: for people. Changes nothing, and ends nothing.
//!
//! Asked by [`admin`](crate::admin), on a connection that only reads.

use std::{collections::HashMap, io, path::Path, time::Duration};

use gleitzeit_domain::{
    id::WorkflowId,
    store::lease::{Owner, Standing},
};
use sea_orm::{ConnectionTrait, DbErr};

use super::{
    file_locks::FileLocks,
    process::Process,
    sql::{self, Stored},
};
use crate::{
    admin::Holder,
    encode::{escape, unescape},
    location::Location,
    read::{ReadError, Reader},
};

/// Every lease, the oldest first. Whether its process lives is told as the store itself would
/// judge.
pub(crate) async fn look<C: ConnectionTrait>(
    db: &C,
    location: &Location,
) -> Result<Vec<Holder>, DbErr> {
    let mut judge = Judge::of(location);
    let mut holders = Vec::new();
    for (stored, owner, workflows) in sql::holders(db).await? {
        let is_idle = workflows == 0 && stored.left.is_some_and(|left| left <= 0);
        let is_alive = judge.is_alive(&stored, is_idle).unwrap_or_else(|error| {
            tracing::warn!(epoch = %stored.epoch, %error, "cannot tell whether a lease is held");
            true
        });
        holders.push(Holder {
            epoch: stored.epoch,
            owner: unescape(owner),
            process_id: Process::id_of(&stored.process),
            is_alive,
            is_idle: is_alive && is_idle,
            runs_out_in: stored.left.map(left),
            workflows: u64::try_from(workflows).unwrap_or(0),
        });
    }
    Ok(holders)
}

/// Who has each of the workflows, in their order.
pub(crate) async fn standings(
    reader: &Reader,
    location: &Location,
    ids: &[WorkflowId],
) -> Result<Vec<Option<Standing>>, ReadError> {
    let snapshot = reader.snapshot().await?;
    let mut judge = Judge::of(location);
    let mut owners = HashMap::new();
    for (stored, name) in sql::owners(&snapshot).await? {
        // It owns something, or it would not be asked after.
        let is_alive = judge.is_alive(&stored, false).unwrap_or(true);
        let process_id = Process::id_of(&stored.process);
        let epoch = stored.epoch;
        owners.insert(epoch, Owner { epoch, name: unescape(name), process_id, is_alive });
    }
    let mut standings = Vec::with_capacity(ids.len());
    for id in ids {
        let standing = sql::standing(&snapshot, &escape(id.as_str())).await?;
        standings.push(standing.map(|(epoch, needs)| {
            // One that is not there any more has freed what it owned, or is about to.
            Standing { owner: owners.get(&epoch).cloned(), needs }
        }));
    }
    snapshot.commit().await?;
    Ok(standings)
}

fn left(micros: i64) -> Duration {
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

/// How a lease lives; as the writer's lease table has it.
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

    /// One that owns nothing is not renewed, and says nothing of its process by running out.
    fn is_alive(&mut self, lease: &Stored, is_idle: bool) -> io::Result<bool> {
        match self {
            Self::Locks(None) => Ok(false),
            Self::Locks(Some(locks)) => locks.is_held(lease.epoch),
            Self::Terms(process) => {
                let is_gone = process
                    .as_ref()
                    .is_some_and(|process| process.knows_to_be_gone(&lease.process));
                Ok(!is_gone && (is_idle || lease.left.is_none_or(|left| left > 0)))
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
