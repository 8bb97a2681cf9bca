//! From a workflow as submitted to one that can run.
//!
//! Two steps, so that the long one needs no actor: [`Draft::new`] checks the shape and finds the
//! references, in the caller's thread; [`Draft::plan`] looks up the methods and checks parameters,
//! in the `ProtocolRegistry`. Circles are the resolver's to find. Each step stops at what it finds;
//! [`problems`] goes on through all of them, for a person who wants to know everything at once.

mod advice;
mod limit;
#[cfg(test)]
mod tests;

pub use advice::advice;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use crate::{
    error::{ErrorCode, TaskError},
    graph::Graph,
    id::{Capability, ProtocolId, TaskId, Version, WorkflowId},
    needs::Needs,
    problem::{Problem, SubmitError, push_pointer},
    protocol::{
        Effect, Method, MethodRef, builtin,
        catalog::{ProtocolCatalog, names_version, unknown_need},
    },
    reference::{ReferenceError, ReferenceFault, Root, Template, has_reference},
    resources::Resources,
    retry::RetryPolicy,
    workflow::{TaskSpec, WorkflowSpec},
};

/// So many unknown names are answered with the nearest known one: each costs a look at all tasks.
const HINTS_MAX: usize = 20;

/// More first tasks than this do not begin before their workflow is stored.
const EARLY_MAX: usize = 256;

/// What a task gets where neither it nor its method says anything.
#[derive(Debug, Clone)]
pub struct PlanDefaults {
    /// The limit of one attempt.
    pub timeout: Duration,
    /// When and how often a failed attempt is repeated.
    pub retry: Arc<RetryPolicy>,
    /// Names that `${env.X}` may read; any where absent.
    pub env: Option<Arc<HashSet<String>>>,
}

impl Default for PlanDefaults {
    fn default() -> Self {
        let retry = Arc::new(RetryPolicy::never());
        Self { timeout: Duration::from_mins(5), retry, env: None }
    }
}

/// A workflow whose shape is sound: ids unique, names known, references found.
#[derive(Debug)]
pub struct Draft {
    /// Its id, made up where the spec has none.
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
}

/// One task of a [`Draft`].
#[derive(Debug)]
pub struct DraftTask {
    /// Its id.
    pub id: TaskId,
    /// Its name for a person.
    pub name: Arc<str>,
    /// Its parameters, with references found and bound.
    pub template: Template,
}

/// A workflow that can run.
#[derive(Debug)]
pub struct Plan {
    /// Its id.
    pub id: WorkflowId,
    /// True when the id was made up: nothing else can have it.
    pub has_new_id: bool,
    /// Its name for a person.
    pub name: Arc<str>,
    /// What was submitted.
    pub spec: Arc<WorkflowSpec>,
    /// The tasks, by index.
    pub tasks: Vec<PlannedTask>,
    /// `(task, depends on)`.
    pub edges: Vec<(u32, u32)>,
    /// What the process that runs it must know.
    pub needs: Needs,
}

/// A stored workflow, planned by a process that may not be the one that accepted it.
#[derive(Debug)]
pub struct Replanned {
    /// The plan; a method that is not known here is an error in its task.
    pub plan: Plan,
    /// Why this process cannot run what is left of it; empty where it can.
    pub problems: Vec<Problem>,
}

/// One task of a [`Plan`].
#[derive(Debug)]
pub struct PlannedTask {
    /// Its id.
    pub id: TaskId,
    /// Its name for a person.
    pub name: Arc<str>,
    /// What it calls; an error where a stored workflow's method is gone since.
    pub method: Result<MethodRef, Arc<TaskError>>,
    /// Its parameters.
    pub template: Template,
    /// The limit of one attempt.
    pub timeout: Duration,
    /// When and how often a failed attempt is repeated.
    pub retry: Arc<RetryPolicy>,
    /// What one attempt takes.
    pub need: Resources,
}

impl PlannedTask {
    /// True unless its call changes nothing outside. A method that is gone is never called.
    pub fn has_effect(&self) -> bool {
        self.method.as_ref().is_ok_and(|method| method.spec.effect != Effect::Pure)
    }

