//! By chance, in proportion to the weights.

use super::{Candidate, LoadBalancingStrategy, PickContext};
use crate::random::Random;

/// Chooses by chance, each in proportion to its weight.
///
/// A weight of 0 is chosen only if all candidates have it; then each has the same share. A weight
/// that is negative or not finite counts as 0.
#[derive(Debug, Clone)]
pub struct WeightedRandom {
    random: Random,
}

impl WeightedRandom {
    /// The name in settings.
    pub const NAME: &'static str = "weighted_random";

    /// The sequence of choices of `seed`.
    pub const fn seeded(seed: u64) -> Self {
        Self { random: Random::seeded(seed) }
    }
}

fn weight(candidate: &Candidate<'_>) -> f64 {
    if candidate.weight.is_finite() { candidate.weight.max(0.0) } else { 0.0 }
}

impl LoadBalancingStrategy for WeightedRandom {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn select(&mut self, candidates: &[Candidate<'_>], _: &PickContext<'_>) -> usize {
        let largest = candidates.iter().map(weight).fold(0.0, f64::max);
        if largest <= 0.0 {
            return self.random.below(candidates.len());
        }
        // Relative to the largest one, for the sum of huge weights might not be finite.
        let total: f64 = candidates.iter().map(|candidate| weight(candidate) / largest).sum();
        let mut rest = self.random.unit() * total;
        let mut chosen = 0;
        for (at, candidate) in candidates.iter().enumerate() {
            let share = weight(candidate) / largest;
            if share > 0.0 {
                // Rounding may leave a remainder after the last candidate: then the last one is
                // chosen.
                chosen = at;
                if rest < share {
                    break;
                }
                rest -= share;
            }
        }
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::Scene, *};

    const PICKS: u32 = 60_000;

    fn counts(weights: &[f64]) -> Vec<u32> {
        let mut scene = Scene::new(weights.len());
        scene.weights = weights.to_vec();
        scene.counts(&mut WeightedRandom::seeded(11), PICKS)
    }

    fn assert_shares(counts: &[u32], shares: &[f64]) {
        for (count, share) in counts.iter().zip(shares) {
            let error = f64::from(*count) / f64::from(PICKS) - share;
            assert!(error.abs() < 0.01, "{counts:?} is not {shares:?}");
        }
    }

    /// A provider of twice the weight gets twice the calls.
    #[test]
    fn shares_follow_the_weights() {
        assert_shares(&counts(&[1.0, 2.0, 3.0]), &[1.0 / 6.0, 2.0 / 6.0, 3.0 / 6.0]);
        assert_shares(&counts(&[f64::MAX, f64::MAX]), &[0.5, 0.5]);
    }

    /// Weight 0 takes a provider out of rotation without removing it.
    #[test]
    fn zero_weights_get_nothing_while_another_is_there() {
        assert_eq!(counts(&[0.0, 5.0, 0.0]), [0, PICKS, 0]);
        assert_eq!(counts(&[-1.0, 1.0, f64::NAN]), [0, PICKS, 0]);
    }

    /// Nobody is left without service because every weight is 0.
    #[test]
    fn all_zero_is_uniform() {
        assert_shares(&counts(&[0.0; 4]), &[0.25; 4]);
    }

    /// A seed pins the choices.
    #[test]
    fn the_same_seed_chooses_the_same() {
        let scene = Scene::new(3);
        let picks = |seed| {
            let mut strategy = WeightedRandom::seeded(seed);
            let pick = |_| scene.select(&mut strategy, &[0, 1, 2], 0, std::time::Duration::ZERO);
            (0..50).map(pick).collect::<Vec<_>>()
        };
        assert_eq!(picks(3), picks(3));
        assert_ne!(picks(3), picks(4));
    }
}
