//! Keeps the graphs of running workflows: the order of tasks, and the values of `${…}`.
//!
//! Asked by the `ExecutionEngine` when a workflow arrives and when tasks settle, and by the pipeline
//! for the parameters of a task. Asks no other actor.
//!
//! Invariant: a task is returned as ready once, after all of its dependencies have settled as its
//! policy demands. This state is the truth about order, so the actor is not restarted after a panic:
//! the system stops and recovers from the store.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use actix::prelude::*;
pub use gleitzeit_domain::engine::{Settled, TaskOutcome};
use gleitzeit_domain::{
    decision::Decision,
    error::{ErrorCode, TaskError},
    expression::{Named, TaskValue, ValueScope},
    graph::{Graph, Settlement, StoredEnd},
    plan::Plan,
    problem::SubmitError,
    reference::{EnvValue, Scope, TaskView},
    run::{RunKey, TaskKey},
    task::{TaskRecord, TaskStatus},
};
use rustc_hash::FxHashMap;
use serde_json::{Map, Value};

/// Adds workflows; returns the tasks of each that are ready at once, and those that are decided.
///
/// # Errors
/// Each workflow has its own: [`SubmitError::Invalid`] with the circle.
#[derive(Debug, Message)]
#[rtype(result = "Vec<Result<Settlement, SubmitError>>")]
pub struct AddWorkflows(pub Vec<(RunKey, Arc<Plan>)>);

/// Adds stored workflows; returns the tasks of each that may run, and those that the outcomes of
/// others have decided.
///
/// # Errors
/// As [`AddWorkflows`].
#[derive(Debug, Message)]
#[rtype(result = "Vec<Result<Settlement, SubmitError>>")]
pub struct RestoreWorkflows(pub Vec<StoredRun>);

/// A workflow as it is stored.
#[derive(Debug)]
pub struct StoredRun {
    /// The key of the run.
    pub run: RunKey,
    /// The plan that was made from its spec.
    pub plan: Arc<Plan>,
    /// The stored tasks, in the order of the spec.
    pub tasks: Vec<TaskRecord>,
}

/// Settles tasks; returns the consequences of each, in order.
#[derive(Debug, Message)]
#[rtype(result = "Vec<(RunKey, Settlement)>")]
pub struct SettleTasks(pub Vec<Settled>);

/// Turns completed tasks into failed ones, because the store rejects their results; returns the
/// consequences of each, in order. None of their dependents has begun.
#[derive(Debug, Message)]
#[rtype(result = "Vec<(RunKey, Settlement)>")]
pub struct LoseResults(pub Vec<Settled>);

/// Returns the parameters of tasks with all references resolved.
///
/// # Errors
/// Each task has its own: `TASK_PARAMETER_ERROR`, or `TASK_CANCELLED` if the workflow is gone.
#[derive(Debug, Message)]
#[rtype(result = "Vec<Result<Arc<Value>, TaskError>>")]
pub struct ResolveParameters(pub Vec<TaskKey>);

/// Removes workflows.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct RemoveWorkflows(pub Vec<RunKey>);

/// Returns how many workflows are kept.
#[derive(Debug, Message)]
#[rtype(result = "usize")]
pub struct CountWorkflows;

/// The actor. One per system, on the control arbiter.
#[derive(Debug)]
pub struct DependencyResolver {
    runs: FxHashMap<RunKey, Known>,
    env: Arc<HashMap<String, Option<String>>>,
}

#[derive(Debug)]
struct Known {
    plan: Arc<Plan>,
    graph: Graph,
    /// By index; only of tasks that unsettled ones depend on.
    outcomes: FxHashMap<u32, Kept>,
}

/// The outcome of a task, while others need it.
#[derive(Debug)]
struct Kept {
    outcome: TaskOutcome,
    /// Dependents that are not settled: an attempt of each may still refer to it.
    needed_by: usize,
}

