//! What the owner of a runtime asks of the engine: wait, look, cancel, stop.

use std::{rc::Rc, sync::Arc, time::Duration};

use actix::prelude::*;
use gleitzeit_domain::{
    error::{ErrorCode, TaskError},
    event::EventData,
    id::{TaskId, WorkflowId},
    run::{Resolved, Run, RunKey, StopCause, TaskKey},
    store::{Epoch, Store, lease::Resolution},
    task::TaskStatus,
    workflow::WorkflowRecord,
};
use serde::Serialize;
use tokio::sync::oneshot;

use super::{ExecutionEngine, Phase, WaitAnswer, Waiter, ownership::GiveUpLease};
use crate::{
    addresses::ActorAddresses, dependency_resolver::RemoveWorkflows, load_balancer,
    pipeline::Route, resource_manager::CancelWaiting,
};

/// The addresses of the other actors; comes before any other message.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Connect(pub ActorAddresses);

/// Waits for the end of a workflow, here or in the store.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Wait {
    /// Which workflow.
    pub id: WorkflowId,
    /// Told its end.
    pub answer: oneshot::Sender<WaitAnswer>,
    /// True leaves out large results that are stored, as [`Store::outline`](gleitzeit_domain::store::Store::outline) does.
    pub outline: bool,
}

/// Asks for the state of a workflow that runs here; `None` where it does not, or where the store
/// refuses writes: the store then has all that can be told.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct GetWorkflow {
    /// Which workflow.
    pub id: WorkflowId,
    /// Told its state, once that is stored.
    pub answer: oneshot::Sender<Option<Arc<WorkflowRecord>>>,
}

/// Stops a workflow: running calls end, nothing of it starts any more.
///
/// # Errors
/// `WORKFLOW_NOT_FOUND` when it does not run here, `WORKFLOW_INVALID_STATE` when it is settled.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), TaskError>")]
pub struct Cancel {
    /// Which workflow.
    pub id: WorkflowId,
    /// Why, for whoever reads its events.
    pub reason: Arc<str>,
}

/// Stops one task; what depends on it follows its policy.
///
/// # Errors
/// `WORKFLOW_NOT_FOUND`, `TASK_NOT_FOUND`, or `WORKFLOW_INVALID_STATE` when it is settled.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), TaskError>")]
pub struct CancelTask {
    /// Of which workflow.
    pub id: WorkflowId,
    /// Which task.
    pub task: TaskId,
    /// Why, for whoever reads its events.
    pub reason: Arc<str>,
}

/// Ends a task whose outcome is unknown by a person's word; what depends on it follows.
///
/// # Errors
/// `WORKFLOW_NOT_FOUND`, `TASK_NOT_FOUND`; `WORKFLOW_INVALID_STATE` when its outcome is known;
/// `TASK_RESULT_INVALID` when the result is not what the method returns.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), TaskError>")]
pub struct ResolveUnknown {
    /// Of which workflow.
    pub id: WorkflowId,
    /// Which task.
    pub task: TaskId,
    /// What became of it.
    pub verdict: Resolution,
}

/// Asks whether nothing is queued, under way or being written.
#[derive(Debug, Message)]
#[rtype(result = "bool")]
pub struct IsIdle;

/// Counts everything that the engine holds; all are 0 once every workflow has settled.
#[derive(Debug, Message)]
#[rtype(result = "EngineCounts")]
pub struct GetEngineCounts;

/// The answer to [`GetEngineCounts`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, MessageResponse)]
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

/// Takes nothing more in, lets executing tasks end within `deadline`, then stops for good.
#[derive(Debug, Message)]
#[rtype(result = "StopReport")]
pub struct Shutdown {
    /// How long executing tasks may take.
    pub deadline: Duration,
}

/// What an engine left when it stopped. The store remembers all of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct StopReport {
    /// Tasks whose call was cut off.
    pub abandoned: Vec<(WorkflowId, TaskId)>,
    /// Workflows that are not settled; the next start goes on with them.
    pub unsettled: Vec<WorkflowId>,
    /// False when something could not be written in time.
    pub stored: bool,
}

/// A store that does not close a lease within this is not waited for: the lease runs out.
const HAND_OVER_LIMIT: Duration = Duration::from_secs(5);

fn not_here(id: &WorkflowId) -> TaskError {
    TaskError::new(ErrorCode::WorkflowNotFound, format!("no workflow `{id}` runs here"))
}

fn no_task(id: &WorkflowId, task: &TaskId) -> TaskError {
    TaskError::new(ErrorCode::TaskNotFound, format!("workflow `{id}` has no task `{task}`"))
}

