//! Evaluates an expression within its limits.

use std::{borrow::Cow, cell::Cell, rc::Rc};

use serde_json::Value;

use super::{
    EvaluationError, Span, TaskValue, ValueScope,
    ast::{Kind, Node, OfTask, Operator},
    limits,
    value::Val,
};
use crate::{error::TaskError, task::TaskStatus};

/// Why a part has no value.
#[derive(Debug)]
pub(super) enum Fault {
    /// A key, an index or a result is not there: `has` and `coalesce` pass over it.
    Absent(EvaluationError),
    /// Anything else.
    Wrong(EvaluationError),
    /// A limit is passed: nothing absorbs it.
    Limit(EvaluationError),
}

impl Fault {
    fn into_error(self) -> EvaluationError {
        match self {
            Self::Absent(error) | Self::Wrong(error) | Self::Limit(error) => error,
        }
    }
}

pub(super) type Found<'a> = Result<Val<'a>, Fault>;

pub(super) fn wrong<T>(span: Span, message: impl Into<String>) -> Result<T, Fault> {
    Err(Fault::Wrong(EvaluationError { message: message.into(), span }))
}

fn absent<T>(span: Span, message: impl Into<String>) -> Result<T, Fault> {
    Err(Fault::Absent(EvaluationError { message: message.into(), span }))
}

/// One evaluation.
pub(super) struct Evaluation<'a> {
    scope: &'a dyn ValueScope,
    source: &'a str,
    steps: Cell<u32>,
    produced: Cell<usize>,
}

/// The values of the macros around a place, the innermost last.
pub(super) type Variables<'a> = Vec<Val<'a>>;

impl<'a> Evaluation<'a> {
    pub(super) fn new(scope: &'a dyn ValueScope, source: &'a str) -> Self {
        Self { scope, source, steps: Cell::new(0), produced: Cell::new(0) }
    }

    pub(super) fn value(&self, root: &'a Node) -> Result<Value, EvaluationError> {
        let value = self.node(root, &mut Vec::new());
        value.and_then(|value| self.json(&value, root.span)).map_err(Fault::into_error)
    }

    pub(super) fn holds(&self, root: &'a Node) -> Result<bool, EvaluationError> {
        match self.node(root, &mut Vec::new()).map_err(Fault::into_error)? {
            Val::Bool(value) => Ok(value),
            other => {
                let message =
                    format!("`{}` is {}, not true or false", self.source, other.describe());
                Err(EvaluationError { message, span: root.span })
            }
        }
    }

