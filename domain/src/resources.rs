//! Amounts of each resource, what a task declares it needs, and the ledger that counts leases.
//!
//! The `ResourceManager` asks. Pure: no actors, no clock. Amounts are whole units, so that sums are
//! exact and the released amount equals the taken one.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::duration;

/// The resources that a task declares, as files write them.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ResourceRequirements {
    /// Processor share in cores; 0.5 is half a core. Counted in thousandths, rounded up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_cores: Option<f64>,
    /// Memory in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u64>,
    /// Memory of a graphics processor in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_memory_mb: Option<u64>,
    /// Temporary disk space in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_space_mb: Option<u64>,
    /// Network bandwidth in megabits a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_bandwidth_mbps: Option<u64>,
    /// The limit of one attempt if the task sets no `timeout`. In files: seconds.
    #[serde(with = "duration::option", skip_serializing_if = "Option::is_none")]
    pub execution_timeout: Option<Duration>,
}

impl ResourceRequirements {
    /// The amounts to lease, in whole units. A negative or non-finite share of a core counts as 0.
    pub fn amounts(&self) -> Resources {
        Resources {
            slots: 0,
            cpu_millicores: millicores(self.cpu_cores.unwrap_or(0.0)),
            memory_mib: self.memory_mb.unwrap_or(0),
            gpu_memory_mib: self.gpu_memory_mb.unwrap_or(0),
            disk_mib: self.disk_space_mb.unwrap_or(0),
            bandwidth_mbps: self.network_bandwidth_mbps.unwrap_or(0),
        }
    }

    /// These, with what they leave open taken from `other`.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        Self {
            cpu_cores: self.cpu_cores.or(other.cpu_cores),
            memory_mb: self.memory_mb.or(other.memory_mb),
            gpu_memory_mb: self.gpu_memory_mb.or(other.gpu_memory_mb),
            disk_space_mb: self.disk_space_mb.or(other.disk_space_mb),
            network_bandwidth_mbps: self.network_bandwidth_mbps.or(other.network_bandwidth_mbps),
            execution_timeout: self.execution_timeout.or(other.execution_timeout),
        }
    }
}

/// Cores to thousandths, rounded up, so that a need is never understated.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to what fits, and `as` saturates"
)]
fn millicores(cores: f64) -> u64 {
    // The tiny step back keeps 0.1 from becoming 101 thousandths.
    if cores.is_finite() && cores > 0.0 { (cores * 1000.0 - 1e-6).ceil() as u64 } else { 0 }
}

/// Amounts of each resource, in whole units.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Tasks executing at once; every lease takes one.
    pub slots: u64,
    /// Processor share in thousandths of a core: 1500 is one core and a half.
    pub cpu_millicores: u64,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Memory of graphics processors in MiB.
    pub gpu_memory_mib: u64,
    /// Temporary disk space in MiB.
    pub disk_mib: u64,
    /// Network bandwidth in megabits a second.
    pub bandwidth_mbps: u64,
}

impl Resources {
    /// More than anyone will ask for, of each.
    pub const UNLIMITED: Self = Self::all(u64::MAX);

    /// `amount` of each.
    const fn all(amount: u64) -> Self {
        Self {
            slots: amount,
            cpu_millicores: amount,
            memory_mib: amount,
            gpu_memory_mib: amount,
            disk_mib: amount,
            bandwidth_mbps: amount,
        }
    }

    /// The same amounts with `slots` slots.
    #[must_use]
    pub const fn with_slots(mut self, slots: u64) -> Self {
        self.slots = slots;
        self
    }

    /// True when every amount is at most the one in `other`.
    pub const fn fits_in(&self, other: &Self) -> bool {
        self.slots <= other.slots
            && self.cpu_millicores <= other.cpu_millicores
            && self.memory_mib <= other.memory_mib
            && self.gpu_memory_mib <= other.gpu_memory_mib
            && self.disk_mib <= other.disk_mib
            && self.bandwidth_mbps <= other.bandwidth_mbps
    }

    /// The amounts that exceed `other`: the name in files and settings, and both amounts in its
    /// unit.
    pub fn excess(&self, other: &Self) -> impl Iterator<Item = (&'static str, String, String)> {
        #[expect(clippy::cast_precision_loss, reason = "no machine has so many cores")]
        let cores = |millicores: u64| (millicores as f64 / 1000.0).to_string();
        [
            ("cpu_cores", self.cpu_millicores, other.cpu_millicores),
            ("memory_mb", self.memory_mib, other.memory_mib),
            ("gpu_memory_mb", self.gpu_memory_mib, other.gpu_memory_mib),
            ("disk_space_mb", self.disk_mib, other.disk_mib),
            ("network_bandwidth_mbps", self.bandwidth_mbps, other.bandwidth_mbps),
        ]
        .into_iter()
        .filter(|(_, need, there)| need > there)
        .map(move |(name, need, there)| {
            let amount =
                |amount: u64| if name == "cpu_cores" { cores(amount) } else { amount.to_string() };
            (name, amount(need), amount(there))
        })
    }

