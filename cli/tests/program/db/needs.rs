//! What workflows need: forgotten with the last workflow that needs it, and moved with each.

use std::{sync::Arc, time::Duration};

use gleitzeit::{
    WorkflowStatus,
    settings::StoreUrl,
    storage::{SqlStore, admin},
};
use gleitzeit_domain::{
    needs::Offer,
    store::{LeaseStore as _, NewWorkflow, Store as _, conformance::sample},
};

use super::database::{LONG, TestDatabase, completing, number, open};

const OLD: &str = "shop/v1.0:charge";
const NEW: &str = "shop/v2.0:charge";

fn needing(id: &str, method: &str) -> NewWorkflow {
    let needs = std::iter::once(Arc::from(method)).collect();
    NewWorkflow { needs, ..sample::workflow(id, 3) }
}

fn offer(method: &str) -> Offer {
    let (protocol, name) = method.split_once(':').unwrap();
    Offer::of([format!("{protocol}:{name}").parse().unwrap()])
}

/// Submits a workflow that has settled by then.
async fn settle(store: &SqlStore, id: &str, method: &str) {
    let new = needing(id, method);
    store.submit(vec![new.clone()]).await.unwrap();
    store.record(vec![completing(&new)]).await.unwrap();
    let stored = store.workflow(&new.record.id).await.unwrap().unwrap();
    assert_eq!(stored.status, WorkflowStatus::Completed);
}

async fn count(url: &StoreUrl) -> i64 {
    number(url, "SELECT COUNT(*) FROM gleitzeit_needs").await
}

async fn until_count_is(url: &StoreUrl, expected: i64) {
    let counted = async {
        while count(url).await != expected {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(LONG, counted).await;
    assert!(waited.is_ok(), "{} sets of needs instead of {expected}", count(url).await);
}

/// What a claim gives to a process that offers one method.
async fn claimed(store: &SqlStore, method: &str) -> Vec<String> {
    let lease = store.open_lease(method, LONG).await.unwrap();
    let claimed = store.claim(lease.epoch, 10, &offer(method)).await.unwrap();
    store.close_lease(lease.epoch).await.unwrap();
    claimed.workflows.iter().map(|it| it.record.id.to_string()).collect()
}

/// Needs are kept as long as a workflow has them, settled or not, and are there again for the next.
#[tokio::test]
async fn needs_are_forgotten_with_the_last_workflow() {
    for database in TestDatabase::all("needs").await {
        let url = database.empty().await;
        let store = open(&url).await;
        settle(&store, "old", OLD).await;
        store.submit(vec![needing("new", NEW)]).await.unwrap();
        assert_eq!(count(&url).await, 2);
        assert_eq!(store.prune(sample::at(100), 10).await.unwrap(), 1);
        until_count_is(&url, 1).await;
        store.submit(vec![needing("again", OLD)]).await.unwrap();
        assert_eq!(count(&url).await, 2);
        assert_eq!(claimed(&store, OLD).await, ["again"]);
        assert_eq!(claimed(&store, NEW).await, ["new"]);
        store.close(LONG).await.unwrap();
        database.leave().await;
    }
}

/// Another process does not know that they were forgotten: what it submits may be tried by anybody,
/// and is not lost.
#[tokio::test]
async fn a_workflow_whose_needs_were_forgotten_is_claimed() {
    for database in TestDatabase::all("forgotten").await {
        let url = database.empty().await;
        let (store, other) = (open(&url).await, open(&url).await);
        settle(&other, "old", OLD).await;
        store.submit(vec![needing("new", NEW)]).await.unwrap();
        assert_eq!(store.prune(sample::at(100), 10).await.unwrap(), 1);
        until_count_is(&url, 1).await;
        other.submit(vec![needing("orphan", OLD)]).await.unwrap();
        assert_eq!(count(&url).await, 1, "it takes them for stored");
        assert_eq!(claimed(&store, OLD).await, ["orphan"]);
        assert_eq!(claimed(&store, NEW).await, ["new", "orphan"]);
        for store in [store, other] {
            store.close(LONG).await.unwrap();
        }
        database.leave().await;
    }
}

/// A process that knows the methods of a moved workflow claims it, as before.
#[tokio::test]
async fn needs_are_moved_with_their_workflows() {
    for database in TestDatabase::all("moved_needs").await {
        let (from, to) = (database.empty().await, database.empty().await);
        let store = open(&from).await;
        settle(&store, "done", NEW).await;
        store.submit(vec![needing("old", OLD), sample::workflow("none", 1)]).await.unwrap();
        store.close(LONG).await.unwrap();
        let mut lines = Vec::new();
        admin::export(&from, &mut lines, &mut |it| panic!("{it}")).await.unwrap();
        let options = gleitzeit::storage::SqlOptions::default();
        admin::import(&to, options, &mut &lines[..], &mut |id| panic!("{id}")).await.unwrap();
        assert_eq!(count(&to).await, 2);
        let store = open(&to).await;
        assert_eq!(claimed(&store, NEW).await, ["none"]);
        assert_eq!(claimed(&store, OLD).await, ["old", "none"]);
        store.close(LONG).await.unwrap();
        // What was exported before needs were written down can be read.
        let text = String::from_utf8(lines).unwrap();
        let without = text.replace(&format!(",\"needs\":[\"{OLD}\"]"), "");
        assert_ne!(without, text);
        let older = database.empty().await;
        admin::import(&older, options, &mut without.as_bytes(), &mut |id| panic!("{id}"))
            .await
            .unwrap();
        database.leave().await;
    }
}
