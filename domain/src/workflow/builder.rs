//! Builds a workflow whose tasks refer to each other by handles instead of texts.

use std::{
    fmt,
    marker::PhantomData,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Serialize, Serializer};
use serde_json::Value;

use super::{TaskSpec, WorkflowSpec};

/// Builds a [`WorkflowSpec`]; each task gives a handle, and a handle gives references.
///
/// ```
/// use gleitzeit_domain::workflow::WorkflowBuilder;
/// use serde_json::json;
///
/// let wf = WorkflowBuilder::new("order");
/// let customer = wf.input("customer", "Ada");
/// let bill = wf.task("bill", "shop/price").input(json!({ "item": "lamp", "count": 2 }));
/// wf.task("pay", "shop/charge")
///     .input(json!({ "cents": bill.field("cents"), "note": format!("for {customer}") }));
/// let spec = wf.build();
/// assert_eq!(
///     *spec.tasks[1].parameters,
///     json!({ "cents": "${bill.cents}", "note": "for ${inputs.customer}" }),
/// );
/// ```
#[derive(Debug, Clone)]
pub struct WorkflowBuilder {
    spec: Arc<Mutex<WorkflowSpec>>,
}

impl WorkflowBuilder {
    /// A workflow without tasks.
    pub fn new(name: impl Into<String>) -> Self {
        WorkflowSpec::new(name).into()
    }

    fn spec(&self) -> MutexGuard<'_, WorkflowSpec> {
        // A closure of `with` that panics leaves the task as it was.
        self.spec.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an input with its value, and gives a reference to it.
    pub fn input(&self, name: impl Into<String>, value: impl Into<Value>) -> Reference {
        let name = name.into();
        let reference = Reference("inputs".to_owned()).field(&name);
        self.spec().inputs.insert(name, value.into());
        reference
    }

    /// Adds a task that calls `method`, written `protocol/method` or `protocol/version:method`.
    pub fn task(&self, id: impl Into<String>, method: impl Into<String>) -> TaskHandle {
        let id: String = id.into();
        let mut spec = self.spec();
        spec.tasks.push(TaskSpec::new(id.clone(), method));
        let index = spec.tasks.len() - 1;
        TaskHandle { builder: self.clone(), index, id: id.into(), result: PhantomData }
    }

    /// The workflow as it is now.
    pub fn build(&self) -> WorkflowSpec {
        self.spec().clone()
    }
}

impl From<WorkflowSpec> for WorkflowBuilder {
    fn from(spec: WorkflowSpec) -> Self {
        Self { spec: Arc::new(Mutex::new(spec)) }
    }
}

/// A task of a [`WorkflowBuilder`], whose result is read as `T`.
pub struct TaskHandle<T = Value> {
    builder: WorkflowBuilder,
    index: usize,
    id: Arc<str>,
    result: PhantomData<fn() -> T>,
}

impl<T> Clone for TaskHandle<T> {
    fn clone(&self) -> Self {
        let (builder, id) = (self.builder.clone(), Arc::clone(&self.id));
        Self { builder, index: self.index, id, result: PhantomData }
    }
}

impl<T> fmt::Debug for TaskHandle<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("TaskHandle").field(&self.id).finish()
    }
}

impl<T> TaskHandle<T> {
    /// The id of the task.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Sets the parameters: an object by name, or an array by position.
    #[expect(clippy::return_self_not_must_use, reason = "the task is changed either way")]
    pub fn input(self, parameters: impl Into<Value>) -> Self {
        self.with(|task| task.params(parameters))
    }

    /// Waits for another task without using its result.
    #[expect(clippy::return_self_not_must_use, reason = "the task is changed either way")]
    pub fn after<U>(self, other: &TaskHandle<U>) -> Self {
        self.with(|task| task.after(other.id()))
    }

