//! The actors of gleitzeit: who asks whom, supervision, timed messages.

pub mod event_bus;
pub mod guard;
pub mod memory_store;
pub mod monitor;
pub mod supervision;
