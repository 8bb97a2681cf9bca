//! A way to a server that can fall silent: connections stay open, what is sent is taken, and
//! nothing arrives. So does a router that has forgotten a connection, or a host without power.

use gleitzeit::settings::StoreUrl;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

/// Stands between; gone when it is dropped.
pub(crate) struct Proxy {
    port: u16,
    /// Connections of a smaller number are silent.
    silent_below: watch::Sender<u64>,
    /// How many there were.
    made: watch::Receiver<u64>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    /// Before the server of a database.
    pub(crate) async fn before(url: &StoreUrl) -> Self {
        let server = server_of(url);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (silent_below, silent) = watch::channel(0);
        let (count, made) = watch::channel(0);
        let task = tokio::spawn(async move {
            loop {
                let (ours, _) = listener.accept().await.unwrap();
                let number = *count.borrow();
                count.send_replace(number + 1);
                let (server, silent) = (server.clone(), silent.clone());
                tokio::spawn(async move {
                    let Ok(theirs) = TcpStream::connect(server).await else { return };
                    let ((from, to), (back, answers)) = (ours.into_split(), theirs.into_split());
                    let there = pass(number, from, answers, silent.clone());
                    tokio::join!(there, pass(number, back, to, silent));
                });
            }
        });
        Self { port, silent_below, made, task }
    }

    /// The database, reached this way.
    pub(crate) fn url(&self, url: &StoreUrl) -> StoreUrl {
        url.expose()
            .replacen(&server_of(url), &format!("127.0.0.1:{}", self.port), 1)
            .parse()
            .unwrap()
    }

    /// The connections that there are fall silent; new ones work.
    pub(crate) fn forget_connections(&self) {
        self.silent_below.send_replace(*self.made.borrow());
    }

    /// All connections fall silent, new ones as well.
    pub(crate) fn fall_silent(&self) {
        self.silent_below.send_replace(u64::MAX);
    }

    /// New connections work again; those that were silent stay so.
    pub(crate) fn recover(&self) {
        self.forget_connections();
    }
}

/// `host:port`.
fn server_of(url: &StoreUrl) -> String {
    let (_, rest) = url.expose().split_once("://").unwrap();
    let (server, _) = rest.rsplit_once('/').unwrap();
    server.rsplit_once('@').map_or(server, |(_, server)| server).to_owned()
}

async fn pass(
    number: u64,
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    silent: watch::Receiver<u64>,
) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        if number >= *silent.borrow() && to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
    if number < *silent.borrow() {
        // Not even that it has ended arrives.
        std::future::pending::<()>().await;
    }
}
