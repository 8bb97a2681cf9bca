//! Why a job could not be run at all.
//!
//! What the user's code does wrong is no error here but an [`Outcome`](crate::Outcome).

use std::{io, path::PathBuf};

use crate::interpreter::version::{NEWEST, OLDEST, PythonVersion};

/// Why a job could not be run at all, or an interpreter not be used.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The interpreter does not start, or is none. Another path may help.
    #[error("cannot use Python interpreter `{}`: {reason}", path.display())]
    Interpreter {
        /// As the settings name it.
        path: PathBuf,
        /// What happened.
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
        /// Its version.
        found: PythonVersion,
    },
    /// A name in `environment` that is refused. The job must be changed.
    #[error("environment variable `{name}` is refused: {reason}")]
    Environment {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An entry of `imports` that is no module name. The job must be changed.
    #[error("`{name}` in imports is not a module name such as `json` or `os.path`")]
    Import {
        /// The entry.
        name: String,
    },
    /// What this level of isolation needs is not to be had here. The machine, or the settings, must
    /// be changed; `gleitzeit doctor` says how.
    #[error("this level of isolation is not available: {reason}")]
    Unavailable {
        /// What is missing.
        reason: String,
    },
    /// Too many jobs wait already. Later is better.
    #[error("{waiting} tasks wait for a place in the sandbox already")]
    Busy {
        /// How many.
        waiting: usize,
    },
    /// The engine of containers does not answer, or refuses. Later may be better.
    #[error("cannot {what} with the container engine at `{address}`: {reason}")]
    Engine {
        /// What was tried.
        what: &'static str,
        /// Where it listens.
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
        /// What was tried.
        what: &'static str,
        /// Its answer.
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
