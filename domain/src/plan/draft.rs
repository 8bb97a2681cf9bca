//! The first step: checks the shape of a workflow and finds the references in its parameters.

use std::sync::Arc;

use super::{
    conditions, graph,
    names::Names,
    pointer::{at, invalid},
};
use crate::{
    decision::Decider,
    graph::EdgeKind,
    id::{TaskId, WorkflowId},
    problem::{Problem, SubmitError, push_pointer},
    reference::{ReferenceError, ReferenceFault, Root, Template},
    workflow::WorkflowSpec,
};

/// At most this many unknown names are answered with the nearest known one: each costs a pass over
/// all tasks.
const HINTS_MAX: usize = 20;

/// A workflow whose shape is sound: ids unique, names known, references found.
#[derive(Debug)]
pub struct Draft {
    /// The id, generated if the spec has none.
    pub id: WorkflowId,
    /// True when the id was made up: nothing else can have it.
    pub has_new_id: bool,
    /// True where another process may run it: what it may read of the environment is not known here.
    pub runs_elsewhere: bool,
    /// The spec, with every id filled in.
    pub spec: Arc<WorkflowSpec>,
    /// Each task's id, name and parameters.
    pub tasks: Vec<DraftTask>,
    /// `(task, depends on)`, explicit and implied by references.
    pub edges: Vec<(u32, u32)>,
    /// What edges ask; empty where no task has a condition.
    pub kinds: Vec<(u32, u32, EdgeKind)>,
}

/// One task of a [`Draft`].
#[derive(Debug)]
pub struct DraftTask {
    /// The id.
    pub id: TaskId,
    /// The name for people.
    pub name: Arc<str>,
    /// The parameters, with references found and bound.
    pub template: Template,
    /// What is decided about it without a call.
    pub decider: Option<Box<Decider>>,
}

impl Draft {
    /// Checks the shape and finds the references.
    ///
    /// # Errors
    /// [`SubmitError::Invalid`] with everything that is wrong with them.
    pub fn new(spec: WorkflowSpec) -> Result<Self, SubmitError> {
        let (draft, problems) = Self::read(spec);
        if problems.is_empty() { Ok(draft) } else { Err(SubmitError::Invalid(problems)) }
    }

    /// The same, with a draft of what is sound beside what is wrong.
    pub fn read(mut spec: WorkflowSpec) -> (Self, Vec<Problem>) {
        let mut problems = Vec::new();
        check_workflow(&spec, &mut problems);
        // It is kept as long as the workflow runs; what read or built it left room for more.
        spec.tasks.shrink_to_fit();
        for (index, task) in spec.tasks.iter_mut().enumerate() {
            if task.id.is_empty() {
                task.id = format!("task-{}", index + 1);
            }
        }
        let names = Names::new(&spec, &mut problems);
        let mut tasks = Vec::with_capacity(spec.tasks.len());
        let mut edges = Vec::new();
        let (mut kinds, has_conditions) = (Vec::new(), conditions::has_any(&spec));
        let mut decided = Vec::new();
        for index in 0..spec.tasks.len() {
            check_task(&spec, index, &mut problems);
            let asked = has_conditions.then_some(&mut kinds);
            depend(&spec, index, &names, &mut edges, asked, &mut problems);
            let mut task = draft_task(&spec, index, &names, &mut edges, &mut problems);
            task.decider = conditions::read(&spec, index, &names, &mut decided, &mut problems);
            if has_conditions {
                let this = u32::try_from(index).unwrap_or(u32::MAX);
                edges.extend(decided.iter().map(|(on, _)| (this, *on)));
                kinds.extend(decided.drain(..).map(|(on, kind)| (this, on, kind)));
                kinds.extend(reference_kinds(this, &task.template));
            }
            tasks.push(task);
        }
        let has_new_id = spec.id.is_none();
        let id = spec.id.get_or_insert_with(WorkflowId::generate).clone();
        let runs_elsewhere = false;
        (
            Self { id, has_new_id, runs_elsewhere, spec: Arc::new(spec), tasks, edges, kinds },
            problems,
        )
    }

    /// Tasks that wait for each other in a circle.
    pub(crate) fn circle(&self) -> Option<Problem> {
        graph(&self.spec, &self.edges).err()
    }
}

/// What the references of a task ask: its result, unless there is a fallback for that.
fn reference_kinds(
    this: u32,
    template: &Template,
) -> impl Iterator<Item = (u32, u32, EdgeKind)> + '_ {
    template.references().filter_map(move |reference| {
        let needs_value =
            matches!(reference.root(), Root::Result(_)) && reference.fallback().is_none();
        let kind = if needs_value { EdgeKind::Value } else { EdgeKind::After };
        Some((this, reference.task()?, kind))
    })
}

