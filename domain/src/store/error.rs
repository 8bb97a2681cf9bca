//! The errors of a store.

use crate::{
    epoch::Epoch,
    error::{ErrorCode, TaskError},
};

/// The error of a call of a store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The store cannot be used as it is: a wrong address, or a schema of a newer program.
    #[error("store cannot be opened: {detail}")]
    Open {
        /// The cause, and the remedy.
        detail: String,
    },
    /// The store cannot be reached; a repeated call may succeed.
    #[error("store cannot be reached: {detail}")]
    Unavailable {
        /// The error of the driver.
        detail: String,
    },
    /// The store accepts no writes now: disk full, read-only.
    #[error("store refused a write: {detail}")]
    Write {
        /// The error of the driver.
        detail: String,
    },
    /// The store rejects this write whenever it is repeated: too large, a constraint. Other writes
    /// pass.
    #[error("store refused what was to be written: {detail}; writing the same again will not help")]
    Refused {
        /// The error of the driver.
        detail: String,
    },
    /// A read failed.
    #[error("store could not read: {detail}")]
    Read {
        /// The error of the driver.
        detail: String,
    },
    /// The outcome of a commit is unknown; the same write may be repeated.
    #[error("store did not say whether it committed: {detail}")]
    Unknown {
        /// The error of the driver.
        detail: String,
    },
    /// The lease of a write is gone: another process may run its workflows. Open a new one, and claim
    /// again.
    #[error("lease {epoch} is gone; another process may run its workflows by now")]
    LeaseLost {
        /// The lease.
        epoch: Epoch,
    },
    /// The file of the database was removed or replaced while it was open: nothing written now would
    /// be found again. Stop.
    #[error("store is gone: {detail}")]
    Gone {
        /// The cause, and the remedy.
        detail: String,
    },
    /// Stored data contradicts itself.
    #[error("stored data contradicts itself: {detail}")]
    Integrity {
        /// The contradiction.
        detail: String,
    },
    /// The store was closed.
    #[error("store is closed")]
    Closed,
}

impl StoreError {
    /// The code of the error for a caller of the runtime.
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Open { .. } => ErrorCode::ConfigurationError,
            Self::Unavailable { .. } | Self::Gone { .. } => ErrorCode::PersistenceConnectionFailed,
            Self::Write { .. } | Self::Refused { .. } => ErrorCode::PersistenceWriteFailed,
            Self::Read { .. } => ErrorCode::PersistenceReadFailed,
            Self::Unknown { .. } => ErrorCode::PersistenceTransactionFailed,
            Self::Integrity { .. } => ErrorCode::PersistenceIntegrityError,
            Self::LeaseLost { .. } => ErrorCode::WorkflowInvalidState,
            Self::Closed => ErrorCode::SystemShutdown,
        }
    }

    /// True if the same write may be repeated and may succeed.
    pub const fn is_transient(&self) -> bool {
        !matches!(
            self,
            Self::Open { .. }
                | Self::Refused { .. }
                | Self::Gone { .. }
                | Self::Integrity { .. }
                | Self::LeaseLost { .. }
                | Self::Closed
        )
    }
}

impl From<StoreError> for TaskError {
    fn from(error: StoreError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}
