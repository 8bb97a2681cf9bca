//! Decisions about a task that need no call: its condition, the branch of a switch, a value.
//!
//! Used by the `DependencyResolver` once all edges of a task are decided. A decision is a pure
//! function of stored data, so it is not stored where it lets a task run: after a crash it is made
//! again, and is the same.
//!
//! Invariant: a decision that cannot be made is a failure, never `false`.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::{
    error::{ErrorCode, TaskError},
    expression::{EvaluationError, Expression, TaskValue, ValueScope},
    run::check_value,
};

/// What was decided about a task without a call.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// It has this value.
    Completed(Arc<Value>),
    /// The decision cannot be made.
    Failed(TaskError),
    /// This condition leaves it out.
    Skipped(Arc<str>),
}

/// The expressions of a task.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Decider {
    /// The branches of switches, one of which must have been chosen: the switch, and the branch.
    pub branches: Vec<(u32, Box<str>)>,
    /// Must hold.
    pub when: Option<Expression>,
    /// What it is instead of a call.
    pub work: Option<DecidedWork>,
}

/// Work without a call.
#[derive(Debug, Clone, PartialEq)]
pub enum DecidedWork {
    /// The value of an expression.
    Value(Expression),
    /// The first branch that holds; one without a condition always does.
    Switch(Vec<(Box<str>, Option<Expression>)>),
}

impl Decider {
    /// The decision; `None` if the task is to be called.
    pub fn decide(&self, scope: &dyn ValueScope) -> Option<Decision> {
        match self.try_decide(scope) {
            // Checked here and not where it is applied: by then others were decided by it.
            Ok(Some(Decision::Completed(value))) => Some(match check_value(&value) {
                Ok(()) => Decision::Completed(value),
                Err(error) => Decision::Failed(error),
            }),
            Ok(decision) => decision,
            Err((field, source, error)) => Some(Decision::Failed(failed(field, source, &error))),
        }
    }

    fn try_decide<'e>(
        &'e self,
        scope: &dyn ValueScope,
    ) -> Result<Option<Decision>, (&'static str, &'e Expression, EvaluationError)> {
        if !self.branches.is_empty() && !self.branches.iter().any(|it| is_chosen(it, scope)) {
            let names: Vec<&str> = self.branches.iter().map(|(_, name)| &**name).collect();
            let text = format!("in: {}", names.join(", "));
            return Ok(Some(Decision::Skipped(text.into())));
        }
        if let Some(when) = &self.when
            && !when.holds(scope).map_err(|error| ("when", when, error))?
        {
            return Ok(Some(Decision::Skipped(when.source().into())));
        }
        let value = match &self.work {
            None => return Ok(None),
            Some(DecidedWork::Value(value)) => {
                value.evaluate(scope).map_err(|error| ("value", value, error))?
            }
            Some(DecidedWork::Switch(branches)) => {
                let mut chosen = Value::Null;
                for (name, when) in branches {
                    let holds = match when {
                        Some(when) => when.holds(scope).map_err(|error| ("switch", when, error))?,
                        None => true,
                    };
                    if holds {
                        chosen = Value::from(&**name);
                        break;
                    }
                }
                json!({ "to": chosen })
            }
        };
        Ok(Some(Decision::Completed(Arc::new(value))))
    }
}

/// True if the switch has chosen the branch.
fn is_chosen((switch, name): &(u32, Box<str>), scope: &dyn ValueScope) -> bool {
    let result = scope.task(*switch).and_then(|TaskValue { result, .. }| result);
    let (_, branch) = name.rsplit_once('.').unwrap_or(("", name));
    result.is_some_and(|result| result["to"] == branch)
}

fn failed(field: &str, of: &Expression, error: &EvaluationError) -> TaskError {
    let message = format!("`{field}` cannot be evaluated: {error}");
    let part = of.source().get(error.span.from..error.span.to).unwrap_or_default();
    let data = json!({ "expression": of.source(), "part": part, "offset": error.span.from });
    TaskError::new(ErrorCode::TaskConditionError, message).with_data(data)
}
