//! Stored workflows that continue here: after a crash, after a stop, or by a command.
//!
//! A settled task stays as it was and is not run again. A call that was cut off runs again, unless
//! its method must not run twice and its start was stored: then its outcome is unknown, and a person
//! has to resolve it.

use std::time::Duration;

use super::{
    Callers, Effect, Engine, Now, Phase, RecoverOptions, ResumeError, Step, StoredWorkflow,
    active_run::{ActiveRun, Paused},
    effect::Notice,
    timers::TimerKind,
};
use crate::{
    graph::Settlement,
    plan::Plan,
    problem::SubmitError,
    protocol::Effect as MethodEffect,
    run::{Run, RunKey, TaskKey},
    store::Epoch,
    task::{TaskRecord, TaskStatus},
};

/// If no command comes within this, a paused workflow is released as it is.
const PAUSE_MAX: Duration = Duration::from_secs(10);

impl<C: Callers> Engine<C> {
    /// Registers a stored workflow that was claimed for `epoch`; its graph is restored next.
    /// `begun` is when the recovery began that read it.
    ///
    /// # Errors
    /// [`ResumeError`]; then nothing has changed.
    pub fn resume_run(
        &mut self,
        stored: StoredWorkflow,
        epoch: Option<Epoch>,
        options: RecoverOptions,
        begun: u64,
        now: Now,
    ) -> Result<RunKey, ResumeError> {
        if self.phase != Phase::Running {
            return Err(ResumeError::Stopping);
        }
        if self.is_lost(epoch) {
            return Err(ResumeError::Lost);
        }
        if let Some(&key) = self.ids.get(&stored.record.id) {
            self.submissions.note_claimed(key);
            return Err(ResumeError::Runs);
        }
        if self.recoveries.has_settled_since(&stored.record.id, begun) {
            return Err(ResumeError::Runs);
        }
        let is_fit = stored.is_fit;
        let left_by = stored.left_by.filter(|_| is_fit && !options.reopen);
        let mut run = self.load_stored(stored, epoch, left_by, now);
        if options.reopen && !run.reopen() {
            return Err(ResumeError::Complete);
        }
        let key = self.new_key();
        self.ids.insert(run.id().clone(), key);
        // Before the next part is asked for: its budget counts these tasks.
        self.load += run.record().tasks.len() as u64;
        let mut active = ActiveRun::new(run);
        active.is_inherited = left_by.is_some();
        if options.reopen {
            active.started_at = now.wall;
            self.step(Step::Reopened);
        }
        // An engine that runs what no other process runs would have claimed it by itself a moment
        // later, if it can.
        if options.hold && !(self.config.takes_over && is_fit) {
            active.paused = Some(Paused::default());
            self.effects.push_back(Effect::ArmPause(key, PAUSE_MAX));
        }
        self.runs.insert(key, Box::new(active));
        self.mark_dirty(key);
        Ok(key)
    }

    fn load_stored(
        &mut self,
        stored: StoredWorkflow,
        epoch: Option<Epoch>,
        left_by: Option<Epoch>,
        now: Now,
    ) -> Box<Run> {
        let StoredWorkflow { plan, mut record, is_fit, .. } = stored;
        let (unknown, cut_off) = reset_unsettled(&plan, &mut record.tasks);
        let mut run = Box::new(Run::resume(plan, self.subscribers.clone(), record));
        // Before any event: what is written of it from now on bears the fencing token.
        run.belongs_to(epoch);
        self.bound_memory(&mut run);
        if let (Some(left_by), Some(epoch)) = (left_by, epoch) {
            run.recovered(&self.config.owner, epoch, left_by, now.wall);
        }
        for index in unknown {
            run.outcome_unknown(index, now.wall);
            self.step(Step::OutcomeUnknown);
        }
        // A process that cannot run the task does not decide that its attempts are used up.
        for index in cut_off.into_iter().filter(|_| is_fit) {
            run.interrupted(index, now.wall);
        }
        run
    }

    /// The tasks of a registered run, for the resolver.
    pub fn task_records(&self, key: RunKey) -> Vec<TaskRecord> {
        self.runs.get(&key).map(|active| active.run.record().tasks.clone()).unwrap_or_default()
    }

