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
    storage::{SqlOptions, SqlStore},
};

use crate::{
    baseline::Baseline,
    commit_cost::CommitCosts,
    flush::flush,
    replay::{self, Shape},
};

/// Commits that are timed in a row.
const COMMITS: usize = 101;

/// The database of the settings.
pub(crate) struct BenchDatabase {
    url: StoreUrl,
    options: SqlOptions,
    /// The store that was opened last; `None` for one in memory.
    sql: Option<Arc<SqlStore>>,
}

impl BenchDatabase {
    pub(crate) fn new(settings: &Settings) -> Self {
        let storage = &settings.storage;
        let options = SqlOptions { durability: storage.durability, ..SqlOptions::default() };
        Self { url: storage.url.clone(), options, sql: None }
    }

    /// Opens the store to be measured; its runtime closes it.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub(crate) async fn open(&mut self, settings: &Settings) -> anyhow::Result<Arc<dyn Store>> {
        if self.url.is_memory() {
            return Ok(runtime::open_store(settings).await?);
        }
        let store = Arc::new(SqlStore::connect(&self.url, self.options).await?);
        self.sql = Some(Arc::clone(&store));
        Ok(store)
    }

    /// Transactions that the store has committed since it was opened.
    pub(crate) fn commits(&self) -> Option<u64> {
        Some(self.sql.as_ref()?.commits())
    }

    /// Bytes of the database with its log and its index; `None` if it is no file.
    pub(crate) fn bytes(&self) -> Option<u64> {
        let path = self.url.sqlite_path()?.as_os_str().to_owned();
        let size = |suffix: &str| {
            let mut path = path.clone();
            path.push(suffix);
            std::fs::metadata(path).map_or(0, |file| file.len())
        };
        Some(["", "-wal", "-shm"].into_iter().map(size).sum())
    }

    /// The cost of a commit now. Nothing else may write meanwhile.
    ///
    /// # Errors
    /// Those of the disk and the database.
    pub(crate) async fn costs(&self) -> anyhow::Result<CommitCosts> {
        let mut costs = CommitCosts::default();
        if self.url.is_memory() {
            return Ok(costs);
        }
        if let Some(folder) = self.folder() {
            costs.raw_flushes = flush(&folder)?;
        }
        let baseline = Baseline::open(&self.url, self.options).await?;
        for _ in 0..COMMITS {
            costs.bare_commits.push(baseline.commit_one().await?);
        }
        baseline.close().await?;
        Ok(costs)
    }

    /// Writes the rows of `shape` in a plain loop; returns how long the database took.
    ///
    /// # Errors
    /// Those of the database.
    pub(crate) async fn replay(
        &self,
        sample: &WorkflowRecord,
        events: &[Event],
        shape: Shape,
    ) -> anyhow::Result<Option<Duration>> {
        if self.url.is_memory() {
            return Ok(None);
        }
        let baseline = Baseline::open(&self.url, self.options).await?;
        let took = replay::replay(&baseline, &sample.id, events, shape).await;
        baseline.close().await?;
        took.map(Some)
    }

    /// The folder of the file; `None` if the database is no file.
    fn folder(&self) -> Option<PathBuf> {
        let folder = self.url.sqlite_path()?.parent()?;
        Some(if folder.as_os_str().is_empty() { Path::new(".") } else { folder }.to_owned())
    }
}