fn check_workflow(spec: &WorkflowSpec, problems: &mut Vec<Problem>) {
    if spec.name.trim().is_empty() {
        problems.push(invalid("/name".into(), "a workflow needs a name".into()));
    }
    if spec.tasks.is_empty() {
        problems.push(invalid("/tasks".into(), "a workflow needs at least one task".into()));
    }
    if u32::try_from(spec.tasks.len()).is_err() {
        problems.push(invalid("/tasks".into(), "more tasks than can be counted".into()));
    }
    if spec.id.as_ref().is_some_and(|id| id.as_str().is_empty()) {
        problems.push(invalid("/id".into(), "an id must not be empty".into()));
    }
    if spec.max_parallel_tasks == Some(0) {
        let message = "`max_parallel_tasks` is 0: nothing would ever run; expected at least 1";
        problems.push(invalid("/max_parallel_tasks".into(), message.into()));
    }
    if spec.timeout.is_some_and(|limit| limit.is_zero()) {
        problems.push(invalid("/timeout".into(), "a timeout must be above 0 seconds".into()));
    }
}

fn check_task(spec: &WorkflowSpec, index: usize, problems: &mut Vec<Problem>) {
    let task = &spec.tasks[index];
    for (field, limit) in [("timeout", task.timeout), ("total_timeout", task.total_timeout)] {
        if limit.is_some_and(|limit| limit.is_zero()) {
            problems.push(invalid(at(index, field), "a timeout must be above 0 seconds".into()));
        }
    }
    if task.retry.as_ref().is_some_and(|retry| retry.max_attempts == 0) {
        let message = "`max_attempts` is 0; expected at least 1, the first attempt included";
        problems.push(invalid(at(index, "retry/max_attempts"), message.into()));
    }
    let cores = task.resources.as_ref().and_then(|need| need.cpu_cores);
    if let Some(cores) = cores.filter(|cores| !cores.is_finite() || *cores < 0.0) {
        let message = format!("`cpu_cores` is {cores}; expected a number from 0");
        problems.push(invalid(at(index, "resources/cpu_cores"), message));
    }
}

fn depend(
    spec: &WorkflowSpec,
    index: usize,
    names: &Names<'_>,
    edges: &mut Vec<(u32, u32)>,
    mut kinds: Option<&mut Vec<(u32, u32, EdgeKind)>>,
    problems: &mut Vec<Problem>,
) {
    let this = u32::try_from(index).unwrap_or(u32::MAX);
    for (nth, wanted) in spec.tasks[index].dependencies.iter().enumerate() {
        if let Some(target) = names.find(wanted) {
            edges.push((this, target));
            if let Some(kinds) = &mut kinds {
                kinds.push((this, target, EdgeKind::After));
            }
        } else {
            let mut pointer = at(index, "dependencies");
            push_pointer(&mut pointer, &nth.to_string());
            problems.push(names.complain(wanted, pointer, problems.len() < HINTS_MAX));
        }
    }
}

fn draft_task(
    spec: &WorkflowSpec,
    index: usize,
    names: &Names<'_>,
    edges: &mut Vec<(u32, u32)>,
    problems: &mut Vec<Problem>,
) -> DraftTask {
    let task = &spec.tasks[index];
    let this = u32::try_from(index).unwrap_or(u32::MAX);
    let base = at(index, "parameters");
    // Each suggestion costs a pass over all tasks.
    let mut hints = HINTS_MAX.saturating_sub(problems.len());
    let mut complain = |errors: Vec<ReferenceError>| {
        problems.extend(errors.into_iter().map(|mut error| {
            if let ReferenceFault::UnknownTask { .. } = error.fault
                && let Some(name) = names.ambiguous(&error.text)
            {
                error.fault = ReferenceFault::Ambiguous { name: name.to_owned() };
            }
            error.to_problem(&base)
        }));
    };
    let template = match Template::parse(Arc::clone(&task.parameters)) {
        Ok(mut template) => {
            let known = || {
                let most = if hints > 0 { spec.tasks.len() } else { 0 };
                hints = hints.saturating_sub(1);
                spec.tasks.iter().take(most).map(|task| task.id.as_str())
            };
            if let Err(errors) = template.bind(&mut |name| names.find(name), known) {
                complain(errors);
            }
            edges.extend(template.tasks().map(|target| (this, target)));
            template
        }
        Err(errors) => {
            complain(errors);
            Template::literal(Arc::clone(&task.parameters))
        }
    };
    let id = TaskId::from(task.id.as_str());
    let name = match &task.name {
        Some(name) => name.as_str().into(),
        None => id.shared(),
    };
    DraftTask { id, name, template, decider: None }
}
