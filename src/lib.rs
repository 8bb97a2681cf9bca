//! Durable, supervised workflows of typed tasks, embedded in one process.

pub mod files;
pub mod protocol_files;
pub mod providers;
pub mod settings;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub mod storage;
