//! The providers as the balancer knows them: what each serves, how well it is, how busy it is.
//!
//! Invariants: a provider's calls in flight are the [`started`](ProviderTable::started) without a
//! [`finished`](ProviderTable::finished), never negative and, where callers count what they pick,
//! never above its bound; a choice is never worse in health than another that was there.

mod entry;

use std::{collections::HashMap, fmt, time::Duration};

use super::{
    BalanceConfig, Candidate, Chooser, LoadBalancingStrategy, PeakLatency, PickContext, Sample,
    Strategies, UnknownStrategy,
};
use crate::{
    health::HealthStatus,
    id::{Capability, ProtocolId, ProviderId},
};

pub use entry::{Pick, ProviderEntry, Registration, Slot};

/// The providers, and the strategies that choose among them. `H` is how to reach a provider.
pub struct ProviderTable<H> {
    entries: Vec<SlabCell<H>>,
    by_id: HashMap<ProviderId, u32>,
    methods: HashMap<Capability, MethodProviders>,
    strategies: Vec<(ProtocolId, Box<dyn LoadBalancingStrategy>)>,
    chooser: Chooser,
    latency_decay: Duration,
    /// Memory of the last list of candidates, used again for the next.
    scratch: Vec<Candidate<'static>>,
}

/// A place that may be empty, with the number of providers that have left it.
#[derive(Debug)]
struct SlabCell<H> {
    generation: u32,
    entry: Option<ProviderEntry<H>>,
}

/// The providers of a method.
#[derive(Debug)]
struct MethodProviders {
    /// A small number of its own.
    number: usize,
    /// Places in ascending order.
    indexes: Vec<u32>,
    /// Index of its protocol's strategy.
    strategy: usize,
}

