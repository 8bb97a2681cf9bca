//! Commands about workflows that run here: cancel, cancel a task, resolve an unknown outcome.
//!
//! A command is answered once what it changed is stored. Errors are those of the messages: not here,
//! no such task, settled already.

use std::sync::Arc;

use super::{Callers, Effect, Engine, Now, Removal, Step, replies::Waiter, stopping::stopped};
use crate::{
    error::{ErrorCode, TaskError},
    id::{TaskId, WorkflowId},
    run::{Resolved, RunKey, StopCause, TaskKey},
    store::lease::Resolution,
};

/// The meaning of a dropped caller of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ack {
    /// The workflow was never stored.
    OfSubmission,
    /// The engine stopped, or another process runs the workflow.
    OfWrite,
}

impl Ack {
    /// Why the caller of a command was dropped.
    pub fn dropped(self, id: &WorkflowId) -> TaskError {
        match self {
            Self::OfSubmission => not_here(id),
            Self::OfWrite => stopped(),
        }
    }
}

/// No workflow of this id runs here.
pub(super) fn not_here(id: &WorkflowId) -> TaskError {
    TaskError::new(ErrorCode::WorkflowNotFound, format!("no workflow `{id}` runs here"))
}

fn no_task(id: &WorkflowId, task: &TaskId) -> TaskError {
    TaskError::new(ErrorCode::TaskNotFound, format!("workflow `{id}` has no task `{task}`"))
}

impl<C: Callers> Engine<C> {
    /// Stops a workflow: running calls end, nothing of it starts any more.
    ///
    /// # Errors
    /// `WORKFLOW_NOT_FOUND` when it does not run here, `WORKFLOW_INVALID_STATE` when it is settled.
    pub fn cancel(
        &mut self,
        id: &WorkflowId,
        reason: Arc<str>,
        caller: C::OnStored,
        now: Now,
    ) -> Result<Ack, TaskError> {
        let key = self.ids.get(id).copied().ok_or_else(|| not_here(id))?;
        // A workflow on its way is stopped once it is stored: before that there is nothing to stop.
        let Some(caller) = self.submissions.cancel(key, &reason, caller) else {
            return Ok(Ack::OfSubmission);
        };
        let active = self.runs.get_mut(&key).ok_or_else(|| not_here(id))?;
        if active.run.is_settled() {
            let message = format!("workflow `{id}` is {} already", active.run.record().status);
            return Err(TaskError::new(ErrorCode::WorkflowInvalidState, message));
        }
        // Before the change: the write that stores it begins in `stop_run`.
        active.replies.on_stored.push(caller);
        self.stop_run(key, &StopCause::Cancelled { reason }, now);
        Ok(Ack::OfWrite)
    }

    /// Stops one task; what depends on it follows its policy.
    ///
    /// # Errors
    /// `WORKFLOW_NOT_FOUND`, `TASK_NOT_FOUND`, or `WORKFLOW_INVALID_STATE` when it is settled.
    pub fn cancel_task(
        &mut self,
        id: &WorkflowId,
        task: &TaskId,
        reason: &Arc<str>,
        caller: C::OnStored,
        now: Now,
    ) -> Result<Ack, TaskError> {
        let (key, index) = self.find_task(id, task)?;
        self.step(Step::TaskCancelBegun);
        let Some(active) = self.runs.get_mut(&key) else { return Err(not_here(id)) };
        let status = active.run.task(index).status;
        let had_slot = active.has_slot(index);
        if !active.run.cancel_task(index, reason, now.wall) {
            self.decide_paused(key);
            let message = format!("task `{task}` is {status} already");
            return Err(TaskError::new(ErrorCode::WorkflowInvalidState, message));
        }
        active.replies.on_stored.push(caller);
        if let Some(paused) = &mut active.paused {
            paused.is_decided = true;
        }
        self.settle_stopped(TaskKey { run: key, index }, had_slot, now);
        Ok(Ack::OfWrite)
    }

    /// Settles or repeats a task whose outcome is unknown.
    ///
    /// # Errors
    /// `WORKFLOW_NOT_FOUND`, `TASK_NOT_FOUND`; `WORKFLOW_INVALID_STATE` when its outcome is known;
    /// `TASK_RESULT_INVALID` when the result is not what the method returns.
    pub fn resolve_unknown(
        &mut self,
        id: &WorkflowId,
        task: &TaskId,
        resolution: Resolution,
        caller: C::OnStored,
        now: Now,
    ) -> Result<Ack, TaskError> {
        let (key, index) = self.find_task(id, task)?;
        self.step(Step::ResolveBegun);
        let Some(active) = self.runs.get_mut(&key) else { return Err(not_here(id)) };
        let resolved = match active.run.settle_unknown(index, resolution, now.wall) {
            Ok(resolved) => resolved,
            Err(error) => {
                self.decide_paused(key);
                return Err(error);
            }
        };
        active.replies.on_stored.push(caller);
        if let Some(paused) = &mut active.paused {
            paused.is_decided = true;
        }
        self.step(Step::Resolved);
        match resolved {
            Resolved::Settled => self.settle_stopped(TaskKey { run: key, index }, false, now),
            Resolved::Queued => {
                self.mark_dirty(key);
                self.write_changes(now);
                self.enqueue(key, index, now);
                self.wake();
            }
        }
        Ok(Ack::OfWrite)
    }

