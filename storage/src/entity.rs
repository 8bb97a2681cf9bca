//! The tables as sea-orm entities.
//!
//! Readers and the prune job ask through them; the writer's own statements are checked against
//! their columns by a test. A host service may read them too; only the store writes them.

pub mod blob;
pub mod event;
pub mod lease;
pub mod request;
pub mod task;
pub mod workflow;
