//! The tables as sea-orm entities.
//!
//! Readers and the deletion of settled workflows use them; a test compares the statements of the
//! writer with their columns. A host service may read them; only the store writes them.

pub mod blob;
pub mod event;
pub mod lease;
pub mod request;
pub mod task;
pub mod workflow;
