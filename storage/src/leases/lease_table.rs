//! What the writer knows of leases: those of this store, and whether those of others live.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
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
    Renewal, Renewals,
    file_locks::FileLocks,
    fit::{Fit, KnownNeeds, Wanted},
    process::Process,
    sql::{self, Dead, LeaseRows, Stored},
    watch::Watched,
};
use crate::{call::Call, location::Location, notifier::Notifier};

/// When to look again whether the process of a lease on a file still runs: a question to the
/// kernel alone.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A lease that owns nothing and has run out is ended after so long, in microseconds: its process
/// may be gone, on a machine that nobody here sees. One that has no work yet takes another.
const IDLE_MAX: i64 = 60 * 60 * 1_000_000;

/// When to try again to end a lease that a transaction was holding.
const TRY_AGAIN: Duration = Duration::from_millis(500);

/// What the writer knows of leases.
#[derive(Debug)]
pub(crate) struct LeaseTable {
    notifier: Arc<Notifier>,
    renewals: Arc<Renewals>,
    life: Life,
    /// The leases that were opened here and not closed.
    open: BTreeSet<Epoch>,
    /// Workflows that were claimed for a lease by a commit that may or may not have happened, or
    /// for somebody who did not wait for the answer.
    doubtful: HashMap<Epoch, Vec<i64>>,
    /// What a lease has inherited, and nobody was given yet.
    inheritances: HashMap<Epoch, Inheritance>,
    /// Where the last claim of a lease found nothing.
    quiet: HashMap<Epoch, Quiet>,
    /// What each lease may be given.
    fits: HashMap<Epoch, Fit>,
    pub(super) needs: KnownNeeds,
    /// Leases on a server that have run out and own nothing, with the time at which they did: their
    /// processes have no work, and renew them when they have some.
    idle: HashMap<Epoch, i64>,
    /// The processes of this machine that hold leases on a server.
    watched: Watched,
}

/// What a lease inherited from others.
#[derive(Debug, Default)]
struct Inheritance {
    /// The ended leases whose workflows were listed.
    listed: BTreeSet<i64>,
    /// The workflows of these that are still to be given out, by their keys.
    keys: VecDeque<i64>,
    /// True when nobody knows whether there is more.
    is_unsure: bool,
}

/// How a lease lives.
#[derive(Debug)]
enum Life {
    /// On a file: by a lock.
    Locks(FileLocks),
    /// On a server: by time; where this process runs.
    Terms(Option<Process>),
}

/// What was seen when there was nothing to claim.
#[derive(Debug)]
struct Quiet {
    /// How often the notifier had rung.
    rings: u64,
    /// The leases of others.
    others: Vec<Epoch>,
}

/// What a survey of the leases means for a lease.
#[derive(Debug, Default)]
pub(super) struct LeaseView {
    pub(super) dead: Vec<Dead>,
    /// The leases of others that live.
    others: Vec<Epoch>,
    /// True when a lease lives besides the one that asks.
    pub(super) has_others: bool,
    /// When to ask again.
    pub(super) ask_again_in: Option<Duration>,
}

impl LeaseTable {
    /// Of a database that exists.
    pub(crate) fn new(
        location: &Location,
        notifier: Arc<Notifier>,
        renewals: Arc<Renewals>,
    ) -> Self {
        let life = match location {
            // Whoever opens it by another path must find the same locks.
            Location::Sqlite(path) => Life::Locks(FileLocks::beside(
                &path.canonicalize().unwrap_or_else(|_| path.clone()),
            )),
            Location::Postgres(_) => Life::Terms(Process::this()),
        };
        Self {
            notifier,
            renewals,
            life,
            open: BTreeSet::new(),
            doubtful: HashMap::new(),
            inheritances: HashMap::new(),
            quiet: HashMap::new(),
            fits: HashMap::new(),
            needs: KnownNeeds::default(),
            idle: HashMap::new(),
            watched: Watched::default(),
        }
    }