    /// Graphs were restored, or cannot be: their runs continue.
    pub fn graphs_restored(
        &mut self,
        graphs: Vec<(RunKey, Result<Settlement, SubmitError>)>,
        now: Now,
    ) {
        let mut runs = Vec::with_capacity(graphs.len());
        for (run, settlement) in graphs {
            self.graph_restored(run, settlement, now);
            runs.push(run);
        }
        self.write_changes(now);
        for run in runs {
            self.publish_released(run);
        }
        self.wake();
    }

    fn graph_restored(
        &mut self,
        key: RunKey,
        settlement: Result<Settlement, SubmitError>,
        now: Now,
    ) {
        let settlement = match settlement {
            Ok(settlement) => settlement,
            Err(error) => {
                self.log(Notice::NotRestored(error.clone()));
                self.abandon_run(key, &error.into());
                return;
            }
        };
        let Some(active) = self.runs.get_mut(&key) else {
            // Removed meanwhile, before the resolver knew of it.
            self.effects.push_back(Effect::RemoveGraphs(vec![key]));
            return;
        };
        // The resolver has what dependents need of them.
        active.run.shed_stored_results();
        // Decided before the crash, but perhaps not stored with what decided it.
        active.run.apply(&settlement, now.wall);
        active.run.conclude(now.wall);
        if active.is_inherited {
            // Any of them may have been under way as the process died.
            active.saves_start.extend(&settlement.ready);
        }
        // The limit of a workflow counts from when it was accepted, also over a restart; one that was
        // reopened gets its time again.
        let spent = (now.wall - active.started_at).to_std().unwrap_or_default();
        if let Some(limit) = active.run.record().spec.timeout {
            let kind = TimerKind::WorkflowLimit(key, limit);
            self.set_timer(key, limit.saturating_sub(spent), kind, now);
        }
        self.step(Step::RunConcluded);
        for index in settlement.ready {
            self.resume_task(TaskKey { run: key, index }, now);
        }
        self.mark_dirty(key);
    }

    fn resume_task(&mut self, task: TaskKey, now: Now) {
        let Some(active) = self.runs.get_mut(&task.run) else { return };
        let limit = active.run.plan().spec.tasks[task.index as usize].total_timeout;
        // It is not stored when its first attempt was queued, so its time begins again.
        let limit = limit.filter(|_| active.run.task(task.index).attempts > 0);
        if let Some(limit) = limit {
            self.set_timer(task.run, limit, TimerKind::TaskLimit(task, limit), now);
        }
        let Some(active) = self.runs.get_mut(&task.run) else { return };
        let record = active.run.task(task.index);
        match (record.status, record.due_at) {
            (TaskStatus::RetryPending, Some(due)) => {
                let retry = &active.run.plan().tasks[task.index as usize].retry;
                let error = record.error.as_deref();
                let pause = retry.pause_left(record.attempts, error, due, now.wall);
                self.set_timer(task.run, pause, TimerKind::Retry(task), now);
                self.step(Step::RetryResumed);
            }
            (TaskStatus::Pending | TaskStatus::RetryPending, _)
                if active.run.queue(task.index, now.wall).is_ok() =>
            {
                self.enqueue(task.run, task.index, now);
            }
            _ => {}
        }
    }
}

/// Sets tasks that were under way back to pending; those whose outcome is unknown, and those that
/// were cut off, come back.
fn reset_unsettled(plan: &Plan, tasks: &mut [TaskRecord]) -> (Vec<u32>, Vec<u32>) {
    let (mut unknown, mut cut_off) = (Vec::new(), Vec::new());
    for task in tasks {
        match task.status {
            TaskStatus::Executing if must_not_repeat(plan, task.index) => unknown.push(task.index),
            // It begins again: what it began was not stored, or may run twice.
            TaskStatus::Executing => {
                task.status = TaskStatus::Pending;
                cut_off.push(task.index);
            }
            TaskStatus::Queued => task.status = TaskStatus::Pending,
            _ => {}
        }
    }
    (unknown, cut_off)
}

fn must_not_repeat(plan: &Plan, index: u32) -> bool {
    let method = plan.tasks[index as usize].method.as_ref();
    // One that is not known here is not decided about: nothing of its workflow is run here.
    method.is_ok_and(|method| method.spec.effect == MethodEffect::AtMostOnce)
}
