//! The runtime in the hands of a host: any kind of program, from start to stop.
#![expect(clippy::unwrap_used, reason = "a test's helpers may panic")]

#[path = "../support/whole.rs"]
mod whole;

mod control;
mod figures;
mod follow;
mod hosts;
mod parts;
mod start;
mod stop;