/// Tasks of a run that wait for their turn, or run.
pub(super) fn under_way(key: RunKey, run: &Run) -> Vec<TaskKey> {
    let live = |status| matches!(status, TaskStatus::Queued | TaskStatus::Executing);
    let tasks = run.record().tasks.iter().filter(|task| live(task.status));
    tasks.map(|task| TaskKey { run: key, index: task.index }).collect()
}

fn stopped() -> TaskError {
    TaskError::new(ErrorCode::SystemShutdown, "the runtime has stopped")
}

/// What is not settled can be claimed by others at once.
async fn hand_over(store: &dyn Store, epoch: Epoch) {
    let Some(leases) = store.leases() else { return };
    gleitzeit_failpoint::failpoint!("engine.lease.closing");
    match tokio::time::timeout(HAND_OVER_LIMIT, leases.close_lease(epoch)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, %epoch, "the lease could not be closed"),
        Err(_) => tracing::warn!(%epoch, "the lease could not be closed in time"),
    }
}

impl ExecutionEngine {
    /// Ends calls and waits of tasks, wherever they are on their way.
    pub(super) fn end_calls(&self, tasks: Vec<TaskKey>) {
        if tasks.is_empty() {
            return;
        }
        let tasks = Arc::new(tasks);
        self.addresses().resources.do_send(CancelWaiting(Arc::clone(&tasks)));
        self.addresses().balancer.do_send(load_balancer::CancelTasks(tasks));
    }

    /// Stops a workflow and everything of it that is under way.
    pub(super) fn stop_run(&mut self, key: RunKey, cause: &StopCause, ctx: &mut Context<Self>) {
        let now = self.clock.now();
        let Some(active) = self.runs.get_mut(&key) else { return };
        let under_way = under_way(key, &active.run);
        let open = u64::from(active.run.unsettled());
        if !active.run.stop(cause, now) {
            return;
        }
        active.backlog.clear();
        self.stats.tasks_cancelled += open;
        self.end_calls(under_way);
        gleitzeit_failpoint::failpoint!("engine.stop_run.ended");
        self.addresses().resolver.do_send(RemoveWorkflows(vec![key]));
        self.touch(key);
        gleitzeit_failpoint::failpoint!("engine.stop_run.noted");
        self.write_changes(ctx);
    }

    /// Answers a wait for a workflow that does not run here.
    pub(super) fn answer_from_store(&self, id: WorkflowId, waiter: Waiter) {
        if self.settings.takes_over && self.store.leases().is_some() {
            // Another process runs it, or this one claims it soon.
            self.await_elsewhere(id, waiter);
            return;
        }
        let store = Arc::clone(&self.store);
        actix_rt::spawn(async move {
            let found = if waiter.outline { store.outline(&id) } else { store.workflow(&id) };
            waiter.send(match found.await {
                Ok(Some(record)) if record.status.is_settled() => Ok(Arc::new(record)),
                Ok(Some(record)) => Err(TaskError::new(
                    ErrorCode::WorkflowInvalidState,
                    format!(
                        "workflow `{id}` is {}, but does not run here; resume it",
                        record.status
                    ),
                )),
                Ok(None) => Err(TaskError::new(
                    ErrorCode::WorkflowNotFound,
                    format!("no workflow has the id `{id}`"),
                )),
                Err(error) => Err(error.into()),
            });
        });
    }

    /// Ends a drain once nothing is under way.
    pub(super) fn check_drained(&mut self, ctx: &mut Context<Self>) {
        if matches!(self.phase, Phase::Draining(_)) {
            let moving = self.in_flight.saturating_sub(self.parked);
            let intake = self.intake.is_empty() && self.admission.is_empty();
            if moving == 0 && self.settling == 0 && self.writer.is_idle() && intake {
                self.halt(ctx);
            }
        }
    }

    /// Whoever waits for resources or a provider would begin its call during the stop.
    fn end_waits(&self) {
        let mut waiting = Vec::new();
        for (key, active) in &self.runs {
            active.run.interrupt();
            let tasks = active.run.record().tasks.iter();
            let queued = tasks.filter(|task| task.status == TaskStatus::Queued);
            waiting.extend(queued.map(|task| TaskKey { run: *key, index: task.index }));
        }
        self.end_calls(waiting);
    }

    /// Stops for good, whatever is still under way.
    fn halt(&mut self, _: &mut Context<Self>) {
        let Phase::Draining(answer) = std::mem::replace(&mut self.phase, Phase::Stopped) else {
            return;
        };
        let mut report = StopReport { stored: self.writer.is_idle(), ..StopReport::default() };
        let mut running = Vec::new();
        for (key, active) in &mut self.runs {
            active.run.interrupt();
            // Whoever waits for resources or a provider would begin its call after the stop.
            running.extend(under_way(*key, &active.run));
            // What is not stored was promised to nobody.
            if active.is_new {
                continue;
            }
            report.unsettled.push(active.run.id().clone());
            for waiter in active.waiters.drain(..) {
                waiter.send(Err(stopped()));
            }
            for task in &active.run.record().tasks {
                if task.status == TaskStatus::Executing {
                    report.abandoned.push((active.run.id().clone(), task.id.clone()));
                }
            }
        }
        self.end_calls(running);
        self.publish_loose(EventData::EngineStopped {
            abandoned_tasks: report.abandoned.len() as u64,
        });
        gleitzeit_failpoint::failpoint!("engine.shutdown.halted");
        let _ = answer.send(report);
    }
}

