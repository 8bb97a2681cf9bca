//! The store that is measured, and the same database without the engine.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use gleitzeit::{
    Settings, Store, WorkflowRecord,
    domain::event::Event,
    runtime,
    settings::StoreUrl,
    storage::{SqlOptions, SqlStore, plain::Plain},
};

use super::{
    price::{self, Prices},
    replay::{self, Shape},
};

/// Commits that are timed in a row.
const COMMITS: usize = 101;

/// The database of the settings.
pub(super) struct BenchDatabase {
    url: StoreUrl,
    options: SqlOptions,
    /// The store that was opened last; `None` for one in memory.
    sql: Option<Arc<SqlStore>>,
}

impl BenchDatabase {
    pub(super) fn new(settings: &Settings) -> Self {
        let storage = &settings.storage;
        let options = SqlOptions { durability: storage.durability, ..SqlOptions::default() };
        Self { url: storage.url.clone(), options, sql: None }
    }

    /// Opens the store that is to be measured; whoever runs it closes it.
    ///
    /// # Errors
    /// When that cannot be.
    pub(super) async fn open(&mut self, settings: &Settings) -> anyhow::Result<Arc<dyn Store>> {
        if self.url.is_memory() {
            return Ok(runtime::open_store(settings).await?);
        }
        let store = Arc::new(SqlStore::connect(&self.url, self.options).await?);
        self.sql = Some(Arc::clone(&store));
        Ok(store)
    }

    /// Transactions that the store has committed since it was opened.
    pub(super) fn commits(&self) -> Option<u64> {
        Some(self.sql.as_ref()?.commits())
    }

    /// Bytes of the files of a database that is one; its log and its index among them.
    pub(super) fn bytes(&self) -> Option<u64> {
        let path = self.url.sqlite_path()?.as_os_str().to_owned();
        let size = |suffix: &str| {
            let mut path = path.clone();
            path.push(suffix);
            std::fs::metadata(path).map_or(0, |file| file.len())
        };
        Some(["", "-wal", "-shm"].into_iter().map(size).sum())
    }

    /// What disk and database charge now. Nothing else may write meanwhile.
    ///
    /// # Errors
    /// What they say.
    pub(super) async fn prices(&self) -> anyhow::Result<Prices> {
        let mut prices = Prices::default();
        if self.url.is_memory() {
            return Ok(prices);
        }
        if let Some(folder) = self.folder() {
            prices.raw_flushes = price::flush(&folder)?;
        }
        let plain = Plain::open(&self.url, self.options).await?;
        for _ in 0..COMMITS {
            prices.bare_commits.push(plain.commit_one().await?);
        }
        plain.close().await?;
        Ok(prices)
    }

    /// Writes the rows of `shape` in a plain loop; how long the database took.
    ///
    /// # Errors
    /// What the database says.
    pub(super) async fn replay(
        &self,
        sample: &WorkflowRecord,
        events: &[Event],
        shape: Shape,
    ) -> anyhow::Result<Option<Duration>> {
        if self.url.is_memory() {
            return Ok(None);
        }
        let mut plain = Plain::open(&self.url, self.options).await?;
        let took = replay::replay(&mut plain, sample, events, shape).await;
        plain.close().await?;
        took.map(Some)
    }

    /// Where the file is, for a database that is one.
    fn folder(&self) -> Option<PathBuf> {
        let folder = self.url.sqlite_path()?.parent()?;
        Some(if folder.as_os_str().is_empty() { Path::new(".") } else { folder }.to_owned())
    }
}
