//! The engine's lease, and when it polls the store for work.
//!
//! The lease is taken when it is first needed and renewed while the engine owns something: an idle
//! engine asks the store nothing.
//!
//! Invariant: at most one question for the lease and one poll are under way.

use std::time::Duration;

use super::Moment;
use crate::store::{Epoch, lease::Lease};

/// A renewal that failed is tried again after this part of the term.
const RETRY_PART: u32 = 10;

/// Another lease is expected to have expired this much after its term: clocks differ.
const SLACK: Duration = Duration::from_millis(20);

/// Calls begin within so many thirds of a term that has not been renewed. The rest of it is for
/// what has just begun, and for clocks that do not run alike.
const BEGIN_THIRDS: u32 = 2;

/// A lease that is held, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HeldLease {
    /// The lease.
    pub(super) lease: Lease,
    /// When it was asked for, or last renewed.
    pub(super) since: Moment,
}

impl HeldLease {
    /// True while it is certain enough that no other process has ended it.
    fn is_fresh(&self, now: Moment) -> bool {
        self.lease.term.is_none_or(|term| now.saturating_sub(self.since) < term / 2)
    }

    fn is_in_term(&self, now: Moment) -> bool {
        self.lease.term.is_none_or(|term| now.saturating_sub(self.since) < term)
    }

    /// From the question on: an answer that was long on its way is old when it arrives.
    fn renewal_pause(&self, now: Moment) -> Option<Duration> {
        let age = now.saturating_sub(self.since);
        self.lease.term.map(|term| (term / 3).saturating_sub(age))
    }

    /// The last moment at which a call with an effect may begin, and the end of the term.
    pub(super) fn bounds(&self) -> Option<(Option<Moment>, Moment)> {
        let term = self.lease.term?;
        let begin = self.since.checked_add(term / 3 * BEGIN_THIRDS);
        Some((begin, self.since.saturating_add(term)))
    }
}

/// Whether the engine polls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum PollState {
    #[default]
    Idle,
    Polling,
    /// There was another reason to poll meanwhile.
    PollingAndAgain,
}

/// The known state of the lease, and of polls.
#[expect(clippy::struct_excessive_bools, reason = "facts that do not exclude each other")]
#[derive(Debug, Default)]
pub(super) struct Ownership {
    held: Option<HeldLease>,
    is_asking: bool,
    has_renewal: bool,
    polling: PollState,
    /// The start has asked for what is stored: before that, providers may still be missing.
    has_begun: bool,
    /// There was more to claim than there was room for.
    has_deferred: bool,
    next_poll: Option<Moment>,
}

impl Ownership {
    /// The lease that is held, fresh or not.
    pub(super) fn epoch(&self) -> Option<Epoch> {
        self.held.map(|held| held.lease.epoch)
    }

    /// The lease that is held, with when it was last renewed.
    pub(super) fn held(&self) -> Option<HeldLease> {
        self.held
    }

    /// The lease, if it may be used for a write that begins now.
    pub(super) fn fresh(&self, now: Moment) -> Option<HeldLease> {
        self.held.filter(|held| held.is_fresh(now))
    }

    /// True if a lease is held whose term is not over.
    pub(super) fn is_in_term(&self, now: Moment) -> bool {
        self.held.is_some_and(|held| held.is_in_term(now))
    }

    /// True while the lease is this one, and has not been renewed after `since`.
    pub(super) fn is_unrenewed(&self, epoch: Epoch, since: Moment) -> bool {
        self.held.is_some_and(|held| held.lease.epoch == epoch && held.since == since)
    }

    /// True unless a question for the lease is under way already.
    pub(super) fn begin_asking(&mut self) -> bool {
        !std::mem::replace(&mut self.is_asking, true)
    }

    /// The question for the lease has its answer.
    pub(super) fn end_asking(&mut self) {
        self.is_asking = false;
    }

    /// The lease was taken or renewed; the one that was held before comes back if it is another.
    pub(super) fn take(&mut self, held: HeldLease) -> Option<Epoch> {
        let before = self.held.replace(held);
        before.map(|it| it.lease.epoch).filter(|epoch| *epoch != held.lease.epoch)
    }

    /// The lease is gone, or given up; it comes back.
    pub(super) fn drop_lease(&mut self) -> Option<Epoch> {
        self.held.take().map(|held| held.lease.epoch)
    }

    /// The pause before a renewal after one that succeeded.
    pub(super) fn renew_after(&mut self, now: Moment) -> Option<Duration> {
        let pause = self.held.and_then(|held| held.renewal_pause(now));
        self.has_renewal = pause.is_some();
        pause
    }

    /// The same, if no renewal is armed: an engine that owned nothing did not renew.
    pub(super) fn renew_unless_armed(&mut self, now: Moment) -> Option<Duration> {
        if self.has_renewal { None } else { self.renew_after(now) }
    }

    /// The pause before a renewal after one that failed.
    pub(super) fn renew_again_after(&mut self, term: Duration) -> Duration {
        self.has_renewal = true;
        term / RETRY_PART
    }

