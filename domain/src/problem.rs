//! The errors of a submission: every finding at once, each with its JSON pointer.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    error::{ErrorCode, TaskError},
    id::WorkflowId,
    store::error::StoreError,
};

/// One thing wrong with a workflow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The kind.
    pub code: ErrorCode,
    /// The position in the workflow, as a JSON pointer into its file: `/tasks/0/parameters/code`.
    pub pointer: String,
    /// The offending value, and the expected one.
    pub message: String,
    /// The remedy; `None` if the message is enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

impl Problem {
    /// A problem without a hint.
    pub fn new(code: ErrorCode, pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code, pointer: pointer.into(), message: message.into(), help: None }
    }

    /// Adds what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pointer.is_empty() {
            write!(out, "{}", self.message)?;
        } else {
            write!(out, "{}: {}", self.pointer, self.message)?;
        }
        match &self.help {
            Some(help) => write!(out, " ({help})"),
            None => Ok(()),
        }
    }
}

/// Appends a key or index to a JSON pointer (RFC 6901).
pub fn push_pointer(pointer: &mut String, segment: &str) {
    pointer.push('/');
    for c in segment.chars() {
        match c {
            '~' => pointer.push_str("~0"),
            '/' => pointer.push_str("~1"),
            c => pointer.push(c),
        }
    }
}

/// Why a workflow was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// It is wrong; submitting it again will not help.
    #[error("{}", list(.0))]
    Invalid(Vec<Problem>),
    /// Intake is at its bound; submit again later.
    #[error(
        "{waiting} tasks wait already, and {limit} is the limit; submit again later, or raise \
         `engine.max_queued_tasks`"
    )]
    QueueFull {
        /// Accepted tasks that are not settled.
        waiting: u64,
        /// The limit of `engine.max_queued_tasks`.
        limit: u64,
    },
    /// Another workflow has its id.
    #[error(
        "workflow `{id}` was submitted before and differs: {what}; give this one another id, or \
         leave the id out"
    )]
    Differs {
        /// The id.
        id: WorkflowId,
        /// The difference, from [`difference`](crate::difference::difference).
        what: String,
    },
    /// It has more tasks than may ever be queued at once; submitting it again will not help.
    #[error(
        "the workflow has {tasks} tasks, more than may wait at all ({limit}); split it, or raise \
         `engine.max_queued_tasks`"
    )]
    TooLarge {
        /// The number of its tasks.
        tasks: u64,
        /// The limit of `engine.max_queued_tasks`.
        limit: u64,
    },
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The runtime stops or has stopped.
    #[error("the runtime has stopped")]
    Stopped,
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("; ")
}

impl SubmitError {
    /// The code of the table.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Invalid(problems) => match problems.as_slice() {
                [only] => only.code,
                _ => ErrorCode::WorkflowValidationFailed,
            },
            Self::QueueFull { .. } => ErrorCode::QueueFull,
            Self::Differs { .. } => ErrorCode::WorkflowInvalidState,
            Self::TooLarge { .. } => ErrorCode::WorkflowValidationFailed,
            Self::Store(error) => error.code(),
            Self::Stopped => ErrorCode::SystemShutdown,
        }
    }
}

impl From<SubmitError> for TaskError {
    fn from(error: SubmitError) -> Self {
        let plain = Self::new(error.code(), error.to_string());
        match &error {
            SubmitError::Invalid(problems) => {
                plain.with_data(serde_json::json!({ "problems": problems }))
            }
            _ => plain,
        }
    }
}
