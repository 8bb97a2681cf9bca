//! The commands of a person or a program about what runs: one form for the handle, for the engine,
//! and for a request that is stored for another process.
//!
//! The stored form keeps the names of its first version, so that rows of an older process are read.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::{ProviderId, TaskId};

/// A command. All but [`RestartProvider`](Self::RestartProvider) are about one workflow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "ask")]
pub enum Command {
    /// Stops the workflow: running calls end, nothing of it starts any more.
    Cancel {
        /// Why, for its events.
        reason: Arc<str>,
    },
    /// Stops one task; what depends on it follows its policy.
    CancelTask {
        /// The task.
        task: TaskId,
        /// Why, for its events.
        reason: Arc<str>,
    },
    /// Settles or repeats a task whose outcome is unknown; what depends on it follows.
    #[serde(rename = "settle")]
    Resolve {
        /// The task.
        task: TaskId,
        /// The outcome of its call.
        #[serde(rename = "verdict")]
        resolution: Resolution,
    },
    /// Runs again what did not complete in a settled workflow.
    Retry,
    /// Gives a provider a new instance and a fresh restart budget; for every process.
    RestartProvider {
        /// The provider.
        provider: ProviderId,
    },
}

/// The outcome of a task that is `outcome_unknown`, as a person states it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "as")]
pub enum Resolution {
    /// It completed, with this result.
    Completed {
        /// The result.
        result: Value,
    },
    /// It failed.
    Failed {
        /// In the person's words.
        message: Arc<str>,
    },
    /// It is to run again.
    Retry,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Rows that an older process has stored are read, and written the same: another process on the
    /// same database may be older, too.
    #[test]
    fn the_stored_form_stays() {
        let completed = Resolution::Completed { result: json!(1) };
        let stored = [
            (
                Command::Cancel { reason: "enough".into() },
                json!({"ask": "cancel", "reason": "enough"}),
            ),
            (
                Command::CancelTask { task: "a".into(), reason: "enough".into() },
                json!({"ask": "cancel_task", "task": "a", "reason": "enough"}),
            ),
            (
                Command::Resolve { task: "a".into(), resolution: completed },
                json!({"ask": "settle", "task": "a", "verdict": {"as": "completed", "result": 1}}),
            ),
            (
                Command::Resolve { task: "a".into(), resolution: Resolution::Retry },
                json!({"ask": "settle", "task": "a", "verdict": {"as": "retry"}}),
            ),
            (
                Command::RestartProvider { provider: "p".into() },
                json!({"ask": "restart_provider", "provider": "p"}),
            ),
        ];
        for (command, row) in stored {
            assert_eq!(serde_json::to_value(&command).unwrap(), row);
            assert_eq!(serde_json::from_value::<Command>(row).unwrap(), command);
        }
    }
}
