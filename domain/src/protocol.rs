//! Protocols: the typed contract between a workflow and the providers that serve it.
//!
//! | module | contents |
//! |---|---|
//! | `spec`, [`parameter`] | declared protocols, methods and parameters |
//! | [`validate`] | compiled schemas |
//! | `method` | a method that is ready for calls |
//! | [`catalog`] | all registered protocols |
//! | [`builtin`] | the protocols that every runtime has |
//! | [`schema`] | export as JSON Schema |
//! | [`nearest`] | suggestions for misspelt names |

pub mod builtin;
pub mod catalog;
mod method;
pub mod nearest;
pub mod parameter;
pub mod schema;
mod spec;
pub mod validate;

pub use method::{Method, MethodRef};
pub use parameter::{OneOrMany, ParameterSpec, ParameterType};
pub use spec::{Effect, MethodExample, MethodSpec, ProtocolSpec};
