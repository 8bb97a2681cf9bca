//! From the end of an attempt to what follows from it.
//!
//! The run decides whether a task is settled or retried; the resolver says what follows; one write
//! holds all of it; only then are events published, callers answered and dependents queued.

use std::{collections::HashSet, sync::Arc};

use super::{
    Callers, Effect, Engine, Now, Phase, RejectedChange, Removal, Settled, Step, TaskEnd,
    TaskOutcome, active_run::ActiveRun, effect::Notice, split_write::is_content_error,
    timers::TimerKind,
};
use crate::{
    error::{ErrorCode, TaskError},
    graph::Settlement,
    metrics::CallSample,
    provider::Outcome,
    run::{AttemptOutcome, Refused, RunKey, TaskKey},
    store::{StoreError, WorkflowChange},
    task::TaskStatus,
};

impl<C: Callers> Engine<C> {
    /// Attempts have ended; they are decided with the next batch.
    pub fn tasks_finished(&mut self, ends: Vec<TaskEnd>) {
        if self.finished.is_empty() {
            self.finished = ends;
        } else {
            self.finished.extend(ends);
        }
        self.wake();
    }

    /// Decides what the ends of attempts mean.
    pub(super) fn finish_attempts(&mut self, now: Now) {
        if self.finished.is_empty() {
            return;
        }
        let ends = std::mem::take(&mut self.finished);
        let mut samples = Vec::with_capacity(ends.len());
        let mut settled = Vec::with_capacity(ends.len());
        for end in ends {
            self.in_flight = self.in_flight.saturating_sub(1);
            // It ended after the deadline: the report names it as cut off.
            if matches!(self.phase, Phase::Flushing | Phase::Stopped) {
                continue;
            }
            samples.extend(sample(&end));
            self.finish_attempt(end, &mut settled, now);
        }
        self.update_gate();
        if !samples.is_empty() {
            self.effects.push_back(Effect::Measure(samples));
        }
        self.step(Step::EndsDecided);
        // This write holds retries only: a settled task is marked dirty when its dependents are
        // known, and stored with what follows.
        self.resolve_dependents(settled);
        self.write_changes(now);
        self.check_drained();
    }

    fn finish_attempt(&mut self, end: TaskEnd, settled: &mut Vec<Settled>, now: Now) {
        let random = self.random.unit();
        let TaskEnd { task, attempt, outcome, duration, .. } = end;
        let Some(active) = self.runs.get_mut(&task.run) else { return };
        // Its call did not begin before the stop, or was ended by it as it began: it is left to the
        // next start.
        let is_left = match active.run.task(task.index).status {
            TaskStatus::Queued => true,
            TaskStatus::Executing => has_no_outcome(&outcome),
            _ => false,
        };
        if is_left && self.phase != Phase::Running {
            return;
        }
        if let Some(duration) = duration {
            self.call_seconds += duration.as_secs_f64();
            self.calls += 1;
        }
        let was_cut_off = self.budget.was_cut_off(task, attempt) && has_no_outcome(&outcome);
        if was_cut_off {
            let became = active.run.cut_off(task.index, attempt, now.wall);
            self.step(Step::EndKnown);
            self.requeue(task, became);
            return;
        }
        let before = active.run.unstored();
        let became = active.run.finish(task.index, attempt, outcome, duration, now.wall, random);
        // What a large result takes counts from here on, or dispatch would run ahead of the store.
        let mut ended = active.run.unstored();
        ended -= before;
        self.budget.add(ended);
        let outcome = matches!(became, AttemptOutcome::Settled(_))
            .then(|| TaskOutcome::from(active.run.task(task.index)));
        self.step(Step::EndKnown);
        match became {
            AttemptOutcome::Settled(completed) => {
                self.stats.tasks_processed += 1;
                self.stats.tasks_succeeded += u64::from(completed);
                self.stats.tasks_failed += u64::from(!completed);
                settled.extend(outcome.map(|outcome| Settled { task, outcome }));
                self.release_slot(task.run);
            }
            AttemptOutcome::Retry(pause) => {
                self.step(Step::EndRetries);
                // A task that waits for its retry has no slot: others run meanwhile.
                self.release_slot(task.run);
                self.set_timer(task.run, pause, TimerKind::Retry(task), now);
                self.mark_dirty(task.run);
            }
            // It was settled by something else, which released its slot.
            AttemptOutcome::Stale => {}
        }
    }

    /// Asks the resolver what follows from settled tasks.
    fn resolve_dependents(&mut self, settled: Vec<Settled>) {
        if !settled.is_empty() {
            // A stop must not end before the answer: what follows is stored with the outcome.
            self.settling += settled.len();
            self.effects.push_back(Effect::Settle(settled));
        }
    }

    /// A task was settled by a command or by time: its call ends, and the resolver is asked what
    /// follows. `had_slot` says whether it was among those that its workflow may run at once.
    pub(super) fn settle_stopped(&mut self, task: TaskKey, had_slot: bool, now: Now) {
        self.end_calls(vec![task]);
        let Some(active) = self.runs.get_mut(&task.run) else { return };
        let record = active.run.task(task.index);
        match record.status {
            TaskStatus::Cancelled => self.stats.tasks_cancelled += 1,
            TaskStatus::Completed => self.stats.tasks_succeeded += 1,
            _ => self.stats.tasks_failed += 1,
        }
        let settled = Settled { task, outcome: TaskOutcome::from(record) };
        if let Some(paused) = &mut active.paused {
            paused.settling += 1;
        }
        self.mark_dirty(task.run);
        if had_slot {
            self.release_slot(task.run);
        }
        self.resolve_dependents(vec![settled]);
        self.write_changes(now);
        self.wake();
    }

