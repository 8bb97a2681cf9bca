//! The writer's knowledge of leases: those of this store, and whether those of others are alive.

mod inheritance;
mod view;

use std::{
    collections::{BTreeSet, HashMap},
    io,
    sync::Arc,
    time::Duration,
};

use gleitzeit_domain::{
    needs::Offer,
    store::{
        Epoch, StoreError,
        lease::{Claimed, Lease},
    },
};
use sea_orm::{ConnectionTrait, DbErr};

use super::{
    file_locks::FileLocks,
    fit::{Fit, KnownNeeds, Wanted},
    process::Process,
    sql,
    watch::Watched,
};
use crate::{
    location::Location,
    notify::Notifier,
    queue::{Renewal, Renewals},
    write_call::WriteCall,
};

use inheritance::Inheritance;
use view::RECHECK;

pub(crate) use view::LeaseView;

/// The leases that the writer knows.
#[derive(Debug)]
pub(crate) struct LeaseTable {
    notifier: Arc<Notifier>,
    renewals: Arc<Renewals>,
    kind: LeaseKind,
    /// The leases that were opened here and not closed.
    open: BTreeSet<Epoch>,
    /// The keys of claimed workflows whose commit was not confirmed, or whose caller did not wait
    /// for the answer.
    unconfirmed: HashMap<Epoch, Vec<i64>>,
    /// The inheritances that the claims of a lease have not returned yet.
    inheritances: HashMap<Epoch, Inheritance>,
    /// The leases whose last claim found nothing.
    idle_snapshots: HashMap<Epoch, IdleSnapshot>,
    /// The workflows that each lease can run.
    fits: HashMap<Epoch, Fit>,
    pub(crate) needs: KnownNeeds,
    /// Ended leases on a server that own nothing, with the time of their end: their processes have no
    /// work, and renew them when they have some.
    idle: HashMap<Epoch, i64>,
    /// The processes of this machine with leases on a server.
    watched: Watched,
}

/// How a process holds its lease.
#[derive(Debug)]
enum LeaseKind {
    /// On a file: by a lock.
    FileLock(FileLocks),
    /// On a server: by renewals; with the identity of this process.
    Timed(Option<Process>),
}

/// The state of the database at a claim that found nothing.
#[derive(Debug)]
struct IdleSnapshot {
    /// The number of notifications before the claim.
    notifications: u64,
    /// The live leases of others.
    others: Vec<Epoch>,
}

impl LeaseTable {
    /// The table of an existing database.
    pub(crate) fn new(
        location: &Location,
        notifier: Arc<Notifier>,
        renewals: Arc<Renewals>,
    ) -> Self {
        let kind = match location {
            // Canonical: a process that opens the file by another path must find the same locks.
            Location::Sqlite(path) => LeaseKind::FileLock(FileLocks::beside(
                &path.canonicalize().unwrap_or_else(|_| path.clone()),
            )),
            Location::Postgres(_) => LeaseKind::Timed(Process::this()),
        };
        Self {
            notifier,
            renewals,
            kind,
            open: BTreeSet::new(),
            unconfirmed: HashMap::new(),
            inheritances: HashMap::new(),
            idle_snapshots: HashMap::new(),
            fits: HashMap::new(),
            needs: KnownNeeds::default(),
            idle: HashMap::new(),
            watched: Watched::default(),
        }
    }

    /// Sets the offer of a lease's process.
    pub(crate) fn set_offer(&mut self, epoch: Epoch, offer: &Offer) {
        if self.fits.get(&epoch).is_none_or(|fit| fit.offer() != offer) {
            self.fits.insert(epoch, Fit::new(offer.clone()));
            // The old snapshot found nothing for the old offer.
            self.idle_snapshots.remove(&epoch);
        }
    }

    /// The workflows that a lease can run; all before its first offer.
    pub(crate) fn wanted(&self, epoch: Epoch) -> Wanted {
        self.fits.get(&epoch).map(|fit| fit.wanted(&self.needs)).unwrap_or_default()
    }

    /// True if a lease can run a workflow with these needs.
    pub(crate) fn fits(&self, epoch: Epoch, needs: i64) -> bool {
        self.fits.get(&epoch).is_none_or(|fit| fit.covers(&self.needs.of(needs)))
    }

    /// Excludes workflows from later claims of a lease whose process cannot run them.
    pub(crate) fn refuse(&mut self, epoch: Epoch, keys: Vec<i64>) {
        self.fits.entry(epoch).or_insert_with(|| Fit::new(Offer::everything())).refuse(keys);
    }

    pub(crate) fn open_leases(&self) -> Vec<Epoch> {
        self.open.iter().copied().collect()
    }

    pub(crate) fn due_renewals(&self) -> Vec<Renewal> {
        self.renewals.take()
    }

    /// True if leases must be renewed.
    pub(crate) fn is_timed(&self) -> bool {
        matches!(self.kind, LeaseKind::Timed(_))
    }

