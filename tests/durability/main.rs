//! Stored work: both databases, several processes on one of them, and what is left after a fault.
#![allow(clippy::unwrap_used, reason = "a test's helpers may panic")]

#[path = "../support/mod.rs"]
mod support;

mod burst;
#[cfg(feature = "sqlite")]
mod fault_store;
#[cfg(all(feature = "sqlite", target_os = "linux"))]
mod full_disk;
#[cfg(feature = "sqlite")]
mod large_results;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod leases;
#[cfg(all(feature = "sqlite", target_os = "linux"))]
mod lying_disk;
#[cfg(feature = "sqlite")]
mod max_size;
#[cfg(all(feature = "postgres", target_os = "linux"))]
mod postgres_line;
#[cfg(feature = "sqlite")]
mod recovery;
#[cfg(feature = "sqlite")]
mod refused_results;
#[cfg(feature = "postgres")]
mod store_postgres;
#[cfg(feature = "sqlite")]
mod store_sqlite;
#[cfg(feature = "sqlite")]
mod submit_in;
