//! Claims about [`ProviderTable`]: who may be chosen, and that counts stay exact.

use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::*;

const NOW: Duration = Duration::ZERO;

fn call() -> Capability {
    "python/v1:execute".parse().unwrap()
}

fn id(number: u32) -> ProviderId {
    format!("p{number}").into()
}

fn registration(number: u32, max_concurrent: Option<u32>) -> Registration {
    Registration { id: id(number), capabilities: vec![call()], weight: 1.0, max_concurrent }
}

fn table(strategy: &str) -> ProviderTable<u32> {
    let config = BalanceConfig { strategy: strategy.to_owned(), ..BalanceConfig::default() };
    ProviderTable::new(&config, &Strategies::default()).unwrap()
}

/// A table of `count` healthy providers without bounds.
fn healthy(strategy: &str, count: u32) -> ProviderTable<u32> {
    let mut table = table(strategy);
    for number in 0..count {
        table.register(registration(number, None), number);
        table.set_available(&id(number), true);
        table.set_health(&id(number), HealthStatus::Healthy);
    }
    table
}

/// The handle of the chosen one.
fn chosen(table: &mut ProviderTable<u32>, avoid: Option<&ProviderId>) -> Option<u32> {
    match table.pick(&call(), avoid, NOW) {
        Pick::Chosen(slot) => table.get(slot).map(|entry| entry.handle),
        _ => None,
    }
}

/// The four answers lead to four different errors or waits, so they must not be mixed up.
#[test]
fn each_reason_for_no_provider_is_distinguished() {
    let mut table = table("round_robin");
    assert_eq!(table.pick(&call(), None, NOW), Pick::NotSupported);
    let slot = table.register(registration(0, Some(1)), 0);
    assert_eq!(table.pick(&call(), None, NOW), Pick::Unavailable);
    table.set_available(&id(0), true);
    assert_eq!(table.pick(&call(), None, NOW), Pick::Chosen(slot));
    assert!(table.started(slot));
    assert_eq!(table.pick(&call(), None, NOW), Pick::Busy);
    table.set_health(&id(0), HealthStatus::Unhealthy);
    assert_eq!(table.pick(&call(), None, NOW), Pick::Unavailable);
    assert_eq!(table.remove(&id(0)), Some(0));
    assert_eq!(table.pick(&call(), None, NOW), Pick::NotSupported);
    assert!(!table.supports(&call()));
}

/// A degraded provider is spared while a healthy one is there, even where that one is full.
#[test]
fn healthy_beats_degraded_beats_none() {
    let mut table = healthy("round_robin", 3);
    table.set_health(&id(0), HealthStatus::Degraded);
    table.set_health(&id(1), HealthStatus::Unhealthy);
    assert_eq!([chosen(&mut table, None), chosen(&mut table, None)], [Some(2); 2]);
    table.register(registration(2, Some(0)), 2);
    assert_eq!(table.pick(&call(), None, NOW), Pick::Busy);
    table.set_available(&id(2), false);
    assert_eq!(chosen(&mut table, None), Some(0));
    table.set_health(&id(0), HealthStatus::Unhealthy);
    assert_eq!(table.pick(&call(), None, NOW), Pick::Unavailable);
}

/// A repeated attempt goes elsewhere, but to the same one rather than nowhere.
#[test]
fn the_avoided_one_serves_only_where_nobody_else_does() {
    let mut table = healthy("round_robin", 2);
    assert_eq!([chosen(&mut table, Some(&id(0))), chosen(&mut table, Some(&id(0)))], [Some(1); 2]);
    table.set_health(&id(1), HealthStatus::Degraded);
    assert_eq!(chosen(&mut table, Some(&id(0))), Some(1));
    table.set_available(&id(1), false);
    assert_eq!(chosen(&mut table, Some(&id(0))), Some(0));
}

