//! The queue for resources: waiting requests over a [`ResourceLedger`].
//!
//! The `ResourceManager` uses it. It is pure: it counts, decides, and returns the waiters to answer.
//!
//! The rule: waiters are ordered by priority, then age; the first is the *head*. A waiter that does
//! not fit into the free resources is passed over for a smaller one after it. While a waiter is the
//! head, or the oldest of all, every lease of another one is counted; at [`OVERTAKES_MAX`] it is
//! *reserved*, and nobody else gets a lease before it. So small requests do not starve a large one,
//! nor urgent ones a low one, and neither blocks the others for longer than it takes to free its
//! resources.
//!
//! Invariants:
//! - taken = the sum of all leases that are not released; never above the total;
//! - at most one waiter is reserved. At most `OVERTAKES_MAX + 1` leases go to others while a waiter
//!   is the head or the oldest: one more if both are due at once, because the head goes first;
//! - hence a waiter that finds `k` others waiting gets its lease after at most
//!   `(k + 1) * (OVERTAKES_MAX + 2)` leases, for each of those older than it is the oldest once;
//! - after every call, none of the first [`PASSED_OVER_MAX`] waiters could be served.

use std::{collections::BTreeMap, ops::Bound};

use crate::{
    resources::{ResourceLedger, Resources},
    task::Priority,
};

/// Leases of others while a waiter is the head or the oldest, after which it is reserved.
pub const OVERTAKES_MAX: u32 = 64;

/// Waiters that a search for a fitting one passes over before it ends.
pub const PASSED_OVER_MAX: usize = 128;

/// The ticket of a waiter, for [`LeaseQueue::cancel`]. Ordered by priority, then age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket {
    priority: Priority,
    age: u64,
}

/// The resources of a waiter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted<W> {
    /// The resources, to release unchanged. At least one slot.
    pub held: Resources,
    /// The waiter.
    pub waiter: W,
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer<W> {
    /// The resources are granted.
    Granted(Granted<W>),
    /// The request waits; a later call grants it.
    Waiting(Ticket),
}

/// A request above the total, which no wait would grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", excess(need, total))]
pub struct ExceedsTotal {
    /// The requested resources.
    pub need: Resources,
    /// The total.
    pub total: Resources,
}

/// The resources above the total, by their names in files and settings.
fn excess(need: &Resources, total: &Resources) -> String {
    let needs: Vec<String> = need
        .excess(total)
        .map(|(name, needed, there)| format!("`{name}` {needed} (total: {there})"))
        .collect();
    let settings: Vec<String> =
        need.excess(total).map(|(name, ..)| format!("`resources.{name}`")).collect();
    format!(
        "the task needs {}; let it ask for less, or raise {}",
        needs.join(" and "),
        settings.join(" and ")
    )
}

/// A ledger with a queue. `W` is the caller's value to answer a waiter.
#[derive(Debug)]
pub struct LeaseQueue<W> {
    ledger: ResourceLedger,
    waiting: BTreeMap<Ticket, Waiting<W>>,
    /// The only waiter that may be served.
    reserved: Option<Ticket>,
    next_age: u64,
    overtakes_max: u32,
}

#[derive(Debug)]
struct Waiting<W> {
    need: Resources,
    waiter: W,
    /// Leases of others while this one was the head or the oldest.
    overtaken: u32,
}

impl<W> LeaseQueue<W> {
    /// A queue over `total`, with all of it free.
    pub const fn new(total: Resources) -> Self {
        Self {
            ledger: ResourceLedger::new(total),
            waiting: BTreeMap::new(),
            reserved: None,
            next_age: 0,
            overtakes_max: OVERTAKES_MAX,
        }
    }

    /// Requests `need`, with one slot if it names none: every lease takes one.
    ///
    /// # Errors
    /// [`ExceedsTotal`] if no wait would help; `waiter` is dropped.
    pub fn request(
        &mut self,
        need: Resources,
        priority: Priority,
        waiter: W,
    ) -> Result<Answer<W>, ExceedsTotal> {
        let need = need.with_slots(need.slots.max(1));
        if self.waiting.is_empty() && self.ledger.take(&need) {
            return Ok(Answer::Granted(Granted { held: need, waiter }));
        }
        if !need.fits_in(self.ledger.total()) {
            return Err(ExceedsTotal { need, total: *self.ledger.total() });
        }
        let ticket = Ticket { priority, age: self.next_age };
        self.next_age += 1;
        if self.may_pass(ticket) && self.ledger.take(&need) {
            self.count_overtakes(ticket);
            self.reserve();
            return Ok(Answer::Granted(Granted { held: need, waiter }));
        }
        self.waiting.insert(ticket, Waiting { need, waiter, overtaken: 0 });
        Ok(Answer::Waiting(ticket))
    }

