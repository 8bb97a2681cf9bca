//! From a workflow as submitted to one that can run.
//!
//! There are two steps, so that the long one needs no actor. [`Draft::new`] checks the shape and
//! finds the references, in the caller's thread. [`Draft::plan`] looks up the methods and checks
//! parameters, in the `ProtocolRegistry`. The resolver finds cycles. Each step stops at its own
//! findings; [`problems`] runs all of them, for a person who wants every finding at once.

mod advice;
mod check;
mod conditions;
mod draft;
mod limit;
mod names;
mod pointer;
mod resolve;
#[cfg(test)]
mod tests;

use std::{collections::HashSet, sync::Arc, time::Duration};

use crate::{
    decision::Decider,
    error::{ErrorCode, TaskError},
    graph::{EdgeKind, Graph},
    id::{Capability, ProtocolId, TaskId, Version, WorkflowId},
    needs::Needs,
    problem::{Problem, SubmitError},
    protocol::{Effect, MethodRef, catalog::ProtocolCatalog},
    reference::Template,
    resources::Resources,
    retry::RetryPolicy,
    workflow::WorkflowSpec,
};

pub use advice::advice;
pub use draft::{Draft, DraftTask};

/// More first tasks than this do not begin before their workflow is stored.
const EARLY_MAX: usize = 256;

/// The policies of a task if neither it nor its method sets them.
#[derive(Debug, Clone)]
pub struct PlanDefaults {
    /// The limit of one attempt.
    pub timeout: Duration,
    /// When and how often a failed attempt is repeated.
    pub retry: Arc<RetryPolicy>,
    /// Names that `${env.X}` may read; `None` allows all.
    pub env: Option<Arc<HashSet<String>>>,
}

impl Default for PlanDefaults {
    fn default() -> Self {
        let retry = Arc::new(RetryPolicy::never());
        Self { timeout: Duration::from_mins(5), retry, env: None }
    }
}

/// A workflow that can run.
#[derive(Debug)]
pub struct Plan {
    /// The id.
    pub id: WorkflowId,
    /// True when the id was made up: nothing else can have it.
    pub has_new_id: bool,
    /// The name for a person.
    pub name: Arc<str>,
    /// The spec as submitted.
    pub spec: Arc<WorkflowSpec>,
    /// The tasks, by index.
    pub tasks: Vec<PlannedTask>,
    /// `(task, depends on)`.
    pub edges: Vec<(u32, u32)>,
    /// What edges ask; empty where no task has a condition.
    pub kinds: Vec<(u32, u32, EdgeKind)>,
    /// Some task has a condition, or is decided without a call.
    has_decisions: bool,
    /// The methods that the process that runs it must know.
    pub needs: Needs,
}

/// A stored workflow, planned by a process that may not be the one that accepted it.
#[derive(Debug)]
pub struct Replanned {
    /// The plan; a method that is not known here is an error in its task.
    pub plan: Plan,
    /// The reasons why this process cannot run the open tasks; empty if it can.
    pub problems: Vec<Problem>,
}

/// One task of a [`Plan`].
#[derive(Debug)]
pub struct PlannedTask {
    /// The id.
    pub id: TaskId,
    /// The name for people.
    pub name: Arc<str>,
    /// The method that it calls; an error if a stored workflow's method no longer exists.
    pub method: Result<MethodRef, Arc<TaskError>>,
    /// What is decided about it without a call.
    pub decider: Option<Box<Decider>>,
    /// The parameters.
    pub template: Template,
    /// The limit of one attempt.
    pub timeout: Duration,
    /// When and how often a failed attempt is repeated.
    pub retry: Arc<RetryPolicy>,
    /// The resources of one attempt.
    pub need: Resources,
}

impl PlannedTask {
    /// True unless its call changes nothing outside. A method that is gone is never called.
    pub fn has_effect(&self) -> bool {
        self.method.as_ref().is_ok_and(|method| method.spec.effect != Effect::Pure)
    }

    /// The method that it calls, for events.
    pub fn capability(&self) -> Arc<Capability> {
        match &self.method {
            Ok(method) => Arc::clone(&method.capability),
            Err(_) => {
                Arc::new(Capability::new(ProtocolId::new("unknown", Version::default()), "unknown"))
            }
        }
    }
}

impl Plan {
    /// True if these tasks may run before the workflow is stored. If it is never stored, they leave
    /// no trace, because they have no effect outside; and none of them has completed before,
    /// because no other submission has the same id. More than `EARLY_MAX` tasks wait: their
    /// outcomes in one write would delay the writes of others.
    pub fn may_begin_early(&self, tasks: &[u32]) -> bool {
        // A decision that is not stored yet may follow from what has not begun.
        if !self.has_new_id || tasks.len() > EARLY_MAX || self.has_decisions() {
            return false;
        }
        let is_pure = |index: &u32| {
            let method = self.tasks[*index as usize].method.as_ref();
            method.is_ok_and(|method| method.spec.effect == Effect::Pure)
        };
        tasks.iter().all(is_pure)
    }

    /// The graph of its tasks.
    ///
    /// # Errors
    /// [`SubmitError::Invalid`] with the tasks that wait for each other in a circle.
    pub fn graph(&self) -> Result<Graph, SubmitError> {
        let graph = graph(&self.spec, &self.edges);
        let graph = graph.map_err(|problem| SubmitError::Invalid(vec![problem]))?;
        Ok(if self.has_decisions() { graph.with_kinds(&self.kinds) } else { graph })
    }

    /// True if some task has a condition, or is decided without a call.
    pub fn has_decisions(&self) -> bool {
        self.has_decisions
    }
}

/// Everything that keeps a workflow from being accepted: its shape, its methods and parameters, its
/// circles.
pub fn problems(spec: &WorkflowSpec, catalog: &ProtocolCatalog) -> Vec<Problem> {
    let (draft, mut problems) = Draft::read(spec.clone());
    problems.extend(draft.problems(catalog));
    problems
}

/// The same for a workflow that any process with its methods may run: a method that is unknown here
/// is no reason to reject it.
pub fn problems_for_others(spec: &WorkflowSpec, catalog: &ProtocolCatalog) -> Vec<Problem> {
    let (draft, mut problems) = Draft::read(spec.clone());
    problems.extend(draft.resolve_for_others(catalog).2);
    problems.extend(draft.circle());
    problems
}

/// The graph of `(task, depends on)`, or which tasks wait for each other in a circle.
fn graph(spec: &WorkflowSpec, edges: &[(u32, u32)]) -> Result<Graph, Problem> {
    let policies: Vec<_> = spec.tasks.iter().map(|task| task.on_dependency_failure).collect();
    Graph::build(&policies, edges.iter().copied()).map_err(|cycle| {
        let name = |index: &u32| spec.tasks[*index as usize].id.as_str();
        let circle: Vec<&str> = cycle.path.iter().map(name).collect();
        let first = cycle.path.first().copied().unwrap_or_default();
        Problem::new(
            ErrorCode::WorkflowCircularDependency,
            format!("/tasks/{first}"),
            format!("tasks wait for each other in a circle: {}", circle.join(" → ")),
        )
        .help("remove one of these dependencies or references")
    })
}
