//! Expressions: the core of CEL, over the results of tasks and the inputs of a workflow.
//!
//! Used by plans for `when`, `switch` and `value`: read and bound to tasks once
//! ([`Expression::parse`]), typed against the schemas of methods
//! ([`Expression::check`]), evaluated when a task is decided ([`Expression::evaluate`]).
//!
//! | part | forms |
//! |---|---|
//! | values | `null`, `true`, `1`, `0x1f`, `1.5`, `"text"`, `'text'`, `r"raw"`, `[1, 2]`, `{"key": 1}` |
//! | operators | `?:` `\|\|` `&&` `==` `!=` `<` `<=` `>` `>=` `in` `+` `-` `*` `/` `%` `!` `-x` `a.b` `a[b]` |
//! | functions | `size` `has` `int` `double` `string` `bool` `dyn` `coalesce`, and on texts `startsWith` `endsWith` `contains` `matches` `lowerAscii` `upperAscii` `split` `join` |
//! | macros | `all` `exists` `exists_one` `map` `filter` |
//! | of tasks | `status(t)` `completed(t)` `failed(t)` `skipped(t)` `error(t)` |
//!
//! A name is, in this order: a variable of a macro, a name of the place (`inputs`, `workflow`, …),
//! a task, whose result it is. `tasks["odd name"]` is always a task.
//!
//! Invariants: an evaluation knows no clock, no random number and no environment, so the same
//! stored data give the same value for ever; it ends within [`limits`], whatever the source.

mod ast;
mod bind;
mod check;
mod deep;
mod evaluate;
mod functions;
mod lexer;
pub mod limits;
mod macros;
mod number;
mod operators;
mod parser;
#[cfg(test)]
mod tests;
mod text;
mod types;
mod value;

use std::{fmt, sync::Arc};

use serde_json::Value;

use crate::{error::TaskError, task::TaskStatus};

pub use bind::Use;
pub use check::{TypeProblem, TypeScope};
pub use types::Type;

/// A place of an expression, in bytes of its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// The first byte.
    pub from: usize,
    /// The byte after the last.
    pub to: usize,
}

impl Span {
    const fn new(from: usize, to: usize) -> Self {
        Self { from, to }
    }

    const fn with(self, to: Self) -> Self {
        Self { from: self.from, to: to.to }
    }
}

/// A text that is no expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SyntaxError {
    /// What is wrong.
    pub message: String,
    /// Where.
    pub span: Span,
}

/// An expression without a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct EvaluationError {
    /// What has no value, and why.
    pub message: String,
    /// The part of the source that has none.
    pub span: Span,
}

/// A task as an expression sees it.
#[derive(Debug, Clone, Copy)]
pub struct TaskValue<'a> {
    /// The final status.
    pub status: TaskStatus,
    /// The result, if it completed.
    pub result: Option<&'a Value>,
    /// Why it has no result, if it failed.
    pub error: Option<&'a TaskError>,
}

/// The values that an expression can read.
pub trait ValueScope {
    /// The value of a name of the place, such as `inputs`.
    fn name(&self, name: &str) -> Option<Named<'_>>;

    /// A task by its index; `None` if it has not settled.
    fn task(&self, index: u32) -> Option<TaskValue<'_>>;
}

/// The value of a name of the place.
#[derive(Debug, Clone)]
pub enum Named<'a> {
    /// Any value.
    Value(&'a Value),
    /// The fields of an object.
    Fields(&'a serde_json::Map<String, Value>),
    /// A text.
    Text(&'a str),
    /// A whole number.
    Int(i64),
    /// An object of texts.
    Texts(Vec<(&'static str, &'a str)>),
}

/// An expression, read and bound. Clones share it.
#[derive(Clone)]
pub struct Expression(Arc<Inner>);

struct Inner {
    source: Box<str>,
    root: ast::Node,
    tasks: Vec<(u32, Use)>,
}

impl fmt::Debug for Expression {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Expression").field(&self.0.source).finish()
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.0.source == other.0.source && self.0.tasks == other.0.tasks
    }
}

/// Which names an expression may use.
pub trait Names {
    /// True for a name of the place, such as `inputs`.
    fn is_local(&self, name: &str) -> bool;

    /// The index of the task of this id or name.
    fn task(&self, name: &str) -> Option<u32>;

    /// The name that was probably meant, for an unknown one.
    fn nearest(&self, name: &str) -> Option<String> {
        let _ = name;
        None
    }
}

impl Expression {
    /// Reads an expression and finds the tasks that it names.
    ///
    /// # Errors
    /// [`SyntaxError`] if the source is no expression, is beyond the [`limits`], or has a name that
    /// is none of the place and no task.
    pub fn parse(source: &str, names: &dyn Names) -> Result<Self, SyntaxError> {
        let mut root = parser::parse(source)?;
        let tasks = bind::bind(&mut root, names)?;
        Ok(Self(Arc::new(Inner { source: source.into(), root, tasks })))
    }

    /// The source.
    pub fn source(&self) -> &str {
        &self.0.source
    }

    /// The tasks that it names, each once with its strongest use, in the order of the source.
    pub fn tasks(&self) -> &[(u32, Use)] {
        &self.0.tasks
    }

    /// The type of its value, as far as the schemas say, and everything that can have no value.
    pub fn check(&self, scope: &dyn TypeScope) -> (Type, Vec<TypeProblem>) {
        check::check(&self.0.root, scope)
    }

    /// Its value.
    ///
    /// # Errors
    /// [`EvaluationError`] if a part has no value, or a limit is passed.
    pub fn evaluate(&self, scope: &dyn ValueScope) -> Result<Value, EvaluationError> {
        evaluate::Evaluation::new(scope, &self.0.source).value(&self.0.root)
    }

    /// Its value, which must be a boolean.
    ///
    /// # Errors
    /// [`EvaluationError`], also for any other value.
    pub fn holds(&self, scope: &dyn ValueScope) -> Result<bool, EvaluationError> {
        evaluate::Evaluation::new(scope, &self.0.source).holds(&self.0.root)
    }
}
