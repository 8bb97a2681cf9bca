//! A task's statuses with the table of allowed transitions, and the record of a task.

use std::{fmt, sync::Arc};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    error::TaskError,
    id::{ProviderId, TaskId},
};

/// The status of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskStatus {
    /// Waits for its dependencies.
    #[default]
    Pending,
    /// Ready; waits for its turn, for resources or for a provider.
    Queued,
    /// The call is running.
    Executing,
    /// An attempt failed; the next one waits for its time.
    RetryPending,
    /// Done, with a result.
    Completed,
    /// Done, with an error.
    Failed,
    /// Stopped by someone.
    Cancelled,
    /// Left out by a condition, its own or that of a task whose result it needs. Harmless.
    Skipped,
    /// Never ran, because a task that it needs did not complete.
    UpstreamFailed,
    /// Was executing at a crash and must not run twice; waits for a person's word.
    OutcomeUnknown,
}

/// A transition that the table does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a task that is {from} cannot become {to}")]
pub struct ImpossibleTransition {
    /// The present status.
    pub from: TaskStatus,
    /// The requested status.
    pub to: TaskStatus,
}

impl TaskStatus {
    /// Every status.
    pub const ALL: [Self; 10] = [
        Self::Pending,
        Self::Queued,
        Self::Executing,
        Self::RetryPending,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
        Self::Skipped,
        Self::UpstreamFailed,
        Self::OutcomeUnknown,
    ];

    /// True when nothing more will happen to it.
    pub const fn is_settled(self) -> bool {
        matches!(
            self,
            Self::Completed | Self::Failed | Self::Cancelled | Self::Skipped | Self::UpstreamFailed
        )
    }

    /// True if the table allows the transition.
    pub const fn can_become(self, to: Self) -> bool {
        use TaskStatus::{
            Cancelled, Completed, Executing, Failed, OutcomeUnknown, Pending, Queued, RetryPending,
            Skipped, UpstreamFailed,
        };
        match self {
            // Completed: a value, which no provider makes.
            Pending => {
                matches!(to, Queued | Completed | Skipped | UpstreamFailed | Failed | Cancelled)
            }
            Queued => matches!(to, Executing | Failed | Cancelled | RetryPending),
            Executing => {
                // Queued again: its call was interrupted, or did not begin, because the lease
                // expired.
                matches!(
                    to,
                    Completed | Failed | Cancelled | RetryPending | OutcomeUnknown | Queued
                )
            }
            RetryPending => matches!(to, Queued | Failed | Cancelled),
            OutcomeUnknown => matches!(to, Completed | Failed | Cancelled | Queued),
            // A person may run again what failed, never ran or was cancelled.
            Failed | Skipped | UpstreamFailed | Cancelled => matches!(to, Pending),
            Completed => false,
        }
    }

    /// The status after the step.
    ///
    /// # Errors
    /// [`ImpossibleTransition`] if the table does not allow it.
    pub const fn step(self, to: Self) -> Result<Self, ImpossibleTransition> {
        if self.can_become(to) { Ok(to) } else { Err(ImpossibleTransition { from: self, to }) }
    }

    /// The name in files, events and databases.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Queued => "queued",
            Self::Executing => "executing",
            Self::RetryPending => "retry_pending",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Skipped => "skipped",
            Self::UpstreamFailed => "upstream_failed",
            Self::OutcomeUnknown => "outcome_unknown",
        }
    }

    /// The status of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }
}

impl fmt::Display for TaskStatus {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.as_str())
    }
}

/// The priority of a task among those that are ready.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Before all others.
    Urgent,
    /// Before normal.
    High,
    /// The default.
    #[default]
    Normal,
    /// When nothing else waits, and by the bound on starvation.
    Low,
}

impl Priority {
    /// From first to last.
    pub const ALL: [Self; 4] = [Self::Urgent, Self::High, Self::Normal, Self::Low];

    /// The rank: 0 for urgent … 3 for low.
    pub const fn rank(self) -> usize {
        self as usize
    }

    /// The name in files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Urgent => "urgent",
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }
}

/// The policy for a task if one of its dependencies did not complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnDependencyFailure {
    /// The task and all its dependents are `upstream_failed`.
    #[default]
    Skip,
    /// It fails with `TASK_DEPENDENCY_FAILED`.
    Fail,
    /// It runs all the same.
    Run,
}

/// The record of one task of a workflow, as stores keep it and queries return it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskRecord {
    /// The index in the workflow, from 0.
    pub index: u32,
    /// The id.
    pub id: TaskId,
    /// The name for people.
    pub name: Arc<str>,
    /// The status.
    pub status: TaskStatus,
    /// Attempts begun so far.
    pub attempts: u32,
    /// The provider of the last attempt.
    pub provider_id: Option<ProviderId>,
    /// When the last attempt began.
    pub started_at: Option<DateTime<Utc>>,
    /// When it settled.
    pub completed_at: Option<DateTime<Utc>>,
    /// When the next attempt is due, while a retry is pending.
    pub due_at: Option<DateTime<Utc>>,
    /// Seconds that the last attempt's call took.
    pub duration: Option<f64>,
    /// The result, once completed.
    pub result: Option<Arc<Value>>,
    /// Why it failed, once failed; the last attempt's error while a retry is pending.
    pub error: Option<Arc<TaskError>>,
}

/// How the error of a task begins that waits for a provider.
pub(crate) const WAITS: &str = "waits for a provider: ";

impl TaskRecord {
    /// Why a queued task waits for its providers, if it is written down that they are all down.
    pub fn waits_for_provider(&self) -> Option<&str> {
        let error = self.error.as_ref().filter(|_| self.status == TaskStatus::Queued)?;
        error.message.strip_prefix(WAITS)
    }

    /// True if the result was left out, as [`Store::outline`](crate::store::Store::outline) does.
    pub fn is_result_left_out(&self) -> bool {
        self.status == TaskStatus::Completed && self.result.is_none()
    }

    /// A task that has not begun.
    pub fn pending(index: u32, id: TaskId, name: Arc<str>) -> Self {
        Self {
            index,
            id,
            name,
            status: TaskStatus::Pending,
            attempts: 0,
            provider_id: None,
            started_at: None,
            completed_at: None,
            due_at: None,
            duration: None,
            result: None,
            error: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// No walk along allowed steps leaves a completed task, and a settled one moves only to
        /// `pending`, by a person's word.
        #[test]
        fn settled_tasks_stay_settled(walk in prop::collection::vec(0..10_usize, 0..50)) {
            let mut status = TaskStatus::Pending;
            for to in walk.into_iter().map(|at| TaskStatus::ALL[at]) {
                let step = status.step(to);
                prop_assert_eq!(step.is_ok(), status.can_become(to));
                if status.is_settled() {
                    let reopened = to == TaskStatus::Pending && status != TaskStatus::Completed;
                    prop_assert_eq!(step.is_ok(), reopened);
                }
                prop_assert!(!status.can_become(status), "{} into itself", status);
                status = step.unwrap_or(status);
            }
        }
    }

    /// Names are a wire format.
    #[test]
    fn names_are_reversible_and_those_of_serde() {
        for status in TaskStatus::ALL {
            assert_eq!(TaskStatus::from_name(status.as_str()), Some(status));
            assert_eq!(serde_json::to_value(status).unwrap(), status.as_str());
        }
    }
}
