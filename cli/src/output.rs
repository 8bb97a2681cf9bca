//! What the program writes: results to standard output, everything else to standard error.
//!
//! Invariant: with `--json`, one document is written to standard output, and nothing else.

mod log;
mod stream;
mod style;
mod table;

use std::{fmt::Display, process::ExitCode};

use comfy_table::{ContentArrangement, presets};
use gleitzeit::{runtime::StartError, settings::SettingsError};
use gleitzeit_domain::printable;
use gleitzeit_domain::{
    error::{ErrorCode, TaskError},
    problem::SubmitError,
    store::StoreError,
    workflow::WorkflowStatus,
};
use serde::Serialize;
use serde_json::{Value, json};

pub(crate) use log::{Says, start_log};
pub(crate) use stream::{
    JsonOut, finish, is_broken, is_reader_gone, write_json_lines, writes_json_lines,
};
pub(crate) use style::{Style, can_move, errors_are_coloured, is_coloured, width};
pub(crate) use table::{Cell, Lines};

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

    /// Shows a person more than the message: text whose values are cleaned, in the program's
    /// colours.
    pub(crate) fn text(mut self, text: impl Into<String>) -> Self {
        self.text = Some(text.into());
        self
    }

    /// Prints the failure: as a JSON document too if `json`; returns the exit status.
    pub(crate) fn print(&self, json: bool) -> Exit {
        let message = self.error.message.trim_end();
        let rendered = if let Some(text) = &self.text {
            text.trim_end().to_owned()
        } else {
            let title = Style::Bad.paint("error:", style::errors_are_coloured());
            format!("{title} {}", printable::block(message).replace('\n', "\n  "))
        };
        stream::remark("ERROR", message, &rendered);
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
        let task_error = TaskError::new(ErrorCode::ConfigurationError, error.to_string())
            .with_data(json!({ "problems": problems }));
        Self::new(Exit::Usage, task_error)
    }
}

impl From<SubmitError> for Failure {
    fn from(error: SubmitError) -> Self {
        let exit = match &error {
            SubmitError::Invalid(_)
            | SubmitError::Differs { .. }
            | SubmitError::TooLarge { .. } => Exit::Usage,
            _ => Exit::Infrastructure,
        };
        let text = match &error {
            SubmitError::Invalid(problems) => {
                let lines: Vec<String> = problems.iter().map(|it| format!("\n  {it}")).collect();
                let lines = lines.concat();
                Some(format!("error: the workflow is not valid:{}", printable::block(&lines)))
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
    gleitzeit::results::error_document(error)
}

/// Writes the one JSON document.
pub(crate) fn document(value: &impl Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => raw(&printable::json(&(text + "\n"))),
        Err(error) => note(format_args!("error: no JSON can be made of the result: {error}")),
    }
}

/// Writes text for a person, with a line end.
pub(crate) fn text(text: impl Display) {
    raw(&format!("{text}\n"));
}

/// Writes text without a line end of its own.
pub(crate) fn raw(text: &str) {
    // A failed write is remembered, and reported when the program ends.
    let _ = stream::put(&stream::cleaned(text, false));
}

/// Writes text whose values are cleaned already and whose colours are the program's.
pub(crate) fn painted(text: &str) {
    let _ = stream::put(&stream::cleaned(&format!("{text}\n"), style::is_coloured()));
}

/// Writes a remark to standard error.
pub(crate) fn note(text: impl Display) {
    let text = text.to_string();
    stream::remark("INFO", &text, &printable::block(&text));
}

/// A warning on standard error: nothing failed, and yet there is something to mend.
pub(crate) fn warn(text: impl Display) {
    let text = text.to_string();
    stream::remark("WARN", &text, &format!("warning: {}", printable::block(&text)));
}

/// A table whose cells are broken into several lines where they are long.
#[derive(Debug)]
pub(crate) struct Table(comfy_table::Table);

/// A table with these columns.
pub(crate) fn table<const N: usize>(columns: [&str; N]) -> Table {
    let mut table = comfy_table::Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(u16::try_from(style::width()).unwrap_or(u16::MAX))
        .set_header(columns.map(|title| printable::line(title).into_owned()));
    Table(table)
}

impl Table {
    /// Adds a row.
    pub(crate) fn add_row(&mut self, cells: impl IntoIterator<Item = impl Display>) {
        let cells = cells.into_iter().map(|cell| printable::block(&cell.to_string()).into_owned());
        self.0.add_row(cells.collect::<Vec<_>>());
    }

    /// Its lines, without the spaces at their ends.
    pub(crate) fn trim_fmt(&self) -> String {
        self.0.trim_fmt()
    }
}
