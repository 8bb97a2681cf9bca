//! The store in a PostgreSQL database: the rules of every store, and what is its own.
//!
//! Each test makes databases of its own on the server at `GLEITZEIT_TEST_POSTGRES` (default
//! `postgres://postgres@127.0.0.1:5432/postgres`) and drops them. Where no server answers, it says
//! `SKIPPED: <test>: no PostgreSQL`.

use std::sync::Arc;

use gleitzeit::{
    settings::{Durability, StoreUrl},
    storage::{SqlOptions, SqlStore},
};
use gleitzeit_domain::store::{
    Store, StoreError, Submitted,
    conformance::{self, sample},
};
use sea_orm::{ConnectionTrait as _, Database};

use crate::support::postgres::Server;

async fn open(url: &StoreUrl) -> SqlStore {
    SqlStore::connect(url, SqlOptions::default()).await.unwrap()
}

/// Whatever the engine relies on, it gets from PostgreSQL.
#[tokio::test]
async fn postgres_does_what_a_store_must() {
    let Some(server) = Server::reach("conformance").await else { return };
    for durability in [Durability::Full, Durability::Normal] {
        let url = server.database().await;
        let broken = conformance::check(|| async {
            let store = SqlStore::connect(&url, SqlOptions { durability, ..SqlOptions::default() })
                .await
                .unwrap();
            // Much faster than another database for each check.
            let db = Database::connect(url.expose()).await.unwrap();
            let tables = ["workflows", "tasks", "events", "blobs", "leases", "requests"];
            let tables = tables.map(|table| format!("gleitzeit_{table}")).join(", ");
            db.execute_unprepared(&format!("TRUNCATE {tables}")).await.unwrap();
            db.close().await.unwrap();
            Arc::new(store) as Arc<dyn Store>
        })
        .await;
        assert!(broken.is_empty(), "{durability}: {broken:#?}");
    }
    server.drop_all().await;
}

/// Two processes that take the same order at once must not both run it.
#[tokio::test(flavor = "multi_thread")]
async fn two_stores_that_submit_the_same_ids_at_once_create_each_once() {
    let Some(server) = Server::reach("same_ids").await else { return };
    let url = server.database().await;
    // They also find an empty database at once, and bring up its schema once.
    let (left, right) = tokio::join!(open(&url), open(&url));
    let ids: Vec<String> = (0..200).map(|number| format!("w{number}")).collect();
    let submit = |store: SqlStore, ids: Vec<String>| async move {
        let mut created = 0;
        for some in ids.chunks(10) {
            let batch = some.iter().map(|id| sample::workflow(id, 1)).collect();
            let answers = store.submit(batch).await.unwrap();
            created += answers.iter().filter(|answer| **answer == Submitted::Created).count();
        }
        (store, created)
    };
    // In opposite orders, so that their transactions get into each other's way.
    let backwards = ids.iter().rev().cloned().collect();
    let (left, right) =
        tokio::join!(tokio::spawn(submit(left, ids)), tokio::spawn(submit(right, backwards)));
    let ((left, by_left), (_, by_right)) = (left.unwrap(), right.unwrap());
    assert_eq!(by_left + by_right, 200);
    let stored = left.unsettled().await.unwrap();
    assert_eq!(stored.len(), 200);
    assert!(stored.iter().all(|record| record.tasks.len() == 1));
    server.drop_all().await;
}

/// A server that restarts must not cost more than one connection.
#[tokio::test]
async fn a_lost_connection_is_replaced() {
    let Some(server) = Server::reach("lost").await else { return };
    let url = server.database().await;
    let store = open(&url).await;
    store.submit(vec![sample::workflow("a", 1)]).await.unwrap();
    assert!(store.workflow(&"a".into()).await.unwrap().is_some());
    let name = server.name(0);
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname =";
    server.run(&format!("{cut} '{name}'")).await;
    assert_eq!(store.submit(vec![sample::workflow("b", 1)]).await, Ok(vec![Submitted::Created]));
    // A read does not try again by itself; whoever asks may.
    let mut answers = Vec::new();
    for _ in 0..5 {
        answers.push(store.workflow(&"a".into()).await.map(|record| record.is_some()));
    }
    assert_eq!(answers.last(), Some(&Ok(true)), "{answers:?}");
    drop(store);
    server.drop_all().await;
}

/// Running on, an older program would break what it does not know.
#[tokio::test]
async fn a_database_of_a_newer_program_is_refused() {
    let Some(server) = Server::reach("newer").await else { return };
    let url = server.database().await;
    let store = open(&url).await;
    store.close(std::time::Duration::from_secs(10)).await.unwrap();
    let db = Database::connect(url.expose()).await.unwrap();
    let newer = "INSERT INTO gleitzeit_migrations VALUES ('m29990101_000001_future', 0)";
    db.execute_unprepared(newer).await.unwrap();
    db.close().await.unwrap();
    let refused = SqlStore::connect(&url, SqlOptions::default()).await;
    match refused {
        Err(StoreError::Open { detail }) => assert!(detail.contains("m29990101"), "{detail}"),
        other => panic!("{other:?}"),
    }
    server.drop_all().await;
}

/// The error must say what is wrong, and never tell the password.
#[tokio::test]
async fn a_server_that_does_not_answer_is_unavailable() {
    let url: StoreUrl = "postgres://someone:secret@127.0.0.1:1/none".parse().unwrap();
    match SqlStore::connect(&url, SqlOptions::default()).await {
        Err(StoreError::Unavailable { detail }) => assert!(!detail.contains("secret"), "{detail}"),
        other => panic!("{other:?}"),
    }
}
