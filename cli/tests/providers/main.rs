//! The providers of the program: Ollama servers and Python code.
#![allow(clippy::unwrap_used, reason = "a test's helpers may panic")]

#[path = "../support/mod.rs"]
mod support;

#[cfg(feature = "ollama")]
mod ollama;
#[cfg(feature = "python")]
mod python;
