//! Conditions, switches and values: read with the draft, typed against the methods.

use std::collections::HashSet;

use indexmap::IndexMap;

use super::{
    check::nearest,
    draft::Draft,
    names::Names,
    pointer::{at, invalid},
};
use crate::{
    decision::{DecidedWork, Decider},
    error::ErrorCode,
    expression::{self, Expression, Type, TypeScope, Use},
    graph::EdgeKind,
    problem::{Problem, push_pointer},
    protocol::MethodRef,
    workflow::{TaskSpec, WorkflowSpec},
};

/// The names of every expression of a task.
const LOCALS: [&str; 2] = ["inputs", "workflow"];

impl From<Use> for EdgeKind {
    fn from(use_: Use) -> Self {
        match use_ {
            Use::End => Self::End,
            Use::After => Self::After,
            Use::Value => Self::Value,
        }
    }
}

impl expression::Names for Names<'_> {
    fn is_local(&self, name: &str) -> bool {
        LOCALS.contains(&name)
    }

    fn task(&self, name: &str) -> Option<u32> {
        self.find(name)
    }

    fn nearest(&self, name: &str) -> Option<String> {
        nearest(name, self.ids().chain(LOCALS)).map(str::to_owned)
    }
}

/// True if some task of the workflow has a condition or a value: then the kinds of its edges matter.
pub(super) fn has_any(spec: &WorkflowSpec) -> bool {
    spec.tasks.iter().any(TaskSpec::has_decision)
}

/// The expressions of a task, and the edges that they make.
pub(super) fn read(
    spec: &WorkflowSpec,
    index: usize,
    names: &Names<'_>,
    edges: &mut Vec<(u32, EdgeKind)>,
    problems: &mut Vec<Problem>,
) -> Option<Box<Decider>> {
    let task = &spec.tasks[index];
    if !task.has_decision() {
        return None;
    }
    check_shape(task, index, problems);
    let mut reader = Reader { names, edges, problems };
    let mut decider = Decider::default();
    for (nth, branch) in task.branches.iter().enumerate() {
        let mut pointer = at(index, "in");
        push_pointer(&mut pointer, &nth.to_string());
        decider.branches.extend(reader.branch(spec, branch, pointer));
    }
    decider.when = task.when.as_ref().and_then(|it| reader.expression(it, at(index, "when")));
    if let Some(value) = &task.value {
        let value = reader.expression(value, at(index, "value"));
        decider.work = value.map(DecidedWork::Value);
    } else if !task.switch.is_empty() {
        let mut branches = Vec::with_capacity(task.switch.len());
        for (nth, branch) in task.switch.iter().enumerate() {
            let pointer = format!("{}/{nth}/when", at(index, "switch"));
            let when = branch.when.as_ref().and_then(|when| reader.expression(when, pointer));
            branches.push((branch.to.as_str().into(), when));
        }
        decider.work = Some(DecidedWork::Switch(branches));
    }
    Some(Box::new(decider))
}

/// A task is one of three things, and a value has no parameters.
fn check_shape(task: &TaskSpec, index: usize, problems: &mut Vec<Problem>) {
    let kinds = [
        ("method", !task.method.is_empty()),
        ("value", task.value.is_some()),
        ("switch", !task.switch.is_empty()),
    ];
    let given: Vec<&str> = kinds.iter().filter(|(_, it)| *it).map(|(name, _)| *name).collect();
    match given.as_slice() {
        [] | ["method"] => {}
        [only] => {
            for (key, is_given) in [
                ("parameters", !task.parameters.is_null()),
                ("protocol", task.protocol.is_some()),
                ("retry", task.retry.is_some()),
                ("resources", task.resources.is_some()),
                ("timeout", task.timeout.is_some()),
                ("total_timeout", task.total_timeout.is_some()),
            ] {
                if is_given {
                    let message =
                        format!("`{key}` belongs to a task with `method`, not with `{only}`");
                    problems.push(invalid(at(index, key), message));
                }
            }
        }
        [_, second, ..] => {
            let message = format!("a task has one of {}, not several", given.join(", "));
            problems.push(invalid(at(index, second), message));
        }
    }
    let mut seen: Vec<&str> = Vec::with_capacity(task.switch.len());
    for (nth, branch) in task.switch.iter().enumerate() {
        let pointer = |field: &str| format!("{}/{nth}/{field}", at(index, "switch"));
        if seen.contains(&branch.to.as_str()) {
            let message = format!("the branch `{}` is there already", branch.to);
            problems.push(invalid(pointer("to"), message));
        }
        seen.push(&branch.to);
        let is_last = nth + 1 == task.switch.len();
        if branch.when.is_none() && !is_last {
            let message = "`else` is the last branch: none after it is ever chosen".into();
            problems.push(invalid(pointer("to"), message));
        }
    }
}

struct Reader<'r, 's> {
    names: &'r Names<'s>,
    edges: &'r mut Vec<(u32, EdgeKind)>,
    problems: &'r mut Vec<Problem>,
}

impl Reader<'_, '_> {
    fn expression(&mut self, source: &str, pointer: String) -> Option<Expression> {
        match Expression::parse(source, self.names) {
            Ok(expression) => {
                self.edges
                    .extend(expression.tasks().iter().map(|(task, it)| (*task, (*it).into())));
                Some(expression)
            }
            Err(error) => {
                let message = located(source, error.span, &error.message);
                self.problems.push(Problem::new(ErrorCode::TaskConditionError, pointer, message));
                None
            }
        }
    }

