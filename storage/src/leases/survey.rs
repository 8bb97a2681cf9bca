//! Reports the holders of leases to an operator, and the owners of workflows to a handle. Changes
//! nothing, and expires nothing.

use std::{collections::HashMap, io, path::Path, time::Duration};

use gleitzeit_domain::{
    id::WorkflowId,
    store::{
        Epoch,
        lease::{Owner, Standing},
    },
};
use sea_orm::{ConnectionTrait, DbErr};
use serde::{Serialize, Serializer};

use super::{
    file_locks::FileLocks,
    process::Process,
    sql::{self, Stored},
};
use crate::{
    encode::{escape, unescape},
    fault::ReadError,
    location::Location,
    read::Reader,
};

/// A process that holds a lease, or held it until it ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Holder {
    /// The lease.
    pub epoch: Epoch,
    /// The name of the process.
    pub owner: String,
    /// The id of the process on its machine, if known.
    pub process_id: Option<i32>,
    /// False if the process has ended, or has not renewed its lease in time: the next claim takes
    /// its workflows over.
    pub is_alive: bool,
    /// True if the lease has ended and owns nothing: its process has no work, and renews it when it
    /// has some; or the process has ended on a machine that nobody here sees.
    pub is_idle: bool,
    /// Time until the lease expires unless it is renewed, in seconds; `None` if it lives as long as
    /// its process.
    #[serde(serialize_with = "seconds")]
    pub runs_out_in: Option<Duration>,
    /// Unsettled workflows of the lease.
    pub workflows: u64,
}

#[expect(clippy::ref_option, reason = "as serde calls it")]
fn seconds<S: Serializer>(span: &Option<Duration>, out: S) -> Result<S::Ok, S::Error> {
    span.map(|span| span.as_secs_f64()).serialize(out)
}

/// All leases, the oldest first; each is alive or not by the rules of a claim.
pub(crate) async fn holders<C: ConnectionTrait>(
    db: &C,
    location: &Location,
) -> Result<Vec<Holder>, DbErr> {
    let mut check = LivenessCheck::of(location);
    let mut holders = Vec::new();
    for (stored, owner, workflows) in sql::holders(db).await? {
        let is_idle = workflows == 0 && stored.left.is_some_and(|left| left <= 0);
        let is_alive = check.is_alive(&stored, is_idle).unwrap_or_else(|error| {
            tracing::warn!(epoch = %stored.epoch, %error, "lock of a lease cannot be checked; shown as alive");
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

/// The owner of each workflow, in the order of `ids`.
pub(crate) async fn standings(
    reader: &Reader,
    location: &Location,
    ids: &[WorkflowId],
) -> Result<Vec<Option<Standing>>, ReadError> {
    let snapshot = reader.snapshot().await?;
    let mut check = LivenessCheck::of(location);
    let mut owners = HashMap::new();
    for (stored, name) in sql::owners(&snapshot).await? {
        // Not idle: it owns one of these workflows, or its liveness is not read.
        let is_alive = check.is_alive(&stored, false).unwrap_or(true);
        // From the stored identity: the process may run on another machine.
        let process_id = Process::id_of(&stored.process);
        let epoch = stored.epoch;
        owners.insert(epoch, Owner { epoch, name: unescape(name), process_id, is_alive });
    }
    let mut standings = Vec::with_capacity(ids.len());
    for id in ids {
        let standing = sql::standing(&snapshot, &escape(id.as_str())).await?;
        standings.push(standing.map(|(epoch, needs)| {
            // Without a row the lease has ended: the workflow is free, or about to be.
            Standing { owner: owners.get(&epoch).cloned(), needs }
        }));
    }
    snapshot.commit().await?;
    Ok(standings)
}

fn left(micros: i64) -> Duration {
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

/// Checks whether leases are alive, by the rules of the writer's lease table.
enum LivenessCheck {
    /// `None` without a file of locks: nobody holds any.
    FileLock(Option<FileLocks>),
    Timed(Option<Process>),
}

impl LivenessCheck {
    fn of(location: &Location) -> Self {
        match location {
            Location::Sqlite(path) => {
                let path = path.canonicalize().unwrap_or_else(|_| path.clone());
                // A check of a lock would create the file, which an operator's command must not.
                Self::FileLock(has_locks(&path).then(|| FileLocks::beside(&path)))
            }
            Location::Postgres(_) => Self::Timed(Process::this()),
        }
    }

    /// An idle lease is not renewed: its end says nothing about its process.
    fn is_alive(&mut self, lease: &Stored, is_idle: bool) -> io::Result<bool> {
        match self {
            Self::FileLock(None) => Ok(false),
            Self::FileLock(Some(locks)) => locks.is_held(lease.epoch),
            Self::Timed(process) => {
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

/// On other systems each lease has a file of its own, which a check does not create.
#[cfg(not(target_os = "linux"))]
fn has_locks(_path: &Path) -> bool {
    true
}
