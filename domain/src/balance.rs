//! Load balancing: the strategies, and the table of providers that they choose from.
//!
//! The `LoadBalancer` asks. Pure: time is passed in as a span since any fixed moment, randomness is
//! derived from a seed. [`ProviderTable`] decides which providers are eligible: healthy ones before
//! degraded ones, none above its own bound. A [`LoadBalancingStrategy`] chooses among the eligible
//! ones.

mod latency;
mod least_connections;
mod peak_ewma;
mod round_robin;
pub mod table;
mod weighted_random;

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

pub use latency::PeakLatency;
pub use least_connections::LeastConnections;
pub use peak_ewma::PeakEwma;
pub use round_robin::RoundRobin;
use serde::{Deserialize, Serialize};
pub use table::{Pick, ProviderEntry, ProviderTable, Registration, Slot};
pub use weighted_random::WeightedRandom;

use crate::{
    id::{Capability, ProtocolId, ProviderId},
    random::Random,
};

/// A provider that may be chosen: it is well enough and below its own bound.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// The id of the provider.
    pub id: &'a ProviderId,
    /// The index in the table; candidates are in ascending order of it.
    pub slot: u32,
    /// The share under the weighted strategy.
    pub weight: f64,
    /// Calls in flight now.
    pub in_flight: u32,
    /// The bound on calls in flight, above `in_flight`; `None` without a bound.
    pub max_concurrent: Option<u32>,
    /// How long its calls took.
    pub latency: &'a PeakLatency,
}

/// The input of a choice, besides the candidates.
#[derive(Debug, Clone, Copy)]
pub struct PickContext<'a> {
    /// The method of the call.
    pub capability: &'a Capability,
    /// A small number of its own for each capability, for state kept per method.
    pub method: usize,
    /// Now.
    pub now: Duration,
}

/// How a call went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// From its start to its answer.
    pub latency: Duration,
    /// False when the provider failed: it panicked, hung, was overloaded or could not be reached.
    /// An error of the task's own, such as a wrong line in its code, is a good answer.
    pub ok: bool,
}

/// Chooses one of several providers.
///
/// There is one instance a protocol. A strategy is asked only if there are at least two candidates.
pub trait LoadBalancingStrategy: Send {
    /// The name in settings.
    fn name(&self) -> &str;

    /// The index in `candidates` of the one to be called. One that is out of range counts as 0.
    fn select(&mut self, candidates: &[Candidate<'_>], context: &PickContext<'_>) -> usize;

    /// Told of each call that was answered.
    fn finished(&mut self, provider: &ProviderId, sample: Sample, now: Duration) {
        let _ = (provider, sample, now);
    }
}

/// The parameters of a strategy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StrategyConfig {
    /// The protocol it is to serve.
    pub protocol: ProtocolId,
    /// The seed of its randomness.
    pub seed: u64,
}

/// Builds a strategy.
pub type StrategyFactory =
    Arc<dyn Fn(&StrategyConfig) -> Box<dyn LoadBalancingStrategy> + Send + Sync>;

/// The strategies that settings may name.
#[derive(Clone)]
pub struct Strategies {
    factories: BTreeMap<String, StrategyFactory>,
}

impl Default for Strategies {
    /// `round_robin`, `weighted_random`, `least_connections` and `peak_ewma`.
    fn default() -> Self {
        Self { factories: BTreeMap::new() }
            .with(RoundRobin::NAME, Arc::new(|_| Box::new(RoundRobin::default())))
            .with(WeightedRandom::NAME, Arc::new(|to| Box::new(WeightedRandom::seeded(to.seed))))
            .with(LeastConnections::NAME, Arc::new(|_| Box::new(LeastConnections::default())))
            .with(PeakEwma::NAME, Arc::new(|to| Box::new(PeakEwma::seeded(to.seed))))
    }
}

impl Strategies {
    /// Adds a strategy, or replaces the one of that name.
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use gleitzeit_domain::balance::{
    ///     Candidate, LoadBalancingStrategy, PickContext, Strategies,
    /// };
    ///
    /// struct First;
    ///
    /// impl LoadBalancingStrategy for First {
    ///     fn name(&self) -> &str {
    ///         "first"
    ///     }
    ///
    ///     fn select(&mut self, _: &[Candidate<'_>], _: &PickContext<'_>) -> usize {
    ///         0
    ///     }
    /// }
    ///
    /// let strategies = Strategies::default().with("first", Arc::new(|_| Box::new(First)));
    /// assert!(strategies.names().any(|name| name == "first"));
    /// ```
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, factory: StrategyFactory) -> Self {
        self.factories.insert(name.into(), factory);
        self
    }

    /// The names, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.factories.keys().map(String::as_str)
    }

    fn get(&self, name: &str) -> Result<StrategyFactory, UnknownStrategy> {
        self.factories.get(name).cloned().ok_or_else(|| UnknownStrategy {
            name: name.to_owned(),
            known: self.names().collect::<Vec<_>>().join(", "),
        })
    }
}

