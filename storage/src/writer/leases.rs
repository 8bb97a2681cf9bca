//! The writer's calls about leases and requests, each in a transaction of its own.
//!
//! The [`writer`](super) serves them between two groups, so that a call about a lease takes effect
//! in the order of the queue. The calls that move workflows are in [`claim`](super::claim).

use std::time::Duration;

use gleitzeit_domain::store::{Epoch, StoreError, lease::Lease};

use super::Writer;
use crate::{
    fault::RequestError,
    leases::{requests, sql},
    notify,
    queue::{LeaseCall, Renewal, Reply},
};

impl Writer {
    /// Serves one call, after the renewals that are due.
    pub(super) async fn serve_lease(&mut self, call: LeaseCall) {
        self.renew_due().await;
        match call {
            LeaseCall::Open { owner, term, reply } => {
                let opened = self.open_lease(&owner, term).await;
                if let Err(Ok(lease)) = reply.send(opened) {
                    // The caller is gone: a lease on a file would stay until this process ends.
                    let _ = self.close_lease(lease.epoch).await;
                }
            }
            LeaseCall::Close { epoch, reply } => respond(reply, self.close_lease(epoch).await),
            LeaseCall::Claim { epoch, limit, offer, reply } => {
                self.lease_table.set_offer(epoch, &offer);
                self.claim(epoch, limit, reply).await;
            }
            LeaseCall::Release { epoch, ids, why, reply } => {
                let released = self.release(epoch, &ids, why).await;
                self.respond_and_notify(reply, released);
            }
            LeaseCall::ClaimOne { epoch, id, reopens, reply } => {
                // Another process may have deleted the workflow and stored a new one of this id:
                // changes by the cached key would be dropped.
                self.forget_key(&id);
                respond(reply, self.claim_one(epoch, &id, reopens).await);
            }
            LeaseCall::Ask { workflow, body, reply } => {
                let asked = self
                    .transact_alone(async |db, _| {
                        let key = requests::ask(db, &workflow, &body).await?;
                        gleitzeit_failpoint::failpoint!("store.request.asked");
                        notify::notify_other_processes(db).await?;
                        Ok(key)
                    })
                    .await;
                self.respond_and_notify(reply, asked);
            }
            LeaseCall::AskAll { body, reply } => {
                let asked = self
                    .transact_alone(async |db, _| {
                        let key = requests::ask_all(db, &body).await?;
                        notify::notify_other_processes(db).await?;
                        Ok(key)
                    })
                    .await;
                self.respond_and_notify(reply, asked);
            }
            LeaseCall::Answer { key, answer, reply } => {
                let answered = self
                    .transact_alone(async |db, _| {
                        requests::answer(db, key, &answer).await?;
                        gleitzeit_failpoint::failpoint!("store.request.answered");
                        Ok(notify::notify_other_processes(db).await?)
                    })
                    .await;
                self.respond_and_notify(reply, answered);
            }
            LeaseCall::Forget { key, reply } => {
                gleitzeit_failpoint::failpoint!("store.request.forgetting");
                let forgotten = self.transact_alone(async |db, _| {
                    requests::forget(db, key).await.map_err(RequestError::from)
                });
                respond(reply, forgotten.await);
            }
        }
    }

    /// Replies, and notifies the engines of this process if the call succeeded.
    fn respond_and_notify<T>(&self, reply: Reply<T>, answer: Result<T, StoreError>) {
        if answer.is_ok() {
            self.lease_table.notify_local();
        }
        respond(reply, answer);
    }

    /// Commits the renewals that are due, before anything else.
    pub(super) async fn renew_due(&mut self) {
        let due = self.lease_table.due_renewals();
        if !due.is_empty() {
            Box::pin(self.renew(due)).await;
        }
    }

    async fn renew(&mut self, due: Vec<Renewal>) {
        for Renewal { epoch, term, reply } in due {
            gleitzeit_failpoint::failpoint!("store.lease.renewing");
            let renewed = if self.lease_table.is_timed() {
                self.transact_alone(async |db, _| {
                    let renewed = sql::renew(db, epoch, term).await?;
                    if renewed.is_some_and(|renewed| renewed.had_expired) {
                        // Others left an idle lease out of their timers: without a notification
                        // they would not poll when it expires again.
                        notify::notify_other_processes(db).await?;
                    }
                    Ok(renewed.is_some())
                })
                .await
            } else {
                Ok(self.lease_table.has_open(epoch))
            };
            gleitzeit_failpoint::failpoint!("store.lease.renewed");
            if renewed == Ok(false) {
                self.forget_keys();
            }
            respond(reply, renewed);
        }
    }

    /// Closes all leases of this store.
    pub(super) async fn close_leases(&mut self) {
        for epoch in self.lease_table.open_leases() {
            if let Err(error) = self.close_lease(epoch).await {
                tracing::warn!(%epoch, %error, "lease close failed; the lease expires by itself");
            }
        }
    }

    async fn open_lease(&mut self, owner: &str, term: Duration) -> Result<Lease, StoreError> {
        let mut tried = Vec::new();
        let opened = self
            .transact_alone(async |db, lease_table| {
                let lease = lease_table.open(db, owner, term).await??;
                gleitzeit_failpoint::failpoint!("store.lease.opened");
                // Others set a timer for its expiry.
                notify::notify_other_processes(db).await?;
                tried.push(lease.epoch);
                Ok(lease)
            })
            .await;
        let kept = opened.as_ref().ok().map(|lease| lease.epoch);
        // A retry opens a lease of another epoch: the lock of a failed attempt would be held until
        // the process ends.
        for epoch in tried.into_iter().filter(|epoch| Some(*epoch) != kept) {
            self.lease_table.closed(epoch);
        }
        if let Some(epoch) = kept {
            self.lease_table.opened(epoch);
        }
        opened
    }

    pub(super) async fn close_lease(&mut self, epoch: Epoch) -> Result<(), StoreError> {
        if !self.lease_table.is_timed() && !self.lease_table.has_open(epoch) {
            // Another process holds it by a lock: to delete its row would take its workflows away
            // while it runs them.
            return Ok(());
        }
        let existed = self
            .transact_alone(async |db, _| {
                if !sql::close(db, epoch).await? {
                    return Ok(false);
                }
                gleitzeit_failpoint::failpoint!("store.lease.deleted");
                sql::free(db, epoch, false).await?;
                gleitzeit_failpoint::failpoint!("store.lease.freed");
                notify::notify_other_processes(db).await?;
                Ok(true)
            })
            .await;
        // Also if the outcome is unknown: on a file the writer checks its own list of open leases,
        // and a lease that is gone would pass.
        if matches!(existed, Ok(_) | Err(StoreError::Unknown { .. })) {
            self.lease_table.closed(epoch);
            self.forget_keys();
        }
        gleitzeit_failpoint::failpoint!("store.lease.forgotten");
        if existed? {
            self.lease_table.notify_local();
        }
        Ok(())
    }
}

fn respond<T>(reply: Reply<T>, answer: Result<T, StoreError>) {
    // The caller may be gone; the call took effect anyway.
    let _ = reply.send(answer);
}
