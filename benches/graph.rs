//! The time to build a workflow's graph, and to settle all of its tasks.
//!
//! Claim: linear in tasks and edges, so that the time per task is the same for 10 and for 100,000.

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gleitzeit_domain::{
    graph::{Graph, Settlement},
    task::OnDependencyFailure,
};

type Edges = Vec<(u32, u32)>;
/// The edges of a workflow of so many tasks.
type Shape = fn(u32) -> Edges;

/// Each task waits for the one before.
fn chain(tasks: u32) -> Edges {
    (1..tasks).map(|task| (task, task - 1)).collect()
}

/// One task, many that depend on it, and one that depends on them all.
fn fan_out(tasks: u32) -> Edges {
    let last = tasks - 1;
    (1..last).flat_map(|task| [(task, 0), (last, task)]).collect()
}

/// Rows of ten; each task waits for its neighbours of the row above, so that every square is a
/// diamond.
fn diamonds(tasks: u32) -> Edges {
    let above = |task: u32| [task - 10, if task % 10 == 9 { task - 19 } else { task - 9 }];
    (10..tasks).flat_map(|task| above(task).map(|before| (task, before))).collect()
}

fn build(tasks: u32, edges: &Edges) -> Graph {
    let policies = vec![OnDependencyFailure::Skip; tasks as usize];
    Graph::build(&policies, edges.iter().copied()).expect("no circle")
}

/// Settles every task in the order in which they become ready.
fn settle_all(mut graph: Graph) -> Graph {
    let mut settlement = Settlement { ready: graph.ready(), ..Settlement::default() };
    while let Some(task) = settlement.ready.pop() {
        graph.settle_into(task, true, &mut settlement);
    }
    assert!(graph.all_settled(), "the order of readiness reaches every task");
    graph
}

fn graph(criterion: &mut Criterion) {
    let shapes: [(&str, Shape); 3] =
        [("chain", chain), ("fan_out", fan_out), ("diamonds", diamonds)];
    for (name, shape) in shapes {
        let mut group = criterion.benchmark_group(format!("graph/{name}"));
        for tasks in [10, 100, 1_000, 10_000, 100_000] {
            let edges = shape(tasks);
            let built = build(tasks, &edges);
            group.throughput(Throughput::Elements(u64::from(tasks)));
            group.bench_function(BenchmarkId::new("build", tasks), |bench| {
                bench.iter(|| build(tasks, black_box(&edges)));
            });
            group.bench_function(BenchmarkId::new("settle", tasks), |bench| {
                bench.iter_batched(|| built.clone(), settle_all, BatchSize::LargeInput);
            });
            group.bench_function(BenchmarkId::new("fail_first", tasks), |bench| {
                let fail = |mut graph: Graph| {
                    let settlement = graph.settle(0, false);
                    (graph, settlement)
                };
                bench.iter_batched(|| built.clone(), fail, BatchSize::LargeInput);
            });
        }
        group.finish();
    }
}

criterion_group!(benches, graph);
criterion_main!(benches);
