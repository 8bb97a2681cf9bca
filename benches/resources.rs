//! The cost of a lease: without waiters, with many, and if none fits. And the cost of the ready
//! queue, full and nearly empty.

use std::{collections::VecDeque, hint::black_box};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use gleitzeit_domain::{
    lease_queue::{Answer, LeaseQueue},
    queue::{Kind, Pick, ReadyQueue},
    resources::{ResourceLedger, Resources},
    task::Priority,
};

/// `cores` cores in `slots` leases.
fn cores(cores: u64, slots: u64) -> Resources {
    Resources { cpu_millicores: cores * 1000, ..Resources::default() }.with_slots(slots)
}

/// Requests resources that are free for certain.
fn take(queue: &mut LeaseQueue<u32>, need: Resources) -> Resources {
    match queue.request(need, Priority::Normal, 0) {
        Ok(Answer::Granted(granted)) => granted.held,
        answer => unreachable!("{answer:?}"),
    }
}

fn ledger(criterion: &mut Criterion) {
    let mut ledger = ResourceLedger::new(cores(8, 8));
    let need = cores(1, 1);
    criterion.bench_function("resources/ledger_take_give", |bencher| {
        bencher.iter(|| {
            let took = ledger.take(black_box(&need));
            ledger.release(&need);
            took
        });
    });
}

fn leases(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("resources/lease");
    let mut idle = LeaseQueue::new(cores(8, 64));
    group.bench_function("nothing_waits", |bencher| {
        bencher.iter(|| {
            let held = take(&mut idle, black_box(cores(1, 1)));
            idle.release(&held)
        });
    });
    for waiting in [10, 1_000, 10_000] {
        group.bench_function(BenchmarkId::new("request_and_pass_on", waiting), |bencher| {
            let mut queue = LeaseQueue::new(cores(8, 64));
            let mut held: VecDeque<_> = (0..8).map(|_| take(&mut queue, cores(1, 1))).collect();
            for number in 0..waiting {
                queue.request(cores(1, 1), Priority::Normal, number).expect("below the total");
            }
            bencher.iter(|| {
                queue.request(cores(1, 1), Priority::Normal, 0).expect("below the total");
                let back = held.pop_front().expect("eight are held");
                held.extend(queue.release(&back).into_iter().map(|granted| granted.held));
            });
        });
        group.bench_function(BenchmarkId::new("nothing_fits", waiting), |bencher| {
            let mut queue = LeaseQueue::new(cores(8, 64));
            let most = take(&mut queue, cores(7, 1));
            for number in 0..waiting {
                queue.request(cores(2, 1), Priority::Normal, number).expect("below the total");
            }
            bencher.iter(|| {
                // One more that does not fit, and a search that finds nobody when it leaves.
                match queue.request(cores(2, 1), Priority::Urgent, 0) {
                    Ok(Answer::Waiting(ticket)) => queue.cancel(black_box(ticket)),
                    answer => unreachable!("{answer:?}"),
                }
            });
            assert_eq!(queue.taken(), most);
        });
    }
    group.finish();
}

fn ready_queue(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("resources/ready_queue");
    for waiting in [0, 100_000] {
        let mut queue = ReadyQueue::new();
        for number in 0..waiting {
            queue.push(Priority::Normal, Kind::Pure, number);
        }
        group.bench_function(BenchmarkId::new("push_pop", waiting), |bencher| {
            bencher.iter(|| {
                queue.push(Priority::Normal, Kind::Pure, black_box(7));
                queue.pop(Pick::Any)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, ledger, leases, ready_queue);
criterion_main!(benches);
