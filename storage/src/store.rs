//! The store in a database: sends requests to the store's thread and waits for the replies.

mod leases;
mod submit_in;

use std::{
    fmt,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use gleitzeit_domain::{
    event::Event,
    id::WorkflowId,
    store::{
        Amendment, Deletion, LeaseStore, ListFilter, NewWorkflow, Store, StoreError, Submitted,
        WorkflowChange,
    },
    workflow::{WorkflowRecord, WorkflowSummary},
};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot, watch},
};

use crate::{
    StoreUrl,
    fault::ReadError,
    location::Location,
    notify::Notifier,
    open::Connector,
    options::SqlOptions,
    queue::{Prune, Renewals, Reply, Request},
    read::Reader,
    server_clock::ServerClock,
    thread,
    write_call::{Write, WriteCall},
};

pub use submit_in::SubmitIn;

/// A store in a database.
///
/// A dropped store completes its requests in the background; [`Store::close`] waits for them.
pub struct SqlStore {
    /// The URL without the password.
    name: String,
    requests: mpsc::UnboundedSender<Request>,
    reader: Arc<Reader>,
    /// The runtime of the store's thread.
    runtime: Handle,
    is_closed: AtomicBool,
    /// True after the thread has released the database.
    ended: watch::Receiver<bool>,
    commits: Arc<AtomicU64>,
    location: Location,
    notifier: Arc<Notifier>,
    renewals: Arc<Renewals>,
    server_clock: ServerClock,
    lost: watch::Receiver<Option<StoreError>>,
    statement_timeout: Duration,
}

impl fmt::Debug for SqlStore {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("SqlStore").field("name", &self.name).finish_non_exhaustive()
    }
}

impl SqlStore {
    /// Opens the database. Creates the file, its folder and the tables if they are missing, and
    /// migrates the schema, unless [`SqlOptions::auto_migrate`] is false.
    ///
    /// # Errors
    /// [`StoreError::Open`] if the URL names no database, this build lacks its kind, a newer program
    /// has migrated it, it is read-only, or its file has several names or is a mount of its own;
    /// [`StoreError::Unavailable`] if it cannot be reached.
    pub async fn connect(url: &StoreUrl, options: SqlOptions) -> Result<Self, StoreError> {
        let location = Location::of(url)?;
        location.check_build()?;
        let connector = Connector { location: location.clone(), options };
        let opened = thread::start(connector, options.max_bytes).await?;
        Ok(Self {
            name: url.to_string(),
            requests: opened.requests,
            reader: opened.reader,
            runtime: opened.runtime,
            is_closed: AtomicBool::new(false),
            ended: opened.ended,
            commits: opened.commits,
            location,
            notifier: opened.notifier,
            renewals: opened.renewals,
            server_clock: ServerClock::default(),
            lost: opened.lost,
            statement_timeout: options.statement_timeout,
        })
    }

    /// Committed transactions since the store was opened; each costs one flush if durability is
    /// full.
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    fn check_open(&self) -> Result<(), StoreError> {
        if self.is_closed.load(Ordering::Acquire) { Err(StoreError::Closed) } else { Ok(()) }
    }

    async fn write(&self, write: Write) -> Result<Vec<Submitted>, StoreError> {
        self.ask_writer(|reply| Request::Write(WriteCall::new(write), reply)).await
    }

    async fn ask_writer<T>(
        &self,
        request: impl FnOnce(Reply<T>) -> Request,
    ) -> Result<T, StoreError> {
        self.check_open()?;
        let (reply, answered) = oneshot::channel();
        self.requests.send(request(reply)).map_err(|_| StoreError::Closed)?;
        answered.await.unwrap_or_else(|_| Err(self.unanswered()))
    }

    /// The error of a request that the writer dropped.
    fn unanswered(&self) -> StoreError {
        if self.is_closed.load(Ordering::Acquire) {
            return StoreError::Closed;
        }
        StoreError::Unknown { detail: "the thread of the store ended before it answered".into() }
    }

    /// Reads on the store's thread: a caller that is dropped does not leave a connection in the
    /// middle of an answer.
    async fn read<T, F>(&self, ask: impl FnOnce(Arc<Reader>) -> F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, ReadError>> + Send + 'static,
    {
        self.check_open()?;
        match self.runtime.spawn(ask(Arc::clone(&self.reader))).await {
            Ok(Ok(answer)) => Ok(answer),
            // `Closed` hides the error of a connection that the close took away.
            Ok(Err(ReadError(error))) => self.check_open().and(Err(error)),
            Err(ended) => {
                self.check_open()?;
                Err(StoreError::Read { detail: format!("the thread of the store: {ended}") })
            }
        }
    }
}

#[async_trait]
impl Store for SqlStore {
    fn describe(&self) -> String {
        self.name.clone()
    }

