//! The second step: looks up the methods of a draft, and makes its plan.

use std::{
    collections::HashSet,
    sync::{Arc, LazyLock},
};

use super::{Plan, PlanDefaults, PlannedTask, Replanned, draft::Draft, limit, pointer::at};
use crate::{
    error::{ErrorCode, TaskError},
    needs::Needs,
    problem::{Problem, SubmitError},
    protocol::{
        Method, MethodRef,
        catalog::{ProtocolCatalog, names_version, unknown_need},
    },
    resources::Resources,
    workflow::TaskSpec,
};

impl Draft {
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

    /// The same for any process that may run it: a method that is unknown here is returned as a
    /// problem, and the rest of the workflow is checked. Built-in methods are known everywhere.
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
    pub(super) fn resolve_for_others(
        &self,
        catalog: &ProtocolCatalog,
    ) -> (Vec<Option<MethodRef>>, Vec<Problem>, Vec<Problem>) {
        let mut problems = Vec::new();
        let methods = self.resolve_methods(catalog, &mut problems);
        let mut elsewhere = HashSet::new();
        for (index, (task, method)) in self.spec.tasks.iter().zip(&methods).enumerate() {
            if method.is_none()
                && !task.is_decided()
                && unknown_need(task.protocol.as_deref(), &task.method).is_some()
            {
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
            if spec.is_decided() {
                methods.push(None);
                continue;
            }
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
        self.check_decisions(&methods, problems);
        methods
    }

    /// The same for a stored workflow that was accepted with these needs. Settled tasks need
    /// nothing any more; `is_settled` reports them by index.
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
            if task.is_decided() {
                methods.push(Err(no_call()));
                continue;
            }
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
                decider: draft.decider,
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
            kinds: self.kinds,
            has_decisions: super::conditions::has_any(&self.spec),
            needs: Needs::new(needs),
            spec: self.spec,
        }
    }
}

/// A method that was looked up.
fn found(method: Option<MethodRef>) -> Result<MethodRef, Arc<TaskError>> {
    let unknown = || TaskError::new(ErrorCode::MethodNotFound, "the method is not known here");
    method.ok_or_else(|| Arc::new(unknown()))
}

/// In the place of the method of a task that calls none.
fn no_call() -> Arc<TaskError> {
    static NO_CALL: LazyLock<Arc<TaskError>> = LazyLock::new(|| {
        Arc::new(TaskError::new(ErrorCode::MethodNotFound, "the task calls no method"))
    });
    Arc::clone(&NO_CALL)
}

/// The need of a task.
fn need(task: &TaskSpec, method: Option<&Method>) -> Option<Arc<str>> {
    if task.is_decided() {
        return None;
    }
    let protocol = task.protocol.as_deref();
    match method {
        Some(method) if names_version(protocol, &task.method) => Some(Arc::clone(&method.need)),
        Some(method) => Some(Arc::clone(&method.need_or_later)),
        None => unknown_need(protocol, &task.method),
    }
}
