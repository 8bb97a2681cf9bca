//! A workflow as submitted, its status as derived from its tasks, and its record.

mod builder;
mod output;

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use builder::{Reference, TaskHandle, WorkflowBuilder};
pub use output::ResultError;

use crate::{
    duration,
    error::TaskError,
    file_access::FileAccess,
    id::{ProtocolId, WorkflowId},
    resources::ResourceRequirements,
    retry::RetryPolicy,
    task::{OnDependencyFailure, Priority, TaskRecord},
};

/// A workflow as submitted: from a file, or from the builder methods.
///
/// ```
/// use gleitzeit_domain::workflow::{TaskSpec, WorkflowSpec};
/// use serde_json::json;
///
/// let spec = WorkflowSpec::new("greeting")
///     .task(TaskSpec::new("hello", "echo/echo").params(json!({"text": "hello"})))
///     .task(TaskSpec::new("twice", "echo/echo").params(json!({"text": "${hello.text}, again"})));
/// assert_eq!(spec.tasks.len(), 2);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkflowSpec {
    /// For a person.
    pub name: String,
    /// Unique in the store; generated if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<WorkflowId>,
    /// The purpose, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The limit of the whole workflow. In files: seconds.
    #[serde(default, with = "duration::option", skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// Tasks of it that may execute at once; at least 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_parallel_tasks: Option<u32>,
    /// Read as `${inputs.x}`.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub inputs: Map<String, Value>,
    /// The spelling of numbers of the inputs, such as `1.10`, by JSON pointer into `inputs`, if it
    /// has more information than the value. Used if an input becomes part of a text.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub spellings: BTreeMap<String, String>,
    /// Directories and files that its tasks may use; `None` reads relative paths from the working
    /// directory of the process that runs the workflow. In JSON: `place`.
    #[serde(rename = "place", default, skip_serializing_if = "Option::is_none")]
    pub file_access: Option<Arc<FileAccess>>,
    /// The tasks, in the order of the file.
    pub tasks: Vec<TaskSpec>,
}

impl WorkflowSpec {
    /// A workflow without tasks.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            id: None,
            description: None,
            timeout: None,
            max_parallel_tasks: None,
            inputs: Map::new(),
            spellings: BTreeMap::new(),
            file_access: None,
            tasks: Vec::new(),
        }
    }

    /// Adds a task.
    #[must_use]
    pub fn task(mut self, task: TaskSpec) -> Self {
        self.tasks.push(task);
        self
    }

    /// Sets the id; submitting it twice returns the first submission.
    #[must_use]
    pub fn id(mut self, id: impl Into<WorkflowId>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Limits the whole workflow.
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// Limits how many of its tasks execute at once.
    #[must_use]
    pub fn max_parallel_tasks(mut self, limit: u32) -> Self {
        self.max_parallel_tasks = Some(limit);
        self
    }

    /// Adds an input, read as `${inputs.<name>}`.
    #[must_use]
    pub fn input(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.inputs.insert(name.into(), value.into());
        self
    }
}

/// A task as submitted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// Unique in the workflow; `task-<n>` (from 1) where empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// The name for people; `None` uses the id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The protocol, with or without a version; else it stands in `method`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// A bare method, or `protocol/method`; empty in a task with `value` or `switch`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub method: String,
    /// An expression whose value is the result, instead of a call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Branches of which the first that holds is chosen, instead of a call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub switch: Vec<Branch>,
    /// The condition of the task, an expression: it is skipped where it does not hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// Branches of switches, `switch.branch`, in one of which the task is. In files: `in`.
    #[serde(rename = "in", default, skip_serializing_if = "Vec::is_empty")]
    pub branches: Vec<String>,
    /// The parameters: an object by name, or an array by position.
    #[serde(default, skip_serializing_if = "is_null")]
    pub parameters: Arc<Value>,
    /// Ids or names of tasks that must settle before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dependencies: Vec<String>,
    /// The priority among ready tasks.
    #[serde(default)]
    pub priority: Priority,
    /// The limit of one attempt. In files: seconds.
    #[serde(default, with = "duration::option", skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// The limit of the task over all its attempts and pauses. In files: seconds.
    #[serde(default, with = "duration::option", skip_serializing_if = "Option::is_none")]
    pub total_timeout: Option<Duration>,
    /// Overrides the method's policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryPolicy>,
    /// Overrides the method's needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// The policy if a dependency did not complete.
    #[serde(default)]
    pub on_dependency_failure: OnDependencyFailure,
    /// True adds `_profiling` to an object result.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub profile: bool,
}

