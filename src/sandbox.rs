//! The parts that an embedding service needs so that its Python tasks run in jails.
//!
//! A jail is built by a program with one thread, the *launcher*. A service is its own launcher when
//! it calls [`init`] first thing in its `main`:
//!
//! ```
//! gleitzeit::sandbox::init();
//! // the service
//! ```
//!
//! If it cannot, `launcher` in the settings' `[security]` names another program that does:
//! `gleitzeit` itself. With neither, a runtime with a Python provider does not start.

pub use gleitzeit_sandbox::{
    INIT_COMMAND, Level, SelfTest, init,
    machine::{self, EngineWanted, Finding},
};
