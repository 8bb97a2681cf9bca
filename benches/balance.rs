//! The cost of choosing a provider and counting its call, by strategy and number of providers.

use std::{hint::black_box, time::Duration};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use gleitzeit_domain::{
    balance::{BalanceConfig, Pick, ProviderTable, Registration, Sample, Strategies},
    health::HealthStatus,
    id::{Capability, ProviderId},
};

/// A table of `count` healthy, idle providers of one method.
fn table(strategy: &str, count: usize, capability: &Capability) -> ProviderTable<()> {
    let config = BalanceConfig { strategy: strategy.to_owned(), ..BalanceConfig::default() };
    let mut table =
        ProviderTable::new(&config, &Strategies::default()).expect("a built-in strategy");
    for number in 0..count {
        let id = ProviderId::from(format!("provider-{number}"));
        let registration = Registration {
            id: id.clone(),
            capabilities: vec![capability.clone()],
            weight: 1.0,
            max_concurrent: Some(64),
        };
        table.register(registration, ());
        table.set_available(&id, true);
        table.set_health(&id, HealthStatus::Healthy);
    }
    table
}

fn pick_start_finish(criterion: &mut Criterion) {
    let capability: Capability = "python/v1.0:execute".parse().expect("a capability");
    let sample = Some(Sample { latency: Duration::from_millis(5), ok: true });
    let strategies = Strategies::default();
    let mut group = criterion.benchmark_group("balance/pick_start_finish");
    for strategy in strategies.names() {
        for count in [1, 4, 32] {
            let mut table = table(strategy, count, &capability);
            let mut now = Duration::ZERO;
            group.bench_function(BenchmarkId::new(strategy, count), |bencher| {
                bencher.iter(|| {
                    now += Duration::from_micros(1);
                    let pick = table.pick(black_box(&capability), None, now);
                    let Pick::Chosen(slot) = pick else { unreachable!("all are idle") };
                    table.started(slot);
                    table.finished(slot, sample, now)
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, pick_start_finish);
criterion_main!(benches);
