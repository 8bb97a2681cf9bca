//! An attempt on its way through the pipeline, and the guards that report what becomes of it.
//!
//! Invariant: an attempt is reported to the engine exactly once, on every way out: one that is
//! dropped reports its own loss.

use std::{rc::Rc, time::Duration};

use gleitzeit_domain::{
    engine::{DispatchedTask, TaskEnd},
    error::{ErrorCode, TaskError},
    protocol::{MethodRef, validate::Filled},
    provider::Outcome,
    run::TaskKey,
};

use super::{
    messages::{TasksFinished, TasksHeld, WaitingCountChanged},
    route::Route,
};
use crate::{
    load_balancer::ProviderTicket, provider_supervisor::CallerSpan, resource_manager::ResourceLease,
};

/// A dispatched task on its way.
pub struct Attempt {
    pub(super) of: DispatchedTask<CallerSpan>,
    route: Rc<Route>,
    /// The engine has been notified of its start.
    pub(super) is_announced: bool,
    is_reported: bool,
}

impl Attempt {
    /// An attempt at the start of `route`.
    pub fn new(of: DispatchedTask<CallerSpan>, route: &Rc<Route>) -> Self {
        Self { of, route: Rc::clone(route), is_announced: false, is_reported: false }
    }

    /// True unless its call must wait. An announced attempt counts, so that only the end of the lease
    /// sends it back.
    pub(super) fn may_begin(&self) -> bool {
        let gate = &self.route.gate;
        // After its start is stored, a full memory must not send it back: the attempt would count
        // twice.
        let is_open = if self.is_announced { gate.has_lease() } else { gate.is_open() };
        is_open || !self.of.has_effect()
    }

    /// Its call has not begun; the engine puts the task back into the ready queue.
    pub(super) fn hold(mut self) -> (TaskKey, u32) {
        self.is_reported = true;
        (self.of.task, self.of.attempt)
    }

    pub(super) fn end(
        mut self,
        outcome: Result<Outcome, TaskError>,
        duration: Option<Duration>,
    ) -> TaskEnd {
        // Before the value is dropped at the end of this function, or the loss is reported as well.
        self.is_reported = true;
        TaskEnd {
            task: self.of.task,
            attempt: self.of.attempt,
            method: self.of.planned().method.as_ref().ok().cloned(),
            outcome,
            duration,
        }
    }

    pub(super) fn fail(self, error: TaskError) -> TaskEnd {
        self.end(Err(error), None)
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        // A panic of the pipeline unwinds through here. Without the report the engine would wait for
        // the task for ever, and its slot would be lost.
        if !self.is_reported {
            let lost = TaskEnd {
                task: self.of.task,
                attempt: self.of.attempt,
                method: None,
                outcome: Err(TaskError::new(
                    ErrorCode::InternalError,
                    "the task was lost on its way to a provider",
                )
                .retryable(true)),
                duration: None,
            };
            self.route.finished.do_send(TasksFinished(vec![lost]));
        }
    }
}

/// Ends of attempts, sent to the engine when the batch is dropped: together, and on every way out.
pub(super) struct FinishedBatch {
    route: Rc<Route>,
    finished: Vec<TaskEnd>,
    /// Attempts that did not begin their call, and are to begin later.
    pub(super) held: Vec<(TaskKey, u32)>,
}

impl FinishedBatch {
    pub(super) fn new(route: &Rc<Route>) -> Self {
        Self { route: Rc::clone(route), finished: Vec::new(), held: Vec::new() }
    }

    pub(super) fn push(&mut self, end: TaskEnd) {
        self.finished.push(end);
    }
}

impl Drop for FinishedBatch {
    fn drop(&mut self) {
        if !self.finished.is_empty() {
            gleitzeit_failpoint::failpoint!("pipeline.end.telling");
            self.route.finished.do_send(TasksFinished(std::mem::take(&mut self.finished)));
        }
        if !self.held.is_empty() {
            self.route.held.do_send(TasksHeld(std::mem::take(&mut self.held)));
        }
    }
}

/// Counts one dispatched task as waiting while it lives.
pub(super) struct WaitingGuard {
    route: Rc<Route>,
    /// What its drop takes back.
    counted: WaitingCountChanged,
}

impl WaitingGuard {
    /// The task waits for resources or a busy provider.
    pub(super) fn parked(route: &Rc<Route>) -> Self {
        Self::counting(Rc::clone(route), WaitingCountChanged { parked: 1, away: 0 })
    }

    /// The task waits for providers that are all down, and no longer among those that dispatch
    /// waits for: an outage of one provider would otherwise stop the tasks of all others.
    pub(super) fn into_away(self) -> Self {
        // The new guard counts before `self` is dropped, so that the task is never counted as moving.
        Self::counting(Rc::clone(&self.route), WaitingCountChanged { parked: 0, away: 1 })
    }

    fn counting(route: Rc<Route>, counted: WaitingCountChanged) -> Self {
        route.waiting.do_send(counted);
        Self { route, counted }
    }
}

impl Drop for WaitingGuard {
    fn drop(&mut self) {
        let WaitingCountChanged { parked, away } = self.counted;
        self.route.waiting.do_send(WaitingCountChanged { parked: -parked, away: -away });
    }
}

/// An attempt whose parameters are ready.
pub(super) struct ValidatedTask {
    pub(super) attempt: Attempt,
    pub(super) method: MethodRef,
    pub(super) filled: Filled,
}

/// An attempt that may run once it has a provider.
pub(super) struct TaskWithResources {
    pub(super) checked: ValidatedTask,
    pub(super) lease: ResourceLease,
}

/// An attempt that has all it needs.
pub(super) struct AssignedTask {
    pub(super) leased: TaskWithResources,
    pub(super) ticket: ProviderTicket,
}
