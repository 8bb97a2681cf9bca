//! Intake: from a submission to a stored workflow whose first tasks are queued.
//!
//! `ProtocolRegistry` → `DependencyResolver` → store, in batches; only then does the caller get
//! its id. Invariant: whoever asked is answered exactly once.

use std::{future::Future, pin::Pin, rc::Rc, sync::Arc, task, time::Duration};

use actix::prelude::*;
use gleitzeit_domain::{
    event::{Event, EventData},
    id::WorkflowId,
    plan::{Draft, Plan},
    problem::SubmitError,
    run::{Run, RunKey, StopCause},
    store::{Epoch, NewWorkflow, Store, StoreError, Submitted},
};
use rustc_hash::FxHashMap;
use tokio::sync::oneshot;

use super::{Active, ExecutionEngine, Phase, Recover, Submit, WaitAnswer};
use crate::{
    cast::Cast,
    dependency_resolver::{AddWorkflows, RemoveWorkflows},
    protocol_registry::ValidateWorkflows,
};

/// A store that does not say whether it committed is asked again so often.
const UNKNOWN_RETRIES: u32 = 5;

/// The first pause before that; it doubles each time.
const UNKNOWN_PAUSE: Duration = Duration::from_millis(50);

type Accepted = oneshot::Sender<Result<WorkflowId, SubmitError>>;

/// Submissions between their arrival and their commit.
#[derive(Debug, Default)]
pub(super) struct Admission {
    /// Who waits for the answer, by the key that the workflow will have.
    waiting: FxHashMap<RunKey, Askers>,
    /// Accepted by registry and resolver, not yet given to the store.
    new: Vec<(RunKey, Box<Run>, Vec<u32>)>,
    /// With the store now.
    storing: Vec<(RunKey, Box<Run>, Vec<u32>)>,
}

impl Admission {
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
struct Askers {
    id: WorkflowId,
    tasks: u64,
    accepted: Vec<Accepted>,
    settled: Vec<oneshot::Sender<WaitAnswer>>,
    /// Why it is to be stopped once it is stored, and who waits for that.
    reason: Option<Arc<str>>,
    cancels: Vec<oneshot::Sender<()>>,
    /// Claimed from the store meanwhile, and to be run once the submission is over.
    is_claimed: bool,
}

/// A workflow with the tasks that are ready at once.
type Sound = (Arc<Plan>, Vec<u32>);

/// What registry and resolver said of a batch.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Admitted(Vec<(RunKey, Result<Sound, SubmitError>)>);

/// What the store said of a batch.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Stored(Fates);

impl ExecutionEngine {
    /// Refuses, or answers, or puts a submission into the next batch.
    fn take_in(&mut self, submit: Submit, ctx: &Context<Self>) {
        let Submit { draft, accepted, settled } = submit;
        if !matches!(self.phase, Phase::Running) {
            refuse(accepted, settled, SubmitError::Stopped);
            return;
        }
        if let Some(&key) = self.ids.get(&draft.id) {
            self.join(key, accepted, settled);
            return;
        }
        let tasks = draft.tasks.len() as u64;
        let limit = self.settings.max_queued_tasks;
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
        let askers = Askers {
            id: draft.id.clone(),
            tasks,
            accepted: accepted.into_iter().collect(),
            settled: settled.into_iter().collect(),
            reason: None,
            cancels: Vec::new(),
            is_claimed: false,
        };
        self.admission.waiting.insert(key, askers);
        crate::failpoint!("engine.submit.taken");
        self.intake.push((key, draft));
        self.pump_soon(ctx);
    }

