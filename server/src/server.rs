//! A server of its own: one address, one worker.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use actix_server::ServerHandle;
use gleitzeit::Handle;

use crate::{Api, connection};

/// Limits of a server, which protect it from its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once; the server closes more without an answer.
    pub connections: usize,
    /// From the start of a connection to the end of its answer; then the server closes it.
    pub deadline: Duration,
    /// Bytes of a request up to the end of its head; more are answered with 431.
    pub head_bytes: usize,
}

impl Default for Limits {
    /// 16 connections, 10 seconds, 4 KiB.
    fn default() -> Self {
        Self { connections: 16, deadline: Duration::from_secs(10), head_bytes: 4_096 }
    }
}

/// A server that answers until it is stopped or dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    handle: ServerHandle,
}

impl Server {
    /// Listens at `address` and serves the routes of [`Api`] over `handle`, on a thread of its own.
    ///
    /// # Errors
    /// Those of the system, if it does not let the process listen there; that there is no tokio or
    /// actix runtime to run on.
    pub fn bind(address: SocketAddr, handle: Handle, limits: Limits) -> io::Result<Self> {
        let runtime = tokio::runtime::Handle::try_current().map_err(io::Error::other)?;
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let api = Api::new(handle);
        let server = actix_server::Server::build()
            .workers(1)
            // Signals are the program's.
            .disable_signals()
            .listen("gleitzeit", listener, move || connection::service(api.clone(), limits))?
            .run();
        let handle = server.handle();
        runtime.spawn(async move {
            if let Err(error) = server.await {
                tracing::error!(%address, %error, "HTTP server failed");
            }
        });
        Ok(Self { address, handle })
    }

    /// The address it listens at; its port is the system's if 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes the address and all connections, and waits for that.
    pub async fn stop(self) {
        self.handle.stop(false).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The command is sent here; its future only waits for the end.
        drop(self.handle.stop(false));
    }
}
