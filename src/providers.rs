//! The providers that come with gleitzeit.

pub mod conformance;
pub mod echo;
#[cfg(feature = "ollama")]
mod http;
#[cfg(feature = "ollama")]
pub mod ollama;
#[cfg(feature = "python")]
pub mod python;
#[cfg(any(feature = "ollama", feature = "python"))]
mod reach;
#[cfg(feature = "ollama")]
pub mod tls;