impl Handler<Connect> for ExecutionEngine {
    type Result = ();

    fn handle(&mut self, Connect(addresses): Connect, ctx: &mut Self::Context) {
        let gate = Rc::clone(&self.effects.gate);
        self.route = Some(Route::new(&ctx.address(), &addresses.peers(), gate));
        self.addresses = Some(Rc::new(addresses));
        self.listen(ctx.address().downgrade());
        self.publish_loose(EventData::EngineStarted {
            max_concurrent_tasks: self.settings.max_concurrent_tasks as u64,
        });
    }
}

impl Handler<Wait> for ExecutionEngine {
    type Result = ();

    fn handle(&mut self, Wait { id, answer, outline }: Wait, _: &mut Self::Context) {
        let waiter = Waiter { answer, outline };
        match self.ids.get(&id).copied() {
            Some(_) if matches!(self.phase, Phase::Stopped) => waiter.send(Err(stopped())),
            Some(key) => self.await_end(key, waiter),
            None => self.answer_from_store(id, waiter),
        }
    }
}

impl Handler<GetWorkflow> for ExecutionEngine {
    type Result = ();

    fn handle(&mut self, GetWorkflow { id, answer }: GetWorkflow, _: &mut Self::Context) {
        let key = self.ids.get(&id);
        match key.and_then(|key| self.runs.get_mut(key)) {
            // What is not stored yet is not told: it is read from the store while that refuses
            // writes, or told once it is stored.
            Some(active) if active.run.is_uncommitted() => {
                if self.writer.is_failing() {
                    let _ = answer.send(None);
                } else {
                    active.readers.push(answer);
                }
            }
            // Large results are in the store only.
            Some(active) if active.run.is_lean() => {
                let _ = answer.send(None);
            }
            Some(active) => {
                let _ = answer.send(Some(Arc::new(active.run.record().clone())));
            }
            None => {
                let _ = answer.send(None);
            }
        }
    }
}

impl Handler<Cancel> for ExecutionEngine {
    type Result = ResponseFuture<Result<(), TaskError>>;

    fn handle(&mut self, Cancel { id, reason }: Cancel, ctx: &mut Self::Context) -> Self::Result {
        let key = self.ids.get(&id).copied();
        if let Some(done) = key.and_then(|key| self.cancel_admission(key, &reason)) {
            return Box::pin(async move { done.await.map_err(|_| not_here(&id)) });
        }
        let Some((key, active)) = key.and_then(|key| Some((key, self.runs.get_mut(&key)?))) else {
            return Box::pin(async move { Err(not_here(&id)) });
        };
        if active.run.is_settled() {
            let message = format!("workflow `{id}` is {} already", active.run.record().status);
            let refusal = TaskError::new(ErrorCode::WorkflowInvalidState, message);
            return Box::pin(async { Err(refusal) });
        }
        let (stored, done) = oneshot::channel();
        active.acks.push(stored);
        self.stop_run(key, &StopCause::Cancelled { reason }, ctx);
        Box::pin(await_ack(done))
    }
}

impl Handler<CancelTask> for ExecutionEngine {
    type Result = ResponseFuture<Result<(), TaskError>>;

    fn handle(&mut self, message: CancelTask, ctx: &mut Self::Context) -> Self::Result {
        let CancelTask { id, task, reason } = message;
        let now = self.clock.now();
        let key = self.ids.get(&id).copied();
        let Some((key, active)) = key.and_then(|key| Some((key, self.runs.get_mut(&key)?))) else {
            return Box::pin(async move { Err(not_here(&id)) });
        };
        let found = active.run.record().tasks.iter().find(|record| record.id == task);
        let Some((index, status)) = found.map(|record| (record.index, record.status)) else {
            let refusal = no_task(&id, &task);
            self.was_asked(key, ctx);
            return Box::pin(async { Err(refusal) });
        };
        let counted = active.counts(index);
        gleitzeit_failpoint::failpoint!("engine.cancel_task.before");
        if !active.run.cancel_task(index, &reason, now) {
            let message = format!("task `{task}` is {status} already");
            self.was_asked(key, ctx);
            return Box::pin(async {
                Err(TaskError::new(ErrorCode::WorkflowInvalidState, message))
            });
        }
        let (stored, done) = oneshot::channel();
        active.acks.push(stored);
        if let Some(held) = &mut active.held {
            held.was_asked = true;
        }
        self.settle_stopped(TaskKey { run: key, index }, counted, ctx);
        Box::pin(await_ack(done))
    }
}

