//! Python tasks: the provider by itself, and in a whole runtime, in jails and in containers.

#[cfg(feature = "docker")]
mod docker;
mod provider;
mod runtime;
