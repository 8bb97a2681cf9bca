//! Random numbers from a seed, for balancing and for the jitter of retries.
//!
//! The same seed yields the same numbers on every machine, so that a test can fix them. Not for
//! secrets: a few numbers determine the rest.

/// A generator of the `SplitMix64` family (Steele, Lea, Flood: "Fast splittable pseudorandom
/// number generators", OOPSLA 2014). Every seed is a good one, and all of its 2^64 numbers occur.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The sequence of `seed`.
    pub const fn seeded(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next number, any of 2^64.
    pub const fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Uniform in 0 ≤ x < 1.
    #[expect(clippy::cast_precision_loss, reason = "53 bits are exact in an f64")]
    pub const fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Uniform in 0 ≤ x < `bound`; 0 where `bound` is 0. The bias is below `bound` / 2^64.
    #[expect(clippy::cast_possible_truncation, reason = "the high half is below the bound")]
    pub const fn below(&mut self, bound: usize) -> usize {
        ((self.next_u64() as u128 * bound as u128) >> 64) as usize
    }

    /// A generator whose numbers have nothing to do with what this one gives next.
    #[must_use]
    pub const fn split(&mut self) -> Self {
        Self::seeded(self.next_u64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The published reference: a seed pinned in somebody's settings must not change its meaning.
    #[test]
    fn the_sequence_is_that_of_the_reference() {
        let mut random = Random::seeded(1_234_567);
        let first: [u64; 3] = std::array::from_fn(|_| random.next_u64());
        assert_eq!(
            first,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    /// Every value of a small range is met about equally often, and none outside.
    #[test]
    fn numbers_are_uniform_within_their_bounds() {
        let mut random = Random::seeded(7);
        let mut counts = [0_i32; 5];
        for _ in 0..50_000 {
            counts[random.below(5)] += 1;
            let unit = random.unit();
            assert!((0.0..1.0).contains(&unit), "{unit}");
        }
        assert!(counts.iter().all(|count| (count - 10_000).abs() < 400), "{counts:?}");
        assert_eq!(random.below(0), 0);
    }
}
