//! The events of workflows, tasks, providers and the engine, in order.
//!
//! Written by the engine and the supervisors, handed out by the event bus, kept by the store.
//! Invariant: the sequences of a workflow's events are 1, 2, 3 … without a gap.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize, Serializer, ser::SerializeStruct as _};
use serde_json::Value;

use crate::{
    epoch::Epoch,
    error::ErrorCode,
    health::HealthStatus,
    id::{Capability, ProviderId, TaskId, WorkflowId},
    metrics::Metrics,
    task::Priority,
};

/// The number of subscribers to events. Without any, the source of an event need not build it.
#[derive(Debug, Clone, Default)]
pub struct SubscriberCount(Arc<AtomicUsize>);

impl SubscriberCount {
    /// True if there are no subscribers. A subscription that was acknowledged before is seen: the
    /// count is stored before the acknowledgement.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many listen.
    pub fn len(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }

    /// Sets the count. Only the event bus, which owns the subscriptions, may call it.
    pub fn set(&self, listeners: usize) {
        self.0.store(listeners, Ordering::Release);
    }
}

/// How much attention an event wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The ordinary course.
    Info,
    /// Went wrong, and is being dealt with.
    Warning,
    /// Went wrong.
    Error,
}

/// One thing that happened.
///
/// As JSON: `event_type`, `timestamp` (RFC 3339, UTC), `severity`, `workflow_id` and `sequence`
/// (null if it belongs to no workflow), `data`.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// When.
    pub timestamp: DateTime<Utc>,
    /// Of which workflow, if of one.
    pub workflow_id: Option<WorkflowId>,
    /// The number among the events of that workflow, from 1; 0 if it belongs to none.
    pub sequence: u64,
    /// The kind of event, with its fields.
    pub data: EventData,
}

impl Serialize for Event {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let mut fields = out.serialize_struct("Event", 6)?;
        fields.serialize_field("event_type", self.data.event_type())?;
        fields.serialize_field("timestamp", &self.timestamp)?;
        fields.serialize_field("severity", &self.data.severity())?;
        fields.serialize_field("workflow_id", &self.workflow_id)?;
        fields.serialize_field("sequence", &(self.sequence > 0).then_some(self.sequence))?;
        fields.serialize_field("data", &self.data.fields(self.workflow_id.as_ref()))?;
        fields.end()
    }
}

