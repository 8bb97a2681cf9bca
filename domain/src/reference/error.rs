//! The errors of a reference: in its syntax, in its workflow, and when it is rendered.

use std::fmt;

use serde_json::json;

use crate::{
    error::{ErrorCode, TaskError},
    problem::Problem,
    task::TaskStatus,
};

/// A reference that cannot be accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}`: {fault}")]
pub struct ReferenceError {
    /// The JSON pointer, into the parameters, of the string that it stands in.
    pub pointer: String,
    /// The reference as written, up to the error; at most 80 characters.
    pub text: String,
    /// The error.
    pub fault: ReferenceFault,
}

impl ReferenceError {
    /// The code of the table.
    pub fn code(&self) -> ErrorCode {
        match self.fault {
            ReferenceFault::UnknownTask { .. } => ErrorCode::TaskNotFound,
            _ => ErrorCode::TaskParameterError,
        }
    }

    /// The remedy for the author.
    pub fn help(&self) -> String {
        let literal = "write `$${` where the text `${` is meant literally";
        match &self.fault {
            ReferenceFault::UnknownTask { nearest: Some(nearest), .. } => {
                format!("did you mean `{nearest}`? Else {literal}")
            }
            ReferenceFault::Ambiguous { .. } => "name the task by its id".to_owned(),
            ReferenceFault::Env | ReferenceFault::Workflow => {
                "a task of this name is written with a quoted name: `${[\"name\"].path}`".to_owned()
            }
            _ => literal.to_owned(),
        }
    }

    /// The same as a finding in a file; `base` is the pointer of the parameters there, such as
    /// `/tasks/0/parameters`.
    pub fn to_problem(&self, base: &str) -> Problem {
        Problem::new(self.code(), format!("{base}{}", self.pointer), self.to_string())
            .help(self.help())
    }
}

/// The errors of a reference in its syntax or its workflow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceFault {
    /// The string ends before it does.
    #[error("the reference has no closing `}}`")]
    Unclosed,
    /// Nothing between the braces.
    #[error("the reference names nothing; expected `${{task.path}}`")]
    Empty,
    /// Two dots in a row, or a dot at an end.
    #[error("the path has an empty segment; a key that is empty is written `[\"\"]`")]
    EmptySegment,
    /// It begins with `[0]`.
    #[error("the reference begins with an index; expected the name of a task")]
    NoName,
    /// `[` is followed neither by digits nor by a quoted key, or there is no `]` after those.
    #[error("a bracket holds an index or a quoted key: `[0]`, `[\"odd key\"]`")]
    Bracket,
    /// A character that can stand only in a quoted key.
    #[error("`{found}` cannot stand here; quote a key that contains it: `[\"odd key\"]`")]
    Unexpected {
        /// The character.
        found: char,
    },
    /// A reference inside a fallback.
    #[error("a fallback cannot hold a reference; it is a JSON value or plain text")]
    NestedFallback,
    /// Not `${env.X}`.
    #[error("expected the name of one variable: `${{env.NAME}}`")]
    Env,
    /// Neither `${workflow.id}` nor `${workflow.name}`.
    #[error("expected `${{workflow.id}}` or `${{workflow.name}}`")]
    Workflow,
    /// `$` is not followed by a known field.
    #[error("expected `$.status`, `$.error`, `$.duration` or `$.provider_id` after the task")]
    Metadata,
    /// Several tasks have the name.
    #[error("`{name}` is ambiguous: several tasks have this name")]
    Ambiguous {
        /// The name.
        name: String,
    },
    /// The workflow has no such task.
    #[error("the workflow has no task `{name}`")]
    UnknownTask {
        /// The name as far as its first dot or bracket.
        name: String,
        /// The name of a task that is written much alike.
        nearest: Option<String>,
    },
}

/// A reference that has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{reference}` in {} has no value: {fault}", location(.pointer))]
pub struct RenderError {
    /// The reference as written.
    pub reference: String,
    /// The JSON pointer, into the parameters, of the string that it stands in.
    pub pointer: String,
    /// Why.
    pub fault: Box<RenderFault>,
}

fn location(pointer: &str) -> &str {
    if pointer.is_empty() { "the parameters" } else { pointer }
}

/// Why a reference has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenderFault {
    /// The path leads nowhere.
    #[error("`{within}` has no `{segment}`; {found}")]
    Missing {
        /// The first segment that does not exist.
        segment: String,
        /// The reference up to it, as written.
        within: String,
        /// The value found instead.
        found: Found,
    },
    /// The task did not complete, or gave nothing.
    #[error("task `{task}` {}; add a fallback: `${{{task}:-…}}`", without_result(*.status))]
    NoResult {
        /// The task as written.
        task: String,
        /// The status of the task; `None` if the workflow has no such task.
        status: Option<TaskStatus>,
    },
    /// The settings do not list the variable.
    #[error("variable `{name}` is not on the settings' list of readable variables")]
    EnvNotListed {
        /// The variable.
        name: String,
    },
    /// The variable is listed, but not set.
    #[error("variable `{name}` is not set in the environment of the runtime")]
    EnvUnset {
        /// The variable.
        name: String,
    },
    /// The template was never bound: a defect of the caller.
    #[error("the reference was never bound to a task")]
    Unbound,
}

fn without_result(status: Option<TaskStatus>) -> String {
    match status {
        Some(status) => format!("is {status} and has no result"),
        None => "is not known".to_owned(),
    }
}

/// The value found instead of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// An object with these keys.
    Object {
        /// The first of them, at most [`Found::KEYS_MAX`].
        keys: Vec<String>,
        /// How many more there are.
        more: usize,
    },
    /// A list.
    List {
        /// How many items it has.
        len: usize,
    },
    /// Something without parts: `null`, `a boolean`, `a number`, `a string`.
    Scalar(&'static str),
}

impl Found {
    /// The bound on the keys that are listed.
    pub const KEYS_MAX: usize = 20;
}

impl fmt::Display for Found {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Object { keys, .. } if keys.is_empty() => out.write_str("it has no keys"),
            Self::Object { keys, more } => {
                write!(out, "it has {}", keys.join(", "))?;
                if *more > 0 { write!(out, " and {more} more") } else { Ok(()) }
            }
            Self::List { len } => write!(out, "it is a list of {len}, indexed from 0"),
            Self::Scalar(kind) => write!(out, "it is {kind}"),
        }
    }
}

impl RenderError {
    /// The code of the table: always [`ErrorCode::TaskParameterError`].
    pub const CODE: ErrorCode = ErrorCode::TaskParameterError;
}

/// With `{"reference", "pointer"}` as data, and `missing` and `keys` if the path is missing.
impl From<RenderError> for TaskError {
    fn from(error: RenderError) -> Self {
        let mut data = json!({ "reference": error.reference, "pointer": error.pointer });
        if let RenderFault::Missing { segment, found, .. } = &*error.fault {
            data["missing"] = json!(segment);
            if let Found::Object { keys, .. } = found {
                data["keys"] = json!(keys);
            }
        }
        Self::new(RenderError::CODE, error.to_string()).with_data(data)
    }
}
