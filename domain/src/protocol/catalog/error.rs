//! Why a protocol was not taken into the catalog.

use std::fmt;

use crate::{error::ErrorCode, id::ProtocolId, protocol::validate::schema_error::SchemaError};

/// Why a protocol was not registered. The catalog is as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// The same name and version, with another content; replace it instead.
    #[error("protocol `{id}` is already registered, with another content; replace it instead")]
    AlreadyRegistered {
        /// The protocol.
        id: ProtocolId,
    },
    /// There is nothing to replace.
    #[error("protocol `{id}` is not registered{}", did_you_mean(.nearest.as_ref()))]
    NotRegistered {
        /// The protocol.
        id: ProtocolId,
        /// The one that may have been meant.
        nearest: Option<ProtocolId>,
    },
    /// It extends a protocol that is not there.
    #[error(
        "protocol `{id}` extends `{parent}`, which is not registered{}",
        did_you_mean(.nearest.as_ref())
    )]
    UnknownParent {
        /// The protocol.
        id: ProtocolId,
        /// The protocol that it extends.
        parent: ProtocolId,
        /// The one that may have been meant.
        nearest: Option<ProtocolId>,
    },
    /// Protocols extend each other in a circle.
    #[error("protocols extend each other in a circle: {}", arrows(.chain))]
    Cycle {
        /// The circle; its first is also its last.
        chain: Vec<ProtocolId>,
    },
    /// It is wrong in itself.
    #[error("protocol `{id}` is invalid: {}", joined(.errors))]
    Invalid {
        /// The protocol.
        id: ProtocolId,
        /// Everything wrong, with pointers into the protocol.
        errors: Vec<SchemaError>,
    },
    /// Tasks use the protocol, and the new one accepts less than the old one.
    #[error("protocol `{id}` is in use, and the new one is not compatible: {}", joined(.reasons))]
    Incompatible {
        /// The protocol.
        id: ProtocolId,
        /// Everything that is not compatible.
        reasons: Vec<Incompatibility>,
    },
    /// A protocol that extends it could not be derived from it any more.
    #[error("replacing protocol `{id}` would break `{child}`, which extends it: {}", joined(.errors))]
    BreaksChild {
        /// The protocol that was to be replaced.
        id: ProtocolId,
        /// The protocol that extends it.
        child: ProtocolId,
        /// Everything wrong with the child then.
        errors: Vec<SchemaError>,
    },
}

impl RegisterError {
    /// The code of the table.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotRegistered { .. } | Self::UnknownParent { .. } => ErrorCode::ProtocolNotFound,
            Self::AlreadyRegistered { .. }
            | Self::Cycle { .. }
            | Self::Invalid { .. }
            | Self::Incompatible { .. }
            | Self::BreaksChild { .. } => ErrorCode::InvalidRequest,
        }
    }

    /// The same error, seen from the parent whose change caused it.
    pub(super) fn of_child(self, parent: &ProtocolId) -> Self {
        match self {
            Self::Invalid { id: child, errors } => {
                Self::BreaksChild { id: parent.clone(), child, errors }
            }
            other => other,
        }
    }
}

/// One way in which a protocol accepts or promises less than the one before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incompatibility {
    /// The protocol: the replaced one, or one that extends it.
    pub protocol: ProtocolId,
    /// A JSON pointer into the protocol.
    pub pointer: String,
    /// The use that was possible before and no longer is.
    pub message: String,
}

impl fmt::Display for Incompatibility {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}: {}", self.protocol, self.pointer, self.message)
    }
}

fn did_you_mean(nearest: Option<&ProtocolId>) -> String {
    nearest.map_or_else(String::new, |id| format!("; did you mean `{id}`?"))
}

fn arrows(chain: &[ProtocolId]) -> String {
    chain.iter().map(ToString::to_string).collect::<Vec<_>>().join(" → ")
}

fn joined<T: fmt::Display>(all: &[T]) -> String {
    all.iter().map(T::to_string).collect::<Vec<_>>().join("; ")
}
