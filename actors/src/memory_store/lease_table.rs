//! The leases and requests of a [`MemoryStore`](super::MemoryStore), under its lock.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use gleitzeit_domain::{
    needs::Offer,
    store::{
        Epoch, StoreError,
        lease::{Owner, Request, RequestAnswer, RequestKey},
    },
};
use tokio::time::Instant;

/// Leases by epoch, requests by age.
#[derive(Debug, Default)]
pub(super) struct LeaseTable {
    leases: BTreeMap<Epoch, Held>,
    /// The last offer of each lease, and the workflows that it released because it cannot run them,
    /// by age.
    offers: HashMap<Epoch, (Offer, BTreeSet<u64>)>,
    last_epoch: u64,
    requests: BTreeMap<RequestKey, (Request, Option<RequestAnswer>)>,
    last_request: u64,
}

#[derive(Debug)]
struct Held {
    owner: String,
    /// When it expires; `None` for never.
    until: Option<Instant>,
}

impl LeaseTable {
    pub(super) fn open(&mut self, owner: &str, term: Option<Duration>) -> Epoch {
        self.last_epoch += 1;
        let epoch = Epoch(self.last_epoch);
        self.leases.insert(epoch, Held { owner: owner.to_owned(), until: end(term) });
        epoch
    }

    /// The holder of a lease.
    pub(super) fn owner(&self, epoch: Epoch) -> Option<Owner> {
        let held = self.leases.get(&epoch)?;
        let is_alive = held.until.is_none_or(|until| until > Instant::now());
        Some(Owner { epoch, name: held.owner.clone(), process_id: None, is_alive })
    }

    /// Notes the offer of a lease; returns the workflows that it released under the same offer.
    pub(super) fn refused(&mut self, epoch: Epoch, offer: &Offer) -> &BTreeSet<u64> {
        let (before, refused) =
            self.offers.entry(epoch).or_insert_with(|| (offer.clone(), BTreeSet::new()));
        // A new provider may run what could not run before; kept, these workflows would wait for
        // another process.
        if before != offer {
            *before = offer.clone();
            refused.clear();
        }
        refused
    }

    /// Notes a workflow that a lease released because it cannot run it.
    pub(super) fn refuse(&mut self, epoch: Epoch, age: u64) {
        let offer = self.offers.entry(epoch);
        offer.or_insert_with(|| (Offer::everything(), BTreeSet::new())).1.insert(age);
    }

    /// False if the lease is gone. An expired lease is valid until another process ends it.
    pub(super) fn renew(&mut self, epoch: Epoch, term: Option<Duration>) -> bool {
        let Some(held) = self.leases.get_mut(&epoch) else { return false };
        held.until = end(term);
        true
    }

    /// True if there was such a lease.
    pub(super) fn close(&mut self, epoch: Epoch) -> bool {
        self.offers.remove(&epoch);
        self.leases.remove(&epoch).is_some()
    }

    /// Rejects a write with a lease that is gone.
    pub(super) fn check(&self, epoch: Option<Epoch>) -> Result<(), StoreError> {
        match epoch {
            Some(epoch) if !self.leases.contains_key(&epoch) => {
                Err(StoreError::LeaseLost { epoch })
            }
            _ => Ok(()),
        }
    }

    /// Ends the expired leases other than `mine`.
    pub(super) fn end_dead(&mut self, mine: Epoch) -> Vec<Epoch> {
        let now = Instant::now();
        // Never its own: the engine that asks is alive, and late only because it was busy.
        let is_dead = |epoch: &Epoch, held: &mut Held| {
            *epoch != mine && held.until.is_some_and(|until| until <= now)
        };
        let dead: Vec<Epoch> =
            self.leases.extract_if(.., is_dead).map(|(epoch, _)| epoch).collect();
        for epoch in &dead {
            self.offers.remove(epoch);
        }
        dead
    }

    /// The time until the next other lease expires.
    pub(super) fn next_end(&self, mine: Epoch) -> Option<Duration> {
        let others = self.leases.iter().filter(|(epoch, _)| **epoch != mine);
        let next = others.filter_map(|(_, held)| held.until).min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    /// Expires every lease, whatever its term.
    pub(super) fn end_all(&mut self) {
        let now = Instant::now();
        self.leases.values_mut().for_each(|held| held.until = Some(now));
    }

    pub(super) fn ask(&mut self, request: Request) -> RequestKey {
        self.last_request += 1;
        let key = RequestKey(self.last_request);
        self.requests.insert(key, (request, None));
        key
    }

    /// The requests without an answer, oldest first.
    pub(super) fn unanswered(&self) -> impl Iterator<Item = (RequestKey, &Request)> {
        let open = self.requests.iter().filter(|(_, (_, answer))| answer.is_none());
        open.map(|(key, (request, _))| (*key, request))
    }

    pub(super) fn answer(&mut self, key: RequestKey, answer: RequestAnswer) {
        if let Some((_, stored)) = self.requests.get_mut(&key) {
            // The first answer stands: a second process that did the same would report a failure
            // for what has been done.
            stored.get_or_insert(answer);
        }
    }

    pub(super) fn take_answer(&mut self, key: RequestKey) -> Option<RequestAnswer> {
        // A request without an answer must stay: it is not served yet.
        self.requests.get(&key)?.1.as_ref()?;
        self.requests.remove(&key)?.1
    }

    pub(super) fn withdraw(&mut self, key: RequestKey) {
        self.requests.remove(&key);
    }
}

fn end(term: Option<Duration>) -> Option<Instant> {
    Instant::now().checked_add(term?)
}