impl fmt::Debug for Strategies {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_set().entries(self.names()).finish()
    }
}

/// Settings name a strategy that is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no balancing strategy `{name}`; there are: {known}")]
pub struct UnknownStrategy {
    /// The name as given.
    pub name: String,
    /// The known names, in one line.
    pub known: String,
}

/// The strategy of each protocol.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BalanceConfig {
    /// The strategy of a protocol that `protocols` does not name.
    pub strategy: String,
    /// The strategy by protocol: by its id (`llm/v1.0`), else by its name (`llm`).
    pub protocols: BTreeMap<String, String>,
    /// The seed of all randomness in balancing.
    pub seed: u64,
    /// How soon a latency is forgotten: after this span, what was measured counts for a third.
    /// In files: seconds.
    #[serde(with = "crate::duration")]
    pub latency_decay: Duration,
}

impl Default for BalanceConfig {
    fn default() -> Self {
        Self {
            strategy: RoundRobin::NAME.to_owned(),
            protocols: BTreeMap::new(),
            seed: 0,
            latency_decay: Duration::from_secs(10),
        }
    }
}

/// The factories that a [`BalanceConfig`] names, looked up once.
#[derive(Clone)]
struct Chooser {
    default: StrategyFactory,
    protocols: BTreeMap<String, StrategyFactory>,
    seeds: Random,
}

impl fmt::Debug for Chooser {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Chooser").field("seeds", &self.seeds).finish_non_exhaustive()
    }
}

impl Chooser {
    fn new(config: &BalanceConfig, strategies: &Strategies) -> Result<Self, UnknownStrategy> {
        let named = config.protocols.iter();
        let named = named.map(|(protocol, name)| Ok((key(protocol), strategies.get(name)?)));
        Ok(Self {
            default: strategies.get(&config.strategy)?,
            protocols: named.collect::<Result<_, UnknownStrategy>>()?,
            seeds: Random::seeded(config.seed),
        })
    }

    fn build(&mut self, protocol: &ProtocolId) -> Box<dyn LoadBalancingStrategy> {
        let by_id = self.protocols.get(&protocol.to_string());
        let named = by_id.or_else(|| self.protocols.get(protocol.name()));
        let factory = named.unwrap_or(&self.default).clone();
        let config = StrategyConfig { protocol: protocol.clone(), seed: self.seeds.next_u64() };
        factory(&config)
    }
}

/// `llm/v1` names the same protocol as `llm/v1.0`.
fn key(protocol: &str) -> String {
    protocol.parse::<ProtocolId>().map_or_else(|_| protocol.to_owned(), |id| id.to_string())
}

#[cfg(test)]
pub(crate) mod testing {
    //! Candidates for the tests of the strategies.

    use super::*;

    /// The values that the candidates of a test refer to.
    pub(crate) struct Scene {
        capability: Capability,
        ids: Vec<ProviderId>,
        pub(crate) latencies: Vec<PeakLatency>,
        pub(crate) weights: Vec<f64>,
        pub(crate) in_flight: Vec<u32>,
    }

    impl Scene {
        /// `count` idle providers of weight 1.
        pub(crate) fn new(count: usize) -> Self {
            Self {
                capability: "a/v1:b".parse().unwrap(),
                ids: (0..count).map(|n| format!("p{n}").into()).collect(),
                latencies: vec![PeakLatency::default(); count],
                weights: vec![1.0; count],
                in_flight: vec![0; count],
            }
        }

        /// Chooses for method number `method` among the providers in `slots`; gives the slot.
        pub(crate) fn select(
            &self,
            strategy: &mut dyn LoadBalancingStrategy,
            slots: &[usize],
            method: usize,
            now: Duration,
        ) -> usize {
            let candidate = |slot: &usize| Candidate {
                id: &self.ids[*slot],
                slot: u32::try_from(*slot).unwrap(),
                weight: self.weights[*slot],
                in_flight: self.in_flight[*slot],
                max_concurrent: None,
                latency: &self.latencies[*slot],
            };
            let candidates: Vec<_> = slots.iter().map(candidate).collect();
            let context = PickContext { capability: &self.capability, method, now };
            slots[strategy.select(&candidates, &context)]
        }

        /// Out of `picks` choices, how many went to each provider.
        pub(crate) fn counts(
            &self,
            strategy: &mut dyn LoadBalancingStrategy,
            picks: u32,
        ) -> Vec<u32> {
            let slots: Vec<usize> = (0..self.ids.len()).collect();
            let mut counts = vec![0; slots.len()];
            for _ in 0..picks {
                counts[self.select(strategy, &slots, 0, Duration::ZERO)] += 1;
            }
            counts
        }
    }
}