    /// Releases what a lease held; returns the requests that get it, in the order to answer them.
    pub fn release(&mut self, held: &Resources) -> Vec<Granted<W>> {
        self.ledger.release(held);
        self.serve()
    }

    /// Takes a waiter out of the queue, and who is served now that it is gone. `None` when it does
    /// not wait: it was granted or cancelled before.
    pub fn cancel(&mut self, ticket: Ticket) -> Option<(W, Vec<Granted<W>>)> {
        let cancelled = self.waiting.remove(&ticket)?;
        if self.reserved == Some(ticket) {
            self.reserved = None;
            self.reserve();
        }
        Some((cancelled.waiter, self.serve()))
    }

    /// The total.
    pub const fn total(&self) -> &Resources {
        self.ledger.total()
    }

    /// The free amounts.
    pub const fn free(&self) -> &Resources {
        self.ledger.free()
    }

    /// The amounts that leases hold.
    pub fn taken(&self) -> Resources {
        self.ledger.taken()
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Grants to whoever may be served now, in order.
    fn serve(&mut self) -> Vec<Granted<W>> {
        let mut granted = Vec::new();
        let mut searched = Bound::Unbounded;
        let mut passed_over = 0;
        while self.ledger.free().slots > 0 && !self.waiting.is_empty() {
            let next = match self.reserved {
                Some(reserved) => self.fits(reserved).then_some(reserved),
                None => self.find_fitting(&mut searched, &mut passed_over),
            };
            let Some(ticket) = next else { break };
            granted.extend(self.grant(ticket));
        }
        granted
    }

    /// The first waiter behind `searched` that fits in what is free. What was passed over on the
    /// way cannot fit later in the same search, for meanwhile only less is free.
    fn find_fitting(
        &self,
        searched: &mut Bound<Ticket>,
        passed_over: &mut usize,
    ) -> Option<Ticket> {
        for (ticket, waiting) in self.waiting.range((*searched, Bound::Unbounded)) {
            if *passed_over >= PASSED_OVER_MAX {
                return None;
            }
            *searched = Bound::Excluded(*ticket);
            if waiting.need.fits_in(self.ledger.free()) {
                return Some(*ticket);
            }
            *passed_over += 1;
        }
        None
    }

    fn fits(&self, ticket: Ticket) -> bool {
        let waiting = self.waiting.get(&ticket);
        waiting.is_some_and(|waiting| waiting.need.fits_in(self.ledger.free()))
    }

    fn grant(&mut self, ticket: Ticket) -> Option<Granted<W>> {
        self.count_overtakes(ticket);
        let Waiting { need, waiter, .. } = self.waiting.remove(&ticket)?;
        let took = self.ledger.take(&need);
        debug_assert!(took, "granted what is not free: {need:?}");
        if self.reserved == Some(ticket) {
            self.reserved = None;
        }
        self.reserve();
        Some(Granted { held: need, waiter })
    }

    /// True when a search from the head would find a new request with this ticket.
    fn may_pass(&self, ticket: Ticket) -> bool {
        self.reserved.is_none()
            && self.ledger.free().slots > 0
            && (self.waiting.len() < PASSED_OVER_MAX
                || self.waiting.range(..ticket).take(PASSED_OVER_MAX).count() < PASSED_OVER_MAX)
    }

    /// Counts a lease for `winner` against the head, where it stands before `winner`, and against
    /// the oldest.
    fn count_overtakes(&mut self, winner: Ticket) {
        let head = self.head().filter(|head| *head < winner);
        let oldest = self.oldest().filter(|oldest| *oldest != winner && Some(*oldest) != head);
        for passed in [head, oldest].into_iter().flatten() {
            if let Some(waiting) = self.waiting.get_mut(&passed) {
                waiting.overtaken += 1;
            }
        }
    }

    /// Reserves the head or the oldest when it was overtaken too often, unless another one is.
    fn reserve(&mut self) {
        if self.reserved.is_none() {
            let due = |ticket: &Ticket| self.waiting[ticket].overtaken >= self.overtakes_max;
            self.reserved = self.head().filter(due).or_else(|| self.oldest().filter(due));
        }
    }

    fn head(&self) -> Option<Ticket> {
        self.waiting.first_key_value().map(|(ticket, _)| *ticket)
    }

    fn oldest(&self) -> Option<Ticket> {
        let of_each = Priority::ALL.into_iter().filter_map(|priority| {
            let first = Ticket { priority, age: 0 }..=Ticket { priority, age: u64::MAX };
            self.waiting.range(first).next().map(|(ticket, _)| *ticket)
        });
        of_each.min_by_key(|ticket| ticket.age)
    }
}

#[cfg(test)]
mod tests;
