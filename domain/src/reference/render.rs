//! Looks up what a reference stands for.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::{
    Found, Head, Metadata, Reference, RenderError, RenderFault, Root, grammar::Segment, head,
};
use crate::{error::TaskError, id::ProviderId, problem::push_pointer, task::TaskStatus};

/// The values that the references of one task can read: its own workflow, and nothing else.
pub trait Scope {
    /// The task of this index; `None` if the workflow has none.
    fn task(&self, index: u32) -> Option<TaskView<'_>>;
    /// The inputs as submitted.
    fn inputs(&self) -> &Map<String, Value>;
    /// The spelling of a number of the inputs, by JSON pointer, if it has more information than the
    /// value.
    fn spelling(&self, _pointer: &str) -> Option<&str> {
        None
    }
    /// The workflow's id.
    fn workflow_id(&self) -> &str;
    /// The workflow's name.
    fn workflow_name(&self) -> &str;
    /// A variable of the environment, if the settings list it.
    fn env(&self, name: &str) -> EnvValue<'_>;
}

/// A variable of the environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnvValue<'a> {
    /// Listed and set.
    Set(&'a str),
    /// Listed, but not set: a fallback applies.
    Unset,
    /// Not on the settings' list: an error, whatever the fallback.
    NotListed,
}

/// A task as references see it.
#[derive(Debug, Clone, Copy)]
pub struct TaskView<'a> {
    /// The status.
    pub status: TaskStatus,
    /// The result.
    pub result: Option<&'a Value>,
    /// Why it failed.
    pub error: Option<&'a TaskError>,
    /// Seconds that its last attempt's call took.
    pub duration: Option<f64>,
    /// The provider of the last attempt.
    pub provider_id: Option<&'a ProviderId>,
}

impl Reference {
    /// The referenced value; the fallback if that is missing or null. Borrowed if possible.
    ///
    /// # Errors
    /// [`RenderError`] if there is neither a value nor a fallback, and for a variable that the
    /// settings do not list.
    pub fn resolve<'a>(&'a self, scope: &'a dyn Scope) -> Result<Cow<'a, Value>, RenderError> {
        match (self.find_value(scope), &self.fallback) {
            (Ok(value), Some(fallback)) if value.is_null() => Ok(Cow::Borrowed(fallback)),
            (Ok(value), _) => Ok(value),
            (Err(fault), Some(fallback)) if fault.allows_fallback() => Ok(Cow::Borrowed(fallback)),
            (Err(fault), _) => Err(RenderError {
                reference: self.text.to_string(),
                pointer: self.pointer.to_string(),
                fault: Box::new(fault),
            }),
        }
    }