    /// Notes what the process of a lease offers.
    pub(super) fn set_offer(&mut self, epoch: Epoch, offer: &Offer) {
        if self.fits.get(&epoch).is_none_or(|fit| fit.offer() != offer) {
            self.fits.insert(epoch, Fit::new(offer.clone()));
            self.quiet.remove(&epoch);
        }
    }

    /// What a lease may be given; anything where nothing was said of it.
    pub(super) fn wanted(&self, epoch: Epoch) -> Wanted {
        self.fits.get(&epoch).map(|fit| fit.wanted(&self.needs)).unwrap_or_default()
    }

    /// True where a lease may be given a workflow of these needs.
    pub(super) fn fits(&self, epoch: Epoch, needs: i64) -> bool {
        self.fits.get(&epoch).is_none_or(|fit| fit.covers(&self.needs.of(needs)))
    }

    /// Notes what a lease gave back because its process cannot run it.
    pub(super) fn refuse(&mut self, epoch: Epoch, keys: Vec<i64>) {
        self.fits.entry(epoch).or_insert_with(|| Fit::new(Offer::everything())).refuse(keys);
    }

    pub(super) fn open_ones(&self) -> Vec<Epoch> {
        self.open.iter().copied().collect()
    }

    pub(super) fn renewals(&self) -> Vec<Renewal> {
        self.renewals.take()
    }

    /// True where leases must be renewed.
    pub(super) fn goes_by_time(&self) -> bool {
        matches!(self.life, Life::Terms(_))
    }

    pub(super) fn has_open(&self, epoch: Epoch) -> bool {
        self.open.contains(&epoch)
    }

    /// Why nobody can rely on the leases of this store any more; `None` while all can.
    pub(crate) fn loss(&self) -> Option<String> {
        match &self.life {
            Life::Locks(locks) => locks.loss(),
            Life::Terms(_) => None,
        }
    }

    /// Tells the engines of this process what was committed, where nothing else does.
    pub(crate) fn ring(&self) {
        if !self.goes_by_time() {
            self.notifier.ring();
        }
    }

    /// Stores a lease, and holds it before anybody can see it.
    pub(super) async fn open<C: ConnectionTrait>(
        &mut self,
        db: &C,
        owner: &str,
        term: Duration,
    ) -> Result<Result<Lease, StoreError>, DbErr> {
        match &mut self.life {
            Life::Terms(process) => {
                let process = process.as_ref().map(ToString::to_string).unwrap_or_default();
                let epoch = sql::open(db, owner, &process, term).await?;
                Ok(Ok(Lease { epoch, term: Some(term) }))
            }
            Life::Locks(locks) => {
                let epoch = sql::open(db, owner, "", term).await?;
                let held = locks.hold(epoch).map_err(|error| cannot_hold(&error));
                Ok(held.map(|()| Lease { epoch, term: None }))
            }
        }
    }

    pub(super) fn opened(&mut self, epoch: Epoch) {
        self.open.insert(epoch);
    }

    /// Lets go of a lease that is closed, or was not opened after all.
    pub(super) fn closed(&mut self, epoch: Epoch) {
        self.open.remove(&epoch);
        self.doubtful.remove(&epoch);
        self.inheritances.remove(&epoch);
        self.quiet.remove(&epoch);
        self.fits.remove(&epoch);
        if let Life::Locks(locks) = &mut self.life {
            locks.drop(epoch);
        }
    }

    /// Which of the leases that calls bear are gone. Those that are not stay until the transaction
    /// ends.
    pub(crate) async fn lost<C: ConnectionTrait>(
        &self,
        db: &C,
        calls: &[&Call],
    ) -> Result<Vec<Epoch>, DbErr> {
        let mut borne = BTreeSet::new();
        for call in calls {
            call.write.add_epochs(&mut borne);
        }
        let mut lost = Vec::new();
        for epoch in borne {
            if !self.keep(db, epoch).await? {
                lost.push(epoch);
            }
        }
        Ok(lost)
    }

