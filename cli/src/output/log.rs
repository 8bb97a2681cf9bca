//! The log: on standard error, as text or as a JSON object a line.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    fmt, panic, thread,
};

use gleitzeit::settings::{LogFormat, LoggingSettings};
use gleitzeit_domain::printable;
use tracing_subscriber::EnvFilter;

use super::{
    Failure,
    stream::{self, LogOut},
    style,
};

/// Events that say how a workflow ended.
const OUTCOMES: &str = "gleitzeit::outcomes=off";

/// Reports of the HTTP server about bytes of clients. Anybody who reaches its port could fill the log
/// with them.
const CLIENTS: &str = "actix_http=off";

/// What a command says itself, so that the log need not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Says {
    /// Nothing.
    Nothing,
    /// How its workflows ended.
    Outcomes,
    /// How providers are.
    Warnings,
}

/// Starts logging what the command does not say itself; more if `verbose` is above 0. A panic is
/// written the way everything on standard error is.
///
/// # Errors
/// If the level is not understood.
pub(crate) fn start_log(
    settings: &LoggingSettings,
    verbose: u8,
    says: Says,
) -> Result<(), Failure> {
    let is_json = settings.format == LogFormat::Json;
    let level = match verbose {
        0 if says == Says::Warnings => "error",
        0 => settings.level.as_str(),
        1 => "info",
        _ => "info,gleitzeit=debug,gleitzeit_actors=debug",
    };
    let filter = EnvFilter::try_new(level).map_err(|error| {
        Failure::usage(format!("logging.level: `{level}` is not understood: {error}"))
    })?;
    // An error is printed once; a machine that reads the log does not read the report.
    let filter = match OUTCOMES.parse() {
        Ok(directive) if says == Says::Outcomes && verbose == 0 && !is_json => {
            filter.add_directive(directive)
        }
        _ => filter,
    };
    let filter = match CLIENTS.parse() {
        Ok(directive) if verbose == 0 => filter.add_directive(directive),
        _ => filter,
    };
    if is_json {
        stream::write_json_lines();
    }
    panic::set_hook(Box::new(report_panic));
    let subscriber = tracing_subscriber::fmt()
        .with_writer(|| LogOut)
        .with_ansi(style::errors_are_coloured() && !is_json)
        .with_env_filter(filter);
    // A subscriber that is there already is a test's.
    let _ = match settings.format {
        LogFormat::Text => subscriber.try_init(),
        LogFormat::Json => subscriber.json().try_init(),
    };
    Ok(())
}

/// Reports a panic; its message may hold text of a task or of a server.
fn report_panic(panic: &panic::PanicHookInfo<'_>) {
    let name = thread::current().name().unwrap_or("without a name").to_owned();
    let mut message = format!(
        "thread {name} panicked at {}: {}",
        panic.location().map_or(&"an unknown place" as &dyn fmt::Display, |it| it),
        panic.payload_as_str().unwrap_or("no message"),
    );
    let trace = Backtrace::capture();
    if trace.status() == BacktraceStatus::Captured {
        message = format!("{message}\n{trace}");
    }
    stream::remark("ERROR", &message, &printable::block(&message));
}