    /// What it calls, for events.
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
    /// True when these tasks may run before the workflow is stored. Should it never be, nothing is
    /// left of them, for they have no effect outside; and none of them has completed before, for
    /// no other submission has the same id. Many wait: their outcomes in one write behind it would
    /// hold up what others write.
    pub fn may_begin_early(&self, tasks: &[u32]) -> bool {
        if !self.has_new_id || tasks.len() > EARLY_MAX {
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
        graph(&self.spec, &self.edges).map_err(|problem| SubmitError::Invalid(vec![problem]))
    }
}

fn at(index: usize, field: &str) -> String {
    format!("/tasks/{index}/{field}")
}

fn invalid(pointer: String, message: String) -> Problem {
    Problem::new(ErrorCode::WorkflowValidationFailed, pointer, message)
}

/// Everything that keeps a workflow from being accepted: its shape, its methods and parameters, its
/// circles.
pub fn problems(spec: &WorkflowSpec, catalog: &ProtocolCatalog) -> Vec<Problem> {
    let (draft, mut problems) = Draft::read(spec.clone());
    problems.extend(draft.problems(catalog));
    problems
}

/// The same for a workflow that whichever process knows its methods takes up: that a method is not
/// known here keeps nobody from accepting it.
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
        for index in 0..spec.tasks.len() {
            check_task(&spec, index, &mut problems);
            depend(&spec, index, &names, &mut edges, &mut problems);
            tasks.push(draft_task(&spec, index, &names, &mut edges, &mut problems));
        }
        let has_new_id = spec.id.is_none();
        let id = spec.id.get_or_insert_with(WorkflowId::generate).clone();
        let runs_elsewhere = false;
        (Self { id, has_new_id, runs_elsewhere, spec: Arc::new(spec), tasks, edges }, problems)
    }

    /// Tasks that wait for each other in a circle.
    pub(crate) fn circle(&self) -> Option<Problem> {
        graph(&self.spec, &self.edges).err()
    }

    /// Everything wrong with its methods, its parameters and its order.
    pub fn problems(&self, catalog: &ProtocolCatalog) -> Vec<Problem> {
        let mut problems = Vec::new();
        self.resolve_methods(catalog, &mut problems);
        problems.extend(self.circle());
        problems
    }

    /// Looks up the methods and checks what is known of the parameters.
    ///
    /// # Errors
    /// [`SubmitError::Invalid`] with everything that is wrong.
    pub fn plan(
        self,
        catalog: &ProtocolCatalog,
        defaults: &PlanDefaults,
    ) -> Result<Plan, SubmitError> {
        let mut problems = Vec::new();
        let methods = self.resolve_methods(catalog, &mut problems);
        if let Some(allowed) = defaults.env.as_ref().filter(|_| !self.runs_elsewhere) {
            self.check_env(allowed, &mut problems);
        }
        if !problems.is_empty() {
            problems.extend(self.circle());
            return Err(SubmitError::Invalid(problems));
        }
        Ok(self.assemble(defaults, methods.into_iter().map(found)))
    }

    /// The same for whichever process takes it up: a method that is not known here is told, and the
    /// rest of the workflow is checked. What is built in is known to all.
    ///
    /// # Errors
    /// [`SubmitError::Invalid`] with everything else that is wrong.
    pub fn plan_for_others(
        self,
        catalog: &ProtocolCatalog,
        defaults: &PlanDefaults,
    ) -> Result<(Plan, Vec<Problem>), SubmitError> {
        let (methods, unknown, mut wrong) = self.resolve_for_others(catalog);
        if !wrong.is_empty() {
            wrong.extend(self.circle());
            return Err(SubmitError::Invalid(wrong));
        }
        Ok((self.assemble(defaults, methods.into_iter().map(found)), unknown))
    }

    /// Each task's method; what is not known here and may be elsewhere; what is wrong everywhere.
    fn resolve_for_others(
        &self,
        catalog: &ProtocolCatalog,
    ) -> (Vec<Option<MethodRef>>, Vec<Problem>, Vec<Problem>) {
        let mut problems = Vec::new();
        let methods = self.resolve_methods(catalog, &mut problems);
        let mut elsewhere = HashSet::new();
        for (index, (task, method)) in self.spec.tasks.iter().zip(&methods).enumerate() {
            if method.is_none() && unknown_need(task.protocol.as_deref(), &task.method).is_some() {
                elsewhere.insert(at(index, "method"));
            }
        }
        let (unknown, wrong) =
            problems.into_iter().partition(|problem| elsewhere.contains(&problem.pointer));
        (methods, unknown, wrong)
    }

    /// Each task's method, with everything wrong about it and what it is given.
    fn resolve_methods(
        &self,
        catalog: &ProtocolCatalog,
        problems: &mut Vec<Problem>,
    ) -> Vec<Option<MethodRef>> {
        let mut methods = Vec::with_capacity(self.tasks.len());
        for (index, spec) in self.spec.tasks.iter().enumerate() {
            match catalog.resolve(spec.protocol.as_deref(), &spec.method) {
                Ok(method) => {
                    self.check_parameters(index, &method, problems);
                    methods.push(Some(method));
                }
                Err(error) => {
                    let problem =
                        Problem::new(error.code(), at(index, "method"), error.to_string());
                    problems.push(problem);
                    methods.push(None);
                }
            }
        }
        self.check_references(&methods, problems);
        self.check_inputs(problems);
        methods
    }

    /// The same for a stored workflow, as it was accepted with these needs. Tasks that are settled
    /// need nothing any more; `is_settled` tells them by their index.
    pub fn plan_again(
        self,
        catalog: &ProtocolCatalog,
        defaults: &PlanDefaults,
        needs: &Needs,
        is_settled: impl Fn(usize) -> bool,
    ) -> Replanned {
        let mut problems = Vec::new();
        let mut methods: Vec<Result<MethodRef, Arc<TaskError>>> =
            Vec::with_capacity(self.tasks.len());
        let mut same: Option<(usize, bool)> = None;
        let mut must_check = false;
        for (index, task) in self.spec.tasks.iter().enumerate() {
            // Tasks that follow each other mostly call one method: it is looked up once.
            let known = same.filter(|(of, _)| {
                let of = &self.spec.tasks[*of];
                of.method == task.method && of.protocol == task.protocol
            });
            let (method, was_checked) = if let Some((of, was_checked)) = known {
                (methods[of].clone(), was_checked)
            } else {
                let found = catalog.resolve_again(task.protocol.as_deref(), &task.method, needs);
                let was_checked = found.as_ref().is_ok_and(|method| method.was_checked_by(needs));
                let method = found
                    .map_err(|error| Arc::new(TaskError::new(error.code(), error.to_string())));
                (method, was_checked)
            };
            same = Some((index, was_checked));
            if !is_settled(index) {
                match &method {
                    Ok(_) if was_checked => {}
                    Ok(method) => {
                        must_check = true;
                        self.check_parameters(index, method, &mut problems);
                    }
                    Err(error) => {
                        let at = at(index, "method");
                        problems.push(Problem::new(error.code, at, error.message.to_string()));
                    }
                }
            }
            methods.push(method);
        }
        if must_check {
            let of = |(index, method): (usize, &Result<MethodRef, _>)| {
                if is_settled(index) { None } else { method.as_ref().ok().map(Arc::clone) }
            };
            let open: Vec<_> = methods.iter().enumerate().map(of).collect();
            self.check_references(&open, &mut problems);
        }
        let mut plan = self.assemble(defaults, methods.into_iter());
        if !needs.is_unknown() {
            plan.needs = needs.clone();
        }
        Replanned { plan, problems }
    }

    fn assemble(
        self,
        defaults: &PlanDefaults,
        methods: impl Iterator<Item = Result<MethodRef, Arc<TaskError>>>,
    ) -> Plan {
        let mut needs = Vec::with_capacity(self.tasks.len());
        let tasks = self.tasks.into_iter().zip(&self.spec.tasks).zip(methods);
        let tasks = tasks.map(|((draft, spec), method)| {
            needs.extend(need(spec, method.as_deref().ok()));
            let declared = method.as_ref().ok().map(|method| &method.spec);
            let own = spec.resources.as_ref();
            let usual = declared.and_then(|method| method.resource_requirements.as_ref());
            let own_limit = spec.timeout.or(own.and_then(|it| it.execution_timeout));
            let by_parameter = declared.map_or(limit::ByParameter::None, |method| {
                limit::by_parameter(method, draft.template.parameters())
            });
            let timeout = by_parameter.with(own_limit, || {
                declared
                    .and_then(|method| method.timeout_seconds)
                    .or(usual.and_then(|it| it.execution_timeout))
                    .unwrap_or(defaults.timeout)
            });
            let retry = spec
                .retry
                .as_ref()
                .or(declared.and_then(|method| method.retry_policy.as_ref()))
                .map_or_else(|| Arc::clone(&defaults.retry), |policy| Arc::new(policy.clone()));
            let amounts = match (own, usual) {
                (Some(own), Some(usual)) => own.or(usual).amounts(),
                (Some(one), None) | (None, Some(one)) => one.amounts(),
                (None, None) => Resources::default(),
            };
            PlannedTask {
                id: draft.id,
                name: draft.name,
                method,
                template: draft.template,
                timeout,
                retry,
                need: amounts.with_slots(1),
            }
        });
        let tasks = tasks.collect();
        Plan {
            id: self.id,
            has_new_id: self.has_new_id,
            name: self.spec.name.as_str().into(),
            tasks,
            edges: self.edges,
            needs: Needs::new(needs),
            spec: self.spec,
        }
    }

    fn check_parameters(&self, index: usize, method: &MethodRef, problems: &mut Vec<Problem>) {
        let template = &self.tasks[index].template;
        let parameters = template.parameters();
        let violations = if template.is_literal() {
            method.params.validate(parameters).err().unwrap_or_default()
        } else {
            method.params.check_open(parameters, &has_reference)
        };
        let is_valid = violations.is_empty();
        problems.extend(violations.into_iter().map(|violation| {
            let pointer = at(index, "parameters") + &violation.pointer;
            Problem::new(ErrorCode::InvalidParams, pointer, violation.message)
        }));
        let choice = builtin::choice(&method.capability);
        if let Some(message) = choice.filter(|_| is_valid).and_then(|it| it.violation(parameters)) {
            problems.push(Problem::new(ErrorCode::InvalidParams, at(index, "parameters"), message));
        }
    }

    /// A variable that the settings do not list can never be read.
    fn check_env(&self, allowed: &HashSet<String>, problems: &mut Vec<Problem>) {
        for (index, task) in self.tasks.iter().enumerate() {
            for reference in task.template.references() {
                let Some(name) = reference.env_name().filter(|name| !allowed.contains(*name))
                else {
                    continue;
                };
                let pointer = at(index, "parameters") + reference.pointer();
                let message = format!(
                    "`{}` cannot be read: variable `{name}` is not on the settings' list",
                    reference.text()
                );
                problems.push(
                    Problem::new(ErrorCode::TaskParameterError, pointer, message)
                        .help(format!("add `{name}` to `engine.env_allowed`")),
                );
            }
        }
    }

    /// An input that nobody gives is missing whenever the task runs.
    fn check_inputs(&self, problems: &mut Vec<Problem>) {
        for (index, task) in self.tasks.iter().enumerate() {
            for reference in task.template.references() {
                if reference.root() != Root::Inputs || reference.fallback().is_some() {
                    continue;
                }
                let Some(name) = reference.path().next() else { continue };
                if self.spec.inputs.contains_key(name) {
                    continue;
                }
                let pointer = at(index, "parameters") + reference.pointer();
                let message = format!("`{}`: no input is named `{name}`", reference.text());
                let problem = Problem::new(ErrorCode::TaskParameterError, pointer, message);
                let known = self.spec.inputs.keys().map(String::as_str);
                problems.push(problem.help(match nearest(name, known) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!(
                        "add `{name}` to `inputs`, give it with the submission, or write a \
                         fallback: `${{inputs.{name}:-…}}`"
                    ),
                }));
            }
        }
    }

    /// A path that the returns schema rules out can never have a value.
    fn check_references(&self, methods: &[Option<MethodRef>], problems: &mut Vec<Problem>) {
        for (index, task) in self.tasks.iter().enumerate() {
            for reference in task.template.references() {
                let Some(target) = reference.task() else { continue };
                let Some(method) = methods.get(target as usize).and_then(Option::as_ref) else {
                    continue;
                };
                let Some(returns) = &method.returns else { continue };
                if reference.fallback().is_some() || !matches!(reference.root(), Root::Result(_)) {
                    continue;
                }
                let path = reference.path_keys(|key| returns.admits(&[key]).is_ok());
                let Err(known) = returns.admits(&path) else { continue };
                let problem = Problem::new(
                    ErrorCode::TaskParameterError,
                    at(index, "parameters") + reference.pointer(),
                    format!(
                        "`{}` has no value: the result of {} has no such path",
                        reference.text(),
                        method.capability
                    ),
                );
                problems.push(if known.is_empty() {
                    problem
                } else {
                    problem.help(format!("it has {}", known.join(", ")))
                });
            }
        }
    }
}

