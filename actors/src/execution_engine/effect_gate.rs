//! When calls with an effect outside may begin, and when they must end.
//!
//! Another process may take over what runs here once the lease has run out, and this engine may not
//! hear of it: the line to the database may be cut. So it goes by its own monotonic clock. Without a
//! renewal for [two thirds](BEGIN_PART) of the term no such call begins; when the term is over, those
//! that run are ended, and their tasks wait for the next renewal. The gate is closed as well while
//! too many outcomes wait for the store, or the store refuses them.
//!
//! Set by the engine, read by `dispatch` and, for tasks that had to wait on their way, by the
//! `pipeline` directly before the call. Pure calls pass at any time.
//!
//! Invariant: no call with an effect begins later than its lease is certainly held.

use std::rc::Rc;

use actix::prelude::*;
use gleitzeit_domain::{
    queue::{Kind, Pick},
    run::{Interruption, RunKey, TaskKey, Unstored, UnstoredLimits},
    store::{Epoch, lease::Lease},
    task::TaskStatus,
};
use rustc_hash::FxHashSet;
use tokio::time::Instant;

use super::ExecutionEngine;
use crate::pipeline::{EffectGate, LeaseBound, TasksHeld};

/// Calls begin within so many thirds of a term that has not been renewed. The rest of it is for
/// what has just begun, and for clocks that do not run alike.
const BEGIN_PART: u32 = 2;

/// What the engine keeps beside the gate.
#[derive(Debug)]
pub(super) struct Effects {
    pub(super) gate: Rc<EffectGate>,
    limits: UnstoredLimits,
    unstored: Unstored,
    /// Attempts whose calls were ended because the lease ran out; each until its end is known.
    cut_off: FxHashSet<(TaskKey, u32)>,
    term_over: Option<SpawnHandle>,
}

impl Effects {
    pub(super) fn new(has_leases: bool, limits: UnstoredLimits) -> Self {
        Self {
            gate: EffectGate::new(has_leases),
            limits,
            unstored: Unstored::default(),
            cut_off: FxHashSet::default(),
            term_over: None,
        }
    }

    pub(super) fn unstored(&self) -> Unstored {
        self.unstored
    }

    /// True once for an attempt whose call was ended with the lease.
    pub(super) fn was_cut_off(&mut self, task: TaskKey, attempt: u32) -> bool {
        !self.cut_off.is_empty() && self.cut_off.remove(&(task, attempt))
    }

    /// So much has ended and is to be stored.
    pub(super) fn add(&mut self, ended: Unstored) {
        self.unstored += ended;
    }

    /// So much is stored, or never will be.
    pub(super) fn subtract(&mut self, stored: Unstored) {
        self.unstored -= stored;
    }
}

/// The term of the lease is over without a renewal.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct TermOver {
    epoch: Epoch,
    since: Instant,
}

impl ExecutionEngine {
    /// The lease was taken, renewed at `since`, or is gone.
    pub(super) fn lease_changed(
        &mut self,
        lease: Option<(Lease, Instant)>,
        ctx: &mut Context<Self>,
    ) {
        if let Some(before) = self.effects.term_over.take() {
            ctx.cancel_future(before);
        }
        let bound = match lease {
            None => LeaseBound::Now,
            Some((Lease { term: None, .. }, _)) => LeaseBound::Never,
            Some((Lease { epoch, term: Some(term) }, since)) => {
                let left = term.saturating_sub(since.elapsed());
                let over = ctx.notify_later(TermOver { epoch, since }, left);
                self.effects.term_over = Some(over);
                // A term beyond all time is never over.
                since.checked_add(term / 3 * BEGIN_PART).map_or(LeaseBound::Never, LeaseBound::At)
            }
        };
        self.effects.gate.set_lease(bound);
        if lease.is_some() && !self.ready.is_empty() {
            self.pump_soon(ctx);
        }
    }

    /// Which tasks may be dispatched now, and how many with an effect; `running` calls run.
    pub(super) fn dispatchable(&self, running: usize) -> (Pick, u64) {
        let Effects { gate, limits, unstored, .. } = &self.effects;
        let room = limits.room_for_effects(*unstored, running as u64);
        if self.writer.is_failing() || room == 0 || !gate.has_lease() {
            return (Pick::PureOnly, 0);
        }
        (Pick::Any, room)
    }

    /// True while not even pure calls may begin.
    pub(super) fn is_memory_full(&self) -> bool {
        self.effects.limits.is_full(self.effects.unstored)
    }

    /// Opens or closes the gate for tasks that wait on their way.
    pub(super) fn set_gate(&self) {
        let Effects { gate, limits, unstored, .. } = &self.effects;
        let is_full = limits.room_for_effects(*unstored, 0) == 0;
        gate.set_blocked(is_full || self.writer.is_failing());
    }

    /// Forgets what a run that goes has not stored.
    pub(super) fn forget_unstored(&mut self, unstored: Unstored) {
        self.effects.subtract(unstored);
        self.set_gate();
    }

    /// Ends every call with an effect: another process may run the same by now.
    fn end_effects(&mut self) {
        let mut tasks = Vec::new();
        for (&run, active) in &self.runs {
            for task in &active.run.record().tasks {
                let planned = &active.run.plan().tasks[task.index as usize];
                if task.status == TaskStatus::Executing && planned.has_effect() {
                    let key = TaskKey { run, index: task.index };
                    self.effects.cut_off.insert((key, task.attempts));
                    tasks.push(key);
                }
            }
        }
        if !tasks.is_empty() {
            tracing::warn!(
                calls = tasks.len(),
                "the lease has run out without a renewal; its calls are ended, and begin again \
                 after the next renewal"
            );
        }
        self.end_calls(tasks);
    }

    /// The end of an attempt that was cut off.
    pub(super) fn take_back(&mut self, task: TaskKey, became: Interruption) {
        match became {
            Interruption::Queued => self.line_up(task.run, task.index),
            Interruption::Unknown => self.release_slot(task.run),
            Interruption::Stale => return,
        }
        self.touch(task.run);
        self.release(task.run);
    }

    /// Puts a queued task that has a place in its workflow into the line.
    pub(super) fn line_up(&mut self, run: RunKey, index: u32) {
        let Some(active) = self.runs.get(&run) else { return };
        let plan = active.run.plan();
        let has_effect = plan.tasks[index as usize].has_effect();
        let kind = if has_effect { Kind::Effect } else { Kind::Pure };
        self.ready.push(plan.spec.tasks[index as usize].priority, kind, TaskKey { run, index });
    }
}

impl Handler<TermOver> for ExecutionEngine {
    type Result = ();

    fn handle(&mut self, TermOver { epoch, since }: TermOver, _: &mut Self::Context) {
        if self.holds(epoch, since) {
            self.end_effects();
        }
    }
}

impl Handler<TasksHeld> for ExecutionEngine {
    type Result = ();

    fn handle(&mut self, TasksHeld(held): TasksHeld, ctx: &mut Self::Context) {
        let now = self.clock.now();
        self.in_flight = self.in_flight.saturating_sub(held.len());
        for (task, attempt) in held {
            self.effects.was_cut_off(task, attempt);
            let Some(active) = self.runs.get_mut(&task.run) else { continue };
            let became = active.run.hold_back(task.index, attempt, now);
            self.take_back(task, became);
        }
        self.write_changes(ctx);
        self.pump_soon(ctx);
        self.check_drained(ctx);
    }
}
