//! The providers that come with gleitzeit, and how a host adds kinds of its own.
//!
//! The only package that speaks to the outside for a task: one folder a kind, and one line in
//! [`kinds`].

pub mod config;
pub mod conformance;
pub mod echo;
pub mod guarded;
#[cfg(feature = "ollama")]
mod http;
mod kind;
pub mod kinds;
#[cfg(feature = "ollama")]
pub mod ollama;
#[cfg(feature = "python")]
pub mod python;
#[cfg(any(feature = "ollama", feature = "python"))]
mod reach;
pub mod security;
#[cfg(feature = "ollama")]
pub mod tls;
