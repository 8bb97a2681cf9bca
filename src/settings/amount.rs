//! A total of one resource: a number, detected, or unlimited.

use std::{fs, thread};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A total of one resource.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Amount {
    /// So much.
    Exactly(f64),
    /// The amount of the machine, or of the container; unlimited if it is not known.
    Detect,
    /// More than anyone asks for.
    Unlimited,
}

impl Amount {
    /// Whole units, `scale` of them in one of the amount's; a fraction of a unit is dropped, so
    /// that a total is never overstated.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be finite and not negative when read, and `as` saturates"
    )]
    pub(super) fn units(self, scale: f64, detect: impl FnOnce() -> Option<u64>) -> u64 {
        match self {
            // The tiny step up keeps 0.3 of a thousand from becoming 299.
            Self::Exactly(amount) => (amount * scale + 1e-6).floor() as u64,
            Self::Detect => detect().unwrap_or(u64::MAX),
            Self::Unlimited => u64::MAX,
        }
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Exactly(amount) => out.serialize_f64(*amount),
            Self::Detect => out.serialize_str("detect"),
            Self::Unlimited => out.serialize_str("unlimited"),
        }
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(f64),
            Word(String),
        }
        let expected = "expected a number of 0 or more, \"detect\" or \"unlimited\"";
        match Either::deserialize(input).map_err(|_| D::Error::custom(expected))? {
            Either::Number(amount) if amount.is_finite() && amount >= 0.0 => {
                Ok(Self::Exactly(amount))
            }
            Either::Word(word) if word == "detect" => Ok(Self::Detect),
            Either::Word(word) if word == "unlimited" => Ok(Self::Unlimited),
            Either::Number(amount) => Err(D::Error::custom(format!("`{amount}`: {expected}"))),
            Either::Word(word) => Err(D::Error::custom(format!("`{word}`: {expected}"))),
        }
    }
}

/// Cores that this process may use, in thousandths. Knows of affinity and of a container's quota.
pub(super) fn detect_millicores() -> Option<u64> {
    let cores = thread::available_parallelism().ok()?;
    Some(u64::try_from(cores.get()).ok()?.saturating_mul(1000))
}

/// Memory of the machine in MiB, or of the container where that is less.
pub(super) fn detect_memory_mib() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| mem_total_mib(&text));
    let container = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .into_iter()
        .find_map(|path| fs::read_to_string(path).ok())
        .and_then(|text| text.trim().parse::<u64>().ok())
        .map(|bytes| bytes >> 20);
    match (machine, container) {
        (Some(machine), Some(container)) => Some(machine.min(container)),
        (machine, container) => machine.or(container),
    }
}

fn mem_total_mib(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A total is in the units that leases count in.
    #[test]
    fn amounts_become_whole_units() {
        assert_eq!(Amount::Exactly(1.5).units(1000.0, || None), 1500);
        assert_eq!(Amount::Exactly(0.3).units(1000.0, || None), 300);
        assert_eq!(Amount::Exactly(2048.9).units(1.0, || None), 2048);
        assert_eq!(Amount::Detect.units(1.0, || Some(7)), 7);
        assert_eq!(Amount::Detect.units(1.0, || None), u64::MAX);
        assert_eq!(Amount::Unlimited.units(1.0, || Some(7)), u64::MAX);
    }

    /// The kernel's text, as it is.
    #[test]
    fn total_memory_is_read_from_the_kernels_table() {
        let text = "MemTotal:        8049036 kB\nMemFree:          123 kB\n";
        assert_eq!(mem_total_mib(text), Some(7860));
        assert_eq!(mem_total_mib("MemFree: 1 kB\n"), None);
    }
}
