//! Why settings of a Python provider are rejected.

use gleitzeit_domain::error::{ErrorCode, TaskError};

/// An interpreter takes seconds to start with less of a core.
pub(super) const CPU_MIN_MILLICORES: u32 = 50;

/// Why settings of a Python provider are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PythonConfigError {
    /// A number that must not be zero is.
    #[error("{field}: must be more than 0")]
    Zero {
        /// The setting.
        field: &'static str,
    },
    /// A number that is too small for an interpreter to start.
    #[error("memory_mb: {configured} is less than the {least} MiB that an interpreter needs")]
    Memory {
        /// As given.
        configured: u64,
        /// The least.
        least: u64,
    },
    /// A limit that an interpreter would hardly start under.
    #[error("cpu_millicores: {configured} is less than {CPU_MIN_MILLICORES}")]
    Cpu {
        /// As given.
        configured: u32,
    },
    /// A path that is empty.
    #[error("{field}: must not be empty; leave it out instead")]
    Empty {
        /// The setting.
        field: &'static str,
    },
    /// A level that this build does not have.
    #[error(
        "sandbox: `{level}` is not available: this build has `process`, `chroot` and `none`; \
         build it with the feature `docker`"
    )]
    Sandbox {
        /// As given.
        level: &'static str,
    },
    /// Two settings that do not go together, or one without the other.
    #[error("{field}: {message}")]
    Together {
        /// The setting.
        field: &'static str,
        /// The error.
        message: &'static str,
    },
}

impl From<PythonConfigError> for TaskError {
    fn from(error: PythonConfigError) -> Self {
        Self::new(ErrorCode::ConfigurationError, error.to_string())
    }
}
