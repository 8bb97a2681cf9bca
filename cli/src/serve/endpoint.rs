//! `GET /healthz` of `serve`; a build without the feature `server` does not listen.

use std::net::SocketAddr;

use gleitzeit::Handle;

use crate::output::Failure;

#[cfg(feature = "server")]
pub(super) use gleitzeit_server::Server;

/// Listens at `address`.
///
/// # Errors
/// If the system refuses.
#[cfg(feature = "server")]
pub(super) fn open(address: SocketAddr, handle: Handle) -> Result<Server, Failure> {
    let server = Server::bind(address, handle, gleitzeit_server::Limits::default());
    server.map_err(|error| {
        Failure::infrastructure(format!("cannot listen at {address} for /healthz: {error}"))
    })
}

/// No value: this build does not listen.
#[cfg(not(feature = "server"))]
pub(super) enum Server {}

#[cfg(not(feature = "server"))]
impl Server {
    pub(super) fn address(&self) -> SocketAddr {
        match *self {}
    }

    #[expect(clippy::unused_async, reason = "as that with the feature")]
    pub(super) async fn stop(self) {
        match self {}
    }
}

/// Refuses: an operator who asks for `/healthz` would wait for an answer that never comes.
///
/// # Errors
/// Always.
#[cfg(not(feature = "server"))]
pub(super) fn open(address: SocketAddr, _: Handle) -> Result<Server, Failure> {
    Err(Failure::usage(format!(
        "cannot listen at {address} for /healthz: this build has no server; build it with the feature \
         `server`"
    )))
}
