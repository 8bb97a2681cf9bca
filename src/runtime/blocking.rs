//! For programs without an async runtime.

use std::{future::Future, sync::Arc, time::Duration};

use gleitzeit_actors::execution_engine::StopReport;
use gleitzeit_domain::{
    error::TaskError,
    id::WorkflowId,
    problem::SubmitError,
    workflow::{WorkflowRecord, WorkflowSpec},
};

use super::{Runtime, builder::RuntimeBuilder, error::StartError};
use crate::handle::Handle;

/// A [`Runtime`] whose questions block the asking thread.
#[derive(Debug)]
pub struct BlockingRuntime {
    runtime: Runtime,
    waiter: tokio::runtime::Runtime,
}

impl BlockingRuntime {
    pub(super) fn start(builder: RuntimeBuilder) -> Result<Self, StartError> {
        let waiter = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let runtime = waiter.block_on(builder.start())?;
        Ok(Self { runtime, waiter })
    }

    /// The handle for async code.
    pub fn handle(&self) -> Handle {
        self.runtime.handle()
    }

    /// Waits for the answer to any question of a [`Handle`].
    pub fn block_on<T>(&self, question: impl Future<Output = T>) -> T {
        self.waiter.block_on(question)
    }

    /// Submits a workflow; it is stored when this returns.
    ///
    /// # Errors
    /// [`SubmitError`].
    pub fn submit(&self, spec: WorkflowSpec) -> Result<WorkflowId, SubmitError> {
        self.block_on(self.handle().submit(spec))
    }

    /// Submits a workflow and waits for its end.
    ///
    /// # Errors
    /// The errors of the submission; the outcome is in the record.
    pub fn run(&self, spec: WorkflowSpec) -> Result<Arc<WorkflowRecord>, TaskError> {
        self.block_on(self.handle().run(spec))
    }

    /// Waits for the end of a workflow.
    ///
    /// # Errors
    /// `WORKFLOW_NOT_FOUND`, `WORKFLOW_INVALID_STATE` when it does not run here.
    pub fn wait(&self, id: &WorkflowId) -> Result<Arc<WorkflowRecord>, TaskError> {
        self.block_on(self.handle().wait(id))
    }

    /// As [`Runtime::stop`].
    pub fn stop(self, deadline: Duration) -> StopReport {
        let Self { runtime, waiter } = self;
        waiter.block_on(runtime.stop(deadline))
    }
}
