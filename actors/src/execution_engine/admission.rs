//! Intake: from a submission to a stored workflow whose first tasks are queued.
//!
//! `ProtocolRegistry` → `DependencyResolver` → store, in batches; only then does the caller get
//! its id. First tasks that have no effect outside do not wait for the store: what they gave by the
//! time of the write is written with the workflow.
//!
//! Invariants: whoever asked is answered exactly once; of a workflow that is not stored nothing is
//! told, and nothing runs but those first tasks. A workflow that is stored by this engine runs here,
//! or belongs to a lease that is gone: where the store does not say whether it is, see `doubts`.

use std::{rc::Rc, sync::Arc, task, time::Duration};

use actix::prelude::*;
use chrono::TimeDelta;
use gleitzeit_domain::{
    difference::difference,
    event::{Event, EventData},
    id::WorkflowId,
    plan::{Draft, Plan},
    problem::SubmitError,
    run::{Run, RunKey, StopCause},
    store::{NewWorkflow, Store, StoreError, Submitted},
    task::TaskStatus,
    workflow::WorkflowSpec,
};
use rustc_hash::FxHashMap;
use tokio::sync::oneshot;

use super::{
    ActiveRun, CallerSpan, ExecutionEngine, Phase, Submit, Wait, Waiter,
    control::under_way,
    doubts::{Doubts, Refusal, SubmitOutcomes, run_until_answered, write},
    ownership::settled_elsewhere,
};
use crate::{
    addresses::ActorAddresses,
    dependency_resolver::{AddWorkflows, RemoveWorkflows},
    protocol_registry::ValidateWorkflows,
};

type Accepted = oneshot::Sender<Result<WorkflowId, SubmitError>>;

/// Submissions between their arrival and their commit.
#[derive(Debug, Default)]
pub(super) struct Admission {
    /// Who waits for the answer, by the key that the workflow will have.
    waiting: FxHashMap<RunKey, PendingSubmission>,
    /// Accepted by registry and resolver, not yet given to the store.
    new: Vec<RunKey>,
    /// With the store now.
    storing: Vec<RunKey>,
    pub(super) doubts: Doubts,
}

impl Admission {
    /// True when nobody waits for an answer.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.new.is_empty() && self.storing.is_empty()
    }

    /// Notes that the workflow of a submission on its way was found in the store, and belongs to
    /// this engine's lease: nobody else can run it.
    pub(super) fn note_claimed(&mut self, key: RunKey) {
        if let Some(askers) = self.waiting.get_mut(&key) {
            askers.is_claimed = true;
        }
    }
}

/// Who asked for one workflow; several when it was submitted again meanwhile.
#[derive(Debug)]
struct PendingSubmission {
    id: WorkflowId,
    /// What was submitted under an id that somebody chose: the same id may come again.
    spec: Option<Arc<WorkflowSpec>>,
    tasks: u64,
    accepted: Vec<Accepted>,
    settled: Vec<Waiter>,
    /// Why it is to be stopped once it is stored, and who waits for that.
    reason: Option<Arc<str>>,
    cancels: Vec<oneshot::Sender<()>>,
    /// Belongs to this engine's lease already, or may: to be run once the submission is over.
    is_claimed: bool,
    /// That of the first of them.
    span: CallerSpan,
}

/// What follows from a batch that was stored.
#[derive(Debug, Default)]
struct StoredEffects {
    events: Vec<Event>,
    /// Ended already.
    done: Vec<RunKey>,
    /// To be stopped at once, and why.
    cancelled: Vec<(RunKey, Arc<str>)>,
}

/// A workflow with the tasks that are ready at once.
type PlannedWorkflow = (Arc<Plan>, Vec<u32>);

/// What registry and resolver said of a batch.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct SubmissionsPlanned(Vec<(RunKey, Result<PlannedWorkflow, SubmitError>)>);

/// What the store said of a batch.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Stored(SubmitOutcomes);

