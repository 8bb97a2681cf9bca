//! The store that is measured, in a program without databases.

use std::{sync::Arc, time::Duration};

use gleitzeit::{Settings, Store, WorkflowRecord, domain::event::Event, runtime};

use crate::{commit_cost::CommitCosts, replay::Shape};

/// Nothing stands beside a store in memory.
pub(crate) struct BenchDatabase;

#[expect(
    clippy::unused_async,
    clippy::unused_self,
    clippy::unnecessary_wraps,
    reason = "the same shape in every build"
)]
impl BenchDatabase {
    pub(crate) fn new(_settings: &Settings) -> Self {
        Self
    }

    pub(crate) async fn open(&mut self, settings: &Settings) -> anyhow::Result<Arc<dyn Store>> {
        Ok(runtime::open_store(settings).await?)
    }

    pub(crate) fn commits(&self) -> Option<u64> {
        None
    }

    pub(crate) fn bytes(&self) -> Option<u64> {
        None
    }

    pub(crate) async fn costs(&self) -> anyhow::Result<CommitCosts> {
        Ok(CommitCosts::default())
    }

    pub(crate) async fn replay(
        &self,
        _sample: &WorkflowRecord,
        _events: &[Event],
        _shape: Shape,
    ) -> anyhow::Result<Option<Duration>> {
        Ok(None)
    }
}
