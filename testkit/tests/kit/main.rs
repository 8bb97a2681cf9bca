//! What the kit promises to those who test their workflows with it.
#![expect(clippy::unwrap_used, reason = "a test's helpers may panic")]

mod between;
mod crashes;
mod fakes;
mod time;
