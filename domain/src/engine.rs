//! The decisions of the engine: which task runs when, what is written together, who is answered.
//!
//! Pure: time and random numbers are passed in, and what is to be done is returned. The actor
//! `ExecutionEngine` of `gleitzeit-actors` asks these parts and carries their decisions out.

mod attempt;

pub use attempt::{DispatchedTask, TaskEnd, TaskStart};
