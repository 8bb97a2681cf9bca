//! The cost of storing one-task workflows and their outcomes, by store and durability.
//!
//! Beside the figures of SQLite stand those of the database without the store, through sea-orm:
//! `bare_commit`, a transaction of one small row, and `plain_loop`, the same rows as those of the
//! store. Disks differ by forty times in the price of a flush, so that a figure means little
//! without them. `share_of_plain` holds the whole engine against a plain loop, by turns.
#![expect(clippy::print_stdout, reason = "a figure that Criterion does not know")]

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use gleitzeit::{
    Settings, TaskSpec, WorkflowSpec,
    providers::echo,
    settings::Durability,
    storage::{SqlOptions, SqlStore, plain::Plain},
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

/// The database without store and engine: one small row, and the rows of workflows, straight.
fn plain(criterion: &mut Criterion) {
    let runtime = runtime();
    let folder = TempDir::new().expect("a folder");
    let made = Cell::new(0);
    for durability in [Durability::Normal, Durability::Full] {
        let url = format!("sqlite:{}/{durability}.db", folder.path().display());
        let url = url.parse().expect("a URL");
        let plain =
            runtime.block_on(Plain::open(&url, SqlOptions { durability, ..SqlOptions::default() }));
        let mut plain = plain.expect("a database");
        criterion.bench_function(&format!("store/bare_commit/sqlite_{durability}"), |bencher| {
            bencher.iter(|| runtime.block_on(plain.commit_one()).expect("committed"));
        });
        let mut group = criterion.benchmark_group("store/plain_loop");
        for count in [1_u32, 32, 1000] {
            group.throughput(Throughput::Elements(u64::from(count)));
            let id = BenchmarkId::new(format!("sqlite_{durability}"), count);
            group.bench_function(id, |bencher| {
                bencher.iter_custom(|rounds| {
                    (0..rounds).map(|_| run_plain(&runtime, &mut plain, &work(count, &made))).sum()
                });
            });
        }
        group.finish();
        runtime.block_on(plain.close()).expect("closed");
    }
}

/// Submissions and outcomes in a transaction each, as [`run`] writes them.
fn run_plain(runtime: &Runtime, plain: &mut Plain, (new_workflows, outcomes): &Work) -> Duration {
    runtime.block_on(async {
        let submitted = plain.write(new_workflows, &[]).await.expect("submitted");
        submitted + plain.write(&[], outcomes).await.expect("recorded")
    })
}

/// The engine and a plain loop over the same rows, by turns: what is left of the database's pace
/// once there is an engine around it.
fn share_of_plain(criterion: &mut Criterion) {
    const WORKFLOWS: u32 = 20_000;
    const GROUP: u32 = 512;
    const ROUNDS: usize = 5;
    // Criterion itself only lists its benchmarks, or tries each once, unless an argument says to measure.
    let has_argument = |word: &str| std::env::args().any(|argument| argument == word);
    if !has_argument("--bench") || has_argument("--list") {
        return;
    }
    let runtime = runtime();
    let folder = TempDir::new().expect("a folder");
    let made = Cell::new(0);
    let mut shares = Vec::new();
    for round in 0..ROUNDS {
        let url = format!("sqlite:{}/{round}.db", folder.path().display());
        let engine = runtime.block_on(engine(&url, WORKFLOWS, GROUP));
        let url = url.parse().expect("a URL");
        let options = SqlOptions::default();
        let mut plain = runtime.block_on(Plain::open(&url, options)).expect("a database");
        let groups = (0..WORKFLOWS.div_ceil(GROUP)).map(|_| work(GROUP, &made));
        let alone: Duration = groups.map(|work| run_plain(&runtime, &mut plain, &work)).sum();
        runtime.block_on(plain.close()).expect("closed");
        shares.push(alone.as_secs_f64() / engine.as_secs_f64());
    }
    shares.sort_by(f64::total_cmp);
    println!(
        "store/share_of_plain: {WORKFLOWS} workflows, SQLite, full: the engine does {:.2} of what a \
         plain loop does [{:.2}–{:.2}], {ROUNDS} rounds",
        shares[ROUNDS / 2],
        shares[0],
        shares[ROUNDS - 1],
    );
    // Its figure is the line above; Criterion has nothing to repeat here.
    let _ = criterion;
}

/// Runs workflows of one task, `in_flight` at once, on a new store.
async fn engine(url: &str, workflows: u32, in_flight: u32) -> Duration {
    let text = format!("storage.url = \"{url}\"\nengine.max_concurrent_tasks = 1024");
    let settings = Settings::from_toml(&text).expect("sound settings");
    let started = gleitzeit::Runtime::builder(settings)
        .without_settings_providers()
        .provider(echo::spec("echo"))
        .start();
    let started = started.await.expect("a runtime");
    let handle = started.handle();
    let begun = Instant::now();
    let mut lanes = FuturesUnordered::new();
    let mut left = workflows;
    while left > 0 || !lanes.is_empty() {
        while left > 0 && lanes.len() < in_flight as usize {
            left -= 1;
            let task = TaskSpec::new("only", "echo/echo").params(json!({"n": 1}));
            let spec = WorkflowSpec::new("single").task(task);
            lanes.push(handle.run(spec));
        }
        lanes.next().await.expect("a lane").expect("an end");
    }
    let elapsed = begun.elapsed();
    started.stop(Duration::from_secs(10)).await;
    elapsed
}

criterion_group!(benches, submit_and_record, plain, share_of_plain);
criterion_main!(benches);
