//! The protocols that are always there: `python/v1.0`, `llm/v1.0` and `echo/v1.0`.
//!
//! The runtime registers them when it starts. Fields, limits and defaults are part of the contract
//! with workflow files. The order of parameters is that of positional calls, so new ones are
//! appended.

mod choice;
mod echo;
mod llm;
pub(crate) mod names;
mod python;
mod shared;

use super::spec::ProtocolSpec;

pub use choice::{Choice, choice};
pub use echo::echo;
pub use llm::llm;
pub use python::python;

/// Every built-in protocol.
pub fn all() -> Vec<ProtocolSpec> {
    vec![python(), llm(), echo()]
}
