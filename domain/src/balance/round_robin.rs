//! Each in turn, per method.

use super::{Candidate, LoadBalancingStrategy, PickContext};

/// Chooses each in turn, with a turn of its own for every method.
#[derive(Debug, Clone, Default)]
pub struct RoundRobin {
    rotation: Rotation,
}

impl RoundRobin {
    /// The name in settings.
    pub const NAME: &'static str = "round_robin";
}

impl LoadBalancingStrategy for RoundRobin {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn select(&mut self, candidates: &[Candidate<'_>], context: &PickContext<'_>) -> usize {
        self.rotation.next(context.method, candidates, |_| true)
    }
}

/// The turn of each method: the provider that was chosen last.
///
/// The turn is kept as a slot and not as a count. Busy candidates drop out and return from call to
/// call, and a count modulo their number would favour some of them.
#[derive(Debug, Clone, Default)]
pub(super) struct Rotation {
    /// By method: the slot after the one that was chosen last.
    next: Vec<u32>,
}

impl Rotation {
    /// The index of the next candidate after the last one for which `takes_part` holds, wrapping
    /// around.
    pub(super) fn next(
        &mut self,
        method: usize,
        candidates: &[Candidate<'_>],
        takes_part: impl Fn(&Candidate<'_>) -> bool,
    ) -> usize {
        if self.next.len() <= method {
            self.next.resize(method + 1, 0);
        }
        let from = candidates.partition_point(|candidate| candidate.slot < self.next[method]);
        let round = (from..candidates.len()).chain(0..from);
        let mut round = round.filter(|at| takes_part(&candidates[*at]));
        let Some(at) = round.next() else { return 0 };
        self.next[method] = candidates[at].slot.saturating_add(1);
        at
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{super::testing::Scene, *};

    /// Exactly in turn, and one method's turn does not depend on another's calls.
    #[test]
    fn each_method_rotates_exactly() {
        let scene = Scene::new(3);
        let mut strategy = RoundRobin::default();
        let mut pick = |method| scene.select(&mut strategy, &[0, 1, 2], method, Duration::ZERO);
        assert_eq!([pick(0), pick(0), pick(1), pick(0), pick(0), pick(1)], [0, 1, 0, 2, 0, 1]);
    }

    /// A provider that drops out for a moment does not shift the turn of the others.
    #[test]
    fn the_turn_survives_a_change_of_candidates() {
        let scene = Scene::new(4);
        let mut strategy = RoundRobin::default();
        let mut pick = |slots: &[usize]| scene.select(&mut strategy, slots, 0, Duration::ZERO);
        assert_eq!(pick(&[0, 1, 2, 3]), 0);
        assert_eq!(pick(&[0, 2, 3]), 2);
        assert_eq!(pick(&[0, 1, 2, 3]), 3);
        assert_eq!(pick(&[1, 2]), 1);
        assert_eq!(pick(&[0, 1]), 0);
    }
}
