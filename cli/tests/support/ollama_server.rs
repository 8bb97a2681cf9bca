//! An HTTP server that behaves exactly as badly as it is told, byte by byte.
//!
//! Written on bare sockets, because a proper server would repair what the tests are about: lines
//! cut in the middle, bodies shorter than announced, silence. Routes answer with their replies in
//! order; the last one is repeated. Runs on the test's own thread.

use std::{
    collections::{HashMap, VecDeque},
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
};

/// Longer than anything in a test takes; a test that needs it has failed.
const TIMEOUT: Duration = Duration::from_secs(20);

/// What came in.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// `POST /api/chat`.
    pub(crate) route: String,
    /// Names in lower case.
    pub(crate) headers: HashMap<String, String>,
    /// The body, null where it is no JSON.
    pub(crate) body: Value,
}

#[derive(Clone)]
enum Step {
    Send(Vec<u8>),
    /// Silence until the peer goes.
    Stall,
    /// Silence until the test lets it go on.
    Wait(Arc<Semaphore>),
}

/// One answer, as bytes on the wire.
#[derive(Clone, Default)]
pub(crate) struct Reply {
    status: String,
    headers: Vec<String>,
    chunked: bool,
    before_head: Vec<Step>,
    body: Vec<Step>,
    /// What is announced beyond what is sent.
    missing: usize,
    /// Hang up where the body ends, without its end.
    cut: bool,
    /// The body is the whole answer, its head included.
    raw: bool,
}

impl Reply {
    /// A status with a text; its length is announced.
    pub(crate) fn text(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let status = format!("{status} Said");
        Self { status, body: vec![Step::Send(body.into())], ..Self::default() }
    }

    /// An answer that is written byte for byte, its head included.
    pub(crate) fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self { body: vec![Step::Send(bytes.into())], raw: true, ..Self::default() }
    }

    /// A success in JSON.
    pub(crate) fn json(body: &Value) -> Self {
        Self::text(200, body.to_string()).header("content-type: application/json")
    }

    /// A success in parts, each on the wire before the next one.
    pub(crate) fn chunks<B: Into<Vec<u8>>>(parts: impl IntoIterator<Item = B>) -> Self {
        let body = parts.into_iter().map(|part| Step::Send(part.into())).collect();
        Self { status: "200 OK".to_owned(), chunked: true, body, ..Self::default() }
    }

    /// A success in lines of JSON.
    pub(crate) fn lines(lines: impl IntoIterator<Item = Value>) -> Self {
        Self::chunks(lines.into_iter().map(|line| format!("{line}\n")))
    }

    pub(crate) fn header(mut self, line: &str) -> Self {
        self.headers.push(line.to_owned());
        self
    }

    /// Says nothing more after what is there, until the client goes.
    pub(crate) fn then_stalls(mut self) -> Self {
        self.body.push(Step::Stall);
        self
    }

    /// Says nothing at all, until the client goes.
    pub(crate) fn never_begins(mut self) -> Self {
        self.before_head.push(Step::Stall);
        self
    }

    /// Begins when `gate` gives it a permit.
    pub(crate) fn waits_for(mut self, gate: &Arc<Semaphore>) -> Self {
        self.before_head.push(Step::Wait(Arc::clone(gate)));
        self
    }

    /// Hangs up without ending the body.
    pub(crate) fn cut(mut self) -> Self {
        self.cut = true;
        self
    }

    /// Announces more than it sends, then hangs up.
    pub(crate) fn announcing_more(mut self, bytes: usize) -> Self {
        self.missing = bytes;
        self.cut()
    }
}

#[derive(Default)]
struct State {
    routes: HashMap<String, VecDeque<Reply>>,
    seen: Vec<Seen>,
    connections: usize,
    connections_max: usize,
    connections_total: usize,
}

/// A scripted server; gone with its test.
pub(crate) struct OllamaServer {
    /// Its address.
    pub(crate) url: String,
    state: Arc<Mutex<State>>,
    arrived: mpsc::UnboundedReceiver<()>,
    gone: mpsc::UnboundedReceiver<()>,
}

impl OllamaServer {
    /// A server that knows its version, and nothing else yet.
    pub(crate) async fn start() -> Self {
        Self::start_at("127.0.0.1:0").await
    }

    /// The same at an address that was free.
    pub(crate) async fn start_at(address: &str) -> Self {
        let server = Self::bare(address).await;
        server.on("GET /api/version", Reply::json(&json!({ "version": "0.9.1" })));
        server
    }

    /// A server that takes requests and answers none.
    pub(crate) async fn start_silent() -> Self {
        let server = Self::bare("127.0.0.1:0").await;
        server.on("GET /api/version", Reply::json(&json!({})).never_begins());
        server
    }

