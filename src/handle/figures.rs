//! The figures of a runtime: counts, resources, measurements.

use std::collections::BTreeMap;

use gleitzeit_actors::{
    MailboxError,
    execution_engine::{EngineCounts, GetEngineCounts},
    monitor::{GetMetrics, GetProfile, GetStats},
    resource_manager::{GetResources, ResourceReport},
};
use gleitzeit_domain::{
    error::{ErrorCode, TaskError},
    metrics::{ExecutionStats, MethodSummary, Metrics},
};

use super::{Handle, stopped};

impl Handle {
    /// Counts of workflows and tasks since the start.
    ///
    /// # Errors
    /// `SYSTEM_SHUTDOWN`.
    pub async fn stats(&self) -> Result<ExecutionStats, TaskError> {
        self.addresses.engine.send(GetStats).await.map_err(stopped)
    }

    /// The leased resources, and how many tasks wait for some.
    ///
    /// # Errors
    /// `SYSTEM_SHUTDOWN`.
    pub async fn resources(&self) -> Result<ResourceReport, TaskError> {
        self.addresses.resources.send(GetResources).await.map_err(stopped)
    }

    /// The last measurement of `monitoring.interval`. Before the first one, and if the interval is 0,
    /// a measurement is made now.
    ///
    /// # Errors
    /// `SYSTEM_SHUTDOWN`; `INTERNAL_ERROR` if the engine does not answer.
    pub async fn metrics(&self) -> Result<Metrics, TaskError> {
        let measured = self.addresses.monitor.send(GetMetrics).await.map_err(stopped)?;
        measured.ok_or_else(|| {
            TaskError::new(
                ErrorCode::InternalError,
                "measurement failed: the engine does not answer",
            )
        })
    }

    /// Duration and memory of calls, by method.
    ///
    /// # Errors
    /// `SYSTEM_SHUTDOWN`.
    pub async fn profile(&self) -> Result<BTreeMap<String, MethodSummary>, TaskError> {
        self.addresses.monitor.send(GetProfile).await.map_err(stopped)
    }

    /// Counts of everything that the engine holds; all are 0 once every workflow has settled.
    ///
    /// # Errors
    /// `SYSTEM_SHUTDOWN`.
    pub async fn engine_counts(&self) -> Result<EngineCounts, TaskError> {
        let answer: Result<_, MailboxError> = self.addresses.engine.send(GetEngineCounts).await;
        answer.map_err(stopped)
    }
}
