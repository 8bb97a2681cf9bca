//! The store in a SQLite file: the rules of every store, and what is its own.
#![cfg(feature = "sqlite")]

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use gleitzeit::{
    settings::{Durability, StoreUrl},
    storage::{SqlOptions, SqlStore},
};
use gleitzeit_domain::store::{Store, conformance};
use tempfile::TempDir;

fn url(folder: &TempDir, name: &str) -> StoreUrl {
    format!("sqlite:{}/{name}", folder.path().display()).parse().unwrap()
}

/// Whatever the engine relies on, it gets from SQLite.
#[tokio::test]
async fn sqlite_does_what_a_store_must() {
    for durability in [Durability::Full, Durability::Normal] {
        let folder = TempDir::new().unwrap();
        let number = AtomicUsize::new(0);
        let broken = conformance::check(|| async {
            let name = format!("{}.db", number.fetch_add(1, Ordering::Relaxed));
            let options = SqlOptions { durability };
            let store = SqlStore::connect(&url(&folder, &name), options).await.unwrap();
            Arc::new(store) as Arc<dyn Store>
        })
        .await;
        assert!(broken.is_empty(), "{durability}: {broken:#?}");
    }
}
