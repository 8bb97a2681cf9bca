//! The engine that containers run on.

use std::fmt;

use serde::Serialize;

/// The engine that containers run on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct EngineInfo {
    /// The address of the engine.
    pub address: String,
    /// The version of the engine.
    pub version: String,
    /// The runtime that containers are started with.
    pub runtime: String,
    /// The image; `None` if no image was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

impl fmt::Display for EngineInfo {
    /// `Docker 27.1 at unix:///var/run/docker.sock, runtime runc`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, version, runtime, image } = self;
        write!(out, "Docker {version} at {address}, runtime {runtime}")?;
        match image {
            Some(image) => write!(out, ", image {image}"),
            None => Ok(()),
        }
    }
}