    /// The source of a part.
    pub(super) fn text(&self, span: Span) -> &'a str {
        self.source.get(span.from..span.to).unwrap_or_default()
    }

    pub(super) fn step(&self, span: Span, count: usize) -> Result<(), Fault> {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.steps.set(self.steps.get().saturating_add(count));
        if self.steps.get() > limits::STEPS_MAX {
            let message = format!("the evaluation takes more than {} steps", limits::STEPS_MAX);
            return Err(Fault::Limit(EvaluationError { message, span }));
        }
        Ok(())
    }

    /// Counts the bytes of a value that was made.
    pub(super) fn produce(&self, span: Span, bytes: usize) -> Result<(), Fault> {
        self.produced.set(self.produced.get().saturating_add(bytes));
        if self.produced.get() > limits::PRODUCED_MAX {
            let message = format!("the evaluation makes more than {} bytes", limits::PRODUCED_MAX);
            return Err(Fault::Limit(EvaluationError { message, span }));
        }
        self.step(span, bytes / limits::TEXT_STEP)
    }

    pub(super) fn node(&self, node: &'a Node, variables: &mut Variables<'a>) -> Found<'a> {
        self.step(node.span, 1)?;
        match &node.kind {
            Kind::Null => Ok(Val::Null),
            Kind::Bool(value) => Ok(Val::Bool(*value)),
            Kind::Int(value) => Ok(Val::Int(*value)),
            Kind::Double(value) => Ok(Val::Double(*value)),
            Kind::Text(text) => Ok(Val::text(text)),
            Kind::Name(name) | Kind::Local(name) => match self.scope.name(name) {
                Some(named) => Ok(named.into()),
                None => absent(node.span, format!("`{name}` has no value here")),
            },
            Kind::Variable(depth) => match variables.get(*depth) {
                Some(value) => Ok(value.clone()),
                None => wrong(node.span, "this variable has no value"),
            },
            Kind::Task(index, name) => self.result(*index, name, node.span),
            Kind::Field(of, key) => {
                let of_value = self.node(of, variables)?;
                self.field(&of_value, &Val::text(key), of.span, node.span)
            }
            Kind::Index(of, key) => {
                let of_value = self.node(of, variables)?;
                let key = self.node(key, variables)?;
                self.index(&of_value, &key, of.span, node.span)
            }
            Kind::List(items) => self.list(items, node.span, variables),
            Kind::Map(entries) => self.map(entries, node.span, variables),
            Kind::Not(of) => match self.node(of, variables)? {
                Val::Bool(value) => Ok(Val::Bool(!value)),
                other => wrong(node.span, format!("`!` needs a boolean, not {}", other.kind())),
            },
            Kind::Negate(of) => self.negate(of, node.span, variables),
            Kind::Binary(Operator::And, one, two) => self.logic(false, one, two, variables),
            Kind::Binary(Operator::Or, one, two) => self.logic(true, one, two, variables),
            Kind::Binary(operator, one, two) => {
                let one = self.node(one, variables)?;
                let two = self.node(two, variables)?;
                self.binary(*operator, &one, &two, node.span)
            }
            Kind::Choose(parts) => {
                let [condition, yes, no] = &**parts;
                match self.node(condition, variables)? {
                    Val::Bool(true) => self.node(yes, variables),
                    Val::Bool(false) => self.node(no, variables),
                    other => {
                        wrong(condition.span, format!("`?` needs a boolean, not {}", other.kind()))
                    }
                }
            }
            Kind::Has(of) => match self.node(of, variables) {
                Ok(_) => Ok(Val::Bool(true)),
                Err(Fault::Absent(_)) => Ok(Val::Bool(false)),
                Err(other) => Err(other),
            },
            Kind::Coalesce(items) => self.coalesce(items, variables),
            Kind::OfTask(function, task) => self.of_task(*function, task),
            Kind::Call(function, arguments) => {
                let mut values = Vec::with_capacity(arguments.len());
                for argument in arguments {
                    values.push(self.node(argument, variables)?);
                }
                self.call(*function, values, node.span)
            }
            Kind::Matches(of, regex) => match self.node(of, variables)? {
                Val::Text(text) => {
                    self.step(node.span, text.len() / limits::TEXT_STEP)?;
                    Ok(Val::Bool(regex.is_match(&text)))
                }
                other => wrong(node.span, format!("`matches` needs a text, not {}", other.kind())),
            },
            Kind::Macro(it) => self.macro_(it, node.span, variables),
        }
    }

    fn result(&self, index: u32, name: &str, span: Span) -> Found<'a> {
        match self.scope.task(index) {
            Some(TaskValue { result: Some(result), .. }) => Ok(result.into()),
            Some(TaskValue { status, .. }) => {
                absent(span, format!("task `{name}` has no result: it is {status}"))
            }
            None => absent(span, format!("task `{name}` has not ended")),
        }
    }

    fn of_task(&self, function: OfTask, node: &Node) -> Found<'a> {
        let Kind::Task(index, name) = &node.kind else {
            return wrong(node.span, "this function asks for a task");
        };
        let Some(task) = self.scope.task(*index) else {
            return absent(node.span, format!("task `{name}` has not ended"));
        };
        Ok(match function {
            OfTask::Status => Val::Text(Cow::Borrowed(task.status.as_str())),
            OfTask::Completed => Val::Bool(task.status == TaskStatus::Completed),
            OfTask::Failed => Val::Bool(task.status == TaskStatus::Failed),
            OfTask::Skipped => Val::Bool(task.status == TaskStatus::Skipped),
            OfTask::Error => task.error.map_or(Val::Null, error_fields),
        })
    }

    fn field(&self, of: &Val<'a>, key: &Val<'_>, of_span: Span, span: Span) -> Found<'a> {
        if let Some(value) = of.field(key) {
            return Ok(value);
        }
        let of_text = self.text(of_span);
        if !of.is_object() {
            let found = of.describe();
            return match of {
                // What a task has left out may be null: the path is absent, as it is in `${a.b:-c}`.
                Val::Null => absent(span, format!("`{of_text}` is null and has no fields")),
                _ => wrong(span, format!("`{of_text}` is {found} and has no fields")),
            };
        }
        let known: Vec<String> = (0..of.len().unwrap_or(0).min(10))
            .filter_map(|at| of.over(at))
            .map(|key| key.describe().trim_matches('"').to_owned())
            .collect();
        let known = if known.is_empty() { "nothing".to_owned() } else { known.join(", ") };
        let key = key.describe();
        absent(span, format!("`{of_text}` has no key {key}; it has {known}"))
    }

    fn index(&self, of: &Val<'a>, key: &Val<'_>, of_span: Span, span: Span) -> Found<'a> {
        if of.is_object() {
            return match key {
                Val::Text(_) | Val::Int(_) | Val::Bool(_) | Val::Double(_) => {
                    self.field(of, key, of_span, span)
                }
                other => wrong(span, format!("{} is no key", other.kind())),
            };
        }
        let (Some(len), of_text) = (of.len(), self.text(of_span)) else {
            return match of {
                Val::Null => absent(span, format!("`{}` is null", self.text(of_span))),
                _ => wrong(
                    span,
                    format!("`{}` is {} and has no items", self.text(of_span), of.kind()),
                ),
            };
        };
        let at = match key {
            Val::Int(at) => Some(*at),
            Val::Double(at) => super::number::exact_int(*at),
            _ => None,
        };
        let Some(at) = at else {
            return wrong(span, format!("an index is an int, not {}", key.describe()));
        };
        match usize::try_from(at).ok().and_then(|at| of.item(at)) {
            Some(value) => Ok(value),
            None => absent(span, format!("`{of_text}` has {len} items, and none at {at}")),
        }
    }

    fn coalesce(&self, items: &'a [Node], variables: &mut Variables<'a>) -> Found<'a> {
        for item in items {
            match self.node(item, variables) {
                Ok(Val::Null) | Err(Fault::Absent(_)) => {}
                other => return other,
            }
        }
        Ok(Val::Null)
    }

    /// `&&` and `||`: a side that decides absorbs an error of the other one.
    fn logic(
        &self,
        deciding: bool,
        one: &'a Node,
        two: &'a Node,
        variables: &mut Variables<'a>,
    ) -> Found<'a> {
        let boolean = |found: Found<'a>, span| match found {
            Ok(Val::Bool(value)) => Ok(value),
            Ok(other) => wrong(
                span,
                format!("`{}` is {}, not true or false", self.text(span), other.describe()),
            ),
            Err(fault) => Err(fault),
        };
        let first = boolean(self.node(one, variables), one.span);
        match first {
            Ok(value) if value == deciding => return Ok(Val::Bool(value)),
            Err(Fault::Limit(error)) => return Err(Fault::Limit(error)),
            _ => {}
        }
        match (first, boolean(self.node(two, variables), two.span)) {
            (_, Ok(value)) if value == deciding => Ok(Val::Bool(value)),
            (_, Err(Fault::Limit(error))) => Err(Fault::Limit(error)),
            (Err(fault), _) | (_, Err(fault)) => Err(fault),
            (Ok(_), Ok(value)) => Ok(Val::Bool(value)),
        }
    }
}

/// An error as `${task.$.error}` has it.
fn error_fields(error: &TaskError) -> Val<'_> {
    let field = |key, value| (Val::text(key), value);
    let data = error.data.as_deref().map_or(Val::Null, Val::from);
    Val::Map(Rc::new(vec![
        field("code", Val::Int(error.code.number().into())),
        field("name", Val::text(error.code.name())),
        field("message", Val::Text(Cow::Borrowed(&error.message))),
        field("data", data),
    ]))
}
