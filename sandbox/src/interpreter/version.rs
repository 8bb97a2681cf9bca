//! Versions of Python, and those that are supported.

use std::fmt;

/// The oldest supported version.
pub const OLDEST: PythonVersion = PythonVersion { major: 3, minor: 9, micro: 0 };
/// The newest supported minor version.
pub const NEWEST: PythonVersion = PythonVersion { major: 3, minor: 14, micro: 0 };

/// A version of Python.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PythonVersion {
    /// 3.
    pub major: u32,
    /// 11 of 3.11.
    pub minor: u32,
    /// 7 of 3.11.7.
    pub micro: u32,
}

impl fmt::Display for PythonVersion {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}.{}", self.major, self.minor, self.micro)
    }
}
