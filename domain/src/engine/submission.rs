//! Intake: from a submission to a stored workflow whose first tasks are queued.
//!
//! Registry, resolver, store, in batches; only then does the caller get its id. First tasks that have
//! no effect outside do not wait for the store: what they returned by the time of the write is written
//! with the workflow.
//!
//! Invariants: each caller is answered exactly once; of a workflow that is not stored nothing is
//! published, and nothing runs but those first tasks. A workflow that is stored by this engine runs
//! here, or belongs to a lease that is gone: if the store does not say whether it is stored, see
//! [`unconfirmed`](super::unconfirmed).

use std::sync::Arc;

use chrono::TimeDelta;
use rustc_hash::FxHashMap;

mod stored;

use super::{
    Callers, Effect, Engine, Now, Phase, Removal, Replies, Reply, Step, Waiter,
    active_run::ActiveRun, timers::TimerKind,
};
use crate::{
    difference::difference,
    event::EventData,
    graph::Settlement,
    id::WorkflowId,
    plan::{Draft, Plan},
    problem::SubmitError,
    run::{Run, RunKey},
    task::TaskStatus,
    workflow::WorkflowSpec,
};

/// A submission with its callers.
#[derive(Debug)]
pub struct Submission<C: Callers> {
    /// The workflow.
    pub draft: Draft,
    /// Waits until it is accepted.
    pub accepted: Option<C::OnAccepted>,
    /// Waits for its end.
    pub ended: Option<C::OnEnd>,
    /// The span of the caller.
    pub span: C::Span,
}

/// A workflow with the tasks that are ready at once, and those that are decided.
pub type PlannedWorkflow = (Arc<Plan>, Settlement);

/// Submissions between their arrival and their commit.
#[derive(Debug)]
pub(super) struct Submissions<C: Callers> {
    /// By the key that the workflow will have.
    pending: FxHashMap<RunKey, PendingSubmission<C>>,
    /// Accepted by registry and resolver, not yet given to the store.
    new: Vec<RunKey>,
    /// With the store now.
    storing: Vec<RunKey>,
}

impl<C: Callers> Default for Submissions<C> {
    fn default() -> Self {
        Self { pending: FxHashMap::default(), new: Vec::new(), storing: Vec::new() }
    }
}

impl<C: Callers> Submissions<C> {
    /// True when no caller waits for an answer.
    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.new.is_empty() && self.storing.is_empty()
    }

    /// Why a submission on its way is to be stopped.
    pub(super) fn cancelled(&self, key: RunKey) -> Option<Arc<str>> {
        self.pending.get(&key).and_then(|pending| pending.cancelled.clone())
    }

    /// The workflow of a submission on its way was found in the store, and belongs to this engine's
    /// lease: no other can run it.
    pub(super) fn note_claimed(&mut self, key: RunKey) {
        if let Some(pending) = self.pending.get_mut(&key) {
            pending.is_claimed = true;
        }
    }

    /// Has a workflow stopped once it is stored; returns the caller if it is not on its way.
    pub(super) fn cancel(
        &mut self,
        key: RunKey,
        reason: &Arc<str>,
        caller: C::OnStored,
    ) -> Option<C::OnStored> {
        let Some(pending) = self.pending.get_mut(&key) else { return Some(caller) };
        pending.cancelled.get_or_insert_with(|| Arc::clone(reason));
        pending.replies.on_stored.push(caller);
        None
    }
}

/// The callers of one workflow; several when it was submitted again meanwhile.
#[derive(Debug)]
struct PendingSubmission<C: Callers> {
    id: WorkflowId,
    /// The submission under an id that the caller chose: the same id may be submitted again.
    spec: Option<Arc<WorkflowSpec>>,
    tasks: u64,
    accepted: Vec<C::OnAccepted>,
    /// Callers that wait for the end, or until the cancellation is stored.
    replies: Replies<C>,
    /// Why it is to be stopped once it is stored.
    cancelled: Option<Arc<str>>,
    /// Belongs to this engine's lease already, or may: to be run once the submission is over.
    is_claimed: bool,
    /// That of the first caller.
    span: C::Span,
}

