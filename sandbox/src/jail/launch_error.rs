//! Errors of the launcher: the step that failed, and the answer of the kernel.

use std::io;

/// The step of the launcher that failed, and the cause.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}: {source}")]
pub(crate) struct LaunchError {
    what: String,
    source: io::Error,
}

/// Names what was tried.
pub(crate) fn context<E: Into<io::Error>>(
    what: impl Into<String>,
) -> impl FnOnce(E) -> LaunchError {
    move |error| LaunchError { what: what.into(), source: error.into() }
}
