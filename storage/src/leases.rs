//! Which process runs which workflow, kept in the database.
//!
//! Asked by the engine through the port [`LeaseStore`]; what writes goes through the writer's queue,
//! in order with the writes. A renewal waits for no queue: it is taken up before the next
//! transaction.
//!
//! On PostgreSQL a lease runs out unless it is renewed, by the server's clock, and each transaction
//! that bears one holds its row. On SQLite a lease is held by a lock that goes with the process, and
//! nothing need be asked.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use gleitzeit_domain::{
    id::WorkflowId,
    needs::Offer,
    store::{
        Epoch, LeaseStore, StoreError,
        lease::{
            Ask, Claimed, ClaimedOne, Lease, Release, Request, RequestAnswer, RequestKey, Standing,
        },
    },
};
use tokio::sync::oneshot;

use super::{SqlStore, bell, encode, writer};

pub(super) use self::{
    desk::Desk,
    look::{look, standings},
    requests::TO_ALL,
    sql::SERVER_NOW,
};

mod desk;
mod file_locks;
mod fit;
mod look;
mod process;
mod requests;
mod serve;
mod sql;
mod watch;

/// Where an answer goes.
pub(super) type Asker<T> = oneshot::Sender<Result<T, StoreError>>;

/// A call that the writer serves in a transaction of its own.
#[derive(Debug)]
pub(super) enum Call {
    Open { owner: String, term: Duration, asker: Asker<Lease> },
    Close { epoch: Epoch, asker: Asker<()> },
    Claim { epoch: Epoch, limit: usize, offer: Offer, asker: Asker<Claimed> },
    Release { epoch: Epoch, ids: Vec<WorkflowId>, why: Release, asker: Asker<()> },
    ClaimOne { epoch: Epoch, id: WorkflowId, reopens: bool, asker: Asker<ClaimedOne> },
    Ask { workflow: WorkflowId, body: String, asker: Asker<RequestKey> },
    AskAll { body: String, asker: Asker<RequestKey> },
    Answer { key: RequestKey, answer: String, asker: Asker<()> },
    Forget { key: RequestKey, asker: Asker<()> },
}

/// A lease that is to be good for another `term`.
#[derive(Debug)]
pub(super) struct Renewal {
    epoch: Epoch,
    term: Duration,
    asker: Asker<bool>,
}

/// Renewals that wait for the next transaction.
#[derive(Debug, Default)]
pub(super) struct Renewals(Mutex<Vec<Renewal>>);

impl Renewals {
    fn add(&self, renewal: Renewal) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(renewal);
    }

    fn take(&self) -> Vec<Renewal> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl SqlStore {
    async fn call<T>(&self, call: impl FnOnce(Asker<T>) -> Call) -> Result<T, StoreError> {
        self.ask_writer(|asker| writer::Request::Lease(Box::new(call(asker)))).await
    }
}

#[async_trait]
impl LeaseStore for SqlStore {
    async fn open_lease(&self, owner: &str, term: Duration) -> Result<Lease, StoreError> {
        let owner = owner.to_owned();
        self.call(|asker| Call::Open { owner, term, asker }).await
    }

    async fn renew_lease(&self, epoch: Epoch, term: Duration) -> Result<bool, StoreError> {
        self.ask_writer(|asker| {
            self.renewals.add(Renewal { epoch, term, asker });
            writer::Request::Wake
        })
        .await
    }

    async fn close_lease(&self, epoch: Epoch) -> Result<(), StoreError> {
        self.call(|asker| Call::Close { epoch, asker }).await
    }

    async fn claim(
        &self,
        epoch: Epoch,
        limit: usize,
        offer: &Offer,
    ) -> Result<Claimed, StoreError> {
        let offer = offer.clone();
        self.call(|asker| Call::Claim { epoch, limit, offer, asker }).await
    }

    async fn release(
        &self,
        epoch: Epoch,
        ids: &[WorkflowId],
        why: Release,
    ) -> Result<(), StoreError> {
        let ids = ids.to_vec();
        self.call(|asker| Call::Release { epoch, ids, why, asker }).await
    }

    async fn standings(&self, ids: &[WorkflowId]) -> Result<Vec<Option<Standing>>, StoreError> {
        let (ids, location) = (ids.to_vec(), self.location.clone());
        self.read(
            move |reader| async move { reader.soon(standings(&reader, &location, &ids)).await },
        )
        .await
    }

    async fn claim_one(
        &self,
        epoch: Epoch,
        id: &WorkflowId,
        reopens: bool,
    ) -> Result<ClaimedOne, StoreError> {
        let id = id.clone();
        self.call(|asker| Call::ClaimOne { epoch, id, reopens, asker }).await
    }

    async fn ask(&self, request: Request) -> Result<RequestKey, StoreError> {
        let body = encode::ask(&request.ask)?;
        self.call(|asker| Call::Ask { workflow: request.workflow, body, asker }).await
    }

    async fn ask_all(&self, ask: Ask) -> Result<RequestKey, StoreError> {
        let body = encode::ask(&ask)?;
        self.call(|asker| Call::AskAll { body, asker }).await
    }

    async fn asked_of_all(
        &self,
        after: RequestKey,
    ) -> Result<Vec<(RequestKey, Ask, bool)>, StoreError> {
        self.read(move |reader| async move { reader.soon(reader.asked_of_all(after)).await }).await
    }

    async fn requests(&self, epoch: Epoch) -> Result<Vec<(RequestKey, Request)>, StoreError> {
        self.read(move |reader| async move { reader.soon(reader.requests(epoch)).await }).await
    }

    async fn answer(&self, key: RequestKey, answer: RequestAnswer) -> Result<(), StoreError> {
        let answer = encode::answer(&answer)?;
        self.call(|asker| Call::Answer { key, answer, asker }).await
    }

    async fn take_answer(&self, key: RequestKey) -> Result<Option<RequestAnswer>, StoreError> {
        let answer =
            self.read(move |reader| async move { reader.soon(reader.answer(key)).await }).await?;
        if answer.is_some()
            && let Err(error) = self.call(|asker| Call::Forget { key, asker }).await
        {
            // The answer is known, and would be lost; its row goes with its workflow at the latest.
            tracing::debug!(request = key.0, %error, "request that was answered is kept");
        }
        Ok(answer)
    }

    async fn withdraw(&self, key: RequestKey) -> Result<(), StoreError> {
        self.call(|asker| Call::Forget { key, asker }).await
    }

    fn bell(&self) -> BoxStream<'static, ()> {
        let rings = self.bell.stream();
        if self.bell.is_to_be_started() {
            let location = self.location.clone();
            let writer = self.requests.downgrade();
            let limit = self.statement_timeout;
            let bell = Arc::clone(&self.bell);
            self.runtime.spawn(bell::listen(location, limit, bell, writer));
        }
        rings
    }
}
