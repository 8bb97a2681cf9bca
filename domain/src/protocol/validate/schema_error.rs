//! Why a schema cannot be used.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One thing wrong with a schema.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaError {
    /// A JSON pointer into the specification: `/properties/name/pattern`.
    pub pointer: String,
    /// The value found, and the expected one.
    pub message: String,
}

impl SchemaError {
    pub(in crate::protocol) fn new(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), message: message.into() }
    }

    /// The same error as seen from a document that holds the specification at `prefix`.
    #[must_use]
    pub(in crate::protocol) fn below(mut self, prefix: &str) -> Self {
        self.pointer.insert_str(0, prefix);
        self
    }
}

impl fmt::Display for SchemaError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pointer.is_empty() {
            out.write_str(&self.message)
        } else {
            write!(out, "{}: {}", self.pointer, self.message)
        }
    }
}
