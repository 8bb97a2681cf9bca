//! The library as a host meets it: settings, files, services, a runtime from start to stop.
#![allow(clippy::unwrap_used, reason = "a test's helpers may panic")]

#[path = "../support/mod.rs"]
mod support;

mod echo_provider;
mod embedding;
mod examples;
#[cfg(target_os = "linux")]
mod idle;
mod packages;
mod protocol_files;
#[cfg(feature = "typed")]
mod service;
mod settings;
mod workflow_files;