impl<C: Callers> Engine<C> {
    /// Rejects a submission, answers it, or puts it into the next batch.
    pub fn submit(&mut self, submission: Submission<C>) {
        let Submission { draft, accepted, ended, span } = submission;
        let ended = ended.map(Waiter::whole);
        if self.phase != Phase::Running {
            self.reject(accepted, ended, &SubmitError::Stopped);
            return;
        }
        if let Some(&key) = self.ids.get(&draft.id) {
            match self.difference(key, &draft.spec) {
                None => self.attach_to_existing(key, accepted, ended),
                Some(what) => {
                    self.reject(accepted, ended, &SubmitError::Differs { id: draft.id, what });
                }
            }
            return;
        }
        let tasks = draft.tasks.len() as u64;
        let limit = self.config.max_queued_tasks;
        if tasks > limit {
            self.reject(accepted, ended, &SubmitError::TooLarge { tasks, limit });
            return;
        }
        if self.load + tasks > limit {
            let waiting = self.load;
            // Published when the queue becomes full, and not for each submission after that.
            if !std::mem::replace(&mut self.is_full, true) {
                self.publish_system(EventData::QueueFull { waiting, limit });
            }
            self.reject(accepted, ended, &SubmitError::QueueFull { waiting, limit });
            return;
        }
        self.is_full = false;
        // Counted before it is planned: a burst would otherwise pass the limit while it is planned.
        self.load += tasks;
        let key = self.new_key();
        self.ids.insert(draft.id.clone(), key);
        let pending = PendingSubmission {
            id: draft.id.clone(),
            spec: (!draft.has_new_id).then(|| Arc::clone(&draft.spec)),
            tasks,
            accepted: accepted.into_iter().collect(),
            replies: Replies { on_end: ended.into_iter().collect(), ..Replies::default() },
            cancelled: None,
            is_claimed: false,
            span,
        };
        self.submissions.pending.insert(key, pending);
        self.intake.push((key, draft));
        self.wake();
    }

    /// How a submission differs from the one of the same id that is on its way or runs.
    fn difference(&self, key: RunKey, spec: &WorkflowSpec) -> Option<String> {
        let pending = self.submissions.pending.get(&key).and_then(|it| it.spec.as_ref());
        let running = || self.runs.get(&key).map(|active| &active.run.plan().spec);
        difference(pending.or_else(running)?, spec)
    }

    /// The same id again, while the first one is on its way or runs.
    pub(super) fn attach_to_existing(
        &mut self,
        key: RunKey,
        accepted: Option<C::OnAccepted>,
        ended: Option<Waiter<C::OnEnd>>,
    ) {
        if let Some(pending) = self.submissions.pending.get_mut(&key) {
            pending.accepted.extend(accepted);
            pending.replies.on_end.extend(ended);
        } else if let Some(active) = self.runs.get_mut(&key) {
            active.replies.on_end.extend(ended);
            if let Some(accepted) = accepted {
                let reply = Reply::Accepted(accepted, Ok(active.run.id().clone()));
                self.effects.push_back(Effect::Reply(reply));
            }
        }
    }

    fn reject(
        &mut self,
        accepted: impl IntoIterator<Item = C::OnAccepted>,
        ended: impl IntoIterator<Item = Waiter<C::OnEnd>>,
        error: &SubmitError,
    ) {
        for ended in ended {
            let reply = Reply::End(ended.answer, Err(error.clone().into()));
            self.effects.push_back(Effect::Reply(reply));
        }
        for accepted in accepted {
            self.effects.push_back(Effect::Reply(Reply::Accepted(accepted, Err(error.clone()))));
        }
    }

    /// The answers of registry and resolver to a batch.
    pub fn submissions_planned(
        &mut self,
        answers: Vec<(RunKey, Result<PlannedWorkflow, SubmitError>)>,
        now: Now,
    ) {
        let mut early = Vec::new();
        for (key, answer) in answers {
            match answer {
                Ok((plan, settlement)) => {
                    if plan.may_begin_early(&settlement.ready) {
                        early.push(key);
                    }
                    self.register_run(key, plan, settlement, now);
                }
                Err(error) => self.reject_submission(key, &error),
            }
        }
        self.store_new(now);
        if !early.is_empty() {
            // After the write has begun: a store that answers at once has them by then.
            self.effects.push_back(Effect::StartEarly(early));
        }
        self.check_drained();
    }