/// Each protocol has the strategy that settings give it, by id, by name, or by default.
#[test]
fn strategies_are_chosen_per_protocol() {
    let protocols = [("llm/v1", "peak_ewma"), ("python", "weighted_random")];
    let config = BalanceConfig {
        protocols: protocols.map(|(at, name)| (at.to_owned(), name.to_owned())).into(),
        ..BalanceConfig::default()
    };
    let mut table = ProviderTable::new(&config, &Strategies::default()).unwrap();
    let capabilities = ["llm/v1.0:chat", "llm/v2:chat", "python/v1:execute"];
    let capabilities = capabilities.map(|text| text.parse().unwrap()).to_vec();
    table.register(Registration { capabilities, ..registration(0, None) }, ());
    let strategy = |protocol: &str| table.strategy_of(&protocol.parse().unwrap());
    assert_eq!(strategy("llm/v1.0"), Some("peak_ewma"));
    assert_eq!(strategy("llm/v2"), Some("round_robin"));
    assert_eq!(strategy("python/v1"), Some("weighted_random"));
    assert_eq!(strategy("echo/v1"), None);
}

/// A misspelt strategy is reported with the ones that are there.
#[test]
fn an_unknown_strategy_is_refused_with_the_known_ones() {
    let config = BalanceConfig { strategy: "robin".to_owned(), ..BalanceConfig::default() };
    let refused = ProviderTable::<()>::new(&config, &Strategies::default()).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "there is no balancing strategy `robin`; there are: least_connections, peak_ewma, \
         round_robin, weighted_random"
    );
}

struct Recorder(Arc<Mutex<Vec<(ProviderId, bool)>>>);

impl LoadBalancingStrategy for Recorder {
    fn name(&self) -> &'static str {
        "recorder"
    }

    fn select(&mut self, candidates: &[Candidate<'_>], _: &PickContext<'_>) -> usize {
        candidates.len() + 7
    }

    fn finished(&mut self, provider: &ProviderId, sample: Sample, _: Duration) {
        self.0.lock().unwrap().push((provider.clone(), sample.ok));
    }
}

/// A strategy of a user is asked and told like the built-in ones, and cannot break the table.
#[test]
fn a_strategy_can_be_added() {
    let recorded = Arc::new(Mutex::new(Vec::new()));
    let record = Arc::clone(&recorded);
    let strategies = Strategies::default()
        .with("recorder", Arc::new(move |_| Box::new(Recorder(Arc::clone(&record)))));
    let config = BalanceConfig { strategy: "recorder".to_owned(), ..BalanceConfig::default() };
    let mut table = ProviderTable::new(&config, &strategies).unwrap();
    for number in 0..2 {
        table.register(registration(number, None), number);
        table.set_available(&id(number), true);
    }
    let Pick::Chosen(slot) = table.pick(&call(), None, NOW) else { panic!("nobody chosen") };
    assert_eq!(table.get(slot).unwrap().handle, 0, "out of range counts as the first");
    table.started(slot);
    table.started(slot);
    table.finished(slot, Some(Sample { latency: NOW, ok: false }), NOW);
    table.finished(slot, None, NOW);
    assert_eq!(*recorded.lock().unwrap(), [(id(0), false)]);
}

/// A call that outlives its provider is not counted against the next one in its place.
#[test]
fn late_answers_do_not_touch_a_successor() {
    let mut table = healthy("round_robin", 1);
    let old = table.find(&id(0)).unwrap();
    table.started(old);
    table.remove(&id(0));
    let new = table.register(registration(1, None), 1);
    assert!(table.started(new));
    assert!(!table.finished(old, None, NOW));
    assert!(table.get(old).is_none());
    assert_eq!(table.get(new).unwrap().in_flight(), 1);
}

/// Registering again, as after a change of settings, keeps the calls in flight.
#[test]
fn registering_again_keeps_counts_and_replaces_the_rest() {
    let mut table = healthy("round_robin", 1);
    let slot = table.find(&id(0)).unwrap();
    table.started(slot);
    let other: Capability = "python/v1:validate".parse().unwrap();
    let again = Registration { capabilities: vec![other.clone()], ..registration(0, Some(1)) };
    assert_eq!(table.register(again, 9), slot);
    assert_eq!(table.pick(&call(), None, NOW), Pick::NotSupported);
    assert_eq!(table.pick(&other, None, NOW), Pick::Busy);
    let entry = table.get(slot).unwrap();
    assert_eq!((entry.handle, entry.in_flight()), (9, 1));
}