    /// Whether a lease is there; it stays until the transaction ends.
    pub(super) async fn keep<C: ConnectionTrait>(
        &self,
        db: &C,
        epoch: Epoch,
    ) -> Result<bool, DbErr> {
        match self.life {
            // Nobody can end what this process holds.
            Life::Locks(_) => Ok(self.open.contains(&epoch)),
            Life::Terms(_) => sql::keep(db, epoch).await,
        }
    }

    /// The leases of others that have run out, and of which nobody here knows whether they own
    /// anything.
    pub(super) fn run_out(&mut self, lease_rows: &LeaseRows, mine: Epoch) -> Vec<Epoch> {
        // What was renewed, or is gone, is no longer what it was.
        self.idle.retain(|epoch, until| {
            lease_rows.leases.iter().any(|it| it.epoch == *epoch && it.until == Some(*until))
        });
        let has_run_out = |lease: &&Stored| {
            lease.epoch != mine && lease.left.is_some_and(|left| left <= 0 && left > -IDLE_MAX)
        };
        let unknown = lease_rows.leases.iter().filter(has_run_out);
        unknown.map(|lease| lease.epoch).filter(|it| !self.idle.contains_key(it)).collect()
    }

    /// Notes that a lease that has run out owns nothing. What bears it is written only after it was
    /// renewed: so this holds until then.
    pub(super) fn is_idle(&mut self, lease_rows: &LeaseRows, epoch: Epoch) {
        let lease = lease_rows.leases.iter().find(|lease| lease.epoch == epoch);
        if let Some(until) = lease.and_then(|lease| lease.until) {
            self.idle.insert(epoch, until);
        }
    }

    /// Which of the leases are dead, and when the next may be.
    pub(super) fn judge(&mut self, lease_rows: &LeaseRows, mine: Epoch) -> io::Result<LeaseView> {
        let mut view = LeaseView::default();
        let others = lease_rows.leases.iter().filter(|lease| lease.epoch != mine);
        match &mut self.life {
            Life::Locks(locks) => {
                for lease in others.filter(|lease| !self.open.contains(&lease.epoch)) {
                    if locks.is_held(lease.epoch)? {
                        view.others.push(lease.epoch);
                        view.ask_again_in = Some(LOOK_AGAIN);
                    } else {
                        view.dead.push(Dead { epoch: lease.epoch, is_gone: true });
                    }
                }
            }
            Life::Terms(process) => {
                let mut running = Vec::new();
                for lease in others {
                    let is_gone = process
                        .as_ref()
                        .is_some_and(|process| process.knows_to_be_gone(&lease.process));
                    let left = lease.left.map(|left| u64::try_from(left).unwrap_or(0));
                    let is_idle = is_idle(&self.idle, lease);
                    if is_gone || (left == Some(0) && !is_idle) {
                        view.dead.push(Dead { epoch: lease.epoch, is_gone });
                        continue;
                    }
                    if let Some(left) = left.filter(|left| *left > 0) {
                        view.look_in(Duration::from_micros(left));
                    }
                    let is_here =
                        process.as_ref().is_some_and(|process| process.is_beside(&lease.process));
                    if is_here && !self.open.contains(&lease.epoch) {
                        running.push((lease.epoch, lease.process.clone()));
                    }
                }
                if let Some(process) = process {
                    self.watched.watch(process, running, &self.notifier);
                }
            }
        }
        view.has_others = view.dead.len() + 1 < lease_rows.leases.len();
        Ok(view)
    }

    /// The answer to a claim, where nothing can have changed since the last one found nothing. Asks
    /// the kernel, and not the database.
    pub(super) fn still_quiet(&mut self, mine: Epoch) -> Option<Claimed> {
        let Life::Locks(locks) = &mut self.life else { return None };
        let quiet = self.quiet.get(&mine)?;
        if self.notifier.rings() != Some(quiet.rings) {
            return None;
        }
        for other in &quiet.others {
            if !locks.is_held(*other).ok()? {
                return None;
            }
        }
        let ask_again_in = (!quiet.others.is_empty()).then_some(LOOK_AGAIN);
        Some(Claimed { ask_again_in, ..Claimed::default() })
    }

