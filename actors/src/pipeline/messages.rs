//! The messages between the pipeline and the engine.

use std::sync::Arc;

use actix::prelude::*;
use gleitzeit_domain::{
    engine::{TaskEnd, TaskStart},
    run::TaskKey,
};
use tokio::sync::oneshot;

/// Tasks start at a provider.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct TasksStarted {
    /// One for each task.
    pub starts: Vec<TaskStart>,
    /// Answered once the starts marked with `save` are stored.
    pub saved: Option<oneshot::Sender<()>>,
}

/// Attempts have ended.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct TasksFinished(pub Vec<TaskEnd>);

/// Dispatched attempts that did not begin their call, because the gate for effects was closed.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct TasksHeld(pub Vec<(TaskKey, u32)>);

/// Asks which dispatched attempts are still to run.
#[derive(Debug, Message)]
#[rtype(result = "Vec<bool>")]
pub struct StillScheduled(pub Vec<(TaskKey, u32)>);

/// The number of dispatched tasks that wait has changed.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct WaitingCountChanged {
    /// Tasks that wait for resources or a busy provider.
    pub parked: isize,
    /// Tasks that wait for providers that are all down.
    pub away: isize,
}

/// A dispatched task waits for providers that are all down.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct TaskWaits {
    /// The task.
    pub task: TaskKey,
    /// The number of the attempt.
    pub attempt: u32,
    /// The cause, as the supervisors of the providers report it.
    pub reason: Arc<str>,
}