    fn find_task(&mut self, id: &WorkflowId, task: &TaskId) -> Result<(RunKey, u32), TaskError> {
        let key = self.ids.get(id).copied();
        let found = key.and_then(|key| Some((key, self.runs.get(&key)?)));
        let Some((key, active)) = found else { return Err(not_here(id)) };
        let found = active.run.record().tasks.iter().find(|record| record.id == *task);
        let Some(index) = found.map(|record| record.index) else {
            self.decide_paused(key);
            return Err(no_task(id, task));
        };
        Ok((key, index))
    }

    /// Stops a workflow and everything of it that is under way.
    pub(super) fn stop_run(&mut self, key: RunKey, cause: &StopCause, now: Now) {
        let Some(active) = self.runs.get_mut(&key) else { return };
        // Before the stop, which settles them all.
        let under_way = super::under_way_of(key, &active.run);
        let open = u64::from(active.run.unsettled());
        if !active.run.stop(cause, now.wall) {
            return;
        }
        // Settled tasks must not be started by a slot that a cancelled call releases.
        active.slots.clear_backlog();
        self.stats.tasks_cancelled += open;
        self.end_calls(under_way);
        self.step(Step::StopEnded);
        self.effects.push_back(Effect::RemoveGraphs(vec![key]));
        self.mark_dirty(key);
        self.step(Step::StopNoted);
        self.write_changes(now);
    }

    /// Answers a caller with the end of a workflow that is on its way or runs here; returns a caller
    /// whose workflow is not here.
    ///
    /// # Errors
    /// The caller, if the workflow is not here.
    pub fn await_end(
        &mut self,
        id: &WorkflowId,
        waiter: Waiter<C::OnEnd>,
    ) -> Result<(), Waiter<C::OnEnd>> {
        match self.ids.get(id).copied() {
            Some(_) if self.is_stopped() => {
                let reply = super::Reply::End(waiter.answer, Err(stopped()));
                self.effects.push_back(Effect::Reply(reply));
                Ok(())
            }
            Some(key) => {
                self.attach_to_existing(key, None, Some(waiter));
                Ok(())
            }
            None => Err(waiter),
        }
    }

    /// Answers a caller with the state of a workflow: now, once it is stored, or by the store.
    pub fn read_state(&mut self, id: &WorkflowId, caller: C::OnState) {
        let key = self.ids.get(id);
        let state = match key.and_then(|key| self.runs.get_mut(key)) {
            // What is not stored yet is not shown: it is read from the store while that refuses
            // writes, or sent once it is stored.
            Some(active) if active.run.is_uncommitted() => {
                if !self.batcher.is_failing() {
                    active.replies.on_state.push(caller);
                    return;
                }
                None
            }
            // Large results are in the store only.
            Some(active) if active.run.is_lean() => None,
            Some(active) => Some(Arc::new(active.run.record().clone())),
            None => None,
        };
        self.effects.push_back(Effect::Reply(super::Reply::State(caller, state)));
    }

    /// A paused workflow has been changed, or will not be: it is released once that is stored.
    pub(super) fn decide_paused(&mut self, key: RunKey) {
        if let Some(paused) = self.runs.get_mut(&key).and_then(|active| active.paused.as_mut()) {
            paused.is_decided = true;
            self.release_if_decided(key);
        }
    }

    /// No command came in time: a paused workflow is released as it is.
    pub fn pause_over(&mut self, key: RunKey) {
        self.decide_paused(key);
    }

    /// Releases a workflow that is paused, was changed as it was to be, and is stored.
    pub(super) fn release_if_decided(&mut self, key: RunKey) {
        let Some(active) = self.runs.get(&key).filter(|active| active.is_released()) else {
            return;
        };
        // A store without leases has one process at a time: no other could take it.
        let Some(epoch) = active.run.epoch() else { return };
        let id = active.run.id().clone();
        self.remove_run(key, Removal::Released);
        self.effects.push_back(Effect::RemoveGraphs(vec![key]));
        // Until the store has it back, it is not loaded here: another process may run it by then.
        self.releasing.insert(id.clone(), Vec::new());
        self.effects.push_back(Effect::Release { epoch, id });
    }

    /// Answers a caller once a workflow is released that is being released now.
    ///
    /// # Errors
    /// The caller, if it is not being released.
    pub fn await_release(
        &mut self,
        id: &WorkflowId,
        caller: C::OnStored,
    ) -> Result<(), C::OnStored> {
        match self.releasing.get_mut(id) {
            Some(callers) => {
                callers.push(caller);
                Ok(())
            }
            None => Err(caller),
        }
    }

    /// The store has a workflow back.
    pub fn released(&mut self, id: &WorkflowId) {
        for caller in self.releasing.remove(id).into_iter().flatten() {
            self.effects.push_back(Effect::Reply(super::Reply::Stored(caller)));
        }
    }
}
