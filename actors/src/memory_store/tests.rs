//! Claims about the bound on settled workflows.

use std::sync::Arc;

use gleitzeit_domain::{
    needs::Needs,
    store::WorkflowState,
    task::{TaskRecord, TaskStatus},
    workflow::{TaskSpec, WorkflowSpec, WorkflowStatus},
};

use super::*;

fn new(id: &str) -> NewWorkflow {
    let task = TaskRecord::pending(0, "a".into(), "a".into());
    NewWorkflow {
        record: WorkflowRecord {
            id: id.into(),
            name: id.into(),
            status: WorkflowStatus::Pending,
            created_at: DateTime::UNIX_EPOCH,
            started_at: None,
            completed_at: None,
            error: None,
            last_sequence: 0,
            spec: Arc::new(WorkflowSpec::new(id).task(TaskSpec::new("a", "echo/echo"))),
            tasks: vec![task],
        },
        events: Vec::new(),
        epoch: None,
        needs: Needs::default(),
    }
}

fn becomes(id: &str, status: WorkflowStatus) -> WorkflowChange {
    WorkflowChange {
        id: id.into(),
        workflow: Some(WorkflowState {
            status,
            started_at: None,
            completed_at: status.is_settled().then_some(DateTime::UNIX_EPOCH),
            error: None,
        }),
        tasks: Vec::new(),
        events: Vec::new(),
        last_sequence: 0,
        epoch: None,
    }
}

async fn ids(store: &MemoryStore) -> Vec<String> {
    let all = store.list(ListFilter { limit: 100, ..ListFilter::default() }).await.unwrap();
    all.iter().map(|summary| summary.id.to_string()).collect()
}

/// A runtime without a database must not grow without bound.
#[tokio::test]
async fn the_oldest_settled_are_dropped_first_and_the_unsettled_never() {
    let store = MemoryStore::new(2);
    store.submit(["a", "b", "c", "d", "e"].map(new).to_vec()).await.unwrap();
    for id in ["d", "b", "a"] {
        store.record(vec![becomes(id, WorkflowStatus::Completed)]).await.unwrap();
    }
    assert_eq!(ids(&store).await, ["e", "c", "b", "a"], "`d` settled first, so it goes first");
    let unsettled = store.unsettled().await.unwrap();
    assert_eq!(unsettled.iter().map(|it| it.id.as_str()).collect::<Vec<_>>(), ["c", "e"]);
}

/// A failed workflow that a person runs again is live, whatever it was before.
#[tokio::test]
async fn a_reopened_workflow_is_not_dropped() {
    let store = MemoryStore::new(1);
    store.submit(["a", "b", "c"].map(new).to_vec()).await.unwrap();
    for _ in 0..1000 {
        store.record(vec![becomes("a", WorkflowStatus::Failed)]).await.unwrap();
        store.record(vec![becomes("a", WorkflowStatus::Running)]).await.unwrap();
    }
    let queued = store.lock().as_ref().unwrap().settled_len();
    assert!(queued < 100, "{queued} stale settlings pile up");
    for id in ["b", "c"] {
        store.record(vec![becomes(id, WorkflowStatus::Completed)]).await.unwrap();
    }
    assert_eq!(ids(&store).await, ["c", "a"]);
}

/// A batch is written whole or not at all.
#[tokio::test]
async fn a_change_of_a_task_that_is_not_there_leaves_the_batch_unwritten() {
    let store = MemoryStore::default();
    store.submit(vec![new("a"), new("b")]).await.unwrap();
    let mut bad = becomes("b", WorkflowStatus::Completed);
    let mut task = TaskRecord::pending(1, "x".into(), "x".into());
    task.status = TaskStatus::Completed;
    bad.tasks.push(task);
    let refused = store.record(vec![becomes("a", WorkflowStatus::Completed), bad]).await;
    assert!(matches!(refused, Err(StoreError::Integrity { .. })), "{refused:?}");
    assert_eq!(store.unsettled().await.unwrap().len(), 2);
}

/// Whatever the engine relies on, it gets without a database too.
#[tokio::test]
async fn memory_does_what_a_store_must() {
    let fresh = || async { Arc::new(MemoryStore::default()) as Arc<dyn Store> };
    let broken = gleitzeit_domain::store::conformance::check(fresh).await;
    assert!(broken.is_empty(), "{broken:#?}");
}
