//! The way to a PostgreSQL server: whom it trusts, and who must not stand between.

mod pooler;
mod tls;

use std::time::Duration;

use gleitzeit::{
    Store as _, StoreError,
    settings::StoreUrl,
    storage::{SqlOptions, SqlStore},
};

/// Opens a store and closes it.
async fn open(url: &StoreUrl) -> Result<(), StoreError> {
    let store = SqlStore::connect(url, SqlOptions::default()).await?;
    store.close(Duration::from_secs(30)).await
}

/// Why it cannot be used as it is.
async fn refusal(url: &StoreUrl) -> String {
    match open(url).await {
        Err(StoreError::Open { detail }) => detail,
        other => panic!("{other:?}"),
    }
}
