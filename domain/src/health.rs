//! How well a provider is, and when a row of failed checks makes it unhealthy.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How well a provider is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// Not checked yet.
    #[default]
    Unknown,
    /// Fit for every call.
    Healthy,
    /// Works, but should be spared while a healthy one is there.
    Degraded,
    /// Gets no calls.
    Unhealthy,
}

impl HealthStatus {
    /// The name in events and output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
        }
    }
}

impl fmt::Display for HealthStatus {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.as_str())
    }
}

/// The result of a health check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthReport {
    /// How well it is.
    pub status: HealthStatus,
    /// The finding in words; empty if there is nothing to report.
    #[serde(default)]
    pub detail: String,
}

impl HealthReport {
    /// All is well.
    pub fn healthy() -> Self {
        Self { status: HealthStatus::Healthy, detail: String::new() }
    }

    /// Works, but should be spared.
    pub fn degraded(detail: impl Into<String>) -> Self {
        Self { status: HealthStatus::Degraded, detail: detail.into() }
    }

    /// Does not work.
    pub fn unhealthy(detail: impl Into<String>) -> Self {
        Self { status: HealthStatus::Unhealthy, detail: detail.into() }
    }
}

/// Judges a provider by its checks.
///
/// One failed check makes a provider degraded, `unhealthy_after` in a row unhealthy; one passed
/// check sets the health that the check reports.
#[derive(Debug, Clone)]
pub struct HealthTracker {
    unhealthy_after: u32,
    failures: u32,
    status: HealthStatus,
}

impl HealthTracker {
    /// A judge that has seen nothing yet.
    pub fn new(unhealthy_after: u32) -> Self {
        Self { unhealthy_after: unhealthy_after.max(1), failures: 0, status: HealthStatus::Unknown }
    }

    /// The verdict so far.
    pub fn status(&self) -> HealthStatus {
        self.status
    }

    /// Failed checks in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Adds the result of a check; returns the new health if it changed.
    pub fn judge(&mut self, found: HealthStatus) -> Option<HealthStatus> {
        let next = if found == HealthStatus::Unhealthy {
            self.failures = self.failures.saturating_add(1);
            if self.failures >= self.unhealthy_after {
                HealthStatus::Unhealthy
            } else {
                HealthStatus::Degraded
            }
        } else {
            self.failures = 0;
            found
        };
        (std::mem::replace(&mut self.status, next) != next).then_some(next)
    }

    /// Forgets everything: a new instance begins.
    pub fn reset(&mut self) {
        self.failures = 0;
        self.status = HealthStatus::Unknown;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A provider that was unhealthy is never locked out: one good check brings it back.
    #[test]
    fn three_failures_condemn_and_one_success_acquits() {
        use HealthStatus::{Degraded, Healthy, Unhealthy};
        let mut judge = HealthTracker::new(3);
        let found = [Healthy, Unhealthy, Unhealthy, Unhealthy, Unhealthy, Healthy];
        let verdicts = found.map(|found| judge.judge(found));
        assert_eq!(
            verdicts,
            [Some(Healthy), Some(Degraded), None, Some(Unhealthy), None, Some(Healthy)]
        );
    }
}
