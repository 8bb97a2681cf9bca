//! A database that is kept below a size: the oldest settled workflows go, and nothing else does. On
//! SQLite, and on PostgreSQL where a server answers.

use std::{future::Future, time::Duration};

use gleitzeit::{
    ListFilter, Store as _, WorkflowStatus,
    settings::StoreUrl,
    storage::{SqlOptions, SqlStore, admin},
};
use gleitzeit_domain::store::{WorkflowChange, conformance::sample};
use sea_orm::{ConnectionTrait as _, DbBackend, Statement};
use serde_json::json;

#[cfg(feature = "postgres")]
use crate::support::postgres;

/// Nothing here takes this long.
const LONG: Duration = Duration::from_mins(1);

const LIMIT: u64 = 1 << 20;

/// Of the result of each workflow: 52 of them are as large as the limit.
const BYTES: usize = 20_000;

async fn on_both<F: Future<Output = ()>>(name: &'static str, check: impl Fn(StoreUrl) -> F) {
    let folder = tempfile::tempdir().unwrap();
    check(format!("sqlite:{}", folder.path().join("a.db").display()).parse().unwrap()).await;
    #[cfg(feature = "postgres")]
    if let Some(server) = postgres::Server::reach(name).await {
        check(server.database().await).await;
        server.drop_all().await;
    }
    let _ = name;
}

async fn open(url: &StoreUrl, max_bytes: Option<u64>) -> SqlStore {
    SqlStore::connect(url, SqlOptions { max_bytes, ..SqlOptions::default() }).await.unwrap()
}

/// Text that takes as much room as it is long: no database makes it smaller.
fn noise(seed: usize) -> String {
    let mut state = seed as u64 + 1;
    let mut letters = String::with_capacity(BYTES);
    while letters.len() < BYTES {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        letters.push(char::from(b'!' + u8::try_from((state >> 33) % 58).unwrap_or(0) + 1));
    }
    letters
}

/// A workflow that settled `number` seconds after the first one, in one status or another.
async fn settle(store: &SqlStore, number: usize) {
    let new = sample::workflow(&format!("w{number:04}"), 1);
    store.submit(vec![new.clone()]).await.unwrap();
    let settled = WorkflowStatus::ALL.into_iter().filter(|status| status.is_settled());
    let status = settled.cycle().nth(number).unwrap();
    let result = json!({ "text": noise(number) });
    let at = sample::at(i64::try_from(number).unwrap() * 1_000_000 + 5);
    let change = WorkflowChange {
        tasks: vec![sample::completed(&new.record.tasks[0], result)],
        ..sample::settles(&new, status, at)
    };
    store.record(vec![change]).await.unwrap();
}

/// The ids of what is there, in order.
async fn there(store: &SqlStore) -> Vec<String> {
    let filter = ListFilter { limit: usize::MAX, ..ListFilter::default() };
    let mut ids: Vec<String> =
        store.list(filter).await.unwrap().into_iter().map(|it| it.id.to_string()).collect();
    ids.sort();
    ids
}

/// Waits until the pages in use of a file are below its limit. Nothing is known of a server's.
async fn until_below(url: &StoreUrl) {
    if url.sqlite_path().is_none() {
        return;
    }
    let db = sea_orm::Database::connect(url.expose()).await.unwrap();
    let in_use = async || {
        let used = "SELECT (c.page_count - f.freelist_count) * s.page_size AS bytes \
                    FROM pragma_page_count c, pragma_freelist_count f, pragma_page_size s";
        let row = db.query_one_raw(Statement::from_string(DbBackend::Sqlite, used)).await.unwrap();
        u64::try_from(row.unwrap().try_get::<i64>("", "bytes").unwrap()).unwrap()
    };
    let shrunk = async {
        while in_use().await > LIMIT {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LONG, shrunk).await.expect("it is brought below its size");
    db.close().await.unwrap();
}

/// Waits until no more than so many are there.
async fn at_most(store: &SqlStore, count: usize) -> Vec<String> {
    let shrunk = async {
        loop {
            let ids = there(store).await;
            if ids.len() <= count {
                return ids;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LONG, shrunk).await.expect("it is brought below its size")
}

/// Whoever sets a size finds the newest, whatever became of them, and loses nothing that is under
/// way.
#[tokio::test(flavor = "multi_thread")]
async fn above_the_size_the_oldest_settled_go() {
    on_both("oldest", |url| async move {
        let store = open(&url, Some(LIMIT)).await;
        store.submit(vec![sample::workflow("open", 1)]).await.unwrap();
        for round in [0..400, 400..800] {
            let last = round.end;
            for number in round {
                settle(&store, number).await;
            }
            let mut left = at_most(&store, 60).await;
            assert_eq!(left.remove(0), "open");
            assert!(left.len() >= 30, "more was forgotten than had to be: {left:?}");
            // What is left are the last ones.
            let first = last - left.len();
            let expected: Vec<String> = (first..last).map(|it| format!("w{it:04}")).collect();
            assert_eq!(left, expected);
        }
        until_below(&url).await;
        store.close(LONG).await.unwrap();
        let status = admin::status(&url).await.unwrap();
        if let Some(unused) = status.size.unused_bytes {
            assert!(status.size.bytes - unused <= LIMIT, "{:?}", status.size);
        }
        let blobs = status.contents.unwrap().blobs;
        assert_eq!(blobs, 0);
    })
    .await;
}

/// A database that holds what it must, and is too large all the same, is left as it is.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_settled_stays_whatever_its_size() {
    on_both("stays", |url| async move {
        let store = open(&url, Some(LIMIT)).await;
        for number in 0..100 {
            let mut spec = (*sample::workflow("w", 1).record.spec).clone();
            spec.inputs.insert("all".into(), noise(number).into());
            let new = sample::of_spec(&format!("open{number:03}"), spec);
            store.submit(vec![new]).await.unwrap();
        }
        settle(&store, 0).await;
        let left = at_most(&store, 100).await;
        assert!(left.iter().all(|id| id.starts_with("open")), "{left:?}");
        store.close(LONG).await.unwrap();
        assert_eq!(admin::status(&url).await.unwrap().contents.unwrap().unowned, 100);
    })
    .await;
}

/// Without a size, or below it, everything stays.
#[tokio::test(flavor = "multi_thread")]
async fn below_the_size_nothing_is_removed() {
    on_both("below", |url| async move {
        for (limit, count) in [(None, 100), (Some(100 * LIMIT), 200)] {
            let store = open(&url, limit).await;
            for number in count - 100..count {
                settle(&store, number).await;
            }
            store.close(LONG).await.unwrap();
            let store = open(&url, None).await;
            assert_eq!(there(&store).await.len(), count);
            store.close(LONG).await.unwrap();
        }
    })
    .await;
}
