//! Why a runtime did not start.

use gleitzeit_domain::{
    balance::UnknownStrategy,
    error::{ErrorCode, TaskError},
    store::StoreError,
};

use crate::settings::SettingsError;

/// Why a runtime did not start. Nothing of it is left behind.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The settings are wrong.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A provider cannot be registered.
    #[error("provider `{id}` cannot be registered: {message}")]
    Provider {
        /// The provider.
        id: String,
        /// The error.
        message: String,
    },
    /// Protocols cannot be read or registered.
    #[error("protocols: {message}")]
    Protocols {
        /// Each with what is wrong.
        message: String,
    },
    /// A service cannot be registered.
    #[cfg(feature = "typed")]
    #[error(transparent)]
    Service(#[from] crate::service::ServiceError),
    /// The settings name a balancing strategy that is not there.
    #[error("[balancing]: {0}")]
    Strategy(#[from] UnknownStrategy),
    /// The store cannot be opened or read.
    #[error("store {url}: {error}")]
    Store {
        /// Which store, without its password.
        url: String,
        /// The error of the store.
        error: StoreError,
    },
    /// This program was built without that kind of store.
    #[error("store {url}: {message}")]
    StoreKind {
        /// The store, without its password.
        url: String,
        /// The remedy.
        message: String,
    },
    /// The unfinished workflows could not be resumed.
    #[error("unfinished workflows could not be resumed: {0}")]
    Recovery(TaskError),
    /// The operating system gave no thread.
    #[error("no thread for the runtime: {0}")]
    Thread(#[from] std::io::Error),
    /// The runtime's thread ended before it was ready.
    #[error("the runtime's thread ended before it was ready; the log says why")]
    Died,
}

impl StartError {
    /// The code of the table.
    pub fn code(&self) -> ErrorCode {
        match self {
            #[cfg(feature = "typed")]
            Self::Service(_) => ErrorCode::ConfigurationError,
            Self::Settings(_)
            | Self::Provider { .. }
            | Self::Protocols { .. }
            | Self::Strategy(_)
            | Self::StoreKind { .. } => ErrorCode::ConfigurationError,
            Self::Store { error, .. } => error.code(),
            Self::Recovery(error) => error.code,
            Self::Thread(_) => ErrorCode::ResourceExhausted,
            Self::Died => ErrorCode::InternalError,
        }
    }
}
