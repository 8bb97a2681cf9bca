//! How much may have ended without being stored: a crash runs it again, and it takes memory.

use std::sync::Arc;

use gleitzeit_actors::{
    execution_engine::{EngineCounts, EngineSettings},
    memory_store::MemoryStore,
};
use gleitzeit_domain::{
    error::ErrorCode,
    store::StoreError,
    task::TaskStatus::{Completed, Failed},
    workflow::{TaskSpec, WorkflowSpec, WorkflowStatus},
};
use serde_json::json;

use crate::support::{FlakyStore, Harness, Setup, code, of, quick, secs, statuses, task};

fn many(count: usize, new: impl Fn(&str) -> TaskSpec) -> WorkflowSpec {
    let tasks = (0..count).map(|n| new(&format!("t{n}")));
    tasks.fold(WorkflowSpec::new("many"), WorkflowSpec::task)
}

async fn over(store: &Arc<FlakyStore>, engine: EngineSettings) -> Harness {
    Setup { engine, store: Arc::<FlakyStore>::clone(store), ..Setup::default() }.open_again().await
}

fn at_once(max_concurrent_tasks: usize) -> EngineSettings {
    EngineSettings { max_concurrent_tasks, ..EngineSettings::default() }
}

/// A store that is slower than the calls: no more run and have ended than the bound says, and all
/// of it runs on as the store catches up.
#[actix::test]
async fn calls_with_an_effect_wait_for_the_outcomes_before_them() {
    tokio::time::pause();
    for (slots, bound) in [(16, 1_024), (400, 1_600)] {
        let store = FlakyStore::gated();
        store.pass_submits(1);
        let mut harness = over(&store, at_once(slots)).await;
        let sent = harness.submit(many(3_000, quick)).await.unwrap();
        tokio::time::sleep(secs(1)).await;
        assert_eq!(harness.script.calls().len(), bound);
        assert_eq!(harness.engine_counts().await.unstored_calls, bound as u64);
        store.pass_records(1);
        tokio::time::sleep(secs(1)).await;
        let begun = harness.script.calls().len();
        assert!(begun > bound && begun <= 2 * bound, "{begun}");
        store.open();
        assert_eq!(sent.end().await.status, WorkflowStatus::Completed);
        assert_eq!(harness.script.calls().len(), 3_000);
        harness.finish().await;
    }
}

/// Pure calls may run again: only the memory that their outcomes take bounds them.
#[actix::test]
async fn pure_calls_wait_for_the_memory_of_the_outcomes_before_them() {
    tokio::time::pause();
    let store = FlakyStore::gated();
    store.pass_submits(1);
    let mut harness =
        over(&store, EngineSettings { max_unstored_bytes: 4_000_000, ..at_once(8) }).await;
    let pure = |id: &str| TaskSpec::new(id, "test/pure").params(json!({"value": "x".repeat(999)}));
    let sent = harness.submit(many(4_000, pure)).await.unwrap();
    tokio::time::sleep(secs(1)).await;
    let begun = harness.script.calls().len();
    assert!((2_000..3_000).contains(&begun), "{begun}");
    assert!(harness.engine_counts().await.unstored_bytes < 4_020_000);
    store.open();
    assert_eq!(sent.end().await.status, WorkflowStatus::Completed);
    harness.finish().await;
}

/// While the store refuses outcomes, no further call with an effect begins; pure ones do, and
/// before tasks that are more urgent.
#[actix::test]
async fn no_effect_begins_while_the_store_refuses_outcomes() {
    tokio::time::pause();
    let away = StoreError::Unavailable { detail: "cut".into() };
    let store = FlakyStore::flaky(Vec::new(), vec![away; 6]);
    let mut harness = over(&store, at_once(4)).await;
    let sent = harness.submit(many(100, quick)).await.unwrap();
    let beside = TaskSpec::new("pure", "test/pure").params(json!({}));
    tokio::time::sleep(secs(1)).await;
    let begun = harness.script.calls().len();
    assert!(begun <= 8, "{begun} calls began while their outcomes could not be stored");
    let beside = harness.send(WorkflowSpec::new("beside").task(beside));
    tokio::time::sleep(secs(1) / 4).await;
    assert_eq!(harness.script.calls_of("pure").len(), 1);
    assert_eq!(harness.script.calls().len(), begun + 1);
    assert_eq!(sent.end().await.status, WorkflowStatus::Completed);
    beside.end().await;
    assert_eq!(harness.script.calls().len(), 101);
    harness.finish().await;
}

/// A result that the store could not hold fails its own task, and no other.
#[actix::test]
async fn a_result_beyond_the_limit_fails_its_own_task() {
    let engine = EngineSettings { max_result_bytes: 1_000, ..EngineSettings::default() };
    let mut harness = Setup { engine, ..Setup::default() }.open().await;
    let returning = |id: &str, size: usize| task(id, json!({"value": "x".repeat(size)}));
    let spec = WorkflowSpec::new("w")
        .task(returning("fits", 998))
        .task(returning("too-long", 999))
        .task(quick("after").after("fits"));
    let record = harness.run(spec).await;
    assert_eq!(statuses(&record), [Completed, Failed, Completed]);
    assert_eq!(code(&record, "too-long"), Some(ErrorCode::TaskResultInvalid));
    let error = of(&record, "too-long").error.clone().unwrap();
    assert!(error.message.contains("1001 bytes"), "{error}");
    assert!(error.message.contains("engine.max_result_mb"), "{error}");
    harness.finish().await;
}

/// Large results are dropped here once they are stored; a task or a caller that needs one gets it
/// all the same.
#[actix::test]
async fn results_in_the_store_are_not_kept_in_memory() {
    let memory = Arc::new(MemoryStore::default().with_timed_leases());
    let store = Arc::<MemoryStore>::clone(&memory);
    let mut harness = Setup { store, ..Setup::default() }.open().await;
    let text = "x".repeat(20_000);
    let large = |id: &str| task(id, json!({"value": {"text": text, "id": id}}));
    let spec = WorkflowSpec::new("w")
        .task(large("a"))
        .task(large("b").after("a"))
        .task(task("c", json!({"gate": "g", "value": "${a.id}-${b.id}"})).after("b"));
    let sent = harness.submit(spec).await.unwrap();
    harness.until_task("task:started", "c").await;
    assert!(harness.state(&sent.id).await.is_none(), "the store has the results");
    harness.script.open("g");
    let record = sent.end().await;
    assert_eq!(statuses(&record), [Completed; 3]);
    assert_eq!(of(&record, "c").result.as_deref(), Some(&json!("a-b")));
    for id in ["a", "b"] {
        assert_eq!(of(&record, id).result.as_ref().unwrap()["text"], text.as_str());
    }
    assert_eq!(harness.engine_counts().await, EngineCounts::default());
    harness.finish().await;
}