impl ExecutionEngine {
    /// Refuses, or answers, or puts a submission into the next batch.
    fn accept_submissions(&mut self, submit: Submit, ctx: &Context<Self>) {
        let Submit { draft, accepted, settled, span } = submit;
        let settled = settled.map(Waiter::whole);
        if !matches!(self.phase, Phase::Running) {
            refuse(accepted, settled, SubmitError::Stopped);
            return;
        }
        if let Some(&key) = self.ids.get(&draft.id) {
            match self.difference(key, &draft.spec) {
                None => self.join(key, accepted, settled),
                Some(what) => {
                    refuse(accepted, settled, SubmitError::Differs { id: draft.id, what });
                }
            }
            return;
        }
        let tasks = draft.tasks.len() as u64;
        let limit = self.settings.max_queued_tasks;
        if tasks > limit {
            refuse(accepted, settled, SubmitError::TooLarge { tasks, limit });
            return;
        }
        if self.load + tasks > limit {
            if !std::mem::replace(&mut self.refusing, true) {
                self.publish_loose(EventData::QueueFull { waiting: self.load, limit });
            }
            refuse(accepted, settled, SubmitError::QueueFull { waiting: self.load, limit });
            return;
        }
        self.refusing = false;
        self.load += tasks;
        let key = self.new_key();
        self.ids.insert(draft.id.clone(), key);
        let askers = PendingSubmission {
            id: draft.id.clone(),
            spec: (!draft.has_new_id).then(|| Arc::clone(&draft.spec)),
            tasks,
            accepted: accepted.into_iter().collect(),
            settled: settled.into_iter().collect(),
            reason: None,
            cancels: Vec::new(),
            is_claimed: false,
            span,
        };
        self.admission.waiting.insert(key, askers);
        gleitzeit_failpoint::failpoint!("engine.submit.taken");
        self.intake.push((key, draft));
        self.pump_soon(ctx);
    }

    /// What a submission says otherwise than the one of the same id that is on its way or runs.
    fn difference(&self, key: RunKey, spec: &WorkflowSpec) -> Option<String> {
        let waiting = self.admission.waiting.get(&key).and_then(|askers| askers.spec.as_ref());
        let running = || self.runs.get(&key).map(|active| &active.run.plan().spec);
        difference(waiting.or_else(running)?, spec)
    }

    /// The same id again, while the first one is on its way or runs.
    fn join(&mut self, key: RunKey, accepted: Option<Accepted>, settled: Option<Waiter>) {
        if let Some(askers) = self.admission.waiting.get_mut(&key) {
            askers.accepted.extend(accepted);
            askers.settled.extend(settled);
        } else if let Some(active) = self.runs.get_mut(&key) {
            if let Some(accepted) = accepted {
                let _ = accepted.send(Ok(active.run.id().clone()));
            }
            active.waiters.extend(settled);
        }
    }

    /// Waits for the end of a workflow that is on its way or runs.
    pub(super) fn await_end(&mut self, key: RunKey, waiter: Waiter) {
        self.join(key, None, Some(waiter));
    }

    /// Stops a workflow that is on its way once it is stored; the channel closes where it never is.
    pub(super) fn cancel_admission(
        &mut self,
        key: RunKey,
        reason: &Arc<str>,
    ) -> Option<oneshot::Receiver<()>> {
        let askers = self.admission.waiting.get_mut(&key)?;
        askers.reason.get_or_insert_with(|| Arc::clone(reason));
        let (stored, done) = oneshot::channel();
        askers.cancels.push(stored);
        Some(done)
    }

    /// Sends the batch that has come in to registry and resolver.
    pub(super) fn admit(&mut self, _: &mut Context<Self>) {
        if self.intake.is_empty() {
            return;
        }
        let batch = std::mem::take(&mut self.intake);
        let addresses = Rc::clone(self.addresses());
        actix_rt::spawn(async move {
            let answers = validate(&addresses, batch).await;
            addresses.engine.do_send(SubmissionsPlanned(answers));
        });
    }

    /// A sound workflow is to be stored next.
    fn register_run(
        &mut self,
        key: RunKey,
        plan: Arc<Plan>,
        ready: Vec<u32>,
        ctx: &mut Context<Self>,
    ) {
        let now = self.clock.now();
        let mut run = Box::new(Run::new(plan, self.subscribers.clone(), now));
        self.bound_memory(&mut run);
        for index in &ready {
            // A new task is pending, and may become queued.
            run.queue(*index, now).expect("a new task can be queued");
        }
        let limit = run.plan().spec.timeout;
        let span = self.admission.waiting.get_mut(&key).and_then(|askers| askers.span.take());
        let active = ActiveRun { is_new: true, first: ready, span, ..ActiveRun::new(run) };
        self.runs.insert(key, Box::new(active));
        if let Some(limit) = limit {
            self.time_workflow(key, limit, Duration::ZERO, ctx);
        }
        self.admission.new.push(key);
    }

    /// Those that wait for the first lease were born by a clock that was wrong by so much.
    pub(super) fn shift_new(&mut self, by: TimeDelta) {
        for key in &self.admission.new {
            if let Some(active) = self.runs.get_mut(key) {
                active.run.shift(by);
                active.born = active.run.record().created_at;
            }
        }
    }

