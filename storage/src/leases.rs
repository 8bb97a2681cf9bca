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
            Claimed, ClaimedOne, Command, Lease, Release, Request, RequestAnswer, RequestKey,
            Standing,
        },
    },
};
use tokio::sync::oneshot;

use super::{SqlStore, encode, notifier, writer};

pub(super) use self::{
    lease_table::LeaseTable,
    look::{look, standings},
    requests::TO_ALL,
    sql::SERVER_NOW,
};

mod file_locks;
mod fit;
mod lease_table;
mod look;
mod process;
mod requests;
mod serve;
mod sql;
mod watch;

pub(super) use sql::is_there;

/// Where an answer goes.
pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// A call that the writer serves in a transaction of its own.
#[derive(Debug)]
pub(super) enum Call {
    Open { owner: String, term: Duration, reply: Reply<Lease> },
    Close { epoch: Epoch, reply: Reply<()> },
    Claim { epoch: Epoch, limit: usize, offer: Offer, reply: Reply<Claimed> },
    Release { epoch: Epoch, ids: Vec<WorkflowId>, why: Release, reply: Reply<()> },
    ClaimOne { epoch: Epoch, id: WorkflowId, reopens: bool, reply: Reply<ClaimedOne> },
    Ask { workflow: WorkflowId, body: String, reply: Reply<RequestKey> },
    AskAll { body: String, reply: Reply<RequestKey> },
    Answer { key: RequestKey, answer: String, reply: Reply<()> },
    Forget { key: RequestKey, reply: Reply<()> },
}

/// A lease that is to be good for another `term`.
#[derive(Debug)]
pub(super) struct Renewal {
    epoch: Epoch,
    term: Duration,
    reply: Reply<bool>,
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
    async fn call<T>(&self, call: impl FnOnce(Reply<T>) -> Call) -> Result<T, StoreError> {
        self.ask_writer(|reply| writer::Request::Lease(Box::new(call(reply)))).await
    }
}

#[async_trait]
impl LeaseStore for SqlStore {
    async fn open_lease(&self, owner: &str, term: Duration) -> Result<Lease, StoreError> {
        let owner = owner.to_owned();
        self.call(|reply| Call::Open { owner, term, reply }).await
    }

    async fn renew_lease(&self, epoch: Epoch, term: Duration) -> Result<bool, StoreError> {
        self.ask_writer(|reply| {
            self.renewals.add(Renewal { epoch, term, reply });
            writer::Request::Wake
        })
        .await
    }

    async fn close_lease(&self, epoch: Epoch) -> Result<(), StoreError> {
        self.call(|reply| Call::Close { epoch, reply }).await
    }

    async fn claim(
        &self,
        epoch: Epoch,
        limit: usize,
        offer: &Offer,
    ) -> Result<Claimed, StoreError> {
        let offer = offer.clone();
        self.call(|reply| Call::Claim { epoch, limit, offer, reply }).await
    }

    async fn release(
        &self,
        epoch: Epoch,
        ids: &[WorkflowId],
        why: Release,
    ) -> Result<(), StoreError> {
        let ids = ids.to_vec();
        self.call(|reply| Call::Release { epoch, ids, why, reply }).await
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
        self.call(|reply| Call::ClaimOne { epoch, id, reopens, reply }).await
    }

    async fn ask(&self, request: Request) -> Result<RequestKey, StoreError> {
        let body = encode::command(&request.command)?;
        self.call(|reply| Call::Ask { workflow: request.workflow, body, reply }).await
    }

    async fn ask_all(&self, command: Command) -> Result<RequestKey, StoreError> {
        let body = encode::command(&command)?;
        self.call(|reply| Call::AskAll { body, reply }).await
    }

    async fn asked_of_all(
        &self,
        after: RequestKey,
    ) -> Result<Vec<(RequestKey, Command, bool)>, StoreError> {
        self.read(move |reader| async move { reader.soon(reader.asked_of_all(after)).await }).await
    }

    async fn requests(&self, epoch: Epoch) -> Result<Vec<(RequestKey, Request)>, StoreError> {
        self.read(move |reader| async move { reader.soon(reader.requests(epoch)).await }).await
    }

    async fn answer(&self, key: RequestKey, answer: RequestAnswer) -> Result<(), StoreError> {
        let answer = encode::answer(&answer)?;
        self.call(|reply| Call::Answer { key, answer, reply }).await
    }

    async fn take_answer(&self, key: RequestKey) -> Result<Option<RequestAnswer>, StoreError> {
        let answer =
            self.read(move |reader| async move { reader.soon(reader.answer(key)).await }).await?;
        if answer.is_some()
            && let Err(error) = self.call(|reply| Call::Forget { key, reply }).await
        {
            // The answer is known, and would be lost; its row goes with its workflow at the latest.
            tracing::debug!(request = key.0, %error, "request that was answered is kept");
        }
        Ok(answer)
    }

    async fn withdraw(&self, key: RequestKey) -> Result<(), StoreError> {
        self.call(|reply| Call::Forget { key, reply }).await
    }

    fn notifies_every_commit(&self) -> bool {
        self.notifier.rings().is_some()
    }

    fn notifications(&self) -> BoxStream<'static, ()> {
        let rings = self.notifier.stream();
        if self.notifier.is_to_be_started() {
            let location = self.location.clone();
            let writer = self.requests.downgrade();
            let limit = self.statement_timeout;
            let notifier = Arc::clone(&self.notifier);
            self.runtime.spawn(notifier::listen(location, limit, notifier, writer));
        }
        rings
    }
}