    async fn bare(address: &str) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        let (arrivals, arrived) = mpsc::unbounded_channel();
        let (departures, gone) = mpsc::unbounded_channel();
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // Parts are to arrive as parts.
                let _ = stream.set_nodelay(true);
                let (state, arrivals) = (Arc::clone(&shared), arrivals.clone());
                let departures = departures.clone();
                tokio::spawn(async move {
                    let mut peer = Peer { stream, unread: Vec::new(), state, arrivals };
                    peer.connected();
                    // A client that hangs up is what some tests want to see.
                    let _ = peer.serve().await;
                    peer.disconnected();
                    let _ = departures.send(());
                });
            }
        });
        Self { url, state, arrived, gone }
    }

    /// Adds a reply to a route.
    pub(crate) fn on(&self, route: &str, reply: Reply) {
        self.state.lock().unwrap().routes.entry(route.to_owned()).or_default().push_back(reply);
    }

    /// All requests so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.state.lock().unwrap().seen.clone()
    }

    /// The most connections that were open at once.
    pub(crate) fn connections_max(&self) -> usize {
        self.state.lock().unwrap().connections_max
    }

    /// The connections that were ever opened.
    pub(crate) fn connections_total(&self) -> usize {
        self.state.lock().unwrap().connections_total
    }

    /// Waits for one more request.
    pub(crate) async fn arrival(&mut self) {
        tokio::time::timeout(TIMEOUT, self.arrived.recv()).await.expect("no request came");
    }

    /// Waits for one more connection to be closed.
    pub(crate) async fn departure(&mut self) {
        tokio::time::timeout(TIMEOUT, self.gone.recv()).await.expect("no client went");
    }
}

struct Peer {
    stream: TcpStream,
    unread: Vec<u8>,
    state: Arc<Mutex<State>>,
    arrivals: mpsc::UnboundedSender<()>,
}

impl Peer {
    fn connected(&self) {
        let mut state = self.state.lock().unwrap();
        state.connections += 1;
        state.connections_total += 1;
        state.connections_max = state.connections_max.max(state.connections);
    }

    fn disconnected(&self) {
        self.state.lock().unwrap().connections -= 1;
    }

    async fn serve(&mut self) -> io::Result<()> {
        while let Some(seen) = self.request().await? {
            let reply = self.reply_to(&seen.route);
            self.state.lock().unwrap().seen.push(seen);
            let _ = self.arrivals.send(());
            let hang_up = reply.cut;
            self.answer(reply).await?;
            if hang_up {
                break;
            }
        }
        Ok(())
    }

    fn reply_to(&self, route: &str) -> Reply {
        let mut state = self.state.lock().unwrap();
        match state.routes.get_mut(route) {
            Some(replies) if replies.len() > 1 => replies.pop_front().unwrap(),
            Some(replies) => replies.front().cloned().unwrap(),
            // What Ollama's router says.
            None => Reply::text(404, "404 page not found"),
        }
    }

    /// Reads more; false when the client has gone.
    async fn more(&mut self) -> io::Result<bool> {
        Ok(self.stream.read_buf(&mut self.unread).await? > 0)
    }

    async fn request(&mut self) -> io::Result<Option<Seen>> {
        let head_end = loop {
            if let Some(at) = self.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                break at;
            }
            if !self.more().await? {
                return Ok(None);
            }
        };
        let head = String::from_utf8_lossy(&self.unread[..head_end]).into_owned();
        self.unread.drain(..head_end + 4);
        let mut lines = head.lines();
        let route = lines.next().unwrap_or_default().rsplit_once(' ').unwrap_or_default().0;
        let headers: HashMap<String, String> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let length = headers.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        while self.unread.len() < length {
            if !self.more().await? {
                return Ok(None);
            }
        }
        let body: Vec<u8> = self.unread.drain(..length).collect();
        let body = serde_json::from_slice(&body).unwrap_or_default();
        Ok(Some(Seen { route: route.to_owned(), headers, body }))
    }

    async fn answer(&mut self, reply: Reply) -> io::Result<()> {
        for step in reply.before_head {
            self.step(step, false).await?;
        }
        if reply.raw {
            for step in reply.body {
                self.step(step, false).await?;
            }
            return self.stream.flush().await;
        }
        let framing = if reply.chunked {
            "transfer-encoding: chunked".to_owned()
        } else {
            let sent: usize = reply.body.iter().map(Step::len).sum();
            format!("content-length: {}", sent + reply.missing)
        };
        let mut lines = vec![format!("HTTP/1.1 {}", reply.status), framing];
        lines.extend(reply.headers);
        let head = lines.join("\r\n") + "\r\n\r\n";
        self.stream.write_all(head.as_bytes()).await?;
        for step in reply.body {
            self.step(step, reply.chunked).await?;
        }
        if reply.chunked && !reply.cut {
            self.stream.write_all(b"0\r\n\r\n").await?;
        }
        self.stream.flush().await
    }

    async fn step(&mut self, step: Step, chunked: bool) -> io::Result<()> {
        match step {
            Step::Send(bytes) if chunked => {
                let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
                chunk.extend(bytes);
                chunk.extend(b"\r\n");
                self.stream.write_all(&chunk).await?;
                self.stream.flush().await?;
                tokio::task::yield_now().await;
                Ok(())
            }
            Step::Send(bytes) => self.stream.write_all(&bytes).await,
            Step::Stall => {
                while self.more().await? {}
                Err(io::ErrorKind::UnexpectedEof.into())
            }
            Step::Wait(gate) => {
                let permit = gate.acquire().await.map_err(io::Error::other)?;
                permit.forget();
                Ok(())
            }
        }
    }
}

impl Step {
    fn len(&self) -> usize {
        match self {
            Self::Send(bytes) => bytes.len(),
            Self::Stall | Self::Wait(_) => 0,
        }
    }
}
