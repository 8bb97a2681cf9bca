//! The store's leases: the port [`LeaseStore`] over the queue of the writer.
//!
//! On PostgreSQL a lease expires by the server's clock unless it is renewed, and each transaction
//! with its epoch locks its row. On SQLite a lease is a file lock that ends with its process, and a
//! renewal queries nothing.

use std::{sync::Arc, time::Duration};

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

use super::SqlStore;
use crate::{
    encode,
    leases::standings,
    notify,
    queue::{self, LeaseCall, Renewal, Reply},
};

impl SqlStore {
    async fn call<T>(&self, call: impl FnOnce(Reply<T>) -> LeaseCall) -> Result<T, StoreError> {
        self.ask_writer(|reply| queue::Request::Lease(Box::new(call(reply)))).await
    }
}

#[async_trait]
impl LeaseStore for SqlStore {
    async fn open_lease(&self, owner: &str, term: Duration) -> Result<Lease, StoreError> {
        let owner = owner.to_owned();
        self.call(|reply| LeaseCall::Open { owner, term, reply }).await
    }

    async fn renew_lease(&self, epoch: Epoch, term: Duration) -> Result<bool, StoreError> {
        self.ask_writer(|reply| {
            // Beside the queue: behind a long queue of writes the lease could expire. The request
            // only wakes a writer without work.
            self.renewals.add(Renewal { epoch, term, reply });
            queue::Request::Renew
        })
        .await
    }

    async fn close_lease(&self, epoch: Epoch) -> Result<(), StoreError> {
        self.call(|reply| LeaseCall::Close { epoch, reply }).await
    }

    async fn claim(
        &self,
        epoch: Epoch,
        limit: usize,
        offer: &Offer,
    ) -> Result<Claimed, StoreError> {
        let offer = offer.clone();
        self.call(|reply| LeaseCall::Claim { epoch, limit, offer, reply }).await
    }

    async fn release(
        &self,
        epoch: Epoch,
        ids: &[WorkflowId],
        why: Release,
    ) -> Result<(), StoreError> {
        let ids = ids.to_vec();
        self.call(|reply| LeaseCall::Release { epoch, ids, why, reply }).await
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
        self.call(|reply| LeaseCall::ClaimOne { epoch, id, reopens, reply }).await
    }

    async fn ask(&self, request: Request) -> Result<RequestKey, StoreError> {
        let body = encode::command(&request.command)?;
        self.call(|reply| LeaseCall::Ask { workflow: request.workflow, body, reply }).await
    }

    async fn ask_all(&self, command: Command) -> Result<RequestKey, StoreError> {
        let body = encode::command(&command)?;
        self.call(|reply| LeaseCall::AskAll { body, reply }).await
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
        self.call(|reply| LeaseCall::Answer { key, answer, reply }).await
    }

    async fn take_answer(&self, key: RequestKey) -> Result<Option<RequestAnswer>, StoreError> {
        let answer =
            self.read(move |reader| async move { reader.soon(reader.answer(key)).await }).await?;
        if answer.is_some()
            && let Err(error) = self.call(|reply| LeaseCall::Forget { key, reply }).await
        {
            // Not an error of the call: the caller would lose the answer. The row is deleted with
            // its workflow at the latest.
            tracing::debug!(request = key.0, %error, "answered request not deleted");
        }
        Ok(answer)
    }

    async fn withdraw(&self, key: RequestKey) -> Result<(), StoreError> {
        self.call(|reply| LeaseCall::Forget { key, reply }).await
    }

    fn notifies_every_commit(&self) -> bool {
        self.notifier.count().is_some()
    }

    fn notifications(&self) -> BoxStream<'static, ()> {
        // Subscribed before the listener starts, or its first notification would be missed.
        let notifications = self.notifier.stream();
        if self.notifier.begin_once() {
            let location = self.location.clone();
            let writer = self.requests.downgrade();
            let limit = self.statement_timeout;
            let notifier = Arc::clone(&self.notifier);
            self.runtime.spawn(notify::listen(location, limit, notifier, writer));
        }
        notifications
    }
}
