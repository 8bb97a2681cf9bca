//! The store that is measured, in a program without databases.

use std::{sync::Arc, time::Duration};

use gleitzeit::{Settings, Store, WorkflowRecord, domain::event::Event, runtime};

use super::{price::Prices, replay::Shape};

/// Nothing stands beside a store in memory.
pub(super) struct BenchDatabase;

#[expect(
    clippy::unused_async,
    clippy::unused_self,
    clippy::unnecessary_wraps,
    reason = "the same shape in every build"
)]
impl BenchDatabase {
    pub(super) fn new(_settings: &Settings) -> Self {
        Self
    }

    pub(super) async fn open(&mut self, settings: &Settings) -> anyhow::Result<Arc<dyn Store>> {
        Ok(runtime::open_store(settings).await?)
    }

    pub(super) fn commits(&self) -> Option<u64> {
        None
    }

    pub(super) fn bytes(&self) -> Option<u64> {
        None
    }

    pub(super) async fn prices(&self) -> anyhow::Result<Prices> {
        Ok(Prices::default())
    }

    pub(super) async fn replay(
        &self,
        _sample: &WorkflowRecord,
        _events: &[Event],
        _shape: Shape,
    ) -> anyhow::Result<Option<Duration>> {
        Ok(None)
    }
}
