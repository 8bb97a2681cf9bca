//! Why a job could not be run at all.
//!
//! Errors of the user's code are no errors here: they are part of an [`Outcome`](crate::Outcome).

use std::{io, path::PathBuf};

use crate::interpreter::version::{NEWEST, OLDEST, PythonVersion};

/// Why a job could not be run at all, or an interpreter not be used.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The interpreter does not start, or the path is no interpreter. Another path may help.
    #[error("cannot use Python interpreter `{}`: {reason}", path.display())]
    Interpreter {
        /// As the settings name it.
        path: PathBuf,
        /// The cause.
        reason: String,
    },
    /// The interpreter is too old or too new.
    #[error(
        "Python interpreter `{}` is version {found}; versions {} to {} are supported",
        path.display(), OLDEST, NEWEST
    )]
    Version {
        /// As the settings name it.
        path: PathBuf,
        /// The version found.
        found: PythonVersion,
    },
    /// A name in `environment` that is refused. The job must be changed.
    #[error("environment variable `{name}` is refused: {reason}")]
    Environment {
        /// The name.
        name: String,
        /// The rule that the name breaks.
        reason: &'static str,
    },
    /// An entry of `imports` that is no module name. The job must be changed.
    #[error("`{name}` in imports is not a module name such as `json` or `os.path`")]
    Import {
        /// The entry.
        name: String,
    },
    /// A prerequisite of the isolation level is missing. Change the machine or the settings;
    /// `gleitzeit doctor` lists remedies.
    #[error("this level of isolation is not available: {reason}")]
    Unavailable {
        /// The missing prerequisite.
        reason: String,
    },
    /// Too many jobs wait already. Later is better.
    #[error("the sandbox is full: {waiting} tasks wait already")]
    Busy {
        /// How many.
        waiting: usize,
    },
    /// The engine of containers does not answer, or refuses. Later may be better.
    #[error("cannot {what} with the container engine at `{address}`: {reason}")]
    Engine {
        /// What was tried.
        what: &'static str,
        /// The address of the engine.
        address: String,
        /// Its answer.
        reason: String,
    },
    /// The sandbox was closed. Another one is needed.
    #[error("the sandbox is closed")]
    Closed,
    /// The operating system refused a process, a socket or a directory. Later may be better.
    #[error("cannot {what}: {source}")]
    System {
        /// The step that failed.
        what: &'static str,
        /// The answer of the operating system.
        source: io::Error,
    },
}

impl SandboxError {
    /// True when the same job may well run at another time.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::System { .. } | Self::Busy { .. } | Self::Engine { .. })
    }

    /// Says what is missing for a level of isolation.
    pub(crate) fn unavailable(reason: impl Into<String>) -> Self {
        Self::Unavailable { reason: reason.into() }
    }

    /// Names what was tried when the operating system refused.
    pub(crate) fn system(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { what, source }
    }
}
