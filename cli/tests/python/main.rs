//! Python tasks: the provider by itself, and in a whole runtime, in jails and in containers.
#![cfg(feature = "python")]
#![allow(clippy::unwrap_used, reason = "a test's helpers may panic")]

#[cfg(feature = "docker")]
mod docker;
#[cfg(feature = "docker")]
#[path = "../../../sandbox/tests/support/engine.rs"]
mod engine;
mod provider;
mod runtime;
#[path = "../program/support.rs"]
mod support;
#[path = "../../../tests/support/whole.rs"]
mod whole;
