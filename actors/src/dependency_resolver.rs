//! Keeps the graphs of running workflows: the order of tasks, and the values of `${…}`.
//!
//! Asked by the `ExecutionEngine` when a workflow arrives and when tasks settle, and by the pipeline
//! for the parameters of a task. Asks no other actor.
//!
//! Invariant: a task is returned as ready once, after all of its dependencies have settled as its
//! policy demands. This state is the truth about order, so the actor is not restarted after a panic:
//! the system stops and recovers from the store.

use std::{collections::HashMap, sync::Arc};

use actix::prelude::*;
pub use gleitzeit_domain::engine::{Settled, TaskOutcome};
use gleitzeit_domain::{
    error::{ErrorCode, TaskError},
    graph::{Graph, Settlement},
    plan::Plan,
    problem::SubmitError,
    reference::{EnvValue, Scope, TaskView},
    run::{RunKey, TaskKey},
    task::{TaskRecord, TaskStatus},
};
use rustc_hash::FxHashMap;
use serde_json::{Map, Value};

/// Adds workflows; returns the tasks of each that are ready at once.
///
/// # Errors
/// Each workflow has its own: [`SubmitError::Invalid`] with the circle.
#[derive(Debug, Message)]
#[rtype(result = "Vec<Result<Vec<u32>, SubmitError>>")]
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
        // A task that was decided by others is decided again by them: restored as settled by itself,
        // it would count twice, and its dependents would get another cause.
        let by_itself = |task: &&TaskRecord| {
            let because = task.error.as_ref().map(|error| error.code);
            task.status != TaskStatus::Skipped && because != Some(ErrorCode::TaskDependencyFailed)
        };
        let flags: Vec<(u32, bool)> = settled()
            .filter(by_itself)
            .map(|task| (task.index, task.status == TaskStatus::Completed))
            .collect();
        let settlement = graph.restore(&flags);
        let mut known = Known { plan, graph, outcomes: FxHashMap::default() };
        // After the graph is restored: the count of dependents leaves out those that are settled.
        for task in settled() {
            known.keep(task.index, TaskOutcome::from(task));
        }
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
            let ready = graph.ready();
            self.runs.insert(run, Known { plan, graph, outcomes: FxHashMap::default() });
            Ok(ready)
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
            let settlement = known.graph.settle(task.index, completed);
            known.release(task.index);
            for (decided, _) in settlement.skipped.iter().chain(&settlement.failed) {
                known.release(*decided);
            }
            // After the consequences: a dependent that they have settled never refers to it, and the
            // count would never reach zero.
            known.keep(task.index, outcome);
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
            let settlement = known.graph.lose_result(task.index);
            // The rejected result must not reach a dependent that runs in spite of the failure.
            known.outcomes.remove(&task.index);
            for (decided, _) in settlement.skipped.iter().chain(&settlement.failed) {
                known.release(*decided);
            }
            known.keep(task.index, outcome);
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