    /// What has no effect outside runs while its workflow is being stored, or waits for that. What
    /// has ended by the time of the write is written with it.
    fn start_before_commit(&mut self, keys: Vec<RunKey>, ctx: &mut Context<Self>) {
        for key in keys {
            // A store that answers at once has it already.
            if self.runs.get(&key).is_some_and(|active| active.is_new) {
                gleitzeit_failpoint::failpoint!("engine.early.begun");
                self.begin(key, ctx);
            }
        }
        self.dispatch(ctx);
    }

    /// The first tasks of a workflow get in line.
    fn begin(&mut self, key: RunKey, ctx: &mut Context<Self>) {
        let Some(active) = self.runs.get_mut(&key) else { return };
        for index in std::mem::take(&mut active.first) {
            let Some(active) = self.runs.get(&key) else { return };
            // It may have been cancelled meanwhile.
            if active.run.task(index).status == TaskStatus::Queued {
                self.enqueue(key, index, ctx);
            }
        }
    }

    /// Gives what was admitted to the store, unless a batch is there already.
    pub(super) fn store_new(&mut self, ctx: &mut Context<Self>) {
        while self.admission.storing.is_empty() && !self.admission.new.is_empty() {
            let Ok(epoch) = self.lease_now(ctx) else { return };
            let keys = std::mem::take(&mut self.admission.new);
            let mut new = Vec::with_capacity(keys.len());
            for key in &keys {
                let active = self.runs.get_mut(key).expect("what is to be stored is here");
                active.run.belongs_to(epoch);
                let bare = active.is_bare;
                new.push(if bare { active.run.take_bare() } else { active.run.take_new() });
            }
            self.admission.storing = keys;
            let mut writing = write(Arc::clone(&self.store), new);
            // A store in memory is done at once and needs no task.
            let mut unwoken = task::Context::from_waker(task::Waker::noop());
            match writing.as_mut().poll(&mut unwoken) {
                task::Poll::Ready(fates) => self.stored(fates, ctx),
                task::Poll::Pending => {
                    let engine = ctx.address();
                    actix_rt::spawn(async move { engine.do_send(Stored(writing.await)) });
                }
            }
        }
    }

    fn stored(&mut self, fates: SubmitOutcomes, ctx: &mut Context<Self>) {
        let batch = std::mem::take(&mut self.admission.storing);
        gleitzeit_failpoint::failpoint!("engine.submit.known");
        let mut news = StoredEffects::default();
        let mut unwanted = Vec::new();
        for (key, fate) in batch.into_iter().zip(fates) {
            match fate {
                Ok(Submitted::Created) => self.activate(key, &mut news, ctx),
                Ok(Submitted::Existed) => {
                    unwanted.push(key);
                    self.existed(key);
                }
                Err(Refusal::Content(error, events)) if self.may_be_bare(key) => {
                    tracing::warn!(%error, "a submission is stored without the outcomes of its first tasks, which follow");
                    if let Some(active) = self.runs.get_mut(&key) {
                        active.is_bare = true;
                        active.run.was_not_stored(events);
                        self.admission.new.push(key);
                    }
                }
                Err(Refusal::Store(error) | Refusal::Content(error, _)) => {
                    let workflow = self.runs.get(&key).map(|active| active.run.id().clone());
                    tracing::error!(%error, workflow = workflow.as_ref().map(WorkflowId::as_str), "a submission could not be stored");
                    unwanted.push(key);
                    self.reject_submissions(key, &SubmitError::Store(error));
                }
                Err(Refusal::InDoubt(error, new)) => {
                    unwanted.push(key);
                    self.doubt(key, error, *new, ctx);
                }
                // Nobody was told of it yet, so it is written again under the next lease.
                Err(Refusal::LeaseLost { epoch, events, in_doubt }) => {
                    self.lose(epoch, ctx);
                    if in_doubt {
                        self.admission.note_claimed(key);
                    }
                    if let Some(active) = self.runs.get_mut(&key) {
                        active.run.was_not_stored(events);
                        self.admission.new.push(key);
                    }
                }
            }
        }
        if !unwanted.is_empty() {
            self.addresses().resolver.do_send(RemoveWorkflows(unwanted));
        }
        self.publish(news.events);
        self.forget(news.done, ctx);
        for (key, reason) in news.cancelled {
            self.stop_run(key, &StopCause::Cancelled { reason }, ctx);
        }
        self.write_changes(ctx);
        self.pump_soon(ctx);
    }

    /// True where the outcome of an early task may be what the store refuses.
    fn may_be_bare(&self, key: RunKey) -> bool {
        self.runs.get(&key).is_some_and(|active| !active.is_bare && active.run.has_outcomes())
    }

