//! Takes up what a store remembers: after a crash, after a stop, or by a person's word.
//!
//! What was settled stays as it was and is not run again. What was executing runs again, unless
//! its method must not run twice and its start was stored: then a person has to say.

use std::{rc::Rc, sync::Arc};

use actix::prelude::*;
use gleitzeit_domain::{
    error::{ErrorCode, TaskError},
    graph::Settlement,
    id::WorkflowId,
    plan::{Draft, Plan},
    protocol::Effect,
    run::{Run, RunKey, TaskKey},
    store::Store,
    task::{TaskRecord, TaskStatus},
    workflow::WorkflowRecord,
};
use serde::Serialize;

use super::{Active, ExecutionEngine, Phase};
use crate::{cast::Cast, dependency_resolver::RestoreWorkflow, protocol_registry::PlanAgain};

/// Goes on with stored workflows.
///
/// # Errors
/// What the store says; `WORKFLOW_NOT_FOUND`, or `WORKFLOW_INVALID_STATE` when it is settled,
/// where one was named.
#[derive(Debug, Message)]
#[rtype(result = "Result<Recovered, TaskError>")]
pub struct Recover {
    /// This one, or all that are not settled.
    pub id: Option<WorkflowId>,
    /// Loads without running anything, as for a cancellation.
    pub hold: bool,
}

/// Runs again what did not complete in a settled workflow.
///
/// # Errors
/// `WORKFLOW_NOT_FOUND`; `WORKFLOW_INVALID_STATE` when it is not settled or all of it completed.
#[derive(Debug, Message)]
#[rtype(result = "Result<Recovered, TaskError>")]
pub struct Reopen(pub WorkflowId);

/// What was taken up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Recovered {
    /// Workflows that go on.
    pub workflows: u64,
    /// Tasks of them that are not settled.
    pub tasks: u64,
    /// Stored workflows that could not be read; the log says why.
    pub unreadable: u64,
}

/// Stored workflows, planned anew; answered once the graphs stand.
#[derive(Debug, Message)]
#[rtype(result = "ResponseVec")]
struct Adopt {
    found: Vec<(Arc<Plan>, WorkflowRecord)>,
    reopen: bool,
}

/// What [`Adopt`] leaves to be restored.
type ResponseVec = Vec<(RunKey, Arc<Plan>, Vec<TaskRecord>)>;

/// A graph stands again.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Restored {
    run: RunKey,
    settlement: Settlement,
    hold: bool,
}

fn refused(code: ErrorCode, message: String) -> TaskError {
    TaskError::new(code, message)
}

async fn load(
    store: &dyn Store,
    id: Option<&WorkflowId>,
    settled: bool,
) -> Result<Vec<WorkflowRecord>, TaskError> {
    let Some(id) = id else { return Ok(store.unsettled().await?) };
    let record = store.workflow(id).await?.ok_or_else(|| {
        refused(ErrorCode::WorkflowNotFound, format!("no workflow has the id `{id}`"))
    })?;
    if record.status.is_settled() == settled {
        return Ok(vec![record]);
    }
    let hint = if settled { "it is running or can be resumed" } else { "retry it instead" };
    let message = format!("workflow `{id}` is {}; {hint}", record.status);
    Err(refused(ErrorCode::WorkflowInvalidState, message))
}

async fn take_up(
    cast: Rc<Cast>,
    store: Arc<dyn Store>,
    id: Option<WorkflowId>,
    reopen: bool,
    hold: bool,
) -> Result<Recovered, TaskError> {
    let records = load(store.as_ref(), id.as_ref(), reopen).await?;
    let mut recovered = Recovered::default();
    let mut drafts = Vec::with_capacity(records.len());
    let mut sound = Vec::with_capacity(records.len());
    for record in records {
        match Draft::new(record.spec.as_ref().clone()) {
            Ok(draft) => {
                drafts.push(draft);
                sound.push(record);
            }
            Err(error) => {
                tracing::error!(workflow = %record.id, %error, "a stored workflow cannot be read");
                recovered.unreadable += 1;
            }
        }
    }
    let gone = |_| refused(ErrorCode::SystemShutdown, "the runtime has stopped".into());
    let plans = cast.registry.send(PlanAgain(drafts)).await.map_err(gone)?;
    let found = plans.into_iter().zip(sound).collect();
    let adopted = cast.engine.send(Adopt { found, reopen }).await.map_err(gone)?;
    for (run, plan, tasks) in adopted {
        recovered.workflows += 1;
        recovered.tasks += tasks.iter().filter(|task| !task.status.is_settled()).count() as u64;
        let id = plan.id.clone();
        match cast.resolver.send(RestoreWorkflow { run, plan, tasks }).await.map_err(gone)? {
            Ok(settlement) => cast.engine.do_send(Restored { run, settlement, hold }),
            Err(error) => {
                tracing::error!(workflow = %id, %error, "a stored workflow cannot be restored");
                recovered.unreadable += 1;
            }
        }
    }
    Ok(recovered)
}

