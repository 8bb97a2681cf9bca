//! One provider in the table: what it was registered with, and its state.

use crate::{
    balance::PeakLatency,
    health::HealthStatus,
    id::{Capability, ProviderId},
};

/// The place of a provider in the table; outlives the provider without naming another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Slot {
    pub(super) index: u32,
    pub(super) generation: u32,
}

/// The registration of a provider.
#[derive(Debug, Clone, PartialEq)]
pub struct Registration {
    /// The id.
    pub id: ProviderId,
    /// Every method that it serves.
    pub capabilities: Vec<Capability>,
    /// The share under the weighted strategy.
    pub weight: f64,
    /// Calls in flight at once; `None` for no bound.
    pub max_concurrent: Option<u32>,
}

/// A provider in the table.
#[derive(Debug)]
pub struct ProviderEntry<H> {
    /// The registration.
    pub registration: Registration,
    /// How to reach it: whatever the owner of the table keeps per provider.
    pub handle: H,
    pub(super) health: HealthStatus,
    pub(super) available: bool,
    pub(super) in_flight: u32,
    pub(super) latency: PeakLatency,
    /// Indices of the strategies of its protocols.
    pub(super) strategies: Vec<usize>,
}

impl<H> ProviderEntry<H> {
    /// The health that was reported last.
    pub const fn health(&self) -> HealthStatus {
        self.health
    }

    /// True if an instance can be called, as reported last.
    pub const fn available(&self) -> bool {
        self.available
    }

    /// Calls in flight now.
    pub const fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// How long its calls took.
    pub const fn latency(&self) -> &PeakLatency {
        &self.latency
    }

    /// 0 for the first choice, 1 for the second, `None` for not at all.
    pub(super) const fn tier(&self) -> Option<usize> {
        match (self.available, self.health) {
            (true, HealthStatus::Healthy) => Some(0),
            // It has been initialised; not having been checked yet is no reason to refuse it.
            (true, HealthStatus::Degraded | HealthStatus::Unknown) => Some(1),
            _ => None,
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.registration.max_concurrent.is_some_and(|limit| self.in_flight >= limit)
    }
}

/// The choice of a provider for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pick {
    /// This one. Tell the table with [`super::ProviderTable::started`] when the call begins.
    Chosen(Slot),
    /// All providers of the best health are at their bound; ask again after a call has finished.
    Busy,
    /// Some provider serves the method, but none is well enough and there.
    Unavailable,
    /// No provider serves the method.
    NotSupported,
}