    /// The renewal is due, and armed no more.
    pub(super) fn renewal_fired(&mut self) {
        self.has_renewal = false;
    }

    /// True if a poll may begin now; otherwise it begins after the one under way.
    pub(super) fn begin_poll(&mut self) -> bool {
        let is_idle = self.polling == PollState::Idle;
        // A second reason must not be forgotten: what caused it may have come after the poll read.
        self.polling = if is_idle { PollState::Polling } else { PollState::PollingAndAgain };
        is_idle
    }

    /// A poll has ended; true if another is to begin.
    pub(super) fn end_poll(&mut self) -> bool {
        std::mem::take(&mut self.polling) == PollState::PollingAndAgain
    }

    /// The start claims everything that is stored, which counts as a poll.
    pub(super) fn begin_start(&mut self) {
        self.has_begun = true;
        self.polling = PollState::Polling;
    }

    /// True after the start has asked for what is stored.
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// There was no room for all that could be claimed.
    pub(super) fn defer(&mut self) {
        self.has_deferred = true;
    }

    /// True once if something was deferred and there is room for it.
    pub(super) fn claim_deferred(&mut self, has_room: bool) -> bool {
        has_room && std::mem::take(&mut self.has_deferred)
    }

    /// The pause before the next poll, which is due after `pause` or else after `sweep`; `None` if
    /// one is armed early enough.
    pub(super) fn poll_after(
        &mut self,
        pause: Option<Duration>,
        sweep: Duration,
        now: Moment,
    ) -> Option<Duration> {
        // Never later than the sweep, whatever the store says: a notification may be lost.
        let pause = pause.map_or(sweep, |pause| (pause + SLACK).min(sweep));
        let at = now.checked_add(pause)?;
        if self.next_poll.is_some_and(|before| before > now && before <= at) {
            return None;
        }
        self.next_poll = Some(at);
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TERM: Duration = Duration::from_secs(12);

    fn held(epoch: u64, since: u64) -> HeldLease {
        let lease = Lease { epoch: Epoch(epoch), term: Some(TERM) };
        HeldLease { lease, since: Duration::from_secs(since) }
    }

    /// A lease is used for half of its term, and calls begin in two thirds of it.
    #[test]
    fn a_lease_is_used_for_a_part_of_its_term() {
        let mut ownership = Ownership::default();
        let at = Duration::from_secs;
        assert_eq!(ownership.take(held(1, 100)), None);
        assert!(ownership.fresh(at(105)).is_some());
        assert!(ownership.fresh(at(106)).is_none());
        assert!(ownership.is_in_term(at(111)) && !ownership.is_in_term(at(112)));
        assert_eq!(held(1, 100).bounds(), Some((Some(at(108)), at(112))));
        assert_eq!(ownership.renew_after(at(101)), Some(at(3)));
        assert_eq!(ownership.renew_unless_armed(at(101)), None);
    }

    /// A renewal keeps the lease; another lease names the one that is lost.
    #[test]
    fn another_lease_names_the_one_before() {
        let mut ownership = Ownership::default();
        ownership.take(held(1, 0));
        assert_eq!(ownership.take(held(1, 4)), None);
        assert!(ownership.is_unrenewed(Epoch(1), Duration::from_secs(4)));
        assert!(!ownership.is_unrenewed(Epoch(1), Duration::ZERO));
        assert_eq!(ownership.take(held(2, 8)), Some(Epoch(1)));
        assert_eq!((ownership.drop_lease(), ownership.epoch()), (Some(Epoch(2)), None));
    }

    /// An earlier poll stays armed; a later one does not delay it.
    #[test]
    fn a_poll_is_not_delayed_by_a_later_one() {
        let mut ownership = Ownership::default();
        let (sweep, now) = (Duration::from_mins(5), Duration::from_secs(1));
        let soon = Duration::from_secs(2);
        assert_eq!(ownership.poll_after(None, sweep, now), Some(sweep));
        assert_eq!(ownership.poll_after(Some(soon), sweep, now), Some(soon + SLACK));
        assert_eq!(ownership.poll_after(None, sweep, now), None);
        assert_eq!(ownership.poll_after(None, Duration::MAX, now), None, "beyond all time");
    }

    proptest! {
        /// At most one poll at once; a reason to poll is followed by a poll that began after it.
        #[test]
        fn no_reason_to_poll_is_lost(ops in prop::collection::vec(any::<bool>(), 0..60)) {
            let mut ownership = Ownership::default();
            let (mut is_polling, mut is_open) = (false, false);
            for poll in ops {
                if poll {
                    is_open = true;
                    if ownership.begin_poll() {
                        prop_assert!(!is_polling);
                        (is_polling, is_open) = (true, false);
                    }
                } else if is_polling {
                    is_polling = false;
                    if ownership.end_poll() {
                        prop_assert!(ownership.begin_poll());
                        (is_polling, is_open) = (true, false);
                    }
                    prop_assert!(!is_open);
                }
            }
        }
    }
}
