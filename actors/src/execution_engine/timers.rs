//! What is due when: retries, and the limits of tasks and workflows.
//!
//! One timer of the actor is set to the earliest; nothing ticks. Invariant: a settled workflow has
//! no entry.

use std::{collections::BTreeMap, time::Duration};

use actix::prelude::*;
use gleitzeit_domain::{
    run::{RunKey, StopCause, TaskKey},
    task::TaskStatus,
};
use tokio::time::Instant;

use super::ExecutionEngine;

/// So many names of entries are kept per workflow before rung ones are looked for.
pub(super) const TIMERS_KEPT: usize = 16;

/// Names an entry.
pub(super) type TimerKey = (Instant, u64);

/// What to do when its time has come.
#[derive(Debug, Clone, Copy)]
enum Due {
    Retry(TaskKey),
    TaskLimit(TaskKey, Duration),
    WorkflowLimit(RunKey, Duration),
}

/// Entries by time.
#[derive(Debug, Default)]
pub(super) struct Timers {
    due: BTreeMap<TimerKey, Due>,
    next: u64,
    armed: Option<(Instant, SpawnHandle)>,
}

impl Timers {
    pub(super) fn len(&self) -> usize {
        self.due.len()
    }
}

/// The earliest entry is due.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Ring;

impl ExecutionEngine {
    fn set_timer_in(&mut self, run: RunKey, pause: Duration, due: Due, ctx: &mut Context<Self>) {
        // What is too far away to be told as a time is never due.
        if let Some(at) = Instant::now().checked_add(pause) {
            self.set_timer(run, at, due, ctx);
        }
    }

    fn set_timer(&mut self, run: RunKey, at: Instant, due: Due, ctx: &mut Context<Self>) {
        let Some(active) = self.runs.get_mut(&run) else { return };
        self.timers.next += 1;
        let key = (at, self.timers.next);
        self.timers.due.insert(key, due);
        gleitzeit_failpoint::failpoint!("engine.timer.set");
        active.timers.push(key);
        if active.timers.len() > active.timers_max {
            // Rung ones are gone from the map; forget their names too. Each time the list has
            // doubled, so that it costs the same for each entry, however many there are.
            active.timers.retain(|key| self.timers.due.contains_key(key));
            active.timers_max = 2 * active.timers.len().max(TIMERS_KEPT);
        }
        self.arm(ctx);
    }

    fn arm(&mut self, ctx: &mut Context<Self>) {
        let Some(&(earliest, _)) = self.timers.due.keys().next() else { return };
        match self.timers.armed {
            Some((at, _)) if at <= earliest => return,
            Some((_, handle)) => {
                ctx.cancel_future(handle);
            }
            None => {}
        }
        let pause = earliest.saturating_duration_since(Instant::now());
        self.timers.armed = Some((earliest, ctx.notify_later(Ring, pause)));
    }

    pub(super) fn time_retry(&mut self, task: TaskKey, pause: Duration, ctx: &mut Context<Self>) {
        self.set_timer_in(task.run, pause, Due::Retry(task), ctx);
    }

    pub(super) fn time_task(&mut self, task: TaskKey, limit: Duration, ctx: &mut Context<Self>) {
        self.set_timer_in(task.run, limit, Due::TaskLimit(task, limit), ctx);
    }

    /// Stops a workflow after `limit`, of which `spent` has passed.
    pub(super) fn time_workflow(
        &mut self,
        run: RunKey,
        limit: Duration,
        spent: Duration,
        ctx: &mut Context<Self>,
    ) {
        let left = limit.saturating_sub(spent);
        self.set_timer_in(run, left, Due::WorkflowLimit(run, limit), ctx);
    }

    /// Forgets a workflow's entries.
    pub(super) fn drop_timers(&mut self, keys: &[TimerKey]) {
        for key in keys {
            self.timers.due.remove(key);
        }
    }

    fn ring(&mut self, due: Due, ctx: &mut Context<Self>) {
        let now = self.clock.now();
        match due {
            Due::Retry(task) => {
                let Some(active) = self.runs.get_mut(&task.run) else { return };
                if active.run.task(task.index).status == TaskStatus::RetryPending
                    && active.run.queue(task.index, now).is_ok()
                {
                    self.stats.tasks_retried += 1;
                    gleitzeit_failpoint::failpoint!("engine.timer.retries");
                    self.release(task.run);
                    self.enqueue(task.run, task.index, ctx);
                    self.pump_soon(ctx);
                }
            }
            Due::TaskLimit(task, limit) => {
                let Some(active) = self.runs.get_mut(&task.run) else { return };
                if !active.run.task(task.index).status.is_settled() {
                    let counted = active.counts(task.index);
                    active.run.time_out(task.index, limit, now);
                    gleitzeit_failpoint::failpoint!("engine.timer.task_limit");
                    self.settle_stopped(task, counted, ctx);
                }
            }
            Due::WorkflowLimit(run, limit) => {
                gleitzeit_failpoint::failpoint!("engine.timer.workflow_limit");
                self.stop_run(run, &StopCause::TimedOut { limit }, ctx);
            }
        }
    }
}

impl Handler<Ring> for ExecutionEngine {
    type Result = ();

    fn handle(&mut self, _: Ring, ctx: &mut Self::Context) {
        self.timers.armed = None;
        let now = Instant::now();
        while let Some(entry) = self.timers.due.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let due = entry.remove();
            gleitzeit_failpoint::failpoint!("engine.timer.rang");
            self.ring(due, ctx);
        }
        self.arm(ctx);
    }
}