    /// `self + other`, or `None` when an amount would not fit its type.
    pub fn checked_add(&self, other: &Self) -> Option<Self> {
        self.zip(other, u64::checked_add)
    }

    /// `self - other`, or `None` when an amount would be negative.
    pub fn checked_sub(&self, other: &Self) -> Option<Self> {
        self.zip(other, u64::checked_sub)
    }

    fn zip(&self, other: &Self, sum: impl Fn(u64, u64) -> Option<u64>) -> Option<Self> {
        Some(Self {
            slots: sum(self.slots, other.slots)?,
            cpu_millicores: sum(self.cpu_millicores, other.cpu_millicores)?,
            memory_mib: sum(self.memory_mib, other.memory_mib)?,
            gpu_memory_mib: sum(self.gpu_memory_mib, other.gpu_memory_mib)?,
            disk_mib: sum(self.disk_mib, other.disk_mib)?,
            bandwidth_mbps: sum(self.bandwidth_mbps, other.bandwidth_mbps)?,
        })
    }
}

/// Counts what is free out of a fixed total.
///
/// Invariant: `free` fits in `total`; taken = `total - free` = the sum of all takes that were not
/// released.
#[derive(Debug)]
pub struct ResourceLedger {
    total: Resources,
    free: Resources,
}

impl ResourceLedger {
    /// Starts with everything free.
    pub const fn new(total: Resources) -> Self {
        Self { total, free: total }
    }

    /// The fixed total.
    pub const fn total(&self) -> &Resources {
        &self.total
    }

    /// The free amounts.
    pub const fn free(&self) -> &Resources {
        &self.free
    }

    /// The taken amounts.
    pub fn taken(&self) -> Resources {
        self.total.checked_sub(&self.free).unwrap_or_default()
    }

    /// Takes `need` if it is free; returns whether it did.
    #[must_use]
    pub fn take(&mut self, need: &Resources) -> bool {
        match self.free.checked_sub(need) {
            Some(left) => {
                self.free = left;
                true
            }
            None => false,
        }
    }

    /// Releases an earlier [`take`](Self::take). Releasing more is a defect: the ledger then stays
    /// at its total, and panics in a debug build.
    pub fn release(&mut self, back: &Resources) {
        let free = self.free.checked_add(back).filter(|free| free.fits_in(&self.total));
        debug_assert!(free.is_some(), "gave back more than was taken: {back:?}");
        self.free = free.unwrap_or(self.total);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A tenth of a core is a hundred thousandths, whatever binary floating point makes of it.
    #[test]
    fn shares_of_a_core_are_exact() {
        for (cores, expected) in [(0.1, 100), (0.5, 500), (1.5, 1500), (0.0001, 1), (2.0, 2000)] {
            assert_eq!(millicores(cores), expected, "{cores}");
        }
        for cores in [f64::NAN, f64::INFINITY, -1.0] {
            assert_eq!(millicores(cores), 0);
        }
    }

    fn amounts() -> impl Strategy<Value = Resources> {
        (0..4_u64, 0..3000_u64, 0..2048_u64).prop_map(|(slots, cpu_millicores, memory_mib)| {
            Resources { slots, cpu_millicores, memory_mib, ..Resources::default() }
        })
    }

    proptest! {
        /// Invariant 3: taken is the sum of live leases, never above the total.
        #[test]
        fn taken_is_the_sum_of_live_leases(
            steps in prop::collection::vec((any::<bool>(), amounts()), 0..200),
        ) {
            let total = Resources {
                slots: 8, cpu_millicores: 8000, memory_mib: 4096, ..Resources::default()
            };
            let mut ledger = ResourceLedger::new(total);
            let mut live: Vec<Resources> = Vec::new();
            for (take, need) in steps {
                if take {
                    let fits = need.fits_in(ledger.free());
                    prop_assert_eq!(ledger.take(&need), fits);
                    if fits {
                        live.push(need);
                    }
                } else if let Some(lease) = live.pop() {
                    ledger.release(&lease);
                }
                let sum = live.iter().fold(Resources::default(), |sum, lease| {
                    sum.checked_add(lease).unwrap()
                });
                prop_assert_eq!(ledger.taken(), sum);
                prop_assert!(ledger.taken().fits_in(&total));
            }
        }
    }
}
