//! The cost of storing one-task workflows and their outcomes, by store and durability.
//!
//! Disks differ by forty times in the cost of a flush: `cargo bench -p gleitzeit-loadgen` measures the
//! same rows without the store.

use std::{cell::Cell, time::Duration};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gleitzeit::{
    settings::Durability,
    storage::{SqlOptions, SqlStore},
};
use gleitzeit_actors::memory_store::MemoryStore;
use gleitzeit_domain::{
    store::{NewWorkflow, Store, WorkflowChange, conformance::sample},
    workflow::WorkflowStatus,
};
use serde_json::json;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

/// Workflows and their outcomes.
type Work = (Vec<NewWorkflow>, Vec<WorkflowChange>);

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// `count` new workflows of one task each.
fn work(count: u32, made: &Cell<u64>) -> Work {
    let new_workflows: Vec<NewWorkflow> = (0..count)
        .map(|_| {
            made.set(made.get() + 1);
            sample::workflow(&format!("workflow-{:012}", made.get()), 1)
        })
        .collect();
    let outcomes = new_workflows.iter().map(|new| WorkflowChange {
        tasks: vec![sample::completed(&new.record.tasks[0], json!({"text": "done"}))],
        events: sample::events(&new.record.id, 2, 3),
        last_sequence: 4,
        ..sample::settles(new, WorkflowStatus::Completed, sample::at(5))
    });
    let outcomes = outcomes.collect();
    (new_workflows, outcomes)
}

async fn run(store: &dyn Store, (new_workflows, outcomes): Work) {
    store.submit(new_workflows).await.expect("submitted");
    store.record(outcomes).await.expect("recorded");
}

fn sqlite(runtime: &Runtime, folder: &TempDir, durability: Durability) -> SqlStore {
    let url = format!("sqlite:{}/{durability}.db", folder.path().display());
    let url = url.parse().expect("a URL");
    runtime
        .block_on(SqlStore::connect(&url, SqlOptions { durability, ..SqlOptions::default() }))
        .expect("opened")
}

fn submit_and_record(criterion: &mut Criterion) {
    let runtime = runtime();
    let folder = TempDir::new().expect("a folder");
    let stores: [(&str, Box<dyn Store>); 3] = [
        ("memory", Box::new(MemoryStore::default())),
        ("sqlite_normal", Box::new(sqlite(&runtime, &folder, Durability::Normal))),
        ("sqlite_full", Box::new(sqlite(&runtime, &folder, Durability::Full))),
    ];
    let made = Cell::new(0);
    let mut group = criterion.benchmark_group("store/submit_and_record");
    for (name, store) in &stores {
        for count in [1_u32, 32, 1000] {
            group.throughput(Throughput::Elements(u64::from(count)));
            group.bench_function(BenchmarkId::new(*name, count), |bencher| {
                bencher.iter_batched(
                    || work(count, &made),
                    |work| runtime.block_on(run(&**store, work)),
                    criterion::BatchSize::LargeInput,
                );
            });
        }
    }
    group.finish();
    for (_, store) in stores {
        runtime.block_on(store.close(Duration::from_mins(1))).expect("closed");
    }
}

criterion_group!(benches, submit_and_record);
criterion_main!(benches);