    /// The same id again, while the first one is on its way or runs.
    fn join(
        &mut self,
        key: RunKey,
        accepted: Option<Accepted>,
        settled: Option<oneshot::Sender<WaitAnswer>>,
    ) {
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
    pub(super) fn await_end(&mut self, key: RunKey, answer: oneshot::Sender<WaitAnswer>) {
        self.join(key, None, Some(answer));
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
        let cast = Rc::clone(self.cast());
        actix_rt::spawn(async move {
            let answers = validate(&cast, batch).await;
            cast.engine.do_send(Admitted(answers));
        });
    }

    /// Gives what was admitted to the store, unless a batch is there already.
    pub(super) fn store_new(&mut self, ctx: &mut Context<Self>) {
        while self.admission.storing.is_empty() && !self.admission.new.is_empty() {
            let Ok(epoch) = self.lease_now(ctx) else { return };
            self.admission.storing = std::mem::take(&mut self.admission.new);
            let new = self.admission.storing.iter_mut().map(|(_, run, _)| {
                run.belongs_to(epoch);
                run.take_new()
            });
            let mut writing = write(Arc::clone(&self.store), new.collect());
            // A store in memory is done at once and needs no task.
            let mut unwoken = task::Context::from_waker(task::Waker::noop());
            match writing.as_mut().poll(&mut unwoken) {
                task::Poll::Ready(answer) => self.stored(answer, ctx),
                task::Poll::Pending => {
                    let engine = ctx.address();
                    actix_rt::spawn(async move { engine.do_send(Stored(writing.await)) });
                }
            }
        }
    }

    fn stored(&mut self, fates: Fates, ctx: &mut Context<Self>) {
        let batch = std::mem::take(&mut self.admission.storing);
        crate::failpoint!("engine.submit.known");
        let mut events = Vec::new();
        let mut unwanted = Vec::new();
        let mut cancelled = Vec::new();
        for ((key, mut run, ready), fate) in batch.into_iter().zip(fates) {
            match fate {
                Ok(Submitted::Created) => {
                    cancelled.extend(self.activate(key, run, &ready, &mut events, ctx));
                }
                Ok(Submitted::Existed) => {
                    unwanted.push(key);
                    self.existed(key, run.id());
                }
                Err(Refusal::Store(error)) => {
                    tracing::error!(%error, workflow = %run.id(), "a submission could not be stored");
                    unwanted.push(key);
                    self.turn_away(key, &SubmitError::Store(error));
                }
                // Nobody was told of it yet, so it is written again under the next lease.
                Err(Refusal::LeaseLost(epoch, events)) => {
                    self.lose(epoch, ctx);
                    run.was_not_stored(events);
                    self.admission.new.push((key, run, ready));
                }
            }
        }
        if !unwanted.is_empty() {
            self.cast().resolver.do_send(RemoveWorkflows(unwanted));
        }
        self.publish(events);
        for (key, reason) in cancelled {
            self.stop_run(key, &StopCause::Cancelled { reason }, ctx);
        }
        self.pump_soon(ctx);
    }

    /// A stored workflow begins, or is to be stopped at once: then its key and the reason.
    fn activate(
        &mut self,
        key: RunKey,
        mut run: Box<Run>,
        ready: &[u32],
        events: &mut Vec<Event>,
        ctx: &mut Context<Self>,
    ) -> Option<(RunKey, Arc<str>)> {
        self.stats.workflows_submitted += 1;
        crate::failpoint!("engine.submit.activated");
        if self.is_lost(run.epoch()) {
            self.stored_too_late(key, &run);
            return None;
        }
        run.committed();
        run.release_events(events);
        let mut active = Active::new(run);
        let mut cancelled = None;
        if let Some(askers) = self.admission.waiting.remove(&key) {
            for accepted in askers.accepted {
                let _ = accepted.send(Ok(askers.id.clone()));
            }
            crate::failpoint!("engine.submit.told");
            active.waiters = askers.settled;
            active.acks = askers.cancels;
            cancelled = askers.reason.map(|reason| (key, reason));
        }
        let limit = active.run.plan().spec.timeout;
        self.runs.insert(key, Box::new(active));
        if let Some(limit) = limit {
            self.time_workflow(key, limit, Duration::ZERO, ctx);
        }
        for index in ready {
            self.enqueue(key, *index, ctx);
        }
        cancelled
    }

    /// The store had a workflow of this id before; it is not run here a second time.
    fn existed(&mut self, key: RunKey, id: &WorkflowId) {
        self.ids.remove(id);
        crate::failpoint!("engine.submit.existed");
        let Some(askers) = self.admission.waiting.remove(&key) else { return };
        self.load -= askers.tasks;
        for accepted in askers.accepted {
            let _ = accepted.send(Ok(id.clone()));
        }
        for settled in askers.settled {
            self.answer_from_store(id.clone(), settled);
        }
        self.run_claimed(id, askers.is_claimed);
    }

    /// Runs what was claimed while the same was submitted again.
    fn run_claimed(&self, id: &WorkflowId, is_claimed: bool) {
        if is_claimed {
            self.cast().engine.do_send(Recover { id: Some(id.clone()), hold: false });
        }
    }

    /// Stored under a lease that is gone since: whoever claims it runs it.
    fn stored_too_late(&mut self, key: RunKey, run: &Run) {
        self.ids.remove(run.id());
        self.cast().resolver.do_send(RemoveWorkflows(vec![key]));
        let Some(askers) = self.admission.waiting.remove(&key) else { return };
        self.load -= askers.tasks;
        for accepted in askers.accepted {
            let _ = accepted.send(Ok(run.id().clone()));
        }
        for settled in askers.settled {
            self.await_elsewhere(run.id().clone(), settled);
        }
    }

    /// There is no lease to store anything under.
    pub(super) fn turn_all_away(&mut self, error: &SubmitError) {
        let keys: Vec<RunKey> =
            std::mem::take(&mut self.admission.new).into_iter().map(|(key, ..)| key).collect();
        for key in &keys {
            self.turn_away(*key, error);
        }
        if !keys.is_empty() {
            self.cast().resolver.do_send(RemoveWorkflows(keys));
        }
    }

    fn turn_away(&mut self, key: RunKey, error: &SubmitError) {
        let Some(askers) = self.admission.waiting.remove(&key) else { return };
        self.ids.remove(&askers.id);
        self.load -= askers.tasks;
        for accepted in askers.accepted {
            let _ = accepted.send(Err(error.clone()));
        }
        for settled in askers.settled {
            let _ = settled.send(Err(error.clone().into()));
        }
        self.run_claimed(&askers.id, askers.is_claimed);
    }
}

fn refuse(
    accepted: Option<Accepted>,
    settled: Option<oneshot::Sender<WaitAnswer>>,
    error: SubmitError,
) {
    if let Some(settled) = settled {
        let _ = settled.send(Err(error.clone().into()));
    }
    if let Some(accepted) = accepted {
        let _ = accepted.send(Err(error));
    }
}

/// Registry, then resolver; an actor that does not answer refuses all.
async fn validate(
    cast: &Rc<Cast>,
    batch: Vec<(RunKey, Draft)>,
) -> Vec<(RunKey, Result<Sound, SubmitError>)> {
    let (keys, drafts): (Vec<RunKey>, Vec<Draft>) = batch.into_iter().unzip();
    crate::failpoint!("engine.submit.asked");
    let Ok(plans) = cast.registry.send(ValidateWorkflows(drafts)).await else {
        return keys.into_iter().map(|key| (key, Err(SubmitError::Stopped))).collect();
    };
    crate::failpoint!("engine.submit.planned");
    let sound = keys.iter().zip(&plans);
    let sound = sound.filter_map(|(key, plan)| Some((*key, Arc::clone(plan.as_ref().ok()?))));
    let ready = cast.resolver.send(AddWorkflows(sound.collect())).await;
    crate::failpoint!("engine.submit.added");
    let mut ready = ready.unwrap_or_default().into_iter();
    let answer = |plan: Result<Arc<Plan>, SubmitError>| {
        let plan = plan?;
        let ready = ready.next().unwrap_or(Err(SubmitError::Stopped))?;
        Ok((plan, ready))
    };
    keys.into_iter().zip(plans.into_iter().map(answer)).collect()
}

/// Why a workflow was not stored.
#[derive(Debug, Clone)]
enum Refusal {
    Store(StoreError),
    /// With the events that were to be stored.
    LeaseLost(Epoch, Vec<Event>),
}

/// What became of each workflow of a batch.
type Fates = Vec<Result<Submitted, Refusal>>;
type Writing = Pin<Box<dyn Future<Output = Fates>>>;

fn write(store: Arc<dyn Store>, new: Vec<NewWorkflow>) -> Writing {
    Box::pin(async move {
        let kept = if store.is_fallible() { new.clone() } else { Vec::new() };
        let count = new.len();
        crate::failpoint!("engine.submit.storing");
        match store.submit(new).await {
            Ok(fates) => {
                crate::failpoint!("engine.submit.stored");
                fates.into_iter().map(Ok).collect()
            }
            Err(error) if kept.is_empty() => vec![Err(Refusal::Store(error)); count],
            Err(error) => write_again(store, kept, error).await,
        }
    })
}

/// Asks again where it is not known what was committed, and for each alone where one of them may
/// be at fault.
async fn write_again(store: Arc<dyn Store>, new: Vec<NewWorkflow>, mut error: StoreError) -> Fates {
    let in_doubt = matches!(error, StoreError::Unknown { .. });
    let mut pause = UNKNOWN_PAUSE;
    for _ in 0..UNKNOWN_RETRIES {
        if !in_doubt || !error.is_transient() {
            break;
        }
        tracing::warn!(%error, ?pause, "the store did not say whether it committed; writing again");
        tokio::time::sleep(pause).await;
        pause *= 2;
        match store.submit(new.clone()).await {
            Ok(fates) => return recognise(&*store, &new, fates).await,
            Err(next) => error = next,
        }
    }
    if let StoreError::LeaseLost { epoch } = error {
        return new.into_iter().map(|new| Err(Refusal::LeaseLost(epoch, new.events))).collect();
    }
    if new.len() == 1 || error.is_transient() || error == StoreError::Closed {
        return vec![Err(Refusal::Store(error)); new.len()];
    }
    let mut fates = Vec::with_capacity(new.len());
    for one in new {
        fates.append(&mut write(Arc::clone(&store), vec![one]).await);
    }
    fates
}

/// After a write in doubt: what is there already may have been written by it.
async fn recognise(store: &dyn Store, new: &[NewWorkflow], fates: Vec<Submitted>) -> Fates {
    let mut recognised = Vec::with_capacity(fates.len());
    for (NewWorkflow { record, .. }, fate) in new.iter().zip(fates) {
        recognised.push(match fate {
            Submitted::Created => Ok(fate),
            Submitted::Existed => store
                .workflow(&record.id)
                .await
                .map(|stored| {
                    // Nobody else submits the same id within the same microsecond.
                    let is_ours = stored.is_some_and(|stored| {
                        stored.created_at.timestamp_micros() == record.created_at.timestamp_micros()
                            && stored.last_sequence == record.last_sequence
                    });
                    if is_ours { Submitted::Created } else { Submitted::Existed }
                })
                .map_err(Refusal::Store),
        });
    }
    recognised
}

impl Handler<Submit> for ExecutionEngine {
    type Result = ();

    fn handle(&mut self, submit: Submit, ctx: &mut Self::Context) {
        self.take_in(submit, ctx);
    }
}

impl Handler<Admitted> for ExecutionEngine {
    type Result = ();

    fn handle(&mut self, Admitted(answers): Admitted, ctx: &mut Self::Context) {
        let now = self.clock.now();
        for (key, answer) in answers {
            match answer {
                Ok((plan, ready)) => {
                    let mut run = Box::new(Run::new(plan, self.audience.clone(), now));
                    for index in &ready {
                        // A new task is pending, and may become queued.
                        run.queue(*index, now).expect("a new task can be queued");
                    }
                    self.admission.new.push((key, run, ready));
                }
                Err(error) => self.turn_away(key, &error),
            }
        }
        self.store_new(ctx);
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