/// The known name that was probably meant.
fn nearest<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let tolerance = (name.chars().count() / 3).max(1);
    known
        .map(|known| (strsim::osa_distance(name, known), known))
        .filter(|(distance, _)| *distance <= tolerance)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// A method that was looked up.
fn found(method: Option<MethodRef>) -> Result<MethodRef, Arc<TaskError>> {
    let unknown = || TaskError::new(ErrorCode::MethodNotFound, "the method is not known here");
    method.ok_or_else(|| Arc::new(unknown()))
}

/// What a task needs of the process that runs it.
fn need(task: &TaskSpec, method: Option<&Method>) -> Option<Arc<str>> {
    let protocol = task.protocol.as_deref();
    match method {
        Some(method) if names_version(protocol, &task.method) => Some(Arc::clone(&method.need)),
        Some(method) => Some(Arc::clone(&method.need_or_later)),
        None => unknown_need(protocol, &task.method),
    }
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

/// Task ids and names, to the index.
struct Names<'a> {
    spec: &'a WorkflowSpec,
    by_id: Option<HashMap<&'a str, u32>>,
    by_name: HashMap<&'a str, Option<u32>>,
}

impl<'a> Names<'a> {
    fn new(spec: &'a WorkflowSpec, problems: &mut Vec<Problem>) -> Self {
        let mut by_name = HashMap::new();
        for (task, index) in spec.tasks.iter().zip(0_u32..) {
            if let Some(name) = &task.name {
                // Two tasks of one name: neither can be meant by it.
                by_name
                    .entry(name.as_str())
                    .and_modify(|found| *found = None)
                    .or_insert(Some(index));
            }
        }
        // A lone task needs no index.
        let by_id = (spec.tasks.len() > 1).then(|| {
            let mut by_id = HashMap::with_capacity(spec.tasks.len());
            for (task, index) in spec.tasks.iter().zip(0_u32..) {
                if let Some(first) = by_id.insert(task.id.as_str(), index) {
                    let message = format!("id `{}` is used by task {} already", task.id, first + 1);
                    problems.push(invalid(at(index as usize, "id"), message));
                }
            }
            by_id
        });
        Self { spec, by_id, by_name }
    }