    /// The spelling of a number of the inputs, if it has more information than the value: a number
    /// that becomes part of a text keeps its spelling.
    pub(super) fn spelling<'a>(&self, value: &Value, scope: &'a dyn Scope) -> Option<&'a str> {
        if self.root != Root::Inputs || !value.is_number() {
            return None;
        }
        let mut pointer = String::new();
        for segment in &self.segments[self.path_from..] {
            push_pointer(&mut pointer, &segment.key);
        }
        scope.spelling(&pointer)
    }

    fn find_value<'a>(&'a self, scope: &'a dyn Scope) -> Result<Cow<'a, Value>, RenderFault> {
        match self.root {
            Root::Result(task) => {
                let view = scope.task(task).ok_or_else(|| self.no_result(None))?;
                let result = view.result.ok_or_else(|| self.no_result(Some(view.status)))?;
                self.inside_result(result).map(Cow::Borrowed)
            }
            Root::Metadata(task, field) => {
                let view = scope.task(task).ok_or_else(|| self.no_result(None))?;
                self.metadata(view, field).map(Cow::Owned)
            }
            Root::Inputs => self.inside_inputs(scope.inputs()),
            Root::WorkflowId => Ok(Cow::Owned(scope.workflow_id().into())),
            Root::WorkflowName => Ok(Cow::Owned(scope.workflow_name().into())),
            Root::Env => self.variable(scope).map(Cow::Owned),
            Root::Unbound => Err(RenderFault::Unbound),
        }
    }

    fn no_result(&self, status: Option<TaskStatus>) -> RenderFault {
        // Metadata has one segment more, `$`, and its field between the task and the path.
        let behind = if matches!(self.root, Root::Metadata(..)) { 2 } else { 0 };
        RenderFault::NoResult { task: self.prefix(self.path_from - behind).to_owned(), status }
    }

    fn inside_result<'a>(&self, result: &'a Value) -> Result<&'a Value, RenderFault> {
        let path = &self.segments[self.path_from..];
        let Head { skip, alias } = head(path, |key| result.get(key).is_some());
        let found = match alias.and_then(|key| result.get(key)) {
            Some(reply) => self.walk(reply, self.path_from + skip + 1),
            None => self.walk(result, self.path_from + skip),
        };
        found.map_err(|fault| fault.explained(result))
    }

    fn inside_inputs<'a>(
        &self,
        inputs: &'a Map<String, Value>,
    ) -> Result<Cow<'a, Value>, RenderFault> {
        let Some(first) = self.segments.get(self.path_from) else {
            return Ok(Cow::Owned(Value::Object(inputs.clone())));
        };
        let value = inputs
            .get(&*first.key)
            .ok_or_else(|| self.missing(self.path_from, Found::object(inputs)))?;
        self.walk(value, self.path_from + 1).map(Cow::Borrowed)
    }

    fn metadata(&self, view: TaskView<'_>, field: Metadata) -> Result<Value, RenderFault> {
        Ok(match field {
            Metadata::Status => view.status.as_str().into(),
            Metadata::Duration => view.duration.into(),
            Metadata::ProviderId => view.provider_id.map(ProviderId::as_str).into(),
            Metadata::Error => {
                let error = serde_json::to_value(view.error).unwrap_or(Value::Null);
                self.walk(&error, self.path_from)?.clone()
            }
        })
    }

    fn variable(&self, scope: &dyn Scope) -> Result<Value, RenderFault> {
        let name = &*self.segments[self.path_from].key;
        match scope.env(name) {
            EnvValue::Set(value) => Ok(value.into()),
            EnvValue::Unset => Err(RenderFault::EnvUnset { name: name.to_owned() }),
            EnvValue::NotListed => Err(RenderFault::EnvNotListed { name: name.to_owned() }),
        }
    }

    /// Follows the segments from number `from` on.
    fn walk<'a>(&self, mut value: &'a Value, from: usize) -> Result<&'a Value, RenderFault> {
        for (at, segment) in self.segments.iter().enumerate().skip(from) {
            value = step(value, segment).ok_or_else(|| self.missing(at, Found::of(value)))?;
        }
        Ok(value)
    }

    fn missing(&self, at: usize, found: Found) -> RenderFault {
        RenderFault::Missing {
            segment: self.segments[at].key.to_string(),
            within: self.prefix(at).to_owned(),
            found,
        }
    }
}

fn step<'a>(value: &'a Value, segment: &Segment) -> Option<&'a Value> {
    match value {
        Value::Object(object) => object.get(&*segment.key),
        Value::Array(list) => list.get(segment.index?),
        _ => None,
    }
}

impl RenderFault {
    /// Adds why Python code returned a text and not a structured value: the result has the reason
    /// in another field.
    fn explained(self, result: &Value) -> Self {
        let Self::Missing { segment, within, found: Found::Scalar("a string") } = self else {
            return self;
        };
        let why = match result.get("result_type").and_then(Value::as_str) {
            Some("stdout") => "a string: the code left no value, and this is what it printed",
            Some("repr") => "a string: the task asked for it by `result_type`",
            _ => "a string",
        };
        Self::Missing { segment, within, found: Found::Scalar(why) }
    }

    /// True if the value is absent; false if the reference itself is wrong.
    fn allows_fallback(&self) -> bool {
        match self {
            Self::Missing { .. } | Self::NoResult { .. } | Self::EnvUnset { .. } => true,
            Self::EnvNotListed { .. } | Self::Unbound => false,
        }
    }
}

impl Found {
    fn of(value: &Value) -> Self {
        match value {
            Value::Object(object) => Self::object(object),
            Value::Array(list) => Self::List { len: list.len() },
            Value::Null => Self::Scalar("null"),
            Value::Bool(_) => Self::Scalar("a boolean"),
            Value::Number(_) => Self::Scalar("a number"),
            Value::String(_) => Self::Scalar("a string"),
        }
    }

    fn object(object: &Map<String, Value>) -> Self {
        let keys: Vec<String> = object.keys().take(Self::KEYS_MAX).cloned().collect();
        Self::Object { more: object.len() - keys.len(), keys }
    }
}
