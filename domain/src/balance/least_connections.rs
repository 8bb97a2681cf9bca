//! The one with the fewest calls in flight.

use super::{Candidate, LoadBalancingStrategy, PickContext, round_robin::Rotation};

/// Chooses the one with the fewest calls in flight; among equals each in turn, per method.
#[derive(Debug, Clone, Default)]
pub struct LeastConnections {
    rotation: Rotation,
}

impl LeastConnections {
    /// The name in settings.
    pub const NAME: &'static str = "least_connections";
}

impl LoadBalancingStrategy for LeastConnections {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn select(&mut self, candidates: &[Candidate<'_>], context: &PickContext<'_>) -> usize {
        let fewest = candidates.iter().map(|candidate| candidate.in_flight).min();
        self.rotation.next(context.method, candidates, |it| Some(it.in_flight) == fewest)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::Scene, *};

    /// The least busy one is chosen whatever its place.
    #[test]
    fn the_least_busy_one_is_chosen() {
        let mut scene = Scene::new(3);
        scene.in_flight = vec![3, 1, 2];
        assert_eq!(scene.counts(&mut LeastConnections::default(), 5), [0, 5, 0]);
    }

    /// Idle providers share the load instead of the first one getting it all.
    #[test]
    fn ties_go_round() {
        let mut scene = Scene::new(4);
        scene.in_flight = vec![1, 0, 0, 0];
        assert_eq!(scene.counts(&mut LeastConnections::default(), 9), [0, 3, 3, 3]);
    }
}
