//! One attempt at a task, between the engine and the pipeline: dispatched, started, ended.

use std::{sync::Arc, time::Duration};

use crate::{
    error::TaskError,
    id::ProviderId,
    plan::{Plan, PlannedTask},
    protocol::MethodRef,
    provider::Outcome,
    run::{CancelSignal, TaskKey},
    task::Priority,
};

/// A task that is to run now. `S` is the span of its submission.
#[derive(Debug)]
pub struct DispatchedTask<S> {
    /// The task.
    pub task: TaskKey,
    /// The number of the attempt; the first is 1.
    pub attempt: u32,
    /// The plan of its workflow.
    pub plan: Arc<Plan>,
    /// Raised when something of its workflow is cancelled.
    pub signal: Arc<CancelSignal>,
    /// The state of `signal` when the engine last confirmed the attempt.
    pub epoch: u32,
    /// True if its start is stored before its call, whatever its method: the task may be what ended
    /// an earlier process.
    pub saves_start: bool,
    /// The provider at which the last attempt failed.
    pub avoid: Option<ProviderId>,
    /// The span in which its workflow was submitted.
    pub span: S,
}

impl<S> DispatchedTask<S> {
    /// The task as it was planned.
    pub fn planned(&self) -> &PlannedTask {
        &self.plan.tasks[self.task.index as usize]
    }

    /// True unless its call changes nothing outside.
    pub fn has_effect(&self) -> bool {
        self.planned().has_effect()
    }

    /// The priority of the task.
    pub fn priority(&self) -> Priority {
        self.plan.spec.tasks[self.task.index as usize].priority
    }

    /// True when something of its workflow was cancelled after the engine last confirmed it.
    pub fn cancel_requested(&self) -> bool {
        self.signal.epoch() != self.epoch
    }
}

/// An attempt starts at a provider.
#[derive(Debug)]
pub struct TaskStart {
    /// The task.
    pub task: TaskKey,
    /// The provider.
    pub provider_id: ProviderId,
    /// True if the call waits until its start is stored.
    pub save: bool,
}

/// The end of one attempt.
#[derive(Debug)]
pub struct TaskEnd {
    /// The task.
    pub task: TaskKey,
    /// The number of the attempt.
    pub attempt: u32,
    /// The method that was called; `None` when the attempt was lost before that was known.
    pub method: Option<MethodRef>,
    /// The result of the call, or the reason why there is none.
    pub outcome: Result<Outcome, TaskError>,
    /// How long the call ran; `None` when it did not begin.
    pub duration: Option<Duration>,
}