/// The kind of an event, with the fields that its `data` contains.
///
/// The serde form (`{"<type>": {…}}`) is what stores keep; readers get that of [`Event`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each field is named as the design names it")]
pub enum EventData {
    /// `engine:started`
    EngineStarted { max_concurrent_tasks: u64 },
    /// `engine:stopped`
    EngineStopped { abandoned_tasks: u64 },
    /// `workflow:submitted`
    WorkflowSubmitted { name: Arc<str>, task_count: u32 },
    /// `workflow:started`
    WorkflowStarted {},
    /// `workflow:recovered`: the process that ran the workflow died, and another one resumed it.
    /// `owner` is the name of the new process, `epoch` its lease, `left_by` the lease of the dead
    /// one
    WorkflowRecovered { owner: Arc<str>, epoch: Epoch, left_by: Epoch },
    /// `workflow:inputs_changed`: a settled workflow is retried with these inputs instead of its own
    WorkflowInputsChanged { inputs: serde_json::Map<String, Value> },
    /// `workflow:completed`
    WorkflowCompleted { duration: f64 },
    /// `workflow:failed`; `status` is `failed` or `timed_out`
    WorkflowFailed {
        status: Arc<str>,
        error_code: ErrorCode,
        error_message: Arc<str>,
        duration: f64,
    },
    /// `workflow:cancelled`
    WorkflowCancelled { reason: Arc<str>, duration: f64 },
    /// `task:queued`
    TaskQueued { task_id: TaskId, priority: Priority },
    /// `task:waiting`: all providers of its method are down; `reason` is the cause
    TaskWaiting { task_id: TaskId, reason: Arc<str> },
    /// `task:started`
    TaskStarted { task_id: TaskId, call: Arc<Capability>, attempt: u32, provider_id: ProviderId },
    /// `task:completed`; `execution_time` in seconds, `result_size` in bytes of JSON
    TaskCompleted {
        task_id: TaskId,
        execution_time: f64,
        provider_id: Option<ProviderId>,
        result_size: u64,
    },
    /// `task:failed`
    TaskFailed {
        task_id: TaskId,
        error_code: ErrorCode,
        error_message: Arc<str>,
        is_retryable: bool,
        attempt_count: u32,
        max_retries: u32,
    },
    /// `task:retry_scheduled`; `delay` in seconds
    TaskRetryScheduled {
        task_id: TaskId,
        attempt_count: u32,
        max_retries: u32,
        delay: f64,
        due_at: DateTime<Utc>,
        error_code: ErrorCode,
        error_message: Arc<str>,
    },
    /// `task:cancelled`
    TaskCancelled { task_id: TaskId, reason: Arc<str> },
    /// `task:skipped`; `condition` is the expression that left out `because`, which is the task
    /// itself or one whose result it needs
    #[serde(rename = "TaskLeftOut")]
    TaskSkipped { task_id: TaskId, because: TaskId, condition: Arc<str> },
    /// `task:upstream_failed`; `failed_task_id` is the task that did not complete
    // Earlier versions stored it by its former name, which now has another meaning.
    #[serde(rename = "TaskSkipped")]
    TaskUpstreamFailed { task_id: TaskId, failed_task_id: TaskId },
    /// `task:timeout`; `limit` in seconds, `scope` is `attempt`, `task` or `workflow`
    TaskTimeout { task_id: TaskId, scope: Arc<str>, limit: f64, attempt_count: u32 },
    /// `task:interrupted`: the process that ran it died during the attempt, which counts
    TaskInterrupted { task_id: TaskId, attempt_count: u32, attempts_max: u32 },
    /// `task:outcome_unknown`
    TaskOutcomeUnknown { task_id: TaskId, attempt_count: u32 },
    /// `provider:registered`
    ProviderRegistered { provider_id: ProviderId, capabilities: Vec<Capability> },
    /// `provider:healthy`, `provider:degraded`, `provider:unhealthy`
    ProviderHealth {
        provider_id: ProviderId,
        health: HealthStatus,
        generation: u64,
        detail: Arc<str>,
    },
    /// `provider:restarted`
    ProviderRestarted { provider_id: ProviderId, generation: u64, reason: Arc<str> },
    /// `provider:failed`
    ProviderFailed { provider_id: ProviderId, generation: u64, reason: Arc<str> },
    /// `queue:full`; counts in tasks
    QueueFull { waiting: u64, limit: u64 },
    /// `metrics:collected`
    MetricsCollected { metrics: Box<Metrics> },
}

