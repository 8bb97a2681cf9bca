//! How the balancer runs.

use std::time::Duration;

use gleitzeit_domain::{balance::BalanceConfig, provider::Supervision};

/// A longer wait for a provider is cut to this, 30 years: no instant overflows.
pub(super) const WAIT_MAX: Duration = Duration::from_hours(24 * 365 * 30);

/// How long calls wait for providers that are down, if their method does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WaitPolicy {
    /// Each attempt waits as long as [`provider_wait`](BalancerSettings::provider_wait)
    /// (`engine.provider_wait_timeout`).
    #[default]
    EachAttempt,
    /// As above, but calls wait only once for a provider that has never served: when this time
    /// has passed since the first call, further calls are refused at once. For a process that runs
    /// one workflow and ends.
    OnceForAbsent,
    /// Without a limit: the limits of the task and of its workflow hold. For a process that serves.
    Unlimited,
}

/// How the balancer runs.
#[derive(Debug, Clone)]
pub struct BalancerSettings {
    /// The strategy of each protocol.
    pub balance: BalanceConfig,
    /// The longest wait of a call for a provider that is down; also for a method that no provider
    /// serves.
    pub provider_wait: Duration,
    /// The calls that `provider_wait` bounds.
    pub wait_policy: WaitPolicy,
    /// Supervision of providers that do not set their own.
    pub supervision: Option<Supervision>,
    /// Between two rounds that look for blocked threads.
    pub watch_interval: Duration,
}

impl Default for BalancerSettings {
    fn default() -> Self {
        Self {
            balance: BalanceConfig::default(),
            provider_wait: Duration::from_secs(30),
            wait_policy: WaitPolicy::default(),
            supervision: None,
            watch_interval: Duration::from_secs(5),
        }
    }
}
