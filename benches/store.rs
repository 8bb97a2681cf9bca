//! What it costs to take in one-task workflows and to write their outcomes, by store and durability.
//!
//! Beside the figures of SQLite stands `bare_commit`: a transaction of one small row on the same
//! disk, through sea-orm. Disks differ by forty times in the price of a flush, so that a figure
//! means little without it.

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
use sea_orm::{ConnectionTrait as _, Database, DatabaseConnection, TransactionTrait as _};
use serde_json::json;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

/// Workflows, and what becomes of them.
type Work = (Vec<NewWorkflow>, Vec<WorkflowChange>);

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// `count` workflows of one task each that were not there before.
fn work(count: u32, made: &Cell<u64>) -> Work {
    let news: Vec<NewWorkflow> = (0..count)
        .map(|_| {
            made.set(made.get() + 1);
            sample::workflow(&format!("workflow-{:012}", made.get()), 1)
        })
        .collect();
    let outcomes = news.iter().map(|new| WorkflowChange {
        tasks: vec![sample::completed(&new.record.tasks[0], json!({"text": "done"}))],
        events: sample::events(&new.record.id, 2, 3),
        last_sequence: 4,
        ..sample::settles(new, WorkflowStatus::Completed, sample::at(5))
    });
    let outcomes = outcomes.collect();
    (news, outcomes)
}

async fn run(store: &dyn Store, (news, outcomes): Work) {
    store.submit(news).await.expect("submitted");
    store.record(outcomes).await.expect("recorded");
}

fn sqlite(runtime: &Runtime, folder: &TempDir, durability: Durability) -> SqlStore {
    let url = format!("sqlite:{}/{durability}.db", folder.path().display());
    let url = url.parse().expect("a URL");
    runtime.block_on(SqlStore::connect(&url, SqlOptions { durability })).expect("opened")
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

fn bare_commit(criterion: &mut Criterion) {
    let runtime = runtime();
    let folder = TempDir::new().expect("a folder");
    let mut group = criterion.benchmark_group("store/bare_commit");
    for (name, synchronous) in [("sqlite_normal", "NORMAL"), ("sqlite_full", "FULL")] {
        let url = format!("sqlite:{}/{name}.db?mode=rwc", folder.path().display());
        let db = runtime.block_on(bare(&url, synchronous)).expect("a database");
        group.bench_function(name, |bencher| {
            bencher.iter(|| runtime.block_on(commit_one(&db)).expect("committed"));
        });
    }
    group.finish();
}

async fn bare(url: &str, synchronous: &str) -> Result<DatabaseConnection, sea_orm::DbErr> {
    let db = Database::connect(url).await?;
    db.execute_unprepared("PRAGMA journal_mode = WAL").await?;
    db.execute_unprepared(&format!("PRAGMA synchronous = {synchronous}")).await?;
    db.execute_unprepared("CREATE TABLE t (a INTEGER)").await?;
    Ok(db)
}

async fn commit_one(db: &DatabaseConnection) -> Result<(), sea_orm::DbErr> {
    let transaction = db.begin().await?;
    transaction.execute_unprepared("INSERT INTO t VALUES (1)").await?;
    transaction.commit().await
}

criterion_group!(benches, submit_and_record, bare_commit);
criterion_main!(benches);
