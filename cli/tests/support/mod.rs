//! Parts that the test programs share; each uses some of them.
#![allow(dead_code, unused_imports, reason = "each test program uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test's helpers may panic")]

#[path = "../../../tests/support/child.rs"]
pub(crate) mod child;
#[cfg(feature = "docker")]
#[path = "../../../sandbox/tests/support/engine.rs"]
pub(crate) mod engine;
#[path = "../../../tests/support/old_clock.rs"]
pub(crate) mod old_clock;
pub(crate) mod ollama_server;
#[cfg(feature = "postgres")]
#[path = "../../../tests/support/postgres.rs"]
pub(crate) mod postgres;
mod scratch;
#[path = "../../../tests/support/whole.rs"]
pub(crate) mod whole;

pub(crate) use scratch::{Answer, Scratch};
