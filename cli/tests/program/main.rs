//! The program as its users meet it: exit status, what stands on standard output, and what a kill
//! leaves behind.
#![cfg(feature = "sqlite")]
#![allow(clippy::unwrap_used, reason = "a test's helpers may panic")]

mod bench;
mod browse;
mod checks;
#[cfg(all(feature = "ollama", target_os = "linux", target_env = "gnu"))]
mod clock;
mod commands;
mod conditions;
mod database;
mod db;
mod documents;
mod file_access;
#[cfg(target_os = "linux")]
mod large;
mod output;
mod project;
mod reports;
mod resolve;
mod resume;
mod serve;
mod served;
mod start;
#[path = "../support/mod.rs"]
mod support;