impl<H> fmt::Debug for ProviderTable<H> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.strategies.iter().map(|(protocol, by)| (protocol, by.name().to_owned()));
        out.debug_struct("ProviderTable")
            .field("providers", &self.by_id.keys())
            .field("strategies", &names.collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

impl<H> ProviderTable<H> {
    /// A table without providers.
    ///
    /// # Errors
    /// [`UnknownStrategy`] when `config` names one that is not among `strategies`.
    pub fn new(config: &BalanceConfig, strategies: &Strategies) -> Result<Self, UnknownStrategy> {
        Ok(Self {
            entries: Vec::new(),
            by_id: HashMap::new(),
            methods: HashMap::new(),
            strategies: Vec::new(),
            chooser: Chooser::new(config, strategies)?,
            latency_decay: config.latency_decay,
            scratch: Vec::new(),
        })
    }

    /// Adds a provider. It gets no calls before [`set_available`](Self::set_available).
    ///
    /// One of that id keeps its place, health and counts, and is otherwise replaced.
    pub fn register(&mut self, registration: Registration, handle: H) -> Slot {
        let known = self.by_id.get(&registration.id).copied();
        if let Some(index) = known {
            self.forget_capabilities(index);
        }
        let index = known.unwrap_or_else(|| self.empty_cell());
        self.by_id.insert(registration.id.clone(), index);
        let strategies = self.serve_capabilities(index, &registration.capabilities);
        let cell = &mut self.entries[index as usize];
        let fresh = || (HealthStatus::Unknown, false, 0, PeakLatency::new(self.latency_decay));
        let (health, available, in_flight, latency) = cell
            .entry
            .take()
            .map_or_else(fresh, |it| (it.health, it.available, it.in_flight, it.latency));
        cell.entry = Some(ProviderEntry {
            registration,
            handle,
            health,
            available,
            in_flight,
            latency,
            strategies,
        });
        self.slot(index)
    }

    /// Removes a provider and returns its handle, if it was registered. Its calls in flight are no
    /// longer counted.
    pub fn remove(&mut self, id: &ProviderId) -> Option<H> {
        let index = self.by_id.remove(id)?;
        self.forget_capabilities(index);
        let cell = &mut self.entries[index as usize];
        cell.generation = cell.generation.wrapping_add(1);
        cell.entry.take().map(|entry| entry.handle)
    }

    /// Notes how well a provider is; how well it was before, if it is there.
    pub fn set_health(&mut self, id: &ProviderId, health: HealthStatus) -> Option<HealthStatus> {
        let entry = self.entry_mut(id)?;
        Some(std::mem::replace(&mut entry.health, health))
    }

    /// Notes whether an instance is there to be called; whether one was, if the provider is known.
    pub fn set_available(&mut self, id: &ProviderId, available: bool) -> Option<bool> {
        let entry = self.entry_mut(id)?;
        Some(std::mem::replace(&mut entry.available, available))
    }

    /// Chooses who serves a call of `capability` at `now`; does not count it yet.
    ///
    /// Healthy providers are chosen before degraded and unchecked ones, which serve only if no
    /// healthy one is available. The one to `avoid`, such as the one of the failed attempt, is
    /// chosen only if no other is eligible.
    pub fn pick(
        &mut self,
        capability: &Capability,
        avoid: Option<&ProviderId>,
        now: Duration,
    ) -> Pick {
        let Some(method) = self.methods.get(capability) else { return Pick::NotSupported };
        if method.indexes.is_empty() {
            return Pick::NotSupported;
        }
        let Some(tier) = best_tier(&self.entries, &method.indexes, avoid) else {
            return match avoid {
                Some(_) => self.pick(capability, None, now),
                None => Pick::Unavailable,
            };
        };
        let mut candidates = recycled(std::mem::take(&mut self.scratch));
        let indexes = method.indexes.iter().copied();
        candidates.extend(indexes.filter_map(|at| candidate(&self.entries, at, tier, avoid)));
        let chosen = match candidates.as_slice() {
            [] => None,
            [only] => Some(only.slot),
            several => {
                let strategy = &mut self.strategies[method.strategy].1;
                let context = PickContext { capability, method: method.number, now };
                let at = strategy.select(several, &context);
                Some(several.get(at).unwrap_or(&several[0]).slot)
            }
        };
        self.scratch = recycled(candidates);
        chosen.map_or(Pick::Busy, |index| Pick::Chosen(self.slot(index)))
    }

    /// Counts a call that begins. False when the provider has gone.
    pub fn started(&mut self, slot: Slot) -> bool {
        let entry = self.at_mut(slot);
        entry.map(|entry| entry.in_flight = entry.in_flight.saturating_add(1)).is_some()
    }

    /// Counts a call that ended. `sample` is `None` for a cancelled call, which says nothing about
    /// its provider. False if the provider has been removed.
    pub fn finished(&mut self, slot: Slot, sample: Option<Sample>, now: Duration) -> bool {
        let Some(cell) = self.entries.get_mut(slot.index as usize) else { return false };
        let current = cell.generation == slot.generation;
        let Some(entry) = cell.entry.as_mut().filter(|_| current) else { return false };
        let id = &entry.registration.id;
        debug_assert!(entry.in_flight > 0, "{id} finished more calls than it started");
        entry.in_flight = entry.in_flight.saturating_sub(1);
        if let Some(sample) = sample {
            entry.latency.observe(sample, now);
            for at in &entry.strategies {
                self.strategies[*at].1.finished(id, sample, now);
            }
        }
        true
    }

    /// A provider by its place.
    pub fn get(&self, slot: Slot) -> Option<&ProviderEntry<H>> {
        let cell = self.entries.get(slot.index as usize)?;
        cell.entry.as_ref().filter(|_| cell.generation == slot.generation)
    }

    /// How to reach a provider, to be changed.
    pub fn handle_mut(&mut self, slot: Slot) -> Option<&mut H> {
        self.at_mut(slot).map(|entry| &mut entry.handle)
    }

    /// The place of a provider.
    pub fn find(&self, id: &ProviderId) -> Option<Slot> {
        self.by_id.get(id).map(|index| self.slot(*index))
    }

    /// Every provider, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, &ProviderEntry<H>)> {
        (0..).zip(&self.entries).filter_map(|(index, cell)| {
            let slot = Slot { index, generation: cell.generation };
            Some((slot, cell.entry.as_ref()?))
        })
    }

    /// True when some provider serves the method, well or not.
    pub fn supports(&self, capability: &Capability) -> bool {
        self.methods.get(capability).is_some_and(|method| !method.indexes.is_empty())
    }

    /// True when some provider of the method is well enough to be called, busy or not.
    pub fn is_up(&self, capability: &Capability) -> bool {
        let method = self.methods.get(capability);
        method.is_some_and(|method| best_tier(&self.entries, &method.indexes, None).is_some())
    }

    /// The strategy of a protocol, once a provider of it is registered.
    pub fn strategy_of(&self, protocol: &ProtocolId) -> Option<&str> {
        let mut strategies = self.strategies.iter();
        strategies.find(|(of, _)| of == protocol).map(|(_, strategy)| strategy.name())
    }

    fn slot(&self, index: u32) -> Slot {
        Slot { index, generation: self.entries[index as usize].generation }
    }

    fn at_mut(&mut self, slot: Slot) -> Option<&mut ProviderEntry<H>> {
        let cell = self.entries.get_mut(slot.index as usize)?;
        cell.entry.as_mut().filter(|_| cell.generation == slot.generation)
    }

    fn entry_mut(&mut self, id: &ProviderId) -> Option<&mut ProviderEntry<H>> {
        let index = *self.by_id.get(id)?;
        self.entries[index as usize].entry.as_mut()
    }

    /// The first place without a provider, or a new one at the end.
    fn empty_cell(&mut self) -> u32 {
        let at = self.entries.iter().position(|cell| cell.entry.is_none());
        let at = at.unwrap_or_else(|| {
            self.entries.push(SlabCell { generation: 0, entry: None });
            self.entries.len() - 1
        });
        u32::try_from(at).expect("fewer than 2^32 providers")
    }

    /// Notes who serves what; the strategies concerned.
    fn serve_capabilities(&mut self, index: u32, capabilities: &[Capability]) -> Vec<usize> {
        let mut strategies = Vec::new();
        for capability in capabilities {
            let strategy = self.strategy_for(&capability.protocol);
            let number = self.methods.len();
            let method = self
                .methods
                .entry(capability.clone())
                .or_insert_with(|| MethodProviders { number, indexes: Vec::new(), strategy });
            if let Err(at) = method.indexes.binary_search(&index) {
                method.indexes.insert(at, index);
            }
            if !strategies.contains(&strategy) {
                strategies.push(strategy);
            }
        }
        strategies
    }

    fn forget_capabilities(&mut self, index: u32) {
        for method in self.methods.values_mut() {
            method.indexes.retain(|at| *at != index);
        }
    }

    fn strategy_for(&mut self, protocol: &ProtocolId) -> usize {
        let known = self.strategies.iter().position(|(of, _)| of == protocol);
        known.unwrap_or_else(|| {
            self.strategies.push((protocol.clone(), self.chooser.build(protocol)));
            self.strategies.len() - 1
        })
    }
}

