//! Decides which leases have ended, and when the next one may.

use std::{collections::HashMap, io, time::Duration};

use gleitzeit_domain::store::Epoch;

use super::{LeaseKind, LeaseTable};
use crate::leases::sql::{ExpiredLease, LeaseRows, Stored};

/// The pause before the lock of a lease on a file is checked again; that takes one call of the
/// kernel and no query.
pub(super) const RECHECK: Duration = Duration::from_secs(1);

/// The time in microseconds after which a lease that has ended and owns nothing is expired. Its
/// process may be gone, on a machine that nobody here sees. A process that has no work opens a new
/// lease when it has some.
const IDLE_MAX: i64 = 60 * 60 * 1_000_000;

/// The pause before another attempt to expire a lease whose row a transaction has locked.
const RETRY: Duration = Duration::from_millis(500);

/// The leases from the view of one lease.
#[derive(Debug, Default)]
pub(crate) struct LeaseView {
    pub(crate) expired: Vec<ExpiredLease>,
    /// The live leases of others.
    pub(super) others: Vec<Epoch>,
    /// True if another lease is alive.
    pub(crate) has_others: bool,
    /// The pause before the next claim.
    pub(crate) ask_again_in: Option<Duration>,
}

impl LeaseTable {
    /// The ended leases of others that are not known to own nothing.
    pub(crate) fn ended_by_time(&mut self, lease_rows: &LeaseRows, mine: Epoch) -> Vec<Epoch> {
        // A lease that was renewed since may own workflows again.
        self.idle.retain(|epoch, until| {
            lease_rows.leases.iter().any(|it| it.epoch == *epoch && it.until == Some(*until))
        });
        let has_ended = |lease: &&Stored| {
            lease.epoch != mine && lease.left.is_some_and(|left| left <= 0 && left > -IDLE_MAX)
        };
        let unknown = lease_rows.leases.iter().filter(has_ended);
        unknown.map(|lease| lease.epoch).filter(|it| !self.idle.contains_key(it)).collect()
    }

    /// Stores that an ended lease owns nothing. Its process renews it before it claims, so this holds
    /// until the next renewal.
    pub(crate) fn set_idle(&mut self, lease_rows: &LeaseRows, epoch: Epoch) {
        let lease = lease_rows.leases.iter().find(|lease| lease.epoch == epoch);
        if let Some(until) = lease.and_then(|lease| lease.until) {
            self.idle.insert(epoch, until);
        }
    }

    /// The leases that have ended, and when the next one may.
    pub(crate) fn view(&mut self, lease_rows: &LeaseRows, mine: Epoch) -> io::Result<LeaseView> {
        let mut view = LeaseView::default();
        let others = lease_rows.leases.iter().filter(|lease| lease.epoch != mine);
        match &mut self.kind {
            LeaseKind::FileLock(locks) => {
                // Without those of this store: a lock never conflicts with its own open file, so a check
                // would find them free, and expire them.
                for lease in others.filter(|lease| !self.open.contains(&lease.epoch)) {
                    if locks.is_held(lease.epoch)? {
                        view.others.push(lease.epoch);
                        view.ask_again_in = Some(RECHECK);
                    } else {
                        view.expired.push(ExpiredLease { epoch: lease.epoch, is_gone: true });
                    }
                }
            }
            LeaseKind::Timed(process) => {
                let mut running = Vec::new();
                for lease in others {
                    let is_gone = process
                        .as_ref()
                        .is_some_and(|process| process.knows_to_be_gone(&lease.process));
                    let left = lease.left.map(|left| u64::try_from(left).unwrap_or(0));
                    let is_idle = is_idle(&self.idle, lease);
                    if is_gone || (left == Some(0) && !is_idle) {
                        view.expired.push(ExpiredLease { epoch: lease.epoch, is_gone });
                        continue;
                    }
                    if let Some(left) = left.filter(|left| *left > 0) {
                        view.ask_again_within(Duration::from_micros(left));
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
        view.has_others = view.expired.len() + 1 < lease_rows.leases.len();
        Ok(view)
    }
}

impl LeaseView {
    fn ask_again_within(&mut self, pause: Duration) {
        self.ask_again_in = Some(self.ask_again_in.map_or(pause, |before| before.min(pause)));
    }

    /// An expired lease could not be deleted yet.
    pub(crate) fn retry_soon(&mut self) {
        self.ask_again_within(RETRY);
    }
}

/// True if a lease is known to own nothing, and ended not long ago.
fn is_idle(idle: &HashMap<Epoch, i64>, lease: &Stored) -> bool {
    let is_recent = lease.left.is_none_or(|left| left > -IDLE_MAX);
    is_recent && lease.until.is_some() && idle.get(&lease.epoch).copied() == lease.until
}
