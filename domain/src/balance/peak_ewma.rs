//! The better of two, by latency and calls in flight.

use std::time::Duration;

use super::{Candidate, LoadBalancingStrategy, PickContext};
use crate::random::Random;

/// The load of one that has calls in flight and never answered any: above all that is measured,
/// so that a new provider gets one call to show what it can do, and not all of them.
const UNMEASURED: f64 = 1e9;

/// Draws two by chance and chooses the one of less load; the load is its latency times one more
/// than its calls in flight.
///
/// "Power of two choices" (Mitzenmacher, 2001) over the load measure of Finagle's and tower's
/// peak EWMA; see [`PeakLatency`](super::PeakLatency) for the latency.
#[derive(Debug, Clone)]
pub struct PeakEwma {
    random: Random,
}

impl PeakEwma {
    /// The name in settings.
    pub const NAME: &'static str = "peak_ewma";

    /// The sequence of draws of `seed`.
    pub const fn seeded(seed: u64) -> Self {
        Self { random: Random::seeded(seed) }
    }
}

/// Latency times one more than the calls in flight.
fn load(candidate: &Candidate<'_>, now: Duration) -> f64 {
    let in_flight = f64::from(candidate.in_flight);
    match candidate.latency.seconds(now) {
        Some(seconds) => seconds * (in_flight + 1.0),
        None if candidate.in_flight == 0 => 0.0,
        None => UNMEASURED + in_flight,
    }
}

impl LoadBalancingStrategy for PeakEwma {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn select(&mut self, candidates: &[Candidate<'_>], context: &PickContext<'_>) -> usize {
        let count = candidates.len();
        if count < 2 {
            return 0;
        }
        let first = self.random.below(count);
        // Any candidate but the first: one of the following ones, modulo their number.
        let second = (first + 1 + self.random.below(count - 1)) % count;
        let load_of = |at: usize| load(&candidates[at], context.now);
        if load_of(second) < load_of(first) { second } else { first }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{PeakLatency, Sample, testing::Scene},
        *,
    };

    fn measured(millis: u64) -> PeakLatency {
        let mut latency = PeakLatency::new(Duration::from_secs(10));
        let sample = Sample { latency: Duration::from_millis(millis), ok: true };
        latency.observe(sample, Duration::ZERO);
        latency
    }

    /// Of two, the fast one gets every call until its queue makes up for its speed.
    #[test]
    fn the_fast_one_is_preferred_until_it_is_busy() {
        let mut scene = Scene::new(2);
        scene.latencies = vec![measured(100), measured(10)];
        let mut strategy = PeakEwma::seeded(5);
        assert_eq!(scene.counts(&mut strategy, 100), [0, 100]);
        scene.in_flight = vec![0, 8];
        assert_eq!(scene.counts(&mut strategy, 100), [0, 100]);
        scene.in_flight = vec![0, 10];
        assert_eq!(scene.counts(&mut strategy, 100), [100, 0]);
    }

    /// Of many, the slowest is chosen only against itself, so never; the rest by their rank.
    #[test]
    fn the_slowest_of_many_gets_nothing() {
        let mut scene = Scene::new(4);
        scene.latencies = [10, 20, 30, 40].map(measured).to_vec();
        let counts = scene.counts(&mut PeakEwma::seeded(1), 60_000);
        // Of the six pairs the best is in three, the next is the better one of two, and so on.
        for (count, expected) in counts.iter().zip([30_000, 20_000, 10_000, 0_i32]) {
            assert!((count.cast_signed() - expected).abs() < 600, "{counts:?}");
        }
    }

    /// A new provider gets one call, and no second one before it has answered.
    #[test]
    fn a_new_provider_is_probed_with_one_call() {
        let mut scene = Scene::new(2);
        scene.latencies = vec![measured(10), PeakLatency::default()];
        let mut strategy = PeakEwma::seeded(2);
        assert_eq!(scene.counts(&mut strategy, 1), [0, 1]);
        scene.in_flight = vec![50, 1];
        assert_eq!(scene.counts(&mut strategy, 100), [100, 0]);
    }
}