    fn leases(&self) -> Option<&dyn LeaseStore> {
        Some(self)
    }

    async fn shared_time(&self) -> Result<Option<DateTime<Utc>>, StoreError> {
        if let Some(now) = self.server_clock.now() {
            return Ok(Some(now));
        }
        let sent = Instant::now();
        let now =
            self.read(|reader| async move { reader.soon(reader.server_time()).await }).await?;
        // The server read its clock about halfway through the round trip.
        let now = now.map(|now| now + sent.elapsed() / 2);
        self.server_clock.set(now);
        Ok(now)
    }

    async fn submit(&self, new: Vec<NewWorkflow>) -> Result<Vec<Submitted>, StoreError> {
        self.write(Write::Submit(new)).await
    }

    async fn record(&self, changes: Vec<WorkflowChange>) -> Result<(), StoreError> {
        self.write(Write::Record(changes)).await.map(drop)
    }

    async fn unsettled(&self) -> Result<Vec<WorkflowRecord>, StoreError> {
        self.read(|reader| async move { reader.in_time(reader.unsettled()).await }).await
    }

    async fn workflow(&self, id: &WorkflowId) -> Result<Option<WorkflowRecord>, StoreError> {
        let id = id.clone();
        self.read(|reader| async move { reader.soon(reader.workflow(&id)).await }).await
    }

    async fn outline(&self, id: &WorkflowId) -> Result<Option<WorkflowRecord>, StoreError> {
        let id = id.clone();
        self.read(|reader| async move { reader.soon(reader.outline(&id)).await }).await
    }

    async fn result(
        &self,
        id: &WorkflowId,
        index: u32,
    ) -> Result<Option<Arc<serde_json::Value>>, StoreError> {
        let id = id.clone();
        self.read(move |reader| async move { reader.soon(reader.result(&id, index)).await }).await
    }

    async fn list(&self, filter: ListFilter) -> Result<Vec<WorkflowSummary>, StoreError> {
        self.read(|reader| async move { reader.soon(reader.list(filter)).await }).await
    }

    async fn ids(&self, prefix: &str, limit: usize) -> Result<Vec<WorkflowId>, StoreError> {
        let prefix = prefix.to_owned();
        self.read(move |reader| async move { reader.soon(reader.ids(&prefix, limit)).await }).await
    }

    async fn amend(&self, amendment: Amendment) -> Result<bool, StoreError> {
        self.ask_writer(|reply| Request::Amend(Box::new(amendment), reply)).await
    }

    async fn delete(&self, ids: &[WorkflowId]) -> Result<Vec<Deletion>, StoreError> {
        self.ask_writer(|reply| Request::Delete(ids.to_vec(), reply)).await
    }

    async fn events(
        &self,
        id: &WorkflowId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Event>, StoreError> {
        let id = id.clone();
        self.read(move |reader| async move { reader.soon(reader.events(&id, after, limit)).await })
            .await
    }

    async fn prune(&self, before: DateTime<Utc>, limit: usize) -> Result<usize, StoreError> {
        self.ask_writer(|reply| {
            Request::Prune(Prune { before: Some(before), limit, count: 0, reply })
        })
        .await
    }

    async fn lost(&self) -> StoreError {
        let mut lost = self.lost.clone();
        let gone = match lost.wait_for(Option::is_some).await {
            Ok(gone) => gone.clone(),
            Err(_) => None,
        };
        match gone {
            Some(gone) => gone,
            // The store was closed: nothing is lost.
            None => std::future::pending().await,
        }
    }

    async fn close(&self, limit: Duration) -> Result<(), StoreError> {
        // Before the request: a call after `close` must fail also while the writer is busy.
        self.is_closed.store(true, Ordering::Release);
        // Fails only if the writer has ended already.
        let _ = self.requests.send(Request::Close);
        let mut ended = self.ended.clone();
        // The timer runs on the store's thread: the caller's runtime may have none. An error of the
        // task means that the thread, and its runtime with it, has ended.
        let waiting = self.runtime.spawn(async move {
            tokio::time::timeout(limit, ended.wait_for(|ended| *ended)).await.is_ok()
        });
        if waiting.await.unwrap_or(true) {
            return Ok(());
        }
        Err(StoreError::Unavailable {
            detail: format!("`{}` did not complete its writes within {limit:?}", self.name),
        })
    }
}
