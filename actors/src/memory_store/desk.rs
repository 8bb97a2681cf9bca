//! The leases and requests of a [`MemoryStore`](super::MemoryStore), under its lock.

use std::{collections::BTreeMap, time::Duration};

use gleitzeit_domain::store::{
    Epoch, StoreError,
    lease::{Request, RequestAnswer, RequestKey},
};
use tokio::time::Instant;

/// Leases by epoch, requests by age.
#[derive(Debug, Default)]
pub(super) struct Desk {
    /// When each runs out; `None` is never.
    leases: BTreeMap<Epoch, Option<Instant>>,
    last_epoch: u64,
    requests: BTreeMap<RequestKey, (Request, Option<RequestAnswer>)>,
    last_request: u64,
}

impl Desk {
    pub(super) fn open(&mut self, term: Option<Duration>) -> Epoch {
        self.last_epoch += 1;
        let epoch = Epoch(self.last_epoch);
        self.leases.insert(epoch, end(term));
        epoch
    }

    /// False when the lease is gone. One that has run out is good until someone ends it.
    pub(super) fn renew(&mut self, epoch: Epoch, term: Option<Duration>) -> bool {
        let Some(until) = self.leases.get_mut(&epoch) else { return false };
        *until = end(term);
        true
    }

    /// True when there was one.
    pub(super) fn close(&mut self, epoch: Epoch) -> bool {
        self.leases.remove(&epoch).is_some()
    }

    /// Refuses what bears a lease that is gone.
    pub(super) fn check(&self, epoch: Option<Epoch>) -> Result<(), StoreError> {
        match epoch {
            Some(epoch) if !self.leases.contains_key(&epoch) => {
                Err(StoreError::LeaseLost { epoch })
            }
            _ => Ok(()),
        }
    }

    /// Ends the leases other than `mine` that have run out.
    pub(super) fn end_dead(&mut self, mine: Epoch) -> Vec<Epoch> {
        let now = Instant::now();
        let is_dead = |epoch: &Epoch, until: &mut Option<Instant>| {
            *epoch != mine && until.is_some_and(|until| until <= now)
        };
        self.leases.extract_if(.., is_dead).map(|(epoch, _)| epoch).collect()
    }

    /// When the next of the others runs out.
    pub(super) fn next_end(&self, mine: Epoch) -> Option<Duration> {
        let others = self.leases.iter().filter(|(epoch, _)| **epoch != mine);
        let next = others.filter_map(|(_, until)| *until).min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    pub(super) fn ask(&mut self, request: Request) -> RequestKey {
        self.last_request += 1;
        let key = RequestKey(self.last_request);
        self.requests.insert(key, (request, None));
        key
    }

    /// Those not answered yet, in order.
    pub(super) fn unanswered(&self) -> impl Iterator<Item = (RequestKey, &Request)> {
        let open = self.requests.iter().filter(|(_, (_, answer))| answer.is_none());
        open.map(|(key, (request, _))| (*key, request))
    }

    pub(super) fn answer(&mut self, key: RequestKey, answer: RequestAnswer) {
        if let Some((_, given)) = self.requests.get_mut(&key) {
            given.get_or_insert(answer);
        }
    }

    pub(super) fn take_answer(&mut self, key: RequestKey) -> Option<RequestAnswer> {
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
