//! How a value breaks its schema.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The bound on the violations that are reported for one value.
pub const VIOLATIONS_MAX: usize = 1_000;

/// One way in which a value breaks its schema.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// A JSON pointer (RFC 6901) into the unchanged value; `""` is its root. A missing field has
    /// the pointer that it would have.
    pub pointer: String,
    /// The broken rule.
    pub rule: Rule,
    /// The value found, and the expected one.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pointer.is_empty() {
            out.write_str(&self.message)
        } else {
            write!(out, "{}: {}", self.pointer, self.message)
        }
    }
}

/// The rules of a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// The value has none of the types allowed.
    Type,
    /// Something that must be given is missing.
    Required,
    /// The value is not on the list.
    Enum,
    /// The number is too small.
    Minimum,
    /// The number is too great.
    Maximum,
    /// The text or list is too short.
    MinLength,
    /// The text or list is too long.
    MaxLength,
    /// The pattern is not found in the text.
    CompiledPattern,
    /// The field or parameter is not declared, and others are not allowed.
    AdditionalProperties,
    /// More parameters by position than are declared.
    TooManyPositional,
}
