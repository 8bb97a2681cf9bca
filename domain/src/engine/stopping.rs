//! The end of the engine, and what it counts.

use serde::Serialize;

use super::{Callers, Effect, Engine, Now, Phase, Step, under_way_of};
use crate::{
    error::{ErrorCode, TaskError},
    event::EventData,
    id::{TaskId, WorkflowId},
    metrics::ExecutionStats,
    run::TaskKey,
    task::TaskStatus,
};

/// Everything that an engine keeps; all are 0 once every workflow has settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[expect(missing_docs, reason = "each is the number of entries of the thing it is named after")]
pub struct EngineCounts {
    pub workflows: usize,
    pub ids: usize,
    pub ready_tasks: usize,
    pub in_flight: usize,
    pub parked: usize,
    pub load: u64,
    pub intake: usize,
    pub finished: usize,
    pub admissions: bool,
    pub writes: bool,
    pub timers: usize,
    pub unstored_calls: u64,
    pub unstored_bytes: u64,
}

/// The work that an engine left when it stopped. The store remembers all of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct StopReport {
    /// Tasks whose call was cut off.
    pub abandoned: Vec<(WorkflowId, TaskId)>,
    /// Workflows that are not settled; the next start continues them.
    pub unsettled: Vec<WorkflowId>,
    /// False when something could not be written in time.
    pub stored: bool,
}

/// The state of an engine's lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseHealth {
    /// Nothing runs that would need one.
    NotNeeded,
    /// It is held, and was renewed in time.
    Held,
    /// It was not renewed within its term, or is not held though workflows run.
    Overdue,
}

/// The engine has stopped.
pub fn stopped() -> TaskError {
    TaskError::new(ErrorCode::SystemShutdown, "the runtime has stopped")
}

impl<C: Callers> Engine<C> {
    /// Accepts nothing more, and stops once nothing is under way; false if that began before.
    pub fn begin_stop(&mut self) -> bool {
        if self.phase != Phase::Running {
            return false;
        }
        self.phase = Phase::Draining;
        self.end_waits();
        self.step(Step::WaitsEnded);
        self.check_drained();
        true
    }

    /// The deadline of a stop has passed: calls are cut off. Outcomes that ended before it are still
    /// written, or a slow disk would have those calls made again.
    pub fn stop_due(&mut self) {
        if self.phase != Phase::Draining {
            return;
        }
        self.phase = Phase::Flushing;
        let mut running = Vec::new();
        for (key, active) in &self.runs {
            active.run.interrupt();
            running.extend(under_way_of(*key, &active.run));
        }
        self.end_calls(running);
        self.check_drained();
    }

    /// The store had its time for the last writes: the stop ends without them.
    pub fn flush_due(&mut self) {
        if self.phase == Phase::Flushing {
            self.halt();
        }
    }

    /// Ends a drain once nothing is under way, and a flush once all is written or the store refuses.
    pub(super) fn check_drained(&mut self) {
        if self.phase == Phase::Flushing {
            let is_written = self.settling == 0 && self.batcher.is_idle();
            if is_written || self.batcher.is_failing() {
                self.halt();
            }
            return;
        }
        if self.phase != Phase::Draining {
            return;
        }
        // Tasks that wait are ended by the stop itself: to wait for them would last to the
        // deadline.
        let moving = self.in_flight.saturating_sub(self.parked);
        let has_intake = !self.intake.is_empty() || !self.submissions.is_empty();
        if moving == 0 && self.settling == 0 && self.batcher.is_idle() && !has_intake {
            self.halt();
        }
    }

    /// A task that waits for resources or a provider would begin its call during the stop.
    fn end_waits(&mut self) {
        let mut waiting = Vec::new();
        for (key, active) in &self.runs {
            // Before the waits end: an attempt that is granted now asks first, and is left.
            active.run.interrupt();
            let tasks = active.run.record().tasks.iter();
            let queued = tasks.filter(|task| task.status == TaskStatus::Queued);
            waiting.extend(queued.map(|task| TaskKey { run: *key, index: task.index }));
        }
        self.end_calls(waiting);
    }

    /// Stops for good, whatever is still under way.
    fn halt(&mut self) {
        // Before the report: an end that arrives after it changes nothing any more.
        self.phase = Phase::Stopped;
        let mut report = StopReport { stored: self.batcher.is_idle(), ..StopReport::default() };
        let mut running = Vec::new();
        for (key, active) in &mut self.runs {
            active.run.interrupt();
            // A task that waits for resources or a provider would begin its call after the stop.
            running.extend(under_way_of(*key, &active.run));
            // No answer was sent to its caller, so it is not reported as left.
            if active.is_new {
                continue;
            }
            report.unsettled.push(active.run.id().clone());
            for waiter in active.replies.on_end.drain(..) {
                let reply = super::Reply::End(waiter.answer, Err(stopped()));
                self.effects.push_back(Effect::Reply(reply));
            }
            for task in &active.run.record().tasks {
                if task.status == TaskStatus::Executing {
                    report.abandoned.push((active.run.id().clone(), task.id.clone()));
                }
            }
        }
        self.end_calls(running);
        let abandoned_tasks = report.abandoned.len() as u64;
        self.publish_system(EventData::EngineStopped { abandoned_tasks });
        self.step(Step::Halted);
        self.effects.push_back(Effect::Halted(report));
    }

    /// True while work is accepted.
    pub fn is_running(&self) -> bool {
        self.phase == Phase::Running
    }

    /// True after the stop.
    pub fn is_stopped(&self) -> bool {
        self.phase == Phase::Stopped
    }

    /// True unless the store refuses what is to be written.
    pub fn is_stored(&self) -> bool {
        !self.batcher.is_failing()
    }

    /// The state of the lease.
    pub fn lease_health(&self, now: Now) -> LeaseHealth {
        if self.runs.is_empty() || !self.config.store.has_leases {
            LeaseHealth::NotNeeded
        } else if self.ownership.is_in_term(now.moment) {
            LeaseHealth::Held
        } else {
            LeaseHealth::Overdue
        }
    }

    /// True when nothing is queued, under way or being written.
    pub fn is_idle(&self) -> bool {
        self.counts() == EngineCounts { timers: self.timers.len(), ..EngineCounts::default() }
    }

    /// Everything that the engine keeps.
    pub fn counts(&self) -> EngineCounts {
        EngineCounts {
            workflows: self.runs.len(),
            ids: self.ids.len(),
            ready_tasks: self.ready.len(),
            in_flight: self.in_flight,
            parked: self.parked,
            load: self.load,
            intake: self.intake.len(),
            finished: self.finished.len(),
            admissions: !(self.submissions.is_empty() && self.unconfirmed.is_empty()),
            writes: !self.batcher.is_idle(),
            timers: self.timers.len(),
            unstored_calls: self.budget.unstored().calls,
            unstored_bytes: self.budget.unstored().bytes,
        }
    }

    /// Counts since the start.
    pub fn stats(&self) -> ExecutionStats {
        #[expect(clippy::cast_precision_loss, reason = "a mean over a count of calls")]
        let mean = if self.calls == 0 { 0.0 } else { self.call_seconds / self.calls as f64 };
        let backlog = self.runs.values().map(|active| active.slots.waiting() as u64);
        ExecutionStats {
            average_task_duration: mean,
            workflows_active: self.runs.len() as u64,
            tasks_queued: self.ready.len() as u64 + backlog.sum::<u64>(),
            tasks_in_flight: self.in_flight as u64,
            ..self.stats
        }
    }
}
