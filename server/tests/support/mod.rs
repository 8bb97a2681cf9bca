//! A runtime with a server over it, and clients that speak HTTP byte by byte.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use gleitzeit::{
    Event, Handle, ListFilter, MemoryStore, Runtime, Settings, Store, StoreError, WorkflowId,
    WorkflowRecord, WorkflowSummary,
    domain::store::{NewWorkflow, Submitted, WorkflowChange},
    sea_orm::{ConnectionTrait as _, Database},
};
use gleitzeit_server::{Limits, Server};
use serde_json::Value;

/// No wait of these tests takes this long.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

pub(crate) struct Site {
    pub(crate) server: Server,
    runtime: Option<Runtime>,
    handle: Handle,
}

impl Site {
    pub(crate) async fn start(limits: Limits) -> Self {
        Self::start_with(limits, None, "memory").await
    }

    pub(crate) async fn start_with(
        limits: Limits,
        store: Option<CountingStore>,
        url: &str,
    ) -> Self {
        let runtime = runtime(store, url).await;
        let handle = runtime.handle();
        let address = "127.0.0.1:0".parse().unwrap();
        let server = Server::bind(address, handle.clone(), limits).unwrap();
        Self { server, runtime: Some(runtime), handle }
    }

    pub(crate) fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Sends a request; returns all bytes of the answer.
    pub(crate) async fn ask(&self, request: &[u8]) -> String {
        tokio::task::spawn_blocking(ask(self, request)).await.unwrap()
    }

    pub(crate) async fn stop_runtime(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.stop(LIMIT).await;
        }
    }

    pub(crate) async fn stop(mut self) {
        self.stop_runtime().await;
        self.server.stop().await;
    }
}

/// A runtime without providers.
pub(crate) async fn runtime(store: Option<CountingStore>, url: &str) -> Runtime {
    let settings = Settings::from_toml(&format!("[storage]\nurl = \"{url}\"")).unwrap();
    let mut builder = Runtime::builder(settings).without_settings_providers();
    if let Some(store) = store {
        builder = builder.store(Arc::new(store));
    }
    builder.start().await.unwrap()
}

/// What [`Site::ask`] does, for several at once.
pub(crate) fn ask(site: &Site, request: &[u8]) -> impl FnOnce() -> String + Send + 'static {
    let (address, request) = (site.server.address(), request.to_vec());
    move || exchange(address, &request)
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
}

/// Sends bytes; returns all that is sent back.
pub(crate) fn exchange(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = connect(address);
    // The server may answer, and close, before it has read all.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).expect("UTF-8")
}

/// The body of an answer, as JSON.
pub(crate) fn body(answer: &str) -> Value {
    let (_, body) = answer.split_once("\r\n\r\n").expect("a head");
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"))
}

/// Renames a table past the store.
pub(crate) async fn rename(url: &str, from: &str, to: &str) {
    let db = Database::connect(format!("{url}?mode=rw")).await.unwrap();
    db.execute_unprepared(&format!("ALTER TABLE {from} RENAME TO {to}")).await.unwrap();
    db.close().await.unwrap();
}

/// A store in memory that counts how often a workflow is read.
#[derive(Clone, Default)]
pub(crate) struct CountingStore {
    store: Arc<MemoryStore>,
    reads: Arc<AtomicU64>,
}

impl CountingStore {
    pub(crate) fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Store for CountingStore {
    fn describe(&self) -> String {
        self.store.describe()
    }

    async fn submit(&self, new: Vec<NewWorkflow>) -> Result<Vec<Submitted>, StoreError> {
        self.store.submit(new).await
    }

    async fn record(&self, changes: Vec<WorkflowChange>) -> Result<(), StoreError> {
        self.store.record(changes).await
    }

    async fn unsettled(&self) -> Result<Vec<WorkflowRecord>, StoreError> {
        self.store.unsettled().await
    }

    async fn workflow(&self, id: &WorkflowId) -> Result<Option<WorkflowRecord>, StoreError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.store.workflow(id).await
    }

    async fn list(&self, filter: ListFilter) -> Result<Vec<WorkflowSummary>, StoreError> {
        self.store.list(filter).await
    }

    async fn events(
        &self,
        id: &WorkflowId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Event>, StoreError> {
        self.store.events(id, after, limit).await
    }

    async fn prune(&self, before: DateTime<Utc>, limit: usize) -> Result<usize, StoreError> {
        self.store.prune(before, limit).await
    }

    async fn close(&self, wait: Duration) -> Result<(), StoreError> {
        self.store.close(wait).await
    }
}