    /// Applies the settlements of settled tasks; `asked` has one entry for each of them.
    pub fn dependents_resolved(
        &mut self,
        asked: Vec<RunKey>,
        settlements: Vec<(RunKey, Settlement)>,
        now: Now,
    ) {
        for (key, settlement) in settlements {
            self.apply_settlement(key, settlement, now);
            self.step(Step::DependentsApplied);
        }
        self.settling = self.settling.saturating_sub(asked.len());
        for key in asked {
            let Some(active) = self.runs.get_mut(&key) else { continue };
            if let Some(paused) = &mut active.paused {
                paused.settling = paused.settling.saturating_sub(1);
            }
            // After what follows was applied: a workflow has ended only if nothing follows.
            active.run.conclude(now.wall);
            if active.is_new {
                self.step(Step::EarlyEnded);
            }
            self.mark_dirty(key);
        }
        self.write_changes(now);
        self.check_drained();
    }

    fn apply_settlement(&mut self, key: RunKey, settlement: Settlement, now: Now) {
        let Some(active) = self.runs.get_mut(&key) else { return };
        let counts = active.run.apply(&settlement, now.wall);
        self.stats += counts;
        if active.is_new {
            active.next_tasks.extend(settlement.ready);
        } else {
            self.batcher.ready_after_write(key, settlement.ready);
        }
    }

    /// Something of a workflow can never be stored under its lease, or at all.
    pub(super) fn change_rejected(&mut self, rejected: RejectedChange, now: Now) {
        let RejectedChange { id, error, left } = rejected;
        if let StoreError::LeaseLost { epoch } = error {
            self.stats.fenced_writes += 1;
            self.lose_lease(epoch);
            return;
        }
        let Some(&key) = self.ids.get(&id) else { return };
        if is_content_error(&error) && self.fail_rejected(key, left, &error, now) {
            return;
        }
        self.log(Notice::Abandoned(id, error.clone()));
        self.abandon_run(key, &error.into());
    }

    /// A workflow that can no longer be stored is not run on: nothing of it could be published. The
    /// store has it as it was before, and the next start continues from that.
    pub(super) fn abandon_run(&mut self, key: RunKey, error: &TaskError) {
        self.remove_run(key, Removal::Abandoned(error));
        self.effects.push_back(Effect::RemoveGraphs(vec![key]));
    }

    /// Fails the task whose outcome is refused; false if that does not help.
    fn fail_rejected(
        &mut self,
        key: RunKey,
        left: Vec<WorkflowChange>,
        error: &StoreError,
        now: Now,
    ) -> bool {
        let (StoreError::Refused { detail } | StoreError::Integrity { detail }) = error else {
            return false;
        };
        let Some(active) = self.runs.get_mut(&key) else { return false };
        let Some((index, became)) = active.run.refuse(left, detail, now.wall) else { return false };
        let task = active.run.task(index);
        let notice =
            Notice::OutcomeRefused(active.run.id().clone(), task.id.clone(), error.clone());
        let outcome = TaskOutcome::from(task);
        active.attached.put_off(&mut active.replies, &mut self.effects);
        // Before the ready tasks are forgotten: it moves them to the list that they are removed
        // from.
        self.batcher.put_off(key);
        if became == Refused::Failed {
            let dependents = dependents_of(active, index);
            self.batcher.forget_ready(key, &dependents);
            self.stats.tasks_succeeded = self.stats.tasks_succeeded.saturating_sub(1);
            self.stats.tasks_failed += 1;
            // A stop waits for the answer: the failure of the dependents is stored with it.
            self.settling += 1;
            let lost = Settled { task: TaskKey { run: key, index }, outcome };
            self.effects.push_back(Effect::LoseResult(lost));
        }
        self.log(notice);
        self.mark_dirty(key);
        true
    }
}

/// The tasks that wait for one.
fn dependents_of<C: Callers>(active: &ActiveRun<C>, index: u32) -> HashSet<u32> {
    let edges = active.run.plan().edges.iter();
    edges.filter(|(_, before)| *before == index).map(|(task, _)| *task).collect()
}

/// True if it is not known how the call ended: it was cut off, or its provider is gone.
fn has_no_outcome(outcome: &Result<Outcome, TaskError>) -> bool {
    use ErrorCode::{ProviderUnhealthy, TaskCancelled};
    matches!(outcome, Err(error) if matches!(error.code, ProviderUnhealthy | TaskCancelled))
}

fn sample(end: &TaskEnd) -> Option<CallSample> {
    Some(CallSample {
        capability: Arc::clone(&end.method.as_ref()?.capability),
        seconds: end.duration?.as_secs_f64(),
        memory_bytes: end.outcome.as_ref().ok().and_then(|outcome| outcome.memory_bytes),
        memory_delta_bytes: end.outcome.as_ref().ok().and_then(|it| it.memory_delta_bytes),
    })
}