impl ExecutionEngine {
    /// Ends the doubt about a task; the receiver hears when that is stored.
    fn resolve_unknown(
        &mut self,
        ResolveUnknown { id, task, verdict }: ResolveUnknown,
        ctx: &mut Context<Self>,
    ) -> Result<oneshot::Receiver<()>, TaskError> {
        let now = self.clock.now();
        let key = self.ids.get(&id).copied();
        let Some((key, active)) = key.and_then(|key| Some((key, self.runs.get_mut(&key)?))) else {
            return Err(not_here(&id));
        };
        let found = active.run.record().tasks.iter().find(|record| record.id == task);
        let Some(index) = found.map(|record| record.index) else {
            self.was_asked(key, ctx);
            return Err(no_task(&id, &task));
        };
        gleitzeit_failpoint::failpoint!("engine.word.before");
        let spoken = match active.run.settle_unknown(index, verdict, now) {
            Ok(spoken) => spoken,
            Err(refusal) => {
                self.was_asked(key, ctx);
                return Err(refusal);
            }
        };
        let (stored, done) = oneshot::channel();
        active.acks.push(stored);
        if let Some(held) = &mut active.held {
            held.was_asked = true;
        }
        gleitzeit_failpoint::failpoint!("engine.word.said");
        match spoken {
            Resolved::Settled => self.settle_stopped(TaskKey { run: key, index }, false, ctx),
            Resolved::Queued => {
                self.touch(key);
                self.write_changes(ctx);
                self.enqueue(key, index, ctx);
                self.pump_soon(ctx);
            }
        }
        Ok(done)
    }
}

impl Handler<ResolveUnknown> for ExecutionEngine {
    type Result = ResponseFuture<Result<(), TaskError>>;

    fn handle(&mut self, settle: ResolveUnknown, ctx: &mut Self::Context) -> Self::Result {
        match self.resolve_unknown(settle, ctx) {
            Ok(done) => Box::pin(await_ack(done)),
            Err(error) => Box::pin(async { Err(error) }),
        }
    }
}

async fn await_ack(done: oneshot::Receiver<()>) -> Result<(), TaskError> {
    let stored = done.await.map_err(|_| stopped());
    gleitzeit_failpoint::failpoint!("engine.stop_run.stored");
    stored
}

impl Handler<IsIdle> for ExecutionEngine {
    type Result = bool;

    fn handle(&mut self, _: IsIdle, _: &mut Self::Context) -> bool {
        self.counts() == EngineCounts { timers: self.timers.len(), ..EngineCounts::default() }
    }
}

impl Handler<GetEngineCounts> for ExecutionEngine {
    type Result = EngineCounts;

    fn handle(&mut self, _: GetEngineCounts, _: &mut Self::Context) -> EngineCounts {
        self.counts()
    }
}

impl ExecutionEngine {
    fn counts(&self) -> EngineCounts {
        EngineCounts {
            workflows: self.runs.len(),
            ids: self.ids.len(),
            ready_tasks: self.ready.len(),
            in_flight: self.in_flight,
            parked: self.parked,
            load: self.load,
            intake: self.intake.len(),
            finished: self.finished.len(),
            admissions: !(self.admission.is_empty() && self.admission.doubts.is_empty()),
            writes: !self.writer.is_idle(),
            timers: self.timers.len(),
            unstored_calls: self.effects.unstored().calls,
            unstored_bytes: self.effects.unstored().bytes,
        }
    }
}

impl Handler<Shutdown> for ExecutionEngine {
    type Result = ResponseFuture<StopReport>;

    fn handle(&mut self, Shutdown { deadline }: Shutdown, ctx: &mut Self::Context) -> Self::Result {
        if !matches!(self.phase, Phase::Running) {
            return Box::pin(async { StopReport { stored: true, ..StopReport::default() } });
        }
        let (answer, report) = oneshot::channel();
        self.phase = Phase::Draining(answer);
        gleitzeit_failpoint::failpoint!("engine.shutdown.begun");
        self.end_waits();
        gleitzeit_failpoint::failpoint!("engine.shutdown.waits_ended");
        ctx.run_later(deadline, Self::halt);
        self.check_drained(ctx);
        let store = Arc::clone(&self.store);
        let engine = ctx.address();
        Box::pin(async move {
            let report = report.await.unwrap_or_default();
            if let Ok(Some(epoch)) = engine.send(GiveUpLease).await {
                gleitzeit_failpoint::failpoint!("engine.lease.given_up");
                hand_over(&*store, epoch).await;
                gleitzeit_failpoint::failpoint!("engine.lease.closed");
            }
            report
        })
    }
}
