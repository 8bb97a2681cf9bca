//! Code in jails: its behaviour, its network, and the ways out, none of which is one.
#![allow(clippy::unwrap_used, reason = "a test's helpers may panic")]

#[path = "../behaviour/mod.rs"]
mod behaviour;
#[path = "../support/mod.rs"]
mod support;

mod chroot;
mod escapes;
mod network;
mod process;

/// The level of this program's tests.
const LEVEL: gleitzeit_sandbox::Level = gleitzeit_sandbox::Level::Process;