    /// Changes anything else of the task: its timeout, its retry policy, its priority.
    #[expect(clippy::return_self_not_must_use, reason = "the task is changed either way")]
    pub fn with(self, change: impl FnOnce(TaskSpec) -> TaskSpec) -> Self {
        {
            let mut spec = self.builder.spec();
            let task = &mut spec.tasks[self.index];
            *task = change(task.clone());
        }
        self
    }

    /// The same task, whose result [`output_of`](super::WorkflowRecord::output_of) reads as `U`.
    #[must_use = "the handle reads the result"]
    pub fn returns<U>(self) -> TaskHandle<U> {
        let Self { builder, index, id, .. } = self;
        TaskHandle { builder, index, id, result: PhantomData }
    }

    /// A reference to the whole result.
    pub fn result(&self) -> Reference {
        let is_reserved = matches!(&*self.id, "inputs" | "workflow" | "env");
        if is_bare(&self.id) && !is_reserved {
            Reference(self.id.to_string())
        } else {
            Reference(format!("[{}]", Value::from(&*self.id)))
        }
    }

    /// A reference to a field of the result.
    pub fn field(&self, name: &str) -> Reference {
        self.result().field(name)
    }
}

/// A place in a result or an input. In parameters it stands for the value there; in a text, as
/// `format!` writes it, for the value's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference(String);

impl Reference {
    /// A field of the object there.
    #[must_use]
    pub fn field(&self, name: &str) -> Self {
        if is_bare(name) {
            Self(format!("{}.{name}", self.0))
        } else {
            Self(format!("{}[{}]", self.0, Value::from(name)))
        }
    }

    /// An item of the list there, from 0.
    #[must_use]
    pub fn item(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    /// The same place, or `value` if there is nothing or null.
    pub fn or(&self, value: impl Into<Value>) -> Value {
        format!("${{{}:-{}}}", self.0, value.into()).into()
    }
}

/// True for what a reference may hold without quotes, whatever else the workflow has.
fn is_bare(name: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    name.chars().all(is_word) && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
}

impl fmt::Display for Reference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "${{{}}}", self.0)
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

impl From<Reference> for Value {
    fn from(reference: Reference) -> Self {
        reference.to_string().into()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plan::Draft;

    /// Every name is read back as the task and the field that were meant.
    #[test]
    fn references_survive_odd_names() {
        for id in ["a", "env", "inputs", "a.b", "0", "with space", "quote\"}", "ä", ":-"] {
            let wf = WorkflowBuilder::new("w");
            let task = wf.task(id, "echo/echo");
            let input = wf.input(id, 1);
            for field in ["total", "a.b", "0", "$", "quote\"]}", "result"] {
                let user = wf.task(format!("of {field}"), "echo/echo");
                let reference = task.field(field).item(0);
                user.input(json!({ "x": reference, "y": format!("<{input}>") }));
            }
            let draft = Draft::new(wf.build()).unwrap_or_else(|error| panic!("{id}: {error}"));
            let expected: Vec<(u32, u32)> = (1..7).map(|user| (user, 0)).collect();
            assert_eq!(draft.edges, expected, "{id}");
        }
    }

    /// The handle sets the same as the spec's own methods.
    #[test]
    fn a_handle_builds_the_task_that_a_spec_would() {
        let wf = WorkflowBuilder::from(WorkflowSpec::new("w").id("1"));
        let first = wf.task("a", "echo/echo").input(json!({ "text": "x" }));
        let second = wf.task("b", "echo/echo").after(&first).with(|task| task.named("B"));
        let second = second.input(json!([first.result(), first.field("n").or(json!({ "m": 1 }))]));
        assert_eq!(second.id(), "b");
        let spec = WorkflowSpec::new("w")
            .id("1")
            .task(TaskSpec::new("a", "echo/echo").params(json!({ "text": "x" })))
            .task(
                TaskSpec::new("b", "echo/echo")
                    .after("a")
                    .named("B")
                    .params(json!(["${a}", "${a.n:-{\"m\":1}}"])),
            );
        assert_eq!(wf.build(), spec);
    }
}
