//! Retries and limits: when they are set, and what happens when they are due.

use std::time::Duration;

use super::{Callers, Effect, Engine, Now, Step, timers::TimerKind};
use crate::{
    run::{RunKey, StopCause},
    task::TaskStatus,
};

impl<C: Callers> Engine<C> {
    /// A timer has fired: the retries and limits that are due.
    pub fn timer_due(&mut self, now: Now) {
        self.timers.fired();
        while let Some(kind) = self.timers.next_due(now.moment) {
            self.step(Step::TimerFired);
            self.on_timer(kind, now);
        }
        self.arm_timer();
    }

    fn on_timer(&mut self, kind: TimerKind, now: Now) {
        match kind {
            TimerKind::Retry(task) => {
                let Some(active) = self.runs.get_mut(&task.run) else { return };
                // It may have been cancelled since: only a task that still waits is queued.
                if active.run.task(task.index).status == TaskStatus::RetryPending
                    && active.run.queue(task.index, now.wall).is_ok()
                {
                    self.stats.tasks_retried += 1;
                    self.step(Step::RetryDue);
                    self.publish_released(task.run);
                    self.enqueue(task.run, task.index, now);
                    self.wake();
                }
            }
            TimerKind::TaskLimit(task, limit) => {
                let Some(active) = self.runs.get_mut(&task.run) else { return };
                if !active.run.task(task.index).status.is_settled() {
                    // Before the time-out: a settled task no longer shows whether it had a slot.
                    let had_slot = active.has_slot(task.index);
                    active.run.time_out(task.index, limit, now.wall);
                    self.step(Step::TaskLimitDue);
                    self.settle_stopped(task, had_slot, now);
                }
            }
            TimerKind::WorkflowLimit(run, limit) => {
                self.step(Step::WorkflowLimitDue);
                self.stop_run(run, &StopCause::TimedOut { limit }, now);
            }
        }
    }

    pub(super) fn set_timer(&mut self, run: RunKey, pause: Duration, kind: TimerKind, now: Now) {
        let Some(active) = self.runs.get_mut(&run) else { return };
        if self.timers.set(&mut active.timers, now.moment, pause, kind) {
            self.step(Step::TimerSet);
            // The new entry may be the earliest: armed later, it would be due with the next one.
            self.arm_timer();
        }
    }

    fn arm_timer(&mut self) {
        if let Some(at) = self.timers.arm() {
            self.effects.push_back(Effect::ArmTimer(at));
        }
    }
}
