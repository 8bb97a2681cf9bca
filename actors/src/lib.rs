//! The actors of gleitzeit: who asks whom, supervision, timed messages.

pub mod guard;
pub mod memory_store;
pub mod supervision;
