//! What it costs to choose a provider and to count its call, by strategy and number of providers.

use std::{hint::black_box, time::Duration};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use gleitzeit_domain::{
    balance::{BalanceConfig, Pick, ProviderBook, Registration, Sample, Strategies},
    health::HealthStatus,
    id::{Capability, ProviderId},
};

/// A book of `count` healthy, idle providers of one method.
fn book(strategy: &str, count: usize, capability: &Capability) -> ProviderBook<()> {
    let config = BalanceConfig { strategy: strategy.to_owned(), ..BalanceConfig::default() };
    let mut book = ProviderBook::new(&config, &Strategies::default()).expect("a built-in strategy");
    for number in 0..count {
        let id = ProviderId::from(format!("provider-{number}"));
        let registration = Registration {
            id: id.clone(),
            capabilities: vec![capability.clone()],
            weight: 1.0,
            max_concurrent: Some(64),
        };
        book.register(registration, ());
        book.set_available(&id, true);
        book.set_health(&id, HealthStatus::Healthy);
    }
    book
}

fn pick_start_finish(criterion: &mut Criterion) {
    let capability: Capability = "python/v1.0:execute".parse().expect("a capability");
    let sample = Some(Sample { latency: Duration::from_millis(5), ok: true });
    let strategies = Strategies::default();
    let mut group = criterion.benchmark_group("balance/pick_start_finish");
    for strategy in strategies.names() {
        for count in [1, 4, 32] {
            let mut book = book(strategy, count, &capability);
            let mut now = Duration::ZERO;
            group.bench_function(BenchmarkId::new(strategy, count), |bencher| {
                bencher.iter(|| {
                    now += Duration::from_micros(1);
                    let pick = book.pick(black_box(&capability), None, now);
                    let Pick::Chosen(slot) = pick else { unreachable!("all are idle") };
                    book.started(slot);
                    book.finished(slot, sample, now)
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, pick_start_finish);
criterion_main!(benches);
