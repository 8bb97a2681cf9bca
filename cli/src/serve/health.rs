//! `GET /healthz` for whoever watches the server: 200 while the engine, the store and the lease are
//! well, 503 else, with a small JSON object that says which is not.
//!
//! Not a web server: a request is read up to 4 KiB, answered, and the connection is closed.
//!
//! Invariants: at most [`CONNECTIONS`] are open, each for at most [`DEADLINE`]; however many ask,
//! the engine and the store are asked once a second.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use gleitzeit::{Handle, Health};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{Mutex, Semaphore},
};

/// Connections at once; more are closed without an answer.
const CONNECTIONS: usize = 16;
/// From the connection to the end of the answer.
const DEADLINE: Duration = Duration::from_secs(10);
/// Bytes of a request that are read.
const REQUEST_MAX: usize = 4_096;
/// An answer is as good as new for this long.
const FRESH: Duration = Duration::from_secs(1);
/// After the system gave no connection, for lack of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers at an address while it lives.
pub(super) struct Endpoint {
    /// Where it listens; the port is that of the system if 0 was asked for.
    pub(super) address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Endpoint {
    /// Listens there.
    ///
    /// # Errors
    /// If the system does not let it.
    pub(super) async fn open(address: SocketAddr, handle: Handle) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self { address, task: tokio::spawn(answer_all(listener, handle)) })
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer_all(listener: TcpListener, handle: Handle) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let state = Arc::new(State { handle, last: Mutex::new(None) });
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            // A client that is slow or gone is its own concern.
            let _ = tokio::time::timeout(DEADLINE, answer(stream, &state)).await;
            drop(place);
        });
    }
}

struct State {
    handle: Handle,
    last: Mutex<Option<(Instant, Health)>>,
}

impl State {
    async fn health(&self) -> Health {
        let mut last = self.last.lock().await;
        if let Some((at, health)) = *last
            && at.elapsed() < FRESH
        {
            return health;
        }
        let health = self.handle.health().await;
        *last = Some((Instant::now(), health));
        health
    }
}

async fn answer(mut stream: TcpStream, state: &State) -> io::Result<()> {
    let mut request = Vec::new();
    let is_whole = loop {
        if request.windows(4).any(|it| it == b"\r\n\r\n") {
            break true;
        }
        if request.len() >= REQUEST_MAX {
            break false;
        }
        let room = REQUEST_MAX - request.len();
        if (&mut stream).take(room as u64).read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    };
    let (asked, with_body) = if is_whole { read(&request) } else { (Asked::TooLong, true) };
    let (status, body) = match asked {
        Asked::Health => {
            let health = state.health().await;
            let status = if health.is_ok() { "200 OK" } else { "503 Service Unavailable" };
            let body = serde_json::json!({
                "status": if health.is_ok() { "ok" } else { "unhealthy" },
                "engine": health.engine, "store": health.store, "lease": health.lease,
            });
            (status, body.to_string() + "\n")
        }
        Asked::Other => ("404 Not Found", told("only /healthz is here")),
        Asked::Method => ("405 Method Not Allowed", told("only GET and HEAD")),
        Asked::TooLong => ("431 Request Header Fields Too Large", told("more than 4 KiB")),
        Asked::Nonsense => ("400 Bad Request", told("this is not HTTP/1.1")),
    };
    let allow = if asked == Asked::Method { "Allow: GET, HEAD\r\n" } else { "" };
    let mut answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\n{allow}Connection: close\r\n\r\n",
        body.len()
    );
    if with_body {
        answer.push_str(&body);
    }
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

fn told(message: &str) -> String {
    serde_json::json!({ "error": message }).to_string() + "\n"
}

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Health,
    Other,
    Method,
    TooLong,
    Nonsense,
}

/// What the first line asks for, and whether the answer has a body.
fn read(request: &[u8]) -> (Asked, bool) {
    let line = request.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let Ok(line) = std::str::from_utf8(line) else { return (Asked::Nonsense, true) };
    let words: Vec<&str> = line.split(' ').collect();
    let [method, target, version] = words.as_slice() else { return (Asked::Nonsense, true) };
    if !version.starts_with("HTTP/1.") || !target.starts_with('/') {
        return (Asked::Nonsense, true);
    }
    let is_health = target.split('?').next() == Some("/healthz");
    match (*method, is_health) {
        ("GET", true) => (Asked::Health, true),
        ("HEAD", true) => (Asked::Health, false),
        (method, false) => (Asked::Other, method != "HEAD"),
        (_, true) => (Asked::Method, true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first line decides; anything that is not HTTP is called so.
    #[test]
    fn the_first_line_is_read() {
        let asked = |line: &str| read(format!("{line}\r\nHost: x\r\n\r\n").as_bytes());
        assert_eq!(asked("GET /healthz HTTP/1.1"), (Asked::Health, true));
        assert_eq!(asked("GET /healthz?verbose HTTP/1.0"), (Asked::Health, true));
        assert_eq!(asked("HEAD /healthz HTTP/1.1"), (Asked::Health, false));
        assert_eq!(asked("POST /healthz HTTP/1.1"), (Asked::Method, true));
        assert_eq!(asked("GET /healthzz HTTP/1.1"), (Asked::Other, true));
        for line in
            ["", "GET", "GET /healthz", "GET  /healthz HTTP/1.1", "GET /healthz HTTP/2", "\u{0}"]
        {
            assert_eq!(asked(line).0, Asked::Nonsense, "{line:?}");
        }
    }
}
