//! A line to a server that can stop carrying anything, without being cut: as in a partitioned
//! network.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, tcp},
    sync::watch,
    task::JoinHandle,
};

/// Listens on a port of its own; dropping it cuts every connection.
pub(crate) struct StallingLine {
    pub(crate) address: SocketAddr,
    is_stalled: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

impl StallingLine {
    /// A line to `server`, written as `host:port`.
    pub(crate) async fn to(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let is_stalled = watch::Sender::new(false);
        let stalls = is_stalled.subscribe();
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (server, stalls) = (server.clone(), stalls.clone());
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(server).await else { return };
                    let (from_client, to_client) = client.into_split();
                    let (from_server, to_server) = server.into_split();
                    tokio::spawn(carry(from_client, to_server, stalls.clone()));
                    carry(from_server, to_client, stalls).await;
                });
            }
        });
        Self { address, is_stalled, accepting }
    }

    /// Carries nothing until it is told otherwise.
    pub(crate) fn stall(&self, is_stalled: bool) {
        self.is_stalled.send_replace(is_stalled);
    }
}

impl Drop for StallingLine {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn carry(
    mut from: tcp::OwnedReadHalf,
    mut to: tcp::OwnedWriteHalf,
    mut stalls: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        // The line itself goes with the test.
        if stalls.wait_for(|is_stalled| !is_stalled).await.is_err()
            || to.write_all(&buffer[..count]).await.is_err()
        {
            return;
        }
    }
}
