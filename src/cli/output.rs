//! Where words go: results to standard output, everything else to standard error.
//!
//! Invariant: with `--json`, one document is written to standard output, and nothing else.

use std::{
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
};

use comfy_table::{ContentArrangement, Table, presets};
use gleitzeit::{runtime::StartError, settings::SettingsError};
use gleitzeit_domain::{
    error::{ErrorCode, TaskError},
    problem::SubmitError,
    store::StoreError,
    workflow::WorkflowStatus,
};
use serde::Serialize;
use serde_json::{Value, json};

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All went well.
    Success,
    /// The workflow, or what was asked about, failed.
    Failed,
    /// The command or a file is wrong.
    Usage,
    /// The store, a provider or the machine.
    Infrastructure,
    /// Someone pressed Ctrl-C.
    Interrupted,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Success => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Infrastructure => 3,
            Exit::Interrupted => 130,
        })
    }
}

impl From<WorkflowStatus> for Exit {
    fn from(status: WorkflowStatus) -> Self {
        if status == WorkflowStatus::Completed { Self::Success } else { Self::Failed }
    }
}

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    /// How the program ends.
    pub(crate) exit: Exit,
    /// For a program.
    pub(crate) error: TaskError,
    /// For a person, as it stands, where there is more to show than the message.
    pub(crate) text: Option<String>,
}

impl Failure {
    /// The command or a file is wrong.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, TaskError::new(ErrorCode::InvalidRequest, message.into()))
    }

    /// The store, a provider or the machine.
    pub(crate) fn infrastructure(message: impl Into<String>) -> Self {
        Self::new(Exit::Infrastructure, TaskError::new(ErrorCode::InternalError, message.into()))
    }

    pub(crate) fn new(exit: Exit, error: TaskError) -> Self {
        Self { exit, error, text: None }
    }

    /// Shows a person more than the message.
    pub(crate) fn text(mut self, text: impl Into<String>) -> Self {
        self.text = Some(text.into());
        self
    }

    /// Says it, in the way that was asked for.
    pub(crate) fn tell(&self, json: bool) -> Exit {
        match &self.text {
            Some(text) => note(text.trim_end()),
            None => note(format_args!("error: {}", self.error.message.trim_end())),
        }
        if json {
            document(&json!({ "error": error_json(&self.error) }));
        }
        self.exit
    }
}

impl From<SettingsError> for Failure {
    fn from(error: SettingsError) -> Self {
        let problems: Vec<Value> = error
            .problems
            .iter()
            .map(|it| {
                json!({
                    "path": it.path, "origin": it.origin, "message": it.message, "help": it.help,
                })
            })
            .collect();
        let told = TaskError::new(ErrorCode::ConfigurationError, error.to_string())
            .with_data(json!({ "problems": problems }));
        Self::new(Exit::Usage, told)
    }
}

impl From<SubmitError> for Failure {
    fn from(error: SubmitError) -> Self {
        let exit = match &error {
            SubmitError::Invalid(_) => Exit::Usage,
            _ => Exit::Infrastructure,
        };
        let text = match &error {
            SubmitError::Invalid(problems) => {
                let lines: Vec<String> = problems.iter().map(|it| format!("\n  {it}")).collect();
                Some(format!("error: the workflow is not valid:{}", lines.concat()))
            }
            _ => None,
        };
        Self { exit, error: error.into(), text }
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        let exit = match error {
            StartError::Settings(error) => return error.into(),
            StartError::Provider { .. }
            | StartError::Protocols { .. }
            | StartError::StoreKind { .. }
            | StartError::Strategy(_) => Exit::Usage,
            _ => Exit::Infrastructure,
        };
        Self::new(exit, TaskError::new(error.code(), error.to_string()))
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::new(Exit::Infrastructure, error.into())
    }
}

impl From<TaskError> for Failure {
    fn from(error: TaskError) -> Self {
        let exit = match error.code {
            ErrorCode::WorkflowNotFound
            | ErrorCode::TaskNotFound
            | ErrorCode::ProtocolNotFound
            | ErrorCode::MethodNotFound
            | ErrorCode::WorkflowInvalidState
            | ErrorCode::WorkflowValidationFailed
            | ErrorCode::WorkflowCircularDependency => Exit::Usage,
            _ => Exit::Infrastructure,
        };
        Self::new(exit, error)
    }
}

/// `{"code","name","message","data"}`.
pub(crate) fn error_json(error: &TaskError) -> Value {
    json!({
        "code": error.code.number(),
        "name": error.code.name(),
        "message": error.message,
        "data": error.data,
    })
}

/// Writes the one JSON document.
pub(crate) fn document(value: &impl Serialize) {
    let mut out = io::stdout().lock();
    // Whoever read the output may have gone; there is nobody left to tell.
    let _ = serde_json::to_writer_pretty(&mut out, value).map(|()| writeln!(out));
}

/// Writes text for a person, with a line end.
pub(crate) fn text(text: impl std::fmt::Display) {
    let _ = writeln!(io::stdout().lock(), "{text}");
}

/// Writes text as it is.
pub(crate) fn raw(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Writes a remark to standard error.
pub(crate) fn note(text: impl std::fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// True where live progress can be shown.
pub(crate) fn on_terminal() -> bool {
    io::stderr().is_terminal()
}

/// A table with these columns.
pub(crate) fn table<const N: usize>(columns: [&str; N]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(width())
        .set_header(columns);
    table
}

/// Columns to fill: those of `COLUMNS`, or a hundred.
pub(crate) fn width() -> u16 {
    let told = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
    told.filter(|width| *width >= 40).unwrap_or(100)
}

/// True where diagnostics may be coloured (<https://no-color.org>).
pub(crate) fn in_colour() -> bool {
    on_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