    /// A stored workflow begins, or goes on, or has ended by now.
    fn activate(&mut self, key: RunKey, news: &mut StoredEffects, ctx: &mut Context<Self>) {
        self.stats.workflows_submitted += 1;
        gleitzeit_failpoint::failpoint!("engine.submit.activated");
        let epoch = self.runs.get(&key).and_then(|active| active.run.epoch());
        if self.is_lost(epoch) {
            self.stored_too_late(key);
            return;
        }
        let Some(active) = self.runs.get_mut(&key) else { return };
        active.is_new = false;
        active.run.committed();
        active.run.release_events(&mut news.events);
        let is_stored = !active.run.is_uncommitted();
        if is_stored {
            active.tell_stored();
            self.effects.subtract(active.run.take_unstored());
        }
        if let Some(askers) = self.admission.waiting.remove(&key) {
            for accepted in askers.accepted {
                let _ = accepted.send(Ok(askers.id.clone()));
            }
            gleitzeit_failpoint::failpoint!("engine.submit.told");
            active.waiters = askers.settled;
            // Where it has ended there is nothing to cancel.
            if !active.run.is_settled() {
                active.acks.extend(askers.cancels);
                news.cancelled.extend(askers.reason.map(|reason| (key, reason)));
            }
        }
        if active.run.is_done() {
            gleitzeit_failpoint::failpoint!("engine.early.stored");
            news.done.push(key);
            return;
        }
        let follows = std::mem::take(&mut active.follows);
        self.begin(key, ctx);
        if is_stored {
            self.enqueue_ready(key, follows, ctx);
        } else {
            gleitzeit_failpoint::failpoint!("engine.early.behind");
            self.touch(key);
            self.follow_up(key, follows);
        }
    }

    /// The store had a workflow of this id before; it is not run here a second time.
    fn existed(&mut self, key: RunKey) {
        gleitzeit_failpoint::failpoint!("engine.submit.existed");
        let Some(PendingSubmission { id, spec, accepted, settled, is_claimed, .. }) =
            self.discard_submission(key)
        else {
            return;
        };
        // It will run here, or where it was claimed, but may not run yet.
        let in_doubt = self.admission.doubts.is_about(&id);
        let (store, addresses) = (Arc::clone(&self.store), ActorAddresses::clone(self.addresses()));
        let follower = self.follower.clone();
        actix_rt::spawn(async move {
            if is_claimed {
                run_until_answered(&addresses, &id).await;
            }
            let same = is_same(&*store, &id, spec).await;
            for accepted in accepted {
                let _ = accepted.send(same.clone().map(|()| id.clone()));
            }
            for settled in settled {
                match &same {
                    Ok(()) if in_doubt => {
                        let follower = follower.clone();
                        actix_rt::spawn(settled_elsewhere(follower, id.clone(), settled));
                    }
                    Ok(()) => {
                        let Waiter { answer, outline } = settled;
                        addresses.engine.do_send(Wait { id: id.clone(), answer, outline });
                    }
                    Err(error) => settled.send(Err(error.clone().into())),
                }
            }
        });
    }

    /// Stored under a lease that is gone since: whoever claims it runs it.
    fn stored_too_late(&mut self, key: RunKey) {
        self.addresses().resolver.do_send(RemoveWorkflows(vec![key]));
        let Some(askers) = self.discard_submission(key) else { return };
        for accepted in askers.accepted {
            let _ = accepted.send(Ok(askers.id.clone()));
        }
        for settled in askers.settled {
            self.await_elsewhere(askers.id.clone(), settled);
        }
    }

    /// There is no lease to store anything under.
    pub(super) fn turn_all_away(&mut self, error: &SubmitError) {
        let keys = std::mem::take(&mut self.admission.new);
        for key in &keys {
            self.reject_submissions(*key, error);
        }
        if !keys.is_empty() {
            self.addresses().resolver.do_send(RemoveWorkflows(keys));
        }
    }

    /// A submission that is not to be run here, and whatever of it runs already; who asked for it.
    fn discard_submission(&mut self, key: RunKey) -> Option<PendingSubmission> {
        if let Some(active) = self.runs.remove(&key) {
            self.drop_timers(&active.timers);
            self.forget_unstored(active.run.unstored());
            // Otherwise none of them is on its way.
            if active.first.is_empty() {
                active.run.interrupt();
                self.end_calls(under_way(key, &active.run));
            }
            for reader in active.readers {
                let _ = reader.send(None);
            }
        }
        let askers = self.admission.waiting.remove(&key)?;
        self.ids.remove(&askers.id);
        self.load -= askers.tasks;
        Some(askers)
    }

