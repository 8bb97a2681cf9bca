//! The context of a call, for its handler.

use std::{sync::Arc, time::Duration};

use gleitzeit_domain::{
    id::{TaskId, WorkflowId},
    provider::Call,
};
use tokio::{sync::watch, time::Instant};

/// The context of a call, for its handler. Clones are of the same call, and may be sent to other
/// threads.
#[derive(Debug, Clone)]
pub struct CallContext {
    call: Arc<Call>,
    begun: Instant,
    /// Closed when the call has ended or was cancelled.
    alive: watch::Receiver<()>,
}

/// The call ends when this is dropped.
pub(super) struct Alive {
    _alive: watch::Sender<()>,
}

impl CallContext {
    pub(super) fn new(call: Call) -> (Self, Alive) {
        let (sender, alive) = watch::channel(());
        let context = Self { call: Arc::new(call), begun: Instant::now(), alive };
        (context, Alive { _alive: sender })
    }

    /// The workflow.
    pub fn workflow_id(&self) -> &WorkflowId {
        &self.call.workflow_id
    }

    /// The task.
    pub fn task_id(&self) -> &TaskId {
        &self.call.task_id
    }

    /// The number of this attempt, from 1.
    pub fn attempt(&self) -> u32 {
        self.call.attempt
    }

    /// The same text for every attempt of the task, also after a restart: a peer that knows it can
    /// drop a repeated request.
    pub fn idempotency_key(&self) -> String {
        self.call.idempotency_key()
    }

    /// The time at which the call is dropped; `None` for a limit beyond the range of the clock.
    pub fn deadline(&self) -> Option<Instant> {
        self.begun.checked_add(self.call.timeout)
    }

    /// The time until the deadline; zero after it.
    pub fn remaining(&self) -> Duration {
        self.call.timeout.saturating_sub(self.begun.elapsed())
    }

    /// True when the call was cancelled or its time is over. A handler that awaits is dropped then
    /// and need not ask; one that computes or blocks asks from time to time.
    pub fn is_cancelled(&self) -> bool {
        self.alive.has_changed().is_err()
    }

    /// Waits until [`is_cancelled`](Self::is_cancelled).
    pub async fn cancelled(&self) {
        let mut alive = self.alive.clone();
        // Nothing is ever sent, so that only the end of the channel is an answer.
        while alive.changed().await.is_ok() {}
    }

    /// The call as a provider without types gets it: raw parameters, resources, place.
    pub fn call(&self) -> &Call {
        &self.call
    }
}
