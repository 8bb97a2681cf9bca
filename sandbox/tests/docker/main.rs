//! Code in containers: its behaviour, its lifetime, and the ways out, none of which is one.
#![allow(clippy::unwrap_used, reason = "a test's helpers may panic")]

#[path = "../behaviour/mod.rs"]
mod behaviour;
#[path = "../support/mod.rs"]
mod support;

mod escapes;
#[cfg(feature = "fuzzing")]
mod hostile_words;
mod lifetime;
mod tasks;

/// The level of this program's tests.
const LEVEL: gleitzeit_sandbox::Level = gleitzeit_sandbox::Level::Docker;
