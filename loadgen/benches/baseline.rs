//! The database without the store: what a commit costs, and how fast a plain loop writes the rows of
//! one-task workflows, on SQLite.
//!
//! `bare_commit` is a transaction of one small row, `plain_loop` the rows that `benches/store.rs` of
//! the library has the store write. `share_of_plain` compares the whole engine with a plain loop, by
//! turns.
#![expect(clippy::print_stdout, reason = "a figure that Criterion does not know")]

#[path = "../src/baseline.rs"]
#[allow(unused_imports, reason = "a bench has no test harness, so it drops the tests of the file")]
mod baseline;

use std::time::{Duration, Instant};

use baseline::{Baseline, Batch, Change, Sample};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use gleitzeit::{
    Event, Settings, Store as _, TaskSpec, WorkflowId, WorkflowSpec, WorkflowStatus,
    domain::store::{WorkflowChange, conformance::sample},
    providers::echo,
    settings::{Durability, StoreUrl},
    storage::{SqlOptions, SqlStore},
};
use serde_json::json;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// A database with one settled workflow of one task in it, and that workflow.
struct Ready {
    baseline: Baseline,
    sample: Sample,
    events: Vec<Event>,
}

impl Ready {
    async fn open(url: &StoreUrl, options: SqlOptions) -> Self {
        let id = WorkflowId::from("sample");
        let store = SqlStore::connect(url, options).await.expect("a store");
        let new = sample::workflow(id.as_str(), 1);
        let outcome = WorkflowChange {
            tasks: vec![sample::completed(&new.record.tasks[0], json!({"text": "done"}))],
            events: sample::events(&id, 2, 3),
            last_sequence: 4,
            ..sample::settles(&new, WorkflowStatus::Completed, sample::at(5))
        };
        store.submit(vec![new]).await.expect("submitted");
        store.record(vec![outcome]).await.expect("recorded");
        let events = store.events(&id, 0, usize::MAX).await.expect("events");
        store.close(Duration::from_mins(1)).await.expect("closed");
        let baseline = Baseline::open(url, options).await.expect("a database");
        let sample = baseline.sample(&id).await.expect("its rows");
        Self { baseline, sample, events }
    }

    /// Submissions and outcomes of `count` workflows in a transaction each, as a store writes them.
    async fn write(&self, count: u32) -> Duration {
        let (first, rest) = self.events.split_at(1);
        let mut row = self.sample.workflow.clone();
        "pending".clone_into(&mut row.status);
        (row.started_at, row.completed_at, row.last_sequence) = (None, None, 1);
        let mut batch = Batch::default();
        for _ in 0..count {
            let submitted = Change { tasks: &[], events: first, state: None };
            let id = WorkflowId::generate();
            batch.add(&id, &self.sample, &row, submitted).expect("encoded");
        }
        let (submitted, keys) = self.baseline.write(batch).await.expect("submitted");
        let mut batch = Batch::default();
        for key in keys {
            let Sample { workflow, tasks, .. } = &self.sample;
            let outcome = Change { tasks, events: rest, state: Some(workflow) };
            batch.change(key, outcome).expect("encoded");
        }
        submitted + self.baseline.write(batch).await.expect("recorded").0
    }
}

fn url(folder: &TempDir, name: &str) -> StoreUrl {
    format!("sqlite:{}/{name}.db", folder.path().display()).parse().expect("a URL")
}

/// One small row, and the rows of workflows.
fn plain(criterion: &mut Criterion) {
    let runtime = runtime();
    let folder = TempDir::new().expect("a folder");
    for durability in [Durability::Normal, Durability::Full] {
        let url = url(&folder, &durability.to_string());
        let options = SqlOptions { durability, ..SqlOptions::default() };
        let ready = runtime.block_on(Ready::open(&url, options));
        criterion.bench_function(&format!("store/bare_commit/sqlite_{durability}"), |bencher| {
            bencher.iter(|| runtime.block_on(ready.baseline.commit_one()).expect("committed"));
        });
        let mut group = criterion.benchmark_group("store/plain_loop");
        for count in [1_u32, 32, 1000] {
            group.throughput(Throughput::Elements(u64::from(count)));
            let id = BenchmarkId::new(format!("sqlite_{durability}"), count);
            group.bench_function(id, |bencher| {
                bencher.iter_custom(|rounds| {
                    (0..rounds).map(|_| runtime.block_on(ready.write(count))).sum()
                });
            });
        }
        group.finish();
        runtime.block_on(ready.baseline.close()).expect("closed");
    }
}

/// The engine and a plain loop over the same rows, by turns: what is left of the database's pace
/// once there is an engine around it.
fn share_of_plain(_: &mut Criterion) {
    const WORKFLOWS: u32 = 20_000;
    const GROUP: u32 = 512;
    const ROUNDS: usize = 5;
    // Criterion itself only lists its benchmarks, or tries each once, unless it is asked to measure.
    let has = |word: &str| std::env::args().any(|argument| argument == word);
    if !has("--bench") || has("--list") {
        return;
    }
    let runtime = runtime();
    let folder = TempDir::new().expect("a folder");
    let mut shares = Vec::new();
    for round in 0..ROUNDS {
        let url = url(&folder, &round.to_string());
        let engine = runtime.block_on(engine(url.expose(), WORKFLOWS, GROUP));
        let alone = runtime.block_on(async {
            let ready = Ready::open(&url, SqlOptions::default()).await;
            let mut alone = Duration::ZERO;
            for _ in 0..WORKFLOWS.div_ceil(GROUP) {
                alone += ready.write(GROUP).await;
            }
            ready.baseline.close().await.expect("closed");
            alone
        });
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

criterion_group!(benches, plain, share_of_plain);
criterion_main!(benches);
