//! The isolation that a method requires.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How far a task's code is kept from the machine, from none to most.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum SandboxLevel {
    /// A process of its own with limits, and nothing more.
    None,
    /// The process jail with a root file system of the operator's.
    Chroot,
    /// Namespaces, system call filter and limits.
    #[default]
    Process,
    /// A container of its own.
    Docker,
}

impl SandboxLevel {
    /// The name in files and output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Chroot => "chroot",
            Self::Process => "process",
            Self::Docker => "docker",
        }
    }
}

impl fmt::Display for SandboxLevel {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.as_str())
    }
}

/// The requirements of a method; a task or the settings can tighten them, never loosen them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SecurityRequirements {
    /// The least isolation accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sandbox_minimum: Option<SandboxLevel>,
    /// Modules that code may import; empty allows all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_modules: Vec<String>,
    /// Modules that code may not import.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub blocked_modules: Vec<String>,
    /// True lets the code reach the network.
    pub network: bool,
}