impl ExecutionEngine {
    fn adopt(
        &mut self,
        plan: Arc<Plan>,
        mut record: WorkflowRecord,
        reopen: bool,
    ) -> Option<RunKey> {
        if self.ids.contains_key(&record.id) || !matches!(self.phase, Phase::Running) {
            return None;
        }
        let now = self.clock.now();
        let mut unknown = Vec::new();
        for task in &mut record.tasks {
            match task.status {
                TaskStatus::Executing if must_not_repeat(&plan, task.index) => {
                    unknown.push(task.index);
                }
                // It begins anew; what it began was not stored, or may run again.
                TaskStatus::Queued | TaskStatus::Executing => task.status = TaskStatus::Pending,
                _ => {}
            }
        }
        let mut run = Run::resume(plan, self.audience.clone(), record);
        for index in unknown {
            run.outcome_unknown(index, now);
        }
        if reopen && !run.reopen() {
            return None;
        }
        let key = self.new_key();
        self.ids.insert(run.id().clone(), key);
        self.load += run.record().tasks.len() as u64;
        let mut active = Active::new(run);
        if reopen {
            active.born = now;
        }
        self.runs.insert(key, Box::new(active));
        self.touch(key);
        Some(key)
    }

    fn restored(
        &mut self,
        key: RunKey,
        settlement: Settlement,
        hold: bool,
        ctx: &mut Context<Self>,
    ) {
        let now = self.clock.now();
        self.time_resumed(key, ctx);
        let Some(active) = self.runs.get_mut(&key) else { return };
        // Decided before the crash, but perhaps not stored with what decided it.
        for (index, because) in settlement.skipped {
            active.run.skip(index, because, now);
        }
        for (index, because) in settlement.failed {
            active.run.fail_dependency(index, because, now);
        }
        active.run.conclude(now);
        if !hold {
            for index in settlement.ready {
                self.take_up_task(TaskKey { run: key, index }, ctx);
            }
        }
        self.touch(key);
        self.write_changes(ctx);
        self.release(key);
        self.pump_soon(ctx);
    }

    fn take_up_task(&mut self, task: TaskKey, ctx: &mut Context<Self>) {
        let now = self.clock.now();
        let Some(active) = self.runs.get_mut(&task.run) else { return };
        let limit = active.run.plan().spec.tasks[task.index as usize].total_timeout;
        // Nobody wrote down when its first attempt was queued, so its time begins anew.
        if active.run.task(task.index).attempts > 0
            && let Some(limit) = limit
        {
            self.time_task(task, limit, ctx);
        }
        let Some(active) = self.runs.get_mut(&task.run) else { return };
        let record = active.run.task(task.index);
        match (record.status, record.due_at) {
            (TaskStatus::RetryPending, Some(due)) => {
                let pause = (due - now).to_std().unwrap_or_default();
                self.time_retry(task, pause, ctx);
            }
            (TaskStatus::Pending | TaskStatus::RetryPending, _)
                if active.run.queue(task.index, now).is_ok() =>
            {
                self.enqueue(task.run, task.index, ctx);
            }
            _ => {}
        }
    }

    /// A workflow's limit counts from when it was accepted, also over a restart; one that was
    /// opened again gets its time anew.
    fn time_resumed(&mut self, key: RunKey, ctx: &mut Context<Self>) {
        let Some(active) = self.runs.get(&key) else { return };
        let record = active.run.record();
        let Some(limit) = record.spec.timeout else { return };
        let spent = (self.clock.now() - active.born).to_std().unwrap_or_default();
        self.time_workflow(key, limit, spent, ctx);
    }
}

fn must_not_repeat(plan: &Plan, index: u32) -> bool {
    let method = plan.tasks[index as usize].method.as_ref();
    // A method that is gone since may have been of that kind.
    method.map_or(true, |method| method.spec.effect == Effect::AtMostOnce)
}

impl Handler<Recover> for ExecutionEngine {
    type Result = ResponseFuture<Result<Recovered, TaskError>>;

    fn handle(&mut self, Recover { id, hold }: Recover, _: &mut Self::Context) -> Self::Result {
        Box::pin(take_up(Rc::clone(self.cast()), Arc::clone(&self.store), id, false, hold))
    }
}

impl Handler<Reopen> for ExecutionEngine {
    type Result = ResponseFuture<Result<Recovered, TaskError>>;

    fn handle(&mut self, Reopen(id): Reopen, _: &mut Self::Context) -> Self::Result {
        let name = id.clone();
        let found = take_up(Rc::clone(self.cast()), Arc::clone(&self.store), Some(id), true, false);
        Box::pin(async move {
            let recovered = found.await?;
            if recovered.workflows == 0 {
                let message = format!("every task of workflow `{name}` completed");
                return Err(refused(ErrorCode::WorkflowInvalidState, message));
            }
            Ok(recovered)
        })
    }
}

impl Handler<Adopt> for ExecutionEngine {
    type Result = MessageResult<Adopt>;

    fn handle(&mut self, Adopt { found, reopen }: Adopt, _: &mut Self::Context) -> Self::Result {
        let mut adopted = Vec::with_capacity(found.len());
        for (plan, record) in found {
            if let Some(key) = self.adopt(Arc::clone(&plan), record, reopen) {
                let tasks = self.runs[&key].run.record().tasks.clone();
                adopted.push((key, plan, tasks));
            }
        }
        MessageResult(adopted)
    }
}

impl Handler<Restored> for ExecutionEngine {
    type Result = ();

    fn handle(&mut self, message: Restored, ctx: &mut Self::Context) {
        let Restored { run, settlement, hold } = message;
        self.restored(run, settlement, hold, ctx);
    }
}
