//! What holds at every level.

mod execute;
mod lifetime;