    fn reject_submissions(&mut self, key: RunKey, error: &SubmitError) {
        let Some(askers) = self.discard_submission(key) else { return };
        for accepted in askers.accepted {
            let _ = accepted.send(Err(error.clone()));
        }
        for settled in askers.settled {
            settled.send(Err(error.clone().into()));
        }
        if askers.is_claimed {
            let addresses = ActorAddresses::clone(self.addresses());
            actix_rt::spawn(async move { run_until_answered(&addresses, &askers.id).await });
        }
    }

    /// Whether a submission is stored is not known. Who asked is told so; the doubt is settled when
    /// the store is back, and counts as load until then.
    fn doubt(&mut self, key: RunKey, error: StoreError, new: NewWorkflow, ctx: &mut Context<Self>) {
        let reason = self.admission.waiting.get(&key).and_then(|askers| askers.reason.clone());
        self.load += new.record.tasks.len() as u64;
        self.reject_submissions(key, &SubmitError::Store(error));
        self.admission.doubts.add(new, reason);
        self.settle_doubts_later(ctx);
    }
}

/// Whether the workflow that the store has under this id is the one that was submitted.
async fn is_same(
    store: &dyn Store,
    id: &WorkflowId,
    spec: Option<Arc<WorkflowSpec>>,
) -> Result<(), SubmitError> {
    let Some(spec) = spec else { return Ok(()) };
    let stored = store.workflow(id).await.map_err(SubmitError::Store)?;
    match stored.and_then(|stored| difference(&stored.spec, &spec)) {
        Some(what) => Err(SubmitError::Differs { id: id.clone(), what }),
        None => Ok(()),
    }
}

fn refuse(accepted: Option<Accepted>, settled: Option<Waiter>, error: SubmitError) {
    if let Some(settled) = settled {
        settled.send(Err(error.clone().into()));
    }
    if let Some(accepted) = accepted {
        let _ = accepted.send(Err(error));
    }
}

/// Registry, then resolver; an actor that does not answer refuses all.
async fn validate(
    addresses: &Rc<ActorAddresses>,
    batch: Vec<(RunKey, Draft)>,
) -> Vec<(RunKey, Result<PlannedWorkflow, SubmitError>)> {
    let (keys, drafts): (Vec<RunKey>, Vec<Draft>) = batch.into_iter().unzip();
    gleitzeit_failpoint::failpoint!("engine.submit.asked");
    let Ok(plans) = addresses.registry.send(ValidateWorkflows(drafts)).await else {
        return keys.into_iter().map(|key| (key, Err(SubmitError::Stopped))).collect();
    };
    gleitzeit_failpoint::failpoint!("engine.submit.planned");
    let sound = keys.iter().zip(&plans);
    let sound = sound.filter_map(|(key, plan)| Some((*key, Arc::clone(plan.as_ref().ok()?))));
    let ready = addresses.resolver.send(AddWorkflows(sound.collect())).await;
    gleitzeit_failpoint::failpoint!("engine.submit.added");
    let mut ready = ready.unwrap_or_default().into_iter();
    let answer = |plan: Result<Arc<Plan>, SubmitError>| {
        let plan = plan?;
        let ready = ready.next().unwrap_or(Err(SubmitError::Stopped))?;
        Ok((plan, ready))
    };
    keys.into_iter().zip(plans.into_iter().map(answer)).collect()
}

impl Handler<Submit> for ExecutionEngine {
    type Result = ();

    fn handle(&mut self, submit: Submit, ctx: &mut Self::Context) {
        self.accept_submissions(submit, ctx);
    }
}

impl Handler<SubmissionsPlanned> for ExecutionEngine {
    type Result = ();

    fn handle(&mut self, SubmissionsPlanned(answers): SubmissionsPlanned, ctx: &mut Self::Context) {
        let mut early = Vec::new();
        for (key, answer) in answers {
            match answer {
                Ok((plan, ready)) => {
                    if plan.may_begin_early(&ready) {
                        early.push(key);
                    }
                    self.register_run(key, plan, ready, ctx);
                }
                Err(error) => self.reject_submissions(key, &error),
            }
        }
        self.store_new(ctx);
        self.start_before_commit(early, ctx);
        self.check_drained(ctx);
    }
}

impl Handler<Stored> for ExecutionEngine {
    type Result = ();

    fn handle(&mut self, Stored(fates): Stored, ctx: &mut Self::Context) {
        self.stored(fates, ctx);
        self.store_new(ctx);
        self.check_drained(ctx);
    }
}
