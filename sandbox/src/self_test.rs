//! The self-test of a sandbox: attempts to get out, and their result.

pub(crate) mod attempts;

use std::fmt;

use serde::Serialize;

use crate::jail::cgroup::Controller;

/// One attempt to get out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// The attempt.
    pub name: String,
    /// True when it failed, as it should.
    pub held: bool,
}

/// The result of the self-test, and the features that the jail uses.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct SelfTest {
    /// Every attempt.
    pub checks: Vec<Check>,
    /// The version of Landlock; `None` leaves the second wall around files out.
    pub landlock: Option<u32>,
    /// The control groups in use; empty if none can be made.
    pub cgroups: Vec<Controller>,
    /// True if a job that asks for it can connect to other machines.
    pub network: bool,
    /// The engine, if the level is that of containers.
    #[cfg(feature = "docker")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine: Option<crate::docker::engine_info::EngineInfo>,
}

impl fmt::Display for SelfTest {
    /// `20 of 20 ways out closed; Landlock 7, cgroups v2`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = self.checks.iter().filter(|check| check.held).count();
        write!(out, "{held} of {} ways out closed; ", self.checks.len())?;
        #[cfg(feature = "docker")]
        if let Some(engine) = &self.engine {
            return write!(out, "{engine}");
        }
        match self.landlock {
            Some(version) => write!(out, "Landlock {version}")?,
            None => out.write_str("no Landlock")?,
        }
        match &self.cgroups[..] {
            [] => out.write_str(", no cgroups")?,
            [Controller::Unified, ..] => out.write_str(", cgroups v2")?,
            _ => out.write_str(", cgroups v1")?,
        }
        if self.network { out.write_str(", network on request") } else { Ok(()) }
    }
}
