//! The streams: the report on standard output, all else on standard error.
//!
//! Invariant: no control character of a value reaches a terminal.

use std::{
    fmt::Display,
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
    sync::Mutex,
};

use gleitzeit::{
    ErrorCode, TaskError,
    domain::printable,
    results::error_document,
    settings::{LogFormat, LoggingSettings, SettingsError},
};
use serde::Serialize;
use serde_json::{Value, json};
use tracing_subscriber::EnvFilter;

/// The first error of a write to standard output.
static BROKEN: Mutex<Option<io::Error>> = Mutex::new(None);

/// A failure, with the exit status of the program.
#[derive(Debug)]
pub(crate) struct Failure {
    status: u8,
    error: TaskError,
}

impl Failure {
    /// The command line or the settings are wrong.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { status: 2, error: TaskError::new(ErrorCode::InvalidRequest, message.into()) }
    }

    /// The store, a provider or the machine.
    pub(crate) fn other(message: impl Into<String>) -> Self {
        Self { status: 3, error: TaskError::new(ErrorCode::InternalError, message.into()) }
    }

    /// Reports it in the way that was asked for; returns the exit status.
    pub(crate) fn print(&self, json: bool) -> ExitCode {
        let message = self.error.message.trim_end();
        remark("error", message);
        if json {
            document(&json!({ "error": error_document(&self.error) }));
        }
        self.status.into()
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::other(format!("{error:#}"))
    }
}

impl From<SettingsError> for Failure {
    fn from(error: SettingsError) -> Self {
        let problem = |it: &gleitzeit::settings::SettingsProblem| {
            json!({
                "path": it.path, "origin": it.origin, "message": it.message, "help": it.help,
            })
        };
        let problems: Vec<Value> = error.problems.iter().map(problem).collect();
        let error = TaskError::new(ErrorCode::ConfigurationError, error.to_string())
            .with_data(json!({ "problems": problems }));
        Self { status: 2, error }
    }
}

/// Prints help and version, or what is wrong with the command line.
pub(crate) fn usage(error: &clap::Error, json: bool) -> ExitCode {
    // Its errors are those of the streams themselves.
    let _ = error.print();
    if !error.use_stderr() {
        return finish(ExitCode::SUCCESS);
    }
    if json {
        let message = error.render().to_string();
        let failure = TaskError::new(ErrorCode::InvalidRequest, message.trim_end().to_owned())
            .with_data(json!({ "kind": error.kind().to_string() }));
        document(&json!({ "error": error_document(&failure) }));
    }
    finish(2.into())
}

/// Writes the one JSON document.
pub(crate) fn document(value: &impl Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => put(&printable::json(&(text + "\n"))),
        Err(error) => remark("error", &format!("no JSON can be made of the report: {error}")),
    }
}

/// Writes text for a person, with a line end.
pub(crate) fn text(text: impl Display) {
    put(&printable::block(&format!("{text}\n")));
}

/// A warning: nothing failed, and there is something to mend.
pub(crate) fn warn(text: impl Display) {
    remark("warning", &text.to_string());
}

fn put(text: &str) {
    let mut out = io::stdout().lock();
    if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush())
        && let Ok(mut broken) = BROKEN.lock()
    {
        broken.get_or_insert(error);
    }
}

fn remark(kind: &str, message: &str) {
    let line = printable::block(message).replace('\n', "\n  ");
    // An error that standard error is closed can be reported nowhere.
    let _ = writeln!(io::stderr(), "{kind}: {line}");
}

/// The exit status, once all is written: a report that cannot be written is a failure, a reader that
/// left early is none.
pub(crate) fn finish(exit: ExitCode) -> ExitCode {
    match BROKEN.lock().ok().and_then(|mut broken| broken.take()) {
        Some(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            remark("error", &format!("standard output cannot be written: {error}"));
            3.into()
        }
        _ => exit,
    }
}

/// Starts logging on standard error; more if `verbose` is above 0.
///
/// # Errors
/// If the level is not understood.
pub(crate) fn start_log(settings: &LoggingSettings, verbose: u8) -> Result<(), Failure> {
    let level = match verbose {
        0 => settings.level.as_str(),
        1 => "info",
        _ => "info,gleitzeit=debug,gleitzeit_actors=debug",
    };
    let filter = EnvFilter::try_new(level).map_err(|error| {
        Failure::usage(format!("logging.level: `{level}` is not understood: {error}"))
    })?;
    let is_json = settings.format == LogFormat::Json;
    let subscriber = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal() && !is_json)
        .with_env_filter(filter);
    // A subscriber that is there already is a test's.
    let _ = match settings.format {
        LogFormat::Text => subscriber.try_init(),
        LogFormat::Json => subscriber.json().try_init(),
    };
    Ok(())
}
