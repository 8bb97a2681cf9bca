//! A store for commands that only show: one connection that reads.
//!
//! It creates no file, migrates nothing, opens no lease and waits for no lock, and it reads a
//! database that cannot be written.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use gleitzeit_domain::{
    event::Event,
    id::WorkflowId,
    needs::Offer,
    store::{
        Epoch, LeaseStore, ListFilter, NewWorkflow, Store, StoreError, Submitted, WorkflowChange,
        lease::{
            Claimed, ClaimedOne, Lease, Release, Request, RequestAnswer, RequestKey, Standing,
        },
    },
    workflow::{WorkflowRecord, WorkflowSummary},
};

use super::{
    StoreUrl,
    fault::ReadError,
    leases,
    location::Location,
    open::{Connector, Role},
    options::SqlOptions,
    read::Reader,
    schema,
};

/// A database that is only read. Unlike [`SqlStore`](super::SqlStore) it runs on the caller's
/// runtime.
pub struct ReadOnlyStore {
    name: String,
    location: Location,
    reader: Reader,
}

impl fmt::Debug for ReadOnlyStore {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("ReadOnlyStore").field("name", &self.name).finish_non_exhaustive()
    }
}

impl ReadOnlyStore {
    /// Opens a database; `None` if there is none yet: no file, or no tables of gleitzeit in it.
    ///
    /// # Errors
    /// [`StoreError::Open`] if the URL names no database, or its schema is not the one of this
    /// program; [`StoreError::Unavailable`] if it cannot be reached.
    pub async fn open(url: &StoreUrl, options: SqlOptions) -> Result<Option<Self>, StoreError> {
        let location = Location::of(url)?;
        location.check_build()?;
        if let Location::Sqlite(path) = &location
            && !path.exists()
        {
            return Ok(None);
        }
        let connector = Connector { location: location.clone(), options };
        let db = connector.connect(Role::Show).await?;
        let schema = connector.schema(&db).await?;
        // Not an error: a command that lists workflows finds none in a new database.
        if schema.version().is_none() {
            return Ok(None);
        }
        if let Some(why) = schema::rejection(&schema) {
            return Err(StoreError::Open { detail: format!("`{url}` {why}") });
        }
        let reader = Reader::watching(db, connector);
        Ok(Some(Self { name: url.to_string(), location, reader }))
    }

    fn reject<T>(&self) -> Result<T, StoreError> {
        Err(StoreError::Write { detail: format!("`{}` was opened to be read only", self.name) })
    }
}

#[async_trait]
impl Store for ReadOnlyStore {
    fn describe(&self) -> String {
        self.name.clone()
    }

    fn leases(&self) -> Option<&dyn LeaseStore> {
        Some(self)
    }

    async fn submit(&self, _new: Vec<NewWorkflow>) -> Result<Vec<Submitted>, StoreError> {
        self.reject()
    }

    async fn record(&self, _changes: Vec<WorkflowChange>) -> Result<(), StoreError> {
        self.reject()
    }

    async fn unsettled(&self) -> Result<Vec<WorkflowRecord>, StoreError> {
        self.reader.in_time(self.reader.unsettled()).await.map_err(store_error)
    }

    async fn workflow(&self, id: &WorkflowId) -> Result<Option<WorkflowRecord>, StoreError> {
        self.reader.soon(self.reader.workflow(id)).await.map_err(store_error)
    }

    async fn outline(&self, id: &WorkflowId) -> Result<Option<WorkflowRecord>, StoreError> {
        self.reader.soon(self.reader.outline(id)).await.map_err(store_error)
    }

    async fn result(
        &self,
        id: &WorkflowId,
        index: u32,
    ) -> Result<Option<Arc<serde_json::Value>>, StoreError> {
        self.reader.soon(self.reader.result(id, index)).await.map_err(store_error)
    }

    async fn list(&self, filter: ListFilter) -> Result<Vec<WorkflowSummary>, StoreError> {
        self.reader.soon(self.reader.list(filter)).await.map_err(store_error)
    }

    async fn ids(&self, prefix: &str, limit: usize) -> Result<Vec<WorkflowId>, StoreError> {
        self.reader.soon(self.reader.ids(prefix, limit)).await.map_err(store_error)
    }

    async fn events(
        &self,
        id: &WorkflowId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Event>, StoreError> {
        let events = self.reader.events(id, after, limit);
        self.reader.soon(events).await.map_err(store_error)
    }

    async fn prune(&self, _before: DateTime<Utc>, _limit: usize) -> Result<usize, StoreError> {
        self.reject()
    }

    async fn close(&self, limit: Duration) -> Result<(), StoreError> {
        // Nothing is lost if the close times out: no write is pending.
        let _ = tokio::time::timeout(limit, self.reader.close()).await;
        Ok(())
    }
}

/// Reads owners and requests; rejects every change.
#[async_trait]
impl LeaseStore for ReadOnlyStore {
    async fn open_lease(&self, _owner: &str, _term: Duration) -> Result<Lease, StoreError> {
        self.reject()
    }

    async fn renew_lease(&self, _epoch: Epoch, _term: Duration) -> Result<bool, StoreError> {
        self.reject()
    }

    async fn close_lease(&self, _epoch: Epoch) -> Result<(), StoreError> {
        self.reject()
    }

    async fn claim(
        &self,
        _epoch: Epoch,
        _limit: usize,
        _offer: &Offer,
    ) -> Result<Claimed, StoreError> {
        self.reject()
    }

    async fn release(
        &self,
        _epoch: Epoch,
        _ids: &[WorkflowId],
        _why: Release,
    ) -> Result<(), StoreError> {
        self.reject()
    }

    async fn standings(&self, ids: &[WorkflowId]) -> Result<Vec<Option<Standing>>, StoreError> {
        let standings = leases::standings(&self.reader, &self.location, ids);
        self.reader.soon(standings).await.map_err(store_error)
    }

    async fn claim_one(
        &self,
        _epoch: Epoch,
        _id: &WorkflowId,
        _reopens: bool,
    ) -> Result<ClaimedOne, StoreError> {
        self.reject()
    }

    async fn ask(&self, _request: Request) -> Result<RequestKey, StoreError> {
        self.reject()
    }

    async fn requests(&self, epoch: Epoch) -> Result<Vec<(RequestKey, Request)>, StoreError> {
        self.reader.soon(self.reader.requests(epoch)).await.map_err(store_error)
    }

    async fn answer(&self, _key: RequestKey, _answer: RequestAnswer) -> Result<(), StoreError> {
        self.reject()
    }

    async fn take_answer(&self, _key: RequestKey) -> Result<Option<RequestAnswer>, StoreError> {
        self.reject()
    }

    async fn withdraw(&self, _key: RequestKey) -> Result<(), StoreError> {
        self.reject()
    }

    fn notifications(&self) -> BoxStream<'static, ()> {
        stream::pending().boxed()
    }
}

fn store_error(ReadError(error): ReadError) -> StoreError {
    error
}