    /// `switch.branch`, as `in` has it.
    fn branch(
        &mut self,
        spec: &WorkflowSpec,
        text: &str,
        pointer: String,
    ) -> Option<(u32, Box<str>)> {
        let Some((switch, name)) = text.rsplit_once('.') else {
            let message = format!("`{text}` is no branch; expected `switch.branch`");
            self.problems.push(invalid(pointer, message));
            return None;
        };
        let Some(index) = self.names.find(switch) else {
            self.problems.push(self.names.complain(switch, pointer, true));
            return None;
        };
        let branches = &spec.tasks[index as usize].switch;
        if !branches.iter().any(|branch| branch.to == name) {
            let known = || branches.iter().map(|branch| branch.to.as_str());
            let message = if branches.is_empty() {
                format!("task `{switch}` is no switch")
            } else {
                format!("the switch `{switch}` has no branch `{name}`")
            };
            let problem = invalid(pointer, message);
            let all: Vec<&str> = known().collect();
            self.problems.push(match nearest(name, known()) {
                Some(near) => problem.help(format!("did you mean `{switch}.{near}`?")),
                None if all.is_empty() => problem,
                None => problem.help(format!("it has {}", all.join(", "))),
            });
            return None;
        }
        self.edges.push((index, EdgeKind::Value));
        Some((index, text.into()))
    }
}

/// A message with the part of the source that it is about, where that is not the whole.
fn located(source: &str, span: expression::Span, message: &str) -> String {
    let part = source.get(span.from..span.to).unwrap_or_default().trim();
    if part.is_empty() || part == source.trim() || message.contains(part) {
        return message.to_owned();
    }
    format!("`{part}`: {message}")
}

impl Draft {
    /// Expressions that can have no value, conditions that are no booleans, and branches that no task
    /// has.
    pub(super) fn check_decisions(
        &self,
        methods: &[Option<MethodRef>],
        problems: &mut Vec<Problem>,
    ) {
        if !has_any(&self.spec) {
            return;
        }
        let types = Types { draft: self, methods };
        for (index, task) in self.tasks.iter().enumerate() {
            let Some(decider) = &task.decider else { continue };
            let mut check = |expression: &Expression, pointer: String, is_condition: bool| {
                let (found, wrong) = expression.check(&types);
                if is_condition && wrong.is_empty() && !found.may_be_bool() {
                    let message =
                        format!("a condition is true or false, and this is {}", found.describe());
                    problems.push(Problem::new(
                        ErrorCode::TaskConditionError,
                        pointer.clone(),
                        message,
                    ));
                }
                problems.extend(wrong.into_iter().map(|wrong| {
                    let message = located(expression.source(), wrong.span, &wrong.message);
                    Problem::new(ErrorCode::TaskConditionError, pointer.clone(), message)
                }));
            };
            if let Some(when) = &decider.when {
                check(when, at(index, "when"), true);
            }
            match &decider.work {
                Some(DecidedWork::Value(value)) => check(value, at(index, "value"), false),
                Some(DecidedWork::Switch(branches)) => {
                    for (nth, (_, when)) in branches.iter().enumerate() {
                        if let Some(when) = when {
                            check(when, format!("{}/{nth}/when", at(index, "switch")), true);
                        }
                    }
                }
                None => {}
            }
        }
        self.check_branches(problems);
    }

    /// A branch that no task is in is a mistake: of its name, or a task is missing.
    fn check_branches(&self, problems: &mut Vec<Problem>) {
        let used: HashSet<(u32, &str)> = self
            .tasks
            .iter()
            .filter_map(|task| task.decider.as_ref())
            .flat_map(|decider| &decider.branches)
            .filter_map(|(switch, text)| Some((*switch, text.rsplit_once('.')?.1)))
            .collect();
        // A switch that expressions read need not have tasks in all of its branches. Collected once: looked
        // for at each task, they would cost the square of a large workflow.
        let is_reader = |of: u32| {
            let decider = self.tasks[of as usize].decider.as_ref();
            decider.is_none_or(|it| it.branches.is_empty())
        };
        let read = self.kinds.iter().filter(|(of, ..)| is_reader(*of)).map(|(_, on, _)| *on);
        let read: HashSet<u32> = read.collect();
        for (task, index) in self.spec.tasks.iter().zip(0_u32..) {
            for (nth, branch) in task.switch.iter().enumerate() {
                if read.contains(&index) {
                    break;
                }
                if !used.contains(&(index, branch.to.as_str())) {
                    let pointer = format!("{}/{nth}/to", at(index as usize, "switch"));
                    let message = format!("no task is in the branch `{}`", branch.to);
                    let id = &task.id;
                    problems.push(invalid(pointer, message).help(format!(
                        "give a task `in: {id}.{}`, or leave the branch away",
                        branch.to
                    )));
                }
            }
        }
    }
}

struct Types<'d> {
    draft: &'d Draft,
    methods: &'d [Option<MethodRef>],
}

fn closed(fields: impl IntoIterator<Item = (String, Type)>) -> Type {
    Type::Object { fields: fields.into_iter().collect::<IndexMap<_, _>>(), is_open: false }
}

impl TypeScope for Types<'_> {
    fn name(&self, name: &str) -> Type {
        match name {
            "inputs" => closed(self.draft.spec.inputs.keys().map(|key| (key.clone(), Type::Any))),
            "workflow" => closed(["id", "name"].map(|key| (key.to_owned(), Type::Text))),
            _ => Type::Any,
        }
    }

    fn task(&self, index: u32) -> Type {
        if !self.draft.spec.tasks[index as usize].switch.is_empty() {
            let to = Type::Union(vec![Type::Text, Type::Null]);
            return closed([("to".to_owned(), to)]);
        }
        let method = self.methods.get(index as usize).and_then(Option::as_ref);
        let returns = method.and_then(|method| method.spec.returns_schema.as_ref());
        returns.map_or(Type::Any, Type::of)
    }
}
