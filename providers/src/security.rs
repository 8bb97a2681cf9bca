//! `[security]`: what the settings say of code that tasks bring along.
//!
//! Asked by each kind of provider that runs such code.

use std::path::PathBuf;

use gleitzeit_domain::security::SandboxLevel;
use serde::{Deserialize, Serialize};

/// `[security]`: what code that tasks bring along may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecuritySettings {
    /// How far the code is kept from the machine.
    pub sandbox: SandboxLevel,
    /// The least level accepted; a weaker one is an error at start.
    pub sandbox_minimum: SandboxLevel,
    /// Must be true for `sandbox = "none"`.
    pub allow_unsandboxed: bool,
    /// True lets the code connect to other machines by TCP.
    pub network: bool,
    /// Near addresses that tasks may reach, too: `127.0.0.1:5432`, `10.0.0.0/8`.
    pub network_allow: Vec<String>,
    /// Directories and files that the code may read.
    pub read_only_paths: Vec<PathBuf>,
    /// With `sandbox = "chroot"`: the root file system that the code sees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<PathBuf>,
    /// The program that builds jails, if this one does not: the path of `gleitzeit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launcher: Option<PathBuf>,
    /// The modules and calls that are rejected with a message.
    pub policy: PolicyPreset,
    /// Modules allowed besides those of the policy.
    pub allowed_modules: Vec<String>,
    /// Modules refused besides those of the policy.
    pub blocked_modules: Vec<String>,
    /// Files that a task names are read below these directories only. A relative one is a directory
    /// of the workflow if that has one of its own, else of this process.
    pub file_roots: Vec<PathBuf>,
    /// Directories and files that are stored with a workflow count below these directories only.
    #[serde(rename = "place_roots")]
    pub workflow_file_roots: Vec<PathBuf>,
}

/// The modules and calls of Python code that are rejected with a message. The policy gives honest
/// users an early error; it is no security boundary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyPreset {
    /// [`Off`](Self::Off) in a jail or a container, which is a boundary; [`Basic`](Self::Basic)
    /// with `sandbox = "none"`, which is none.
    Auto,
    /// None.
    Off,
    /// The modules `os`, `subprocess` and `sys`; the calls `eval`, `exec` and `__import__`. `seed`
    /// is an older name of it.
    #[serde(alias = "seed")]
    Basic,
    /// All but a list of harmless ones.
    Strict,
}

impl PolicyPreset {
    /// The name in files and output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Off => "off",
            Self::Basic => "basic",
            Self::Strict => "strict",
        }
    }
}

impl SecuritySettings {
    /// Why code may not run at `level`; `None` if it may.
    pub fn weakness_of(&self, level: SandboxLevel) -> Option<String> {
        let Self { sandbox_minimum, allow_unsandboxed, .. } = self;
        if level < *sandbox_minimum {
            return Some(format!(
                "`{level}` is weaker than sandbox_minimum, which is `{sandbox_minimum}`"
            ));
        }
        (level == SandboxLevel::None && !allow_unsandboxed)
            .then(|| "`none` is refused while allow_unsandboxed is false".to_owned())
    }
}
