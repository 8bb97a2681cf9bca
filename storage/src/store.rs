//! The store in a database, as the engine sees it: it hands requests to the thread and waits.

use std::{
    any::Any,
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
    Durability, StoreUrl,
    call::{Call, Write},
    leases::{Renewals, Reply},
    location::Location,
    notifier::Notifier,
    open::Connector,
    read::{ReadError, Reader},
    server_clock::ServerClock,
    thread,
    writer::{Prune, Request},
};

/// How a database is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SqlOptions {
    /// What a commit survives.
    pub durability: Durability,
    /// Above so many bytes in use, the oldest settled workflows are forgotten; `None` for any size.
    pub max_bytes: Option<u64>,
    /// True makes the database and brings its schema up to date where that is needed; false refuses
    /// one that is not ready.
    pub auto_migrate: bool,
    /// A statement that a server has not answered by then is given up, and its connection replaced.
    pub statement_timeout: Duration,
}

impl Default for SqlOptions {
    fn default() -> Self {
        Self {
            durability: Durability::default(),
            max_bytes: None,
            auto_migrate: true,
            statement_timeout: Duration::from_secs(10),
        }
    }
}

/// Keeps workflows in a database.
///
/// Dropping it ends it too: what was asked before is written, in the background. [`Store::close`]
/// waits for that.
pub struct SqlStore {
    /// Without the password.
    pub(crate) name: String,
    pub(crate) requests: mpsc::UnboundedSender<Request>,
    pub(crate) reader: Arc<Reader>,
    /// That of the store's thread.
    pub(crate) runtime: Handle,
    pub(crate) is_closed: AtomicBool,
    /// True once the thread has let go of the database.
    ended: watch::Receiver<bool>,
    commits: Arc<AtomicU64>,
    pub(crate) location: Location,
    pub(crate) notifier: Arc<Notifier>,
    pub(crate) renewals: Arc<Renewals>,
    pub(crate) server_clock: ServerClock,
    lost: watch::Receiver<Option<StoreError>>,
    pub(crate) statement_timeout: Duration,
}

impl fmt::Debug for SqlStore {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("SqlStore").field("name", &self.name).finish_non_exhaustive()
    }
}

impl SqlStore {
    /// Opens the database, makes what is missing (the file, its folder, the tables), and brings
    /// its schema up to date, unless [`SqlOptions::auto_migrate`] is false.
    ///
    /// # Errors
    /// [`StoreError::Open`] where the URL names no database, this build does not know the kind of
    /// database, a newer program has migrated it, it is read-only, or its file has several names or
    /// is mounted by itself; [`StoreError::Unavailable`] where it cannot be reached.
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

    /// Transactions that wrote and were committed, since it was opened; each costs one flush
    /// where durability is full.
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    pub(crate) fn check_open(&self) -> Result<(), StoreError> {
        if self.is_closed.load(Ordering::Acquire) { Err(StoreError::Closed) } else { Ok(()) }
    }

    pub(crate) async fn write(&self, write: Write) -> Result<Vec<Submitted>, StoreError> {
        self.ask_writer(|reply| Request::Write(Call::new(write), reply)).await
    }

    pub(crate) async fn ask_writer<T>(
        &self,
        request: impl FnOnce(Reply<T>) -> Request,
    ) -> Result<T, StoreError> {
        self.check_open()?;
        let (reply, answered) = oneshot::channel();
        self.requests.send(request(reply)).map_err(|_| StoreError::Closed)?;
        answered.await.unwrap_or_else(|_| Err(self.unanswered()))
    }

    /// The writer has gone without an answer.
    fn unanswered(&self) -> StoreError {
        if self.is_closed.load(Ordering::Acquire) {
            return StoreError::Closed;
        }
        StoreError::Unknown { detail: "the thread of the store ended before it answered".into() }
    }

    /// Reads on the store's own thread. A caller that goes away does not stop it half-way.
    pub(crate) async fn read<T, F>(
        &self,
        ask: impl FnOnce(Arc<Reader>) -> F,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, ReadError>> + Send + 'static,
    {
        self.check_open()?;
        match self.runtime.spawn(ask(Arc::clone(&self.reader))).await {
            Ok(Ok(answer)) => Ok(answer),
            // The connections may have been closed meanwhile.
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

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }

    async fn shared_time(&self) -> Result<Option<DateTime<Utc>>, StoreError> {
        if let Some(now) = self.server_clock.now() {
            return Ok(Some(now));
        }
        let asked = Instant::now();
        let now =
            self.read(|reader| async move { reader.soon(reader.server_time()).await }).await?;
        // The server read its clock on half of the way.
        let now = now.map(|now| now + asked.elapsed() / 2);
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
        self.ask_writer(|answer| {
            Request::Prune(Prune { before: Some(before), limit, count: 0, answer })
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
            // Closed in order.
            None => std::future::pending().await,
        }
    }

    async fn close(&self, limit: Duration) -> Result<(), StoreError> {
        self.is_closed.store(true, Ordering::Release);
        // It is gone already where this fails.
        let _ = self.requests.send(Request::Close);
        let mut ended = self.ended.clone();
        // The timer is that of the store's thread, for the caller's runtime may have none. It goes
        // with the thread: to find it gone is to see the end.
        let waiting = self.runtime.spawn(async move {
            tokio::time::timeout(limit, ended.wait_for(|ended| *ended)).await.is_ok()
        });
        if waiting.await.unwrap_or(true) {
            return Ok(());
        }
        Err(StoreError::Unavailable {
            detail: format!("`{}` did not finish its writes within {limit:?}", self.name),
        })
    }
}