    pub(crate) fn has_open(&self, epoch: Epoch) -> bool {
        self.open.contains(&epoch)
    }

    /// The reason why the locks of this store no longer exclude others; `None` while they do.
    pub(crate) fn loss(&self) -> Option<String> {
        match &self.kind {
            LeaseKind::FileLock(locks) => locks.loss(),
            LeaseKind::Timed(_) => None,
        }
    }

    /// Notifies the engines of this process of a commit, unless the server does: it sends `NOTIFY`
    /// to this process, too, and each commit would wake the engines twice.
    pub(crate) fn notify_local(&self) {
        if !self.is_timed() {
            self.notifier.notify_local();
        }
    }

    /// Inserts a lease, and locks it before its row is committed.
    pub(crate) async fn open<C: ConnectionTrait>(
        &mut self,
        db: &C,
        owner: &str,
        term: Duration,
    ) -> Result<Result<Lease, StoreError>, DbErr> {
        match &mut self.kind {
            LeaseKind::Timed(process) => {
                let process = process.as_ref().map(ToString::to_string).unwrap_or_default();
                let epoch = sql::open(db, owner, &process, term).await?;
                Ok(Ok(Lease { epoch, term: Some(term) }))
            }
            LeaseKind::FileLock(locks) => {
                let epoch = sql::open(db, owner, "", term).await?;
                // Before the commit: a process that saw the row without the lock would expire it.
                let held = locks.hold(epoch).map_err(|error| cannot_hold(&error));
                Ok(held.map(|()| Lease { epoch, term: None }))
            }
        }
    }

    pub(crate) fn opened(&mut self, epoch: Epoch) {
        self.open.insert(epoch);
    }

    /// Forgets a lease that was closed, or whose opening failed, and unlocks it.
    pub(crate) fn closed(&mut self, epoch: Epoch) {
        self.open.remove(&epoch);
        self.unconfirmed.remove(&epoch);
        self.inheritances.remove(&epoch);
        self.idle_snapshots.remove(&epoch);
        self.fits.remove(&epoch);
        if let LeaseKind::FileLock(locks) = &mut self.kind {
            locks.drop(epoch);
        }
    }

    /// The leases of calls that are gone. The others are kept until the transaction ends.
    pub(crate) async fn lost<C: ConnectionTrait>(
        &self,
        db: &C,
        calls: &[&WriteCall],
    ) -> Result<Vec<Epoch>, DbErr> {
        let mut epochs = BTreeSet::new();
        for call in calls {
            call.write.add_epochs(&mut epochs);
        }
        let mut lost = Vec::new();
        // One query for each lease: the calls of a process usually bear the same one.
        for epoch in epochs {
            if !self.keep(db, epoch).await? {
                lost.push(epoch);
            }
        }
        Ok(lost)
    }

    /// True if a lease exists; it is kept until the transaction ends.
    pub(crate) async fn keep<C: ConnectionTrait>(
        &self,
        db: &C,
        epoch: Epoch,
    ) -> Result<bool, DbErr> {
        match self.kind {
            // No query: nobody can expire a lease while this process holds its lock.
            LeaseKind::FileLock(_) => Ok(self.open.contains(&epoch)),
            LeaseKind::Timed(_) => sql::keep(db, epoch).await,
        }
    }

    /// An empty answer to a claim if nothing can have changed since the last one found nothing.
    /// Checks locks, and queries nothing: an idle engine must cost no statement.
    pub(crate) fn unchanged_since_last_claim(&mut self, mine: Epoch) -> Option<Claimed> {
        let LeaseKind::FileLock(locks) = &mut self.kind else { return None };
        let snapshot = self.idle_snapshots.get(&mine)?;
        if self.notifier.count() != Some(snapshot.notifications) {
            return None;
        }
        for other in &snapshot.others {
            if !locks.is_held(*other).ok()? {
                return None;
            }
        }
        let ask_again_in = (!snapshot.others.is_empty()).then_some(RECHECK);
        Some(Claimed { ask_again_in, ..Claimed::default() })
    }

    /// The number of notifications; `None` unless it includes other processes' writes.
    pub(crate) fn notification_count(&self) -> Option<u64> {
        self.notifier.count()
    }

    /// Stores that a claim found nothing.
    pub(crate) fn found_nothing(
        &mut self,
        mine: Epoch,
        notifications: Option<u64>,
        view: &LeaseView,
    ) {
        if let (Some(notifications), LeaseKind::FileLock(_)) = (notifications, &self.kind) {
            let others = view.others.clone();
            self.idle_snapshots.insert(mine, IdleSnapshot { notifications, others });
        }
    }
}

fn cannot_hold(error: &io::Error) -> StoreError {
    StoreError::Write {
        detail: format!("cannot lock the file of leases beside the database: {error}"),
    }
}