impl Known {
    /// Keeps an outcome for the tasks that may still refer to it.
    fn keep(&mut self, task: u32, outcome: TaskOutcome) {
        let dependents = self.graph.dependents(task).iter();
        let needed_by = dependents.filter(|task| !self.graph.is_settled(**task)).count();
        // Kept without a dependent, an outcome would stay until the end of the workflow: results of
        // thousands of tasks may be larger than the memory.
        if needed_by > 0 {
            self.outcomes.insert(task, Kept { outcome, needed_by });
        }
    }

    /// Drops the outcomes that only this task needed, which has settled now.
    fn release(&mut self, task: u32) {
        for before in self.graph.dependencies(task) {
            if let Some(kept) = self.outcomes.get_mut(before) {
                kept.needed_by -= 1;
                if kept.needed_by == 0 {
                    self.outcomes.remove(before);
                }
            }
        }
    }
}

impl Known {
    /// Releases what the tasks of a settlement needed that never run.
    fn release_decided(&mut self, settlement: &Settlement) {
        let Settlement { upstream_failed, skipped, failed, .. } = settlement;
        for (decided, _) in upstream_failed.iter().chain(skipped).chain(failed) {
            self.release(*decided);
        }
        if !self.plan.has_decisions() {
            return;
        }
        // A condition may ask how any task ended.
        let ends = [
            (upstream_failed, TaskStatus::UpstreamFailed),
            (skipped, TaskStatus::Skipped),
            (failed, TaskStatus::Failed),
        ];
        for (tasks, status) in ends {
            for (task, _) in tasks {
                self.keep(*task, TaskOutcome::decided(status, None, None));
            }
        }
    }

    /// Decides ready tasks that have a condition or need no call, and those that become ready by
    /// that. What is left as ready is to be called.
    fn decide_ready(&mut self, env: &HashMap<String, Option<String>>, settlement: &mut Settlement) {
        if !self.plan.has_decisions() {
            return;
        }
        let plan = Arc::clone(&self.plan);
        let mut called = Vec::with_capacity(settlement.ready.len());
        // A list and not a recursion: a chain of values may be as long as the workflow.
        let mut waiting: VecDeque<u32> = settlement.ready.drain(..).collect();
        while let Some(task) = waiting.pop_front() {
            let decider = plan.tasks[task as usize].decider.as_ref();
            let Some(decision) = decider.and_then(|it| it.decide(&RunScope { known: self, env }))
            else {
                called.push(task);
                continue;
            };
            let mut follows = Settlement::default();
            let outcome = match &decision {
                Decision::Completed(value) => {
                    self.graph.settle_into(task, true, &mut follows);
                    TaskOutcome::decided(TaskStatus::Completed, Some(Arc::clone(value)), None)
                }
                Decision::Failed(error) => {
                    self.graph.settle_into(task, false, &mut follows);
                    TaskOutcome::decided(TaskStatus::Failed, None, Some(Arc::new(error.clone())))
                }
                Decision::Skipped(_) => {
                    self.graph.skip_into(task, &mut follows);
                    TaskOutcome::decided(TaskStatus::Skipped, None, None)
                }
            };
            self.release(task);
            self.release_decided(&follows);
            self.keep(task, outcome);
            waiting.extend(follows.ready);
            settlement.upstream_failed.extend(follows.upstream_failed);
            settlement.skipped.extend(follows.skipped);
            settlement.failed.extend(follows.failed);
            settlement.decided.push((task, decision));
        }
        settlement.ready = called;
    }
}

/// How a task ended, for the graph.
fn stored_end(task: &TaskRecord) -> StoredEnd {
    let because = task.error.as_ref().map(|error| error.code);
    match task.status {
        TaskStatus::Completed => StoredEnd::Completed,
        TaskStatus::Skipped => StoredEnd::Skipped,
        TaskStatus::UpstreamFailed => StoredEnd::UpstreamFailed,
        _ if because == Some(ErrorCode::TaskDependencyFailed) => StoredEnd::DependencyFailed,
        _ => StoredEnd::Failed,
    }
}