    /// A planned workflow is to be stored next.
    fn register_run(&mut self, key: RunKey, plan: Arc<Plan>, settlement: Settlement, now: Now) {
        let mut run = Box::new(Run::new(plan, self.subscribers.clone(), now.wall));
        self.bound_memory(&mut run);
        if run.plan().has_decisions() {
            // Written with the submission: a reader never sees what has ended as pending.
            self.stats += run.apply(&settlement, now.wall);
            run.conclude(now.wall);
        }
        let ready = settlement.ready;
        for index in &ready {
            // A new task is pending, and may become queued.
            run.queue(*index, now.wall).expect("a new task can be queued");
        }
        let limit = run.plan().spec.timeout;
        let pending = self.submissions.pending.get_mut(&key);
        let span = pending.map(|it| std::mem::take(&mut it.span)).unwrap_or_default();
        let active = ActiveRun { is_new: true, initial_tasks: ready, span, ..ActiveRun::new(run) };
        self.runs.insert(key, Box::new(active));
        if let Some(limit) = limit {
            self.set_timer(key, limit, TimerKind::WorkflowLimit(key, limit), now);
        }
        self.submissions.new.push(key);
    }

    /// The clock was wrong by so much when workflows were accepted that are not stored yet.
    pub fn shift_new(&mut self, by: TimeDelta) {
        for key in &self.submissions.new {
            if let Some(active) = self.runs.get_mut(key) {
                active.run.shift(by);
                active.started_at = active.run.record().created_at;
            }
        }
    }

    /// Tasks that have no effect outside start while their workflow is being stored, or waits for
    /// that. What has ended by the time of the write is written with it.
    pub fn start_before_commit(&mut self, keys: Vec<RunKey>, now: Now) {
        for key in keys {
            if self.runs.get(&key).is_some_and(|active| active.is_new) {
                self.step(Step::EarlyBegun);
                self.begin(key, now);
            }
        }
        self.effects.push_back(Effect::Dispatch);
    }

    /// The first tasks of a workflow enter the ready queue.
    fn begin(&mut self, key: RunKey, now: Now) {
        let Some(active) = self.runs.get_mut(&key) else { return };
        for index in std::mem::take(&mut active.initial_tasks) {
            let Some(active) = self.runs.get(&key) else { return };
            // It may have been cancelled meanwhile.
            if active.run.task(index).status == TaskStatus::Queued {
                self.enqueue(key, index, now);
            }
        }
    }

    /// Stores what is new, unless a batch is under way already, or the lease is missing: then it is
    /// stored once that is there.
    pub(super) fn store_new(&mut self, now: Now) {
        if !self.submissions.storing.is_empty() || self.submissions.new.is_empty() {
            return;
        }
        let Ok(epoch) = self.lease_now(now) else { return };
        let keys = std::mem::take(&mut self.submissions.new);
        let mut new = Vec::with_capacity(keys.len());
        for key in &keys {
            let active = self.runs.get_mut(key).expect("what is to be stored is here");
            // Each time: a batch that is written again bears the lease that is held then.
            active.run.belongs_to(epoch);
            new.push(if active.is_bare { active.run.take_bare() } else { active.run.take_new() });
        }
        // Kept in the order of the batch: the answers of the store have no keys.
        self.submissions.storing = keys;
        self.effects.push_back(Effect::Submit(new));
    }

    /// There is no lease to store anything under.
    pub(super) fn reject_all_new(&mut self, error: &SubmitError) {
        let keys = std::mem::take(&mut self.submissions.new);
        for key in &keys {
            self.reject_submission(*key, error);
        }
        if !keys.is_empty() {
            self.effects.push_back(Effect::RemoveGraphs(keys));
        }
    }

    /// Removes a submission that is not to run here, and what of it runs already.
    fn discard_submission(&mut self, key: RunKey) -> Option<PendingSubmission<C>> {
        self.remove_run(key, Removal::Discarded);
        let pending = self.submissions.pending.remove(&key)?;
        self.ids.remove(&pending.id);
        // The load of a submission is returned once, here; the run of it has none of its own.
        self.load -= pending.tasks;
        Some(pending)
    }

    pub(super) fn reject_submission(&mut self, key: RunKey, error: &SubmitError) {
        let Some(pending) = self.discard_submission(key) else { return };
        let PendingSubmission { id, accepted, replies, is_claimed, .. } = pending;
        self.reject(accepted, replies.on_end, error);
        if is_claimed {
            // The store gave it to this engine while it was on its way: no other would run it.
            self.effects.push_back(Effect::RunClaimed(id));
        }
    }
}