impl EventData {
    /// The name of the format, such as `task:queued`.
    pub const fn event_type(&self) -> &'static str {
        match self {
            Self::EngineStarted { .. } => "engine:started",
            Self::EngineStopped { .. } => "engine:stopped",
            Self::WorkflowSubmitted { .. } => "workflow:submitted",
            Self::WorkflowStarted {} => "workflow:started",
            Self::WorkflowRecovered { .. } => "workflow:recovered",
            Self::WorkflowInputsChanged { .. } => "workflow:inputs_changed",
            Self::WorkflowCompleted { .. } => "workflow:completed",
            Self::WorkflowFailed { .. } => "workflow:failed",
            Self::WorkflowCancelled { .. } => "workflow:cancelled",
            Self::TaskQueued { .. } => "task:queued",
            Self::TaskWaiting { .. } => "task:waiting",
            Self::TaskStarted { .. } => "task:started",
            Self::TaskCompleted { .. } => "task:completed",
            Self::TaskFailed { .. } => "task:failed",
            Self::TaskRetryScheduled { .. } => "task:retry_scheduled",
            Self::TaskCancelled { .. } => "task:cancelled",
            Self::TaskSkipped { .. } => "task:skipped",
            Self::TaskUpstreamFailed { .. } => "task:upstream_failed",
            Self::TaskTimeout { .. } => "task:timeout",
            Self::TaskInterrupted { .. } => "task:interrupted",
            Self::TaskOutcomeUnknown { .. } => "task:outcome_unknown",
            Self::ProviderRegistered { .. } => "provider:registered",
            Self::ProviderHealth { health: HealthStatus::Healthy, .. } => "provider:healthy",
            Self::ProviderHealth { health: HealthStatus::Degraded, .. } => "provider:degraded",
            Self::ProviderHealth { .. } => "provider:unhealthy",
            Self::ProviderRestarted { .. } => "provider:restarted",
            Self::ProviderFailed { .. } => "provider:failed",
            Self::QueueFull { .. } => "queue:full",
            Self::MetricsCollected { .. } => "metrics:collected",
        }
    }

    /// How much attention it wants.
    pub const fn severity(&self) -> Severity {
        match self {
            Self::WorkflowFailed { .. }
            | Self::TaskFailed { .. }
            | Self::TaskOutcomeUnknown { .. }
            | Self::ProviderFailed { .. } => Severity::Error,
            Self::TaskRetryScheduled { .. }
            | Self::TaskWaiting { .. }
            | Self::TaskTimeout { .. }
            | Self::TaskUpstreamFailed { .. }
            | Self::TaskCancelled { .. }
            | Self::TaskInterrupted { .. }
            | Self::WorkflowCancelled { .. }
            | Self::WorkflowRecovered { .. }
            | Self::ProviderRestarted { .. }
            | Self::QueueFull { .. } => Severity::Warning,
            Self::ProviderHealth { health, .. } => match health {
                HealthStatus::Healthy => Severity::Info,
                _ => Severity::Warning,
            },
            _ => Severity::Info,
        }
    }

    /// The task that it is about, if about one.
    pub fn task_id(&self) -> Option<&TaskId> {
        match self {
            Self::TaskQueued { task_id, .. }
            | Self::TaskWaiting { task_id, .. }
            | Self::TaskStarted { task_id, .. }
            | Self::TaskCompleted { task_id, .. }
            | Self::TaskFailed { task_id, .. }
            | Self::TaskRetryScheduled { task_id, .. }
            | Self::TaskCancelled { task_id, .. }
            | Self::TaskSkipped { task_id, .. }
            | Self::TaskUpstreamFailed { task_id, .. }
            | Self::TaskTimeout { task_id, .. }
            | Self::TaskInterrupted { task_id, .. }
            | Self::TaskOutcomeUnknown { task_id, .. } => Some(task_id),
            _ => None,
        }
    }

    /// The fields as readers see them.
    fn fields(&self, workflow_id: Option<&WorkflowId>) -> Value {
        let tagged = serde_json::to_value(self).unwrap_or_default();
        let mut fields = match tagged {
            Value::Object(tagged) => tagged.into_iter().next().map_or(Value::Null, |(_, it)| it),
            other => other,
        };
        if let (Value::Object(fields), Some(workflow_id)) = (&mut fields, workflow_id) {
            fields.insert("workflow_id".into(), workflow_id.as_str().into());
            if let Self::TaskStarted { call, .. } = self {
                fields.remove("call");
                fields.insert("protocol".into(), call.protocol.to_string().into());
                fields.insert("method".into(), (&*call.method).into());
                fields.insert("provider_requested".into(), true.into());
            }
        }
        fields
    }
}

impl fmt::Display for EventData {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.event_type())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Readers see the names of the design, not those of the enum.
    #[test]
    fn a_started_task_shows_the_fields_of_the_design() {
        let event = Event {
            timestamp: DateTime::UNIX_EPOCH,
            workflow_id: Some("w".into()),
            sequence: 4,
            data: EventData::TaskStarted {
                task_id: "a".into(),
                call: Arc::new("python/v1:execute".parse().unwrap()),
                attempt: 1,
                provider_id: "python".into(),
            },
        };
        assert_eq!(
            serde_json::to_value(&event).unwrap(),
            json!({
                "event_type": "task:started",
                "timestamp": "1970-01-01T00:00:00Z",
                "severity": "info",
                "workflow_id": "w",
                "sequence": 4,
                "data": {
                    "task_id": "a", "workflow_id": "w", "attempt": 1, "provider_id": "python",
                    "protocol": "python/v1.0", "method": "execute", "provider_requested": true,
                },
            })
        );
    }

    /// A stored event is read back as it was.
    #[test]
    fn stored_form_is_reversible() {
        let data = EventData::ProviderHealth {
            provider_id: "p".into(),
            health: HealthStatus::Unhealthy,
            generation: 2,
            detail: "no answer".into(),
        };
        let text = serde_json::to_string(&data).unwrap();
        assert_eq!(serde_json::from_str::<EventData>(&text).unwrap(), data);
        assert_eq!(data.event_type(), "provider:unhealthy");
    }
}