/// A second's worth of calls of two providers under a strategy, in simulated time; how many calls
/// each got. Each arrival takes the provider's own time.
fn simulate(strategy: &str, millis: [u64; 2]) -> [u32; 2] {
    let mut table = healthy(strategy, 2);
    let mut ends: Vec<(Duration, Duration, Slot)> = Vec::new();
    let mut counts = [0; 2];
    for arrival in 0..10_000_u64 {
        let now = Duration::from_millis(arrival);
        ends.retain(|(start, end, slot)| {
            let ended = *end <= now;
            if ended {
                let sample = Sample { latency: end.saturating_sub(*start), ok: true };
                table.finished(*slot, Some(sample), *end);
            }
            !ended
        });
        let Pick::Chosen(slot) = table.pick(&call(), None, now) else { panic!("nobody chosen") };
        let number = table.get(slot).unwrap().handle as usize;
        counts[number] += 1;
        table.started(slot);
        ends.push((now, now + Duration::from_millis(millis[number]), slot));
    }
    counts
}

/// Round robin ignores speed; least connections and peak EWMA let the fast one do more.
#[test]
fn a_fast_provider_gets_more_if_the_strategy_measures() {
    assert_eq!(simulate("round_robin", [5, 50]), [5000, 5000]);
    for strategy in ["least_connections", "peak_ewma"] {
        let [fast, slow] = simulate(strategy, [5, 50]);
        assert!(fast > 4 * slow && slow > 0, "{strategy}: {fast} and {slow}");
    }
}

/// The list of candidates is made in the memory of the last one: a choice is made for every call.
#[test]
fn choosing_does_not_allocate() {
    let mut table = healthy("round_robin", 5);
    chosen(&mut table, None);
    let memory = (table.scratch.as_ptr(), table.scratch.capacity());
    assert!(memory.1 >= 5);
    chosen(&mut table, None);
    assert_eq!((table.scratch.as_ptr(), table.scratch.capacity()), memory);
}

proptest! {
    /// Whatever is registered, removed, started and finished: a choice is well enough, below its
    /// bound, and nobody of better health was passed over; counts match a plain list of calls.
    #[test]
    fn choices_are_allowed_and_counts_exact(
        strategy in 0..4_usize,
        steps in prop::collection::vec((0..6_u8, 0..5_u32, 0..4_u8), 0..200),
    ) {
        let mut table = table(Strategies::default().names().nth(strategy).unwrap());
        let mut live: Vec<(Slot, u32)> = Vec::new();
        let levels = [
            HealthStatus::Unknown, HealthStatus::Healthy, HealthStatus::Degraded,
            HealthStatus::Unhealthy,
        ];
        for (action, number, value) in steps {
            match action {
                0 => {
                    table.register(registration(number, Some(value.into())), number);
                }
                1 => {
                    if table.remove(&id(number)).is_some() {
                        let of = live.iter().filter(|call| call.1 == number);
                        prop_assert!(of.clone().all(|(slot, _)| table.get(*slot).is_none()));
                        live.retain(|call| call.1 != number);
                    }
                }
                2 => {
                    table.set_health(&id(number), levels[usize::from(value)]);
                    table.set_available(&id(number), value > 0 || number > 0);
                }
                3 if !live.is_empty() => {
                    let (slot, _) = live.remove(usize::from(value) % live.len());
                    prop_assert!(table.finished(slot, None, NOW));
                }
                _ => {
                    let tiers = table.iter().filter_map(|(_, entry)| entry.tier());
                    let best = tiers.min();
                    match table.pick(&call(), None, NOW) {
                        Pick::Chosen(slot) => {
                            let entry = table.get(slot).unwrap();
                            prop_assert!(!entry.is_full());
                            prop_assert_eq!(entry.tier(), best);
                            live.push((slot, entry.handle));
                            prop_assert!(table.started(slot));
                        }
                        Pick::Busy => {
                            let mut of_best = table.iter().filter(|(_, it)| it.tier() == best);
                            prop_assert!(of_best.all(|(_, entry)| entry.is_full()));
                        }
                        Pick::Unavailable => prop_assert_eq!(best, None),
                        Pick::NotSupported => prop_assert_eq!(table.iter().count(), 0),
                    }
                }
            }
            for (slot, entry) in table.iter() {
                let count = live.iter().filter(|call| call.0 == slot).count();
                prop_assert_eq!(entry.in_flight() as usize, count);
            }
        }
    }
}