impl TaskSpec {
    /// A task that calls `method`, written `protocol/method` or `protocol/version:method`.
    pub fn new(id: impl Into<String>, method: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            name: None,
            protocol: None,
            method: method.into(),
            value: None,
            switch: Vec::new(),
            when: None,
            branches: Vec::new(),
            parameters: Arc::default(),
            dependencies: Vec::new(),
            priority: Priority::default(),
            timeout: None,
            total_timeout: None,
            retry: None,
            resources: None,
            on_dependency_failure: OnDependencyFailure::default(),
            profile: false,
        }
    }

    /// A task whose result is the value of an expression, such as `size(list.items) * 2`.
    pub fn value(id: impl Into<String>, expression: impl Into<String>) -> Self {
        Self { value: Some(expression.into()), ..Self::new(id, "") }
    }

    /// A task that chooses the first branch that holds; its result is `{"to": "<branch>"}`.
    pub fn switch(id: impl Into<String>, branches: impl IntoIterator<Item = Branch>) -> Self {
        Self { switch: branches.into_iter().collect(), ..Self::new(id, "") }
    }

    /// Skips the task where the expression does not hold, such as `inputs.mode != "dry"`.
    #[must_use]
    pub fn when(mut self, condition: impl Into<String>) -> Self {
        self.when = Some(condition.into());
        self
    }

    /// Puts the task into a branch, written `switch.branch`. It runs if one of its branches is chosen.
    #[must_use]
    pub fn in_branch(mut self, branch: impl Into<String>) -> Self {
        self.branches.push(branch.into());
        self
    }

    /// The sources of its expressions.
    pub fn expressions(&self) -> impl Iterator<Item = &str> {
        let branches = self.switch.iter().filter_map(|branch| branch.when.as_deref());
        self.when.as_deref().into_iter().chain(self.value.as_deref()).chain(branches)
    }

    /// True if it calls no method: it has a value, or is a switch.
    pub fn is_decided(&self) -> bool {
        self.value.is_some() || !self.switch.is_empty()
    }

    /// True with a condition, or where it is decided without a call.
    pub fn has_decision(&self) -> bool {
        self.when.is_some()
            || self.value.is_some()
            || !self.switch.is_empty()
            || !self.branches.is_empty()
    }

    /// Sets the parameters.
    #[must_use]
    pub fn params(mut self, parameters: impl Into<Value>) -> Self {
        self.parameters = Arc::new(parameters.into());
        self
    }

    /// Waits for another task.
    #[must_use]
    pub fn after(mut self, task: impl Into<String>) -> Self {
        self.dependencies.push(task.into());
        self
    }

    /// Sets the name for a person.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Names a protocol, such as `python/v1.0`.
    #[must_use]
    pub fn protocol(mut self, protocol: &ProtocolId) -> Self {
        self.protocol = Some(protocol.to_string());
        self
    }

    /// Sets who is served first.
    #[must_use]
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// Limits one attempt.
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// Limits the task over all its attempts and pauses.
    #[must_use]
    pub fn total_timeout(mut self, limit: Duration) -> Self {
        self.total_timeout = Some(limit);
        self
    }

    /// Sets the retry policy.
    #[must_use]
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = Some(policy);
        self
    }

    /// Declares what it needs.
    #[must_use]
    pub fn resources(mut self, need: ResourceRequirements) -> Self {
        self.resources = Some(need);
        self
    }

    /// Sets what happens when a dependency did not complete.
    #[must_use]
    pub fn on_dependency_failure(mut self, policy: OnDependencyFailure) -> Self {
        self.on_dependency_failure = policy;
        self
    }
}

/// A branch of a switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Branch {
    /// The name.
    pub to: String,
    /// The condition; `None` always holds. In files: `else: true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
}

impl Branch {
    /// A branch with a condition.
    pub fn new(to: impl Into<String>, when: impl Into<String>) -> Self {
        Self { to: to.into(), when: Some(when.into()) }
    }

    /// The branch that is chosen if no other is.
    pub fn otherwise(to: impl Into<String>) -> Self {
        Self { to: to.into(), when: None }
    }
}

fn is_null(value: &Value) -> bool {
    value.is_null()
}

/// The status of a workflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkflowStatus {
    /// Accepted; no task has begun.
    #[default]
    Pending,
    /// Some task has begun.
    Running,
    /// Every task completed.
    Completed,
    /// A task failed, or was skipped because of one.
    Failed,
    /// Someone cancelled it.
    Cancelled,
    /// The time limit was exceeded.
    TimedOut,
}

impl WorkflowStatus {
    /// Every status.
    pub const ALL: [Self; 6] = [
        Self::Pending,
        Self::Running,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
        Self::TimedOut,
    ];

    /// True when nothing more will happen to it by itself.
    pub const fn is_settled(self) -> bool {
        !matches!(self, Self::Pending | Self::Running)
    }

    /// The name in events, databases and output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed_out",
        }
    }

    /// The status of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }
}

impl fmt::Display for WorkflowStatus {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.as_str())
    }
}

/// The record of one workflow, as stores keep it and queries return it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkflowRecord {
    /// The id.
    pub id: WorkflowId,
    /// The name for a person.
    pub name: Arc<str>,
    /// The status.
    pub status: WorkflowStatus,
    /// When it was accepted.
    pub created_at: DateTime<Utc>,
    /// When its first task began.
    pub started_at: Option<DateTime<Utc>>,
    /// When it settled.
    pub completed_at: Option<DateTime<Utc>>,
    /// Why it did not complete.
    pub error: Option<Arc<TaskError>>,
    /// The number of its last event.
    pub last_sequence: u64,
    /// The spec as submitted.
    pub spec: Arc<WorkflowSpec>,
    /// The tasks, by index.
    pub tasks: Vec<TaskRecord>,
}

/// A workflow in a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkflowSummary {
    /// The id.
    pub id: WorkflowId,
    /// The name for people.
    pub name: Arc<str>,
    /// The status.
    pub status: WorkflowStatus,
    /// When it was accepted.
    pub created_at: DateTime<Utc>,
    /// When it settled.
    pub completed_at: Option<DateTime<Utc>>,
    /// How many tasks it has.
    pub task_count: u32,
    /// How many of them are settled; all, once the workflow is.
    pub settled_count: u32,
    /// How many of them wait for a person's word.
    pub outcome_unknown_count: u32,
    /// Tasks that wait for a provider that is down.
    #[serde(default)]
    pub waiting_count: u32,
}
