//! Processes that are killed by SIGKILL, at a named place or at any moment: whoever goes on loses
//! nothing that was accepted, runs nothing again that had ended, and begins no call twice that must
//! not be.
//!
//! What was run is not reported by gleitzeit itself, but by a [`journal`] to which each call appends a
//! line; the [`verdict`] compares it with what the database says in the end.
#![cfg(all(feature = "sqlite", unix))]
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test's helpers may panic and print"
)]

mod database;
mod journal;
#[cfg(feature = "failpoints")]
mod matrix;
#[cfg(all(feature = "failpoints", feature = "postgres"))]
mod pause;
mod process;
mod program;
mod random;
#[cfg(feature = "failpoints")]
mod stopped;
mod timers;
mod verdict;
mod workload;

/// True for `scripts/test --quick`, which kills at fewer moments.
fn is_quick() -> bool {
    std::env::var_os("GLEITZEIT_TEST_QUICK").is_some()
}
