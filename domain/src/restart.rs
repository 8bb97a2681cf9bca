//! How often, and how soon, something that failed is started again.
//!
//! [`RestartBudget`] is for faults of the component itself (a panic, a blocked thread) and has an
//! end; [`PeerBackoff`] is for a peer that may be available again at any time, and has none.
//!
//! Asked by the supervisor of actors and by those of providers. Pure: time is passed in, as a span
//! since any fixed moment.

use std::{collections::VecDeque, time::Duration};

use crate::provider::Supervision;

/// How often, and how soon, something may be restarted: intensity and period as in Erlang/OTP's
/// `supervisor`, and a pause that doubles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestartPolicy {
    /// Restarts allowed within `window`; one more gives up.
    pub restarts_max: u32,
    /// Length of the sliding window.
    pub window: Duration,
    /// Pause before the first restart in a window; doubles with each further one.
    pub pause_min: Duration,
    /// Longest pause.
    pub pause_max: Duration,
}

impl Default for RestartPolicy {
    /// That of a provider.
    fn default() -> Self {
        Self::from(&Supervision::default())
    }
}

impl From<&Supervision> for RestartPolicy {
    fn from(supervision: &Supervision) -> Self {
        Self {
            restarts_max: supervision.restarts_max,
            window: supervision.restart_window,
            pause_min: supervision.backoff_min,
            pause_max: supervision.backoff_max,
        }
    }
}

/// Counts restarts in a sliding window.
///
/// Invariant: any window of the policy's length holds at most `restarts_max` of them.
#[derive(Debug, Clone)]
pub struct RestartBudget {
    policy: RestartPolicy,
    /// When each restart of the last window was granted, the oldest first.
    recent: VecDeque<Duration>,
}

impl RestartBudget {
    /// A budget of which nothing is spent.
    pub const fn new(policy: RestartPolicy) -> Self {
        Self { policy, recent: VecDeque::new() }
    }

    /// The policy.
    pub const fn policy(&self) -> &RestartPolicy {
        &self.policy
    }

    /// Takes one restart at `now`: the pause before it, or `None` when the budget is spent. A
    /// refusal takes nothing, so that the budget refills as the window moves on.
    pub fn spend(&mut self, now: Duration) -> Option<Duration> {
        while self.recent.front().is_some_and(|at| now.saturating_sub(*at) > self.policy.window) {
            self.recent.pop_front();
        }
        let spent = u32::try_from(self.recent.len()).unwrap_or(u32::MAX);
        if spent >= self.policy.restarts_max {
            return None;
        }
        self.recent.push_back(now);
        let pause = self.policy.pause_min.saturating_mul(2_u32.saturating_pow(spent));
        Some(pause.min(self.policy.pause_max))
    }

    /// Forgets every restart: a person has looked into it, and starts it again.
    pub fn reset(&mut self) {
        self.recent.clear();
    }
}

/// Pauses between an unlimited number of tries: each twice as long as the one before, up to a
/// maximum.
#[derive(Debug, Clone)]
pub struct PeerBackoff {
    pause_min: Duration,
    pause_max: Duration,
    failures: u32,
}

impl PeerBackoff {
    /// No failure yet.
    pub const fn new(policy: &RestartPolicy) -> Self {
        Self { pause_min: policy.pause_min, pause_max: policy.pause_max, failures: 0 }
    }

    /// Counts a failure; the pause before the next try.
    pub fn failed(&mut self) -> Duration {
        let pause = self.pause_min.saturating_mul(2_u32.saturating_pow(self.failures));
        self.failures = self.failures.saturating_add(1);
        pause.min(self.pause_max)
    }

    /// Forgets the failures: the next pause is the shortest one again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: RestartPolicy = RestartPolicy {
        restarts_max: 4,
        window: Duration::from_mins(1),
        pause_min: Duration::from_secs(1),
        pause_max: Duration::from_secs(5),
    };

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Each restart waits twice as long as the last, up to the cap and to the end of the budget.
    #[test]
    fn pauses_double_up_to_the_cap_until_the_budget_is_spent() {
        let mut budget = RestartBudget::new(POLICY);
        let pauses: Vec<_> = (0..6).map(|_| budget.spend(seconds(3))).collect();
        let expected = [Some(1), Some(2), Some(4), Some(5), None, None];
        assert_eq!(pauses, expected.map(|pause| pause.map(seconds)));
    }

    /// Old restarts leave the window, and the pause starts small again.
    #[test]
    fn the_budget_refills_as_the_window_moves_on() {
        let mut budget = RestartBudget::new(POLICY);
        for at in [0, 10, 20, 30] {
            assert!(budget.spend(seconds(at)).is_some());
        }
        assert_eq!(budget.spend(seconds(60)), None);
        assert_eq!(budget.spend(seconds(61)), Some(seconds(5)));
        assert_eq!(budget.spend(seconds(200)), Some(seconds(1)));
        budget.reset();
        assert_eq!(budget.spend(seconds(200)), Some(seconds(1)));
    }

    /// A peer that is away for a day is asked as often on its last minute as on its second one.
    #[test]
    fn a_backoff_has_no_end() {
        let mut backoff = PeerBackoff::new(&POLICY);
        let pauses: Vec<_> = (0..5).map(|_| backoff.failed().as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 5, 5]);
        let later = (0..10_000).map(|_| backoff.failed()).max();
        assert_eq!(later, Some(POLICY.pause_max));
        backoff.reset();
        assert_eq!(backoff.failed(), POLICY.pause_min);
    }

    proptest! {
        /// No window ever holds more restarts than allowed, and no pause leaves its bounds.
        #[test]
        fn no_window_holds_more_than_the_budget(
            steps in prop::collection::vec(0..40_u64, 1..100),
        ) {
            let mut budget = RestartBudget::new(POLICY);
            let mut granted = Vec::new();
            let mut now = Duration::ZERO;
            for step in steps {
                now += seconds(step);
                if let Some(pause) = budget.spend(now) {
                    prop_assert!((POLICY.pause_min..=POLICY.pause_max).contains(&pause));
                    granted.push(now);
                }
            }
            for window in granted.windows(POLICY.restarts_max as usize + 1) {
                prop_assert!(window[POLICY.restarts_max as usize] > window[0] + POLICY.window);
            }
        }
    }
}