impl DependencyResolver {
    /// A resolver without workflows. `env` holds the variables that `${env.X}` may read; a name
    /// without a value is listed in the settings, but not set.
    pub fn new(env: HashMap<String, Option<String>>) -> Self {
        Self { runs: FxHashMap::default(), env: Arc::new(env) }
    }

    fn restore(
        &mut self,
        StoredRun { run, plan, tasks }: StoredRun,
    ) -> Result<Settlement, SubmitError> {
        let mut graph = plan.graph()?;
        let settled = || tasks.iter().filter(|task| task.status.is_settled());
        let ends: Vec<(u32, StoredEnd)> =
            settled().map(|task| (task.index, stored_end(task))).collect();
        let mut settlement = graph.restore(&ends);
        let mut known = Known { plan, graph, outcomes: FxHashMap::default() };
        // After the graph is restored: the count of dependents leaves out those that are settled.
        for task in settled() {
            known.keep(task.index, TaskOutcome::from(task));
        }
        // Decided before the crash as well: the same data give the same decision.
        known.decide_ready(&self.env, &mut settlement);
        self.runs.insert(run, known);
        Ok(settlement)
    }

    fn resolve(&self, task: TaskKey) -> Result<Arc<Value>, TaskError> {
        let known = self
            .runs
            .get(&task.run)
            .ok_or_else(|| TaskError::new(ErrorCode::TaskCancelled, "the workflow was stopped"))?;
        let view = RunScope { known, env: &self.env };
        known.plan.tasks[task.index as usize].template.render(&view).map_err(TaskError::from)
    }
}

struct RunScope<'a> {
    known: &'a Known,
    env: &'a HashMap<String, Option<String>>,
}

impl Scope for RunScope<'_> {
    fn task(&self, index: u32) -> Option<TaskView<'_>> {
        self.known.outcomes.get(&index).map(|Kept { outcome, .. }| TaskView {
            status: outcome.status,
            result: outcome.result.as_deref(),
            error: outcome.error.as_deref(),
            duration: outcome.duration,
            provider_id: outcome.provider_id.as_ref(),
        })
    }

    fn inputs(&self) -> &Map<String, Value> {
        &self.known.plan.spec.inputs
    }

    fn spelling(&self, pointer: &str) -> Option<&str> {
        self.known.plan.spec.spellings.get(pointer).map(String::as_str)
    }

    fn workflow_id(&self) -> &str {
        self.known.plan.id.as_str()
    }

    fn workflow_name(&self) -> &str {
        &self.known.plan.name
    }

    fn env(&self, name: &str) -> EnvValue<'_> {
        match self.env.get(name) {
            Some(Some(value)) => EnvValue::Set(value),
            Some(None) => EnvValue::Unset,
            None => EnvValue::NotListed,
        }
    }
}

impl ValueScope for RunScope<'_> {
    fn name(&self, name: &str) -> Option<Named<'_>> {
        let plan = &self.known.plan;
        match name {
            "inputs" => Some(Named::Fields(&plan.spec.inputs)),
            "workflow" => Some(Named::Texts(vec![("id", plan.id.as_str()), ("name", &plan.name)])),
            _ => None,
        }
    }

    fn task(&self, index: u32) -> Option<TaskValue<'_>> {
        self.known.outcomes.get(&index).map(|Kept { outcome, .. }| TaskValue {
            status: outcome.status,
            result: outcome.result.as_deref(),
            // Of a task that never ran it names what failed, which is not kept here: a decision must
            // be the same before a crash and after it.
            error: outcome.error.as_deref().filter(|it| it.code != ErrorCode::TaskDependencyFailed),
        })
    }
}

impl Actor for DependencyResolver {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(crate::MAILBOX);
    }
}

