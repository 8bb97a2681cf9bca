//! How long a provider's calls take, as a moving average that jumps up and comes down slowly.

use std::time::Duration;

use super::Sample;

/// A call that failed counts as at least this long, however soon it failed.
const FAILED_MIN_SECONDS: f64 = 1.0;
/// Failures in a row do not raise the estimate above this.
const FAILED_MAX_SECONDS: f64 = 60.0;

/// A peak-sensitive, exponentially weighted moving average of latencies.
///
/// As the `PeakEwma` of Finagle (`com.twitter.finagle.loadbalancer.PeakEwma`) and of
/// `tower::load`: a latency above the estimate replaces it at once, one below it moves it with a
/// weight that grows with the time since the last one. Between calls the estimate decays towards
/// 0, so that one that was slow is tried again.
///
/// Unlike there, a failed call doubles the estimate (within 1 s and 60 s, or its own latency if
/// that is longer): a provider that fails fast must not count as a fast one.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct PeakLatency {
    /// Seconds, as of `at`.
    estimate: f64,
    at: Duration,
    /// Seconds in which the weight of the past falls to 1/e; 0 forgets at once.
    decay: f64,
    measured: bool,
}

impl PeakLatency {
    /// Nothing measured; what will be measured is forgotten over `decay`.
    pub const fn new(decay: Duration) -> Self {
        Self { estimate: 0.0, at: Duration::ZERO, decay: decay.as_secs_f64(), measured: false }
    }

    /// Takes a call's latency that was known at `now`.
    pub fn observe(&mut self, sample: Sample, now: Duration) {
        let seconds = sample.latency.as_secs_f64();
        let weight = self.weight(now);
        let decayed = self.estimate * weight;
        self.estimate = if !sample.ok {
            seconds.max((2.0 * decayed).clamp(FAILED_MIN_SECONDS, FAILED_MAX_SECONDS))
        } else if seconds > self.estimate {
            seconds
        } else {
            decayed + seconds * (1.0 - weight)
        };
        self.at = self.at.max(now);
        self.measured = true;
    }

    /// The estimate at `now` in seconds, decayed since the last call; `None` before the first.
    pub fn seconds(&self, now: Duration) -> Option<f64> {
        self.measured.then(|| self.estimate * self.weight(now))
    }

    /// The remaining weight of the estimate at `now`, between 0 and 1.
    fn weight(&self, now: Duration) -> f64 {
        let since = now.saturating_sub(self.at).as_secs_f64();
        if since <= 0.0 {
            1.0
        } else if self.decay > 0.0 {
            (-since / self.decay).exp()
        } else {
            0.0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECAY: Duration = Duration::from_secs(10);

    fn ok(millis: u64) -> Sample {
        Sample { latency: Duration::from_millis(millis), ok: true }
    }

    fn failed(millis: u64) -> Sample {
        Sample { ok: false, ..ok(millis) }
    }

    fn assert_near(latency: &PeakLatency, now: Duration, expected: f64) {
        let found = latency.seconds(now).unwrap();
        assert!((found - expected).abs() < 1e-9, "{found} is not {expected}");
    }

    /// A slow call shows at once; a fast one moves the estimate by its weight only.
    #[test]
    fn peaks_count_at_once_and_are_forgotten_slowly() {
        let mut latency = PeakLatency::new(DECAY);
        assert_eq!(latency.seconds(DECAY), None);
        latency.observe(ok(100), Duration::ZERO);
        assert_near(&latency, Duration::ZERO, 0.1);
        latency.observe(ok(2000), Duration::ZERO);
        assert_near(&latency, Duration::ZERO, 2.0);
        latency.observe(ok(100), DECAY);
        let weight = (-1.0_f64).exp();
        assert_near(&latency, DECAY, 2.0 * weight + 0.1 * (1.0 - weight));
    }

    /// Between calls the estimate decays, so that a slow provider is tried again.
    #[test]
    fn silence_is_forgiving() {
        let mut latency = PeakLatency::new(DECAY);
        latency.observe(ok(1000), Duration::ZERO);
        assert_near(&latency, DECAY, (-1.0_f64).exp());
        assert!(latency.seconds(10 * DECAY).unwrap() < 0.001);
    }

    /// Failing within a millisecond is no reason to get every call.
    #[test]
    fn fast_failures_do_not_count_as_fast() {
        let mut latency = PeakLatency::new(DECAY);
        for expected in [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0] {
            latency.observe(failed(1), Duration::ZERO);
            assert_near(&latency, Duration::ZERO, expected);
        }
        latency.observe(failed(90_000), Duration::ZERO);
        assert_near(&latency, Duration::ZERO, 90.0);
    }

    /// Times that go backwards, as answers of two threads may, change nothing of the past.
    #[test]
    fn an_earlier_time_counts_as_now() {
        let mut latency = PeakLatency::new(DECAY);
        latency.observe(ok(1000), DECAY);
        latency.observe(ok(500), Duration::ZERO);
        assert_near(&latency, Duration::ZERO, 1.0);
    }
}