    fn find(&self, text: &str) -> Option<u32> {
        let by_id = match &self.by_id {
            Some(by_id) => by_id.get(text).copied(),
            None => (self.spec.tasks.first().is_some_and(|task| task.id == text)).then_some(0),
        };
        by_id.or_else(|| self.by_name.get(text).copied().flatten())
    }

    /// The name of several tasks that a reference, as written, begins with.
    fn ambiguous(&self, reference: &str) -> Option<&str> {
        let rest = reference.strip_prefix("${")?.trim_start();
        let is_meant = |name: &&&str| {
            let behind = rest.strip_prefix(**name).map(|rest| rest.trim_start().chars().next());
            behind.is_some_and(|next| matches!(next, None | Some('.' | '[' | '}' | ':' | '…')))
        };
        let several = self.by_name.iter().filter(|(_, index)| index.is_none());
        several.map(|(name, _)| name).filter(is_meant).max_by_key(|name| name.len()).copied()
    }

    /// Why a text names no task and, as a hint, what may have been meant.
    fn complain(&self, text: &str, pointer: String, hint: bool) -> Problem {
        if self.by_name.get(text) == Some(&None) {
            let message = format!("`{text}` is ambiguous: several tasks have this name");
            return invalid(pointer, message).help("name the task by its id");
        }
        let problem = invalid(pointer, format!("no task has the id or name `{text}`"));
        if !hint {
            return problem;
        }
        let all = self
            .spec
            .tasks
            .iter()
            .flat_map(|task| std::iter::once(task.id.as_str()).chain(task.name.as_deref()));
        let nearest = all
            .map(|known| (strsim::damerau_levenshtein(known, text), known))
            .filter(|(distance, known)| *distance <= known.chars().count().max(3) / 2)
            .min();
        match nearest {
            Some((_, known)) => problem.help(format!("did you mean `{known}`?")),
            None => problem,
        }
    }
}

fn depend(
    spec: &WorkflowSpec,
    index: usize,
    names: &Names<'_>,
    edges: &mut Vec<(u32, u32)>,
    problems: &mut Vec<Problem>,
) {
    let this = u32::try_from(index).unwrap_or(u32::MAX);
    for (nth, wanted) in spec.tasks[index].dependencies.iter().enumerate() {
        if let Some(target) = names.find(wanted) {
            edges.push((this, target));
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
    // Each suggestion costs a look at all tasks.
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
    DraftTask { id, name, template }
}