impl Supervised for DependencyResolver {}

impl Handler<AddWorkflows> for DependencyResolver {
    type Result = MessageResult<AddWorkflows>;

    fn handle(&mut self, AddWorkflows(new): AddWorkflows, _: &mut Self::Context) -> Self::Result {
        let add = |(run, plan): (RunKey, Arc<Plan>)| {
            let graph = plan.graph()?;
            let mut settlement = Settlement { ready: graph.ready(), ..Settlement::default() };
            let mut known = Known { plan, graph, outcomes: FxHashMap::default() };
            known.decide_ready(&self.env, &mut settlement);
            self.runs.insert(run, known);
            Ok(settlement)
        };
        MessageResult(new.into_iter().map(add).collect())
    }
}

impl Handler<RestoreWorkflows> for DependencyResolver {
    type Result = MessageResult<RestoreWorkflows>;

    fn handle(
        &mut self,
        RestoreWorkflows(stored): RestoreWorkflows,
        _: &mut Self::Context,
    ) -> Self::Result {
        MessageResult(stored.into_iter().map(|one| self.restore(one)).collect())
    }
}

impl Handler<SettleTasks> for DependencyResolver {
    type Result = MessageResult<SettleTasks>;

    fn handle(&mut self, SettleTasks(settled): SettleTasks, _: &mut Self::Context) -> Self::Result {
        let settle = |Settled { task, outcome }: Settled| {
            let known = self.runs.get_mut(&task.run)?;
            let completed = outcome.status == TaskStatus::Completed;
            // Cancelled meanwhile, or answered twice: settled again, it would release its
            // dependents once more.
            if known.graph.is_settled(task.index) {
                return Some((task.run, Settlement::default()));
            }
            let mut settlement = known.graph.settle(task.index, completed);
            known.release(task.index);
            known.release_decided(&settlement);
            // After the consequences: a dependent that they have settled never refers to it, and the
            // count would never reach zero.
            known.keep(task.index, outcome);
            known.decide_ready(&self.env, &mut settlement);
            Some((task.run, settlement))
        };
        MessageResult(settled.into_iter().filter_map(settle).collect())
    }
}

impl Handler<LoseResults> for DependencyResolver {
    type Result = MessageResult<LoseResults>;

    fn handle(&mut self, LoseResults(lost): LoseResults, _: &mut Self::Context) -> Self::Result {
        let forget = |Settled { task, outcome }: Settled| {
            let known = self.runs.get_mut(&task.run)?;
            let mut settlement = known.graph.lose_result(task.index);
            // The rejected result must not reach a dependent that runs in spite of the failure.
            known.outcomes.remove(&task.index);
            known.release_decided(&settlement);
            known.keep(task.index, outcome);
            known.decide_ready(&self.env, &mut settlement);
            Some((task.run, settlement))
        };
        MessageResult(lost.into_iter().filter_map(forget).collect())
    }
}

impl Handler<ResolveParameters> for DependencyResolver {
    type Result = MessageResult<ResolveParameters>;

    fn handle(
        &mut self,
        ResolveParameters(tasks): ResolveParameters,
        _: &mut Self::Context,
    ) -> Self::Result {
        MessageResult(tasks.into_iter().map(|task| self.resolve(task)).collect())
    }
}

impl Handler<RemoveWorkflows> for DependencyResolver {
    type Result = ();

    fn handle(&mut self, RemoveWorkflows(runs): RemoveWorkflows, _: &mut Self::Context) {
        for run in runs {
            self.runs.remove(&run);
        }
        if self.runs.is_empty() {
            // A map never shrinks by itself: after a burst it would keep its largest size for ever.
            self.runs.shrink_to(64);
        }
    }
}

impl Handler<CountWorkflows> for DependencyResolver {
    type Result = usize;

    fn handle(&mut self, _: CountWorkflows, _: &mut Self::Context) -> usize {
        self.runs.len()
    }
}
