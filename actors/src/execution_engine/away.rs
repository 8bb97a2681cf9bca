//! Tasks whose providers are all down: written down, and out of the way of all others.
//!
//! The pipeline reports a wait once it has lasted a moment. Such a wait may last as long as the task's
//! own limits allow, so it takes part neither in `max_concurrent_tasks` nor in `max_parked_tasks`:
//! otherwise an outage of one provider would stop the tasks of all others.

use std::{rc::Rc, sync::Arc};

use actix::prelude::*;
use gleitzeit_domain::run::TaskKey;

use super::{ExecutionEngine, WaitingGuard};
use crate::addresses::ActorAddresses;

/// A dispatched task waits for providers that are all down.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct TaskWaits {
    pub(super) task: TaskKey,
    pub(super) attempt: u32,
    /// What the providers' supervisors know of the cause.
    pub(super) reason: Arc<str>,
}

/// So many dispatched tasks began (or ended) to wait for providers that are down.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct AwayChanged(isize);

/// Counts one dispatched task as waiting for providers that are down while it lives.
pub(super) struct Away(Rc<ActorAddresses>);

impl Away {
    /// Goes on waiting, but no more as one of those that dispatch waits for.
    pub(super) fn instead_of(parked: WaitingGuard) -> Self {
        let addresses = Rc::clone(&parked.0);
        addresses.engine.do_send(AwayChanged(1));
        drop(parked);
        Self(addresses)
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        self.0.engine.do_send(AwayChanged(-1));
    }
}

impl Handler<AwayChanged> for ExecutionEngine {
    type Result = ();

    fn handle(&mut self, AwayChanged(by): AwayChanged, ctx: &mut Self::Context) {
        self.away = self.away.saturating_add_signed(by);
        self.pump_soon(ctx);
    }
}

impl Handler<TaskWaits> for ExecutionEngine {
    type Result = ();

    fn handle(&mut self, message: TaskWaits, ctx: &mut Self::Context) {
        let TaskWaits { task, attempt, reason } = message;
        let now = self.clock.now();
        let Some(active) = self.runs.get_mut(&task.run) else { return };
        if active.run.wait_for_provider(task.index, attempt, &reason, now) {
            self.touch(task.run);
            self.write_changes(ctx);
        }
    }
}