fn is_avoided<H>(entry: &ProviderEntry<H>, avoid: Option<&ProviderId>) -> bool {
    avoid.is_some_and(|avoid| *avoid == entry.registration.id)
}

fn best_tier<H>(
    entries: &[SlabCell<H>],
    indexes: &[u32],
    avoid: Option<&ProviderId>,
) -> Option<usize> {
    let entries = indexes.iter().filter_map(|at| entries[*at as usize].entry.as_ref());
    entries.filter(|entry| !is_avoided(entry, avoid)).filter_map(ProviderEntry::tier).min()
}

fn candidate<'a, H>(
    entries: &'a [SlabCell<H>],
    at: u32,
    tier: usize,
    avoid: Option<&ProviderId>,
) -> Option<Candidate<'a>> {
    let entry = entries[at as usize].entry.as_ref()?;
    let fit = entry.tier() == Some(tier) && !entry.is_full() && !is_avoided(entry, avoid);
    fit.then_some(Candidate {
        id: &entry.registration.id,
        slot: at,
        weight: entry.registration.weight,
        in_flight: entry.in_flight,
        max_concurrent: entry.registration.max_concurrent,
        latency: &entry.latency,
    })
}

/// The memory of a list, emptied, for candidates of another lifetime. Collecting an iterator over
/// a `Vec` of the same layout reuses its memory; no choice allocates but the first ones.
fn recycled<'to>(mut candidates: Vec<Candidate<'_>>) -> Vec<Candidate<'to>> {
    candidates.clear();
    candidates.into_iter().map_while(|_| None).collect()
}

#[cfg(test)]
mod tests;
