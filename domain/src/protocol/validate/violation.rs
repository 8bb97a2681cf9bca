//! How a value breaks its schema.

use std::fmt;

use serde::{Deserialize, Serialize};

/// No more violations than these are told of one value.
pub const VIOLATIONS_MAX: usize = 1_000;

/// One way in which a value breaks its schema.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// Where, as a JSON pointer (RFC 6901) into the value as it was given; `""` is its root. A
    /// missing field is named by where it should be.
    pub pointer: String,
    /// Which rule is broken.
    pub rule: Rule,
    /// What was found, and what was expected.
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
    Pattern,
    /// The field or parameter is not declared, and others are not allowed.
    AdditionalProperties,
    /// More parameters by position than are declared.
    TooManyPositional,
}