    /// How often the notifier had rung before a survey of the leases, if that tells anything.
    pub(super) fn rings(&self) -> Option<u64> {
        self.notifier.rings()
    }

    /// Notes that there was nothing to claim.
    pub(super) fn found_nothing(&mut self, mine: Epoch, rings: Option<u64>, view: &LeaseView) {
        if let (Some(rings), Life::Locks(_)) = (rings, &self.life) {
            let others = view.others.clone();
            self.quiet.insert(mine, Quiet { rings, others });
        }
    }

    /// The workflows of which nobody knows that they were claimed.
    pub(super) fn doubtful(&self, epoch: Epoch) -> &[i64] {
        self.doubtful.get(&epoch).map_or(&[], Vec::as_slice)
    }

    /// Notes workflows of which nobody knows that they were claimed.
    pub(super) fn doubt(&mut self, epoch: Epoch, keys: Vec<i64>) {
        self.doubtful.entry(epoch).or_default().extend(keys);
    }

    /// Whoever claimed them knows by now.
    pub(super) fn no_doubt(&mut self, epoch: Epoch) {
        self.doubtful.remove(&epoch);
    }

    /// True when something that was inherited is to be given out, or there may be.
    pub(super) fn has_inheritance(&self, epoch: Epoch) -> bool {
        self.inheritances.get(&epoch).is_some_and(|it| it.is_unsure || !it.keys.is_empty())
    }

    /// True when the workflows that an ended lease left to this one were listed.
    pub(super) fn has_listed(&self, epoch: Epoch, ended: i64) -> bool {
        self.inheritances.get(&epoch).is_some_and(|it| it.listed.contains(&ended))
    }

    /// What is to be given out, in the order of submission of each ended lease.
    pub(super) fn inheritance(&self, epoch: Epoch) -> impl Iterator<Item = i64> {
        self.inheritances.get(&epoch).into_iter().flat_map(|it| it.keys.iter().copied())
    }

    /// Notes what a lease inherited, and what of it is given out: from its beginning.
    pub(super) fn inherited<'a>(
        &mut self,
        epoch: Epoch,
        listed: impl IntoIterator<Item = (i64, Vec<i64>)>,
        given: impl Iterator<Item = &'a i64>,
    ) {
        let inheritance = self.inheritances.entry(epoch).or_default();
        inheritance.is_unsure = false;
        for (ended, keys) in listed {
            inheritance.listed.insert(ended);
            inheritance.keys.extend(keys);
        }
        let given: HashSet<i64> = given.copied().collect();
        let first = given.len().min(inheritance.keys.len());
        let kept: Vec<i64> =
            inheritance.keys.drain(..first).filter(|key| !given.contains(key)).collect();
        for key in kept.into_iter().rev() {
            inheritance.keys.push_front(key);
        }
    }

    /// What was left of it belongs to nobody any more.
    pub(super) fn shared_inheritance(&mut self, epoch: Epoch) {
        self.inheritances.entry(epoch).or_default().keys.clear();
    }

    /// Nobody knows whether more was inherited.
    pub(super) fn doubt_inheritance(&mut self, epoch: Epoch) {
        self.inheritances.entry(epoch).or_default().is_unsure = true;
    }
}

impl LeaseView {
    fn look_in(&mut self, pause: Duration) {
        self.ask_again_in = Some(self.ask_again_in.map_or(pause, |before| before.min(pause)));
    }

    /// A dead lease could not be ended yet.
    pub(super) fn try_again(&mut self) {
        self.look_in(TRY_AGAIN);
    }
}

/// True for a lease of a process that has no work.
fn is_idle(idle: &HashMap<Epoch, i64>, lease: &Stored) -> bool {
    let is_recent = lease.left.is_none_or(|left| left > -IDLE_MAX);
    is_recent && lease.until.is_some() && idle.get(&lease.epoch).copied() == lease.until
}

fn cannot_hold(error: &io::Error) -> StoreError {
    StoreError::Write { detail: format!("cannot lock the file of leases beside it: {error}") }
}
