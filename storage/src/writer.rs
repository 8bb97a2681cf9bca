//! The writer: the one task that changes the database.
//!
//! The writer takes the requests that wait in its [`queue`](super::queue), writes them in one
//! transaction, commits, and replies to each caller. A single call is never delayed; under load one
//! commit carries thousands of changes.
//!
//! A server may never answer a statement. After
//! [`storage.statement_timeout`](super::statement_timeout) the writer drops the connection: a
//! transaction before its commit is rolled back, and the outcome of a commit is unknown.
//!
//! A SQLite file may be removed or replaced while it is open. Before each commit the writer checks
//! that its path still leads to the same file ([`database_file`](super::database_file)), and writes
//! nothing once it does not.
//!
//! Invariant: calls take effect in the order of the queue; a caller receives `Ok` only after the
//! commit of its call.

mod amend;
mod claim;
mod delete;
pub(super) mod group;
mod insert;
mod leases;
mod prune;
mod transact;

use std::{
    collections::{HashSet, VecDeque},
    pin::pin,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use gleitzeit_domain::{id::WorkflowId, store::StoreError};
use sea_orm::{
    ConnectionTrait as _, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, Statement,
};
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::{
    database_file::DatabaseFile,
    key_cache::{CommitEffects, KeyCache},
    leases::LeaseTable,
    needs, notify,
    open::Connector,
    queue::{Answer, Prune, Request, UnusedNeeds},
    read::Reader,
    statement_timeout::StatementTimeout,
    statements::Statements,
    write_call::{Write, WriteCall},
};

use transact::TxError;

/// Upper limit of the calls of one transaction; each may hold thousands of changes.
const GROUP_MAX: usize = 1024;

/// Limit on closing a connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The task that changes the database.
#[derive(Debug)]
pub(super) struct Writer {
    connector: Connector,
    timeout: StatementTimeout,
    /// `None` on a server.
    file: Option<DatabaseFile>,
    /// Set once the database is gone; the writer writes nothing from then on.
    lost: watch::Sender<Option<StoreError>>,
    /// `None` after a fault, until the next transaction.
    db: Option<DatabaseConnection>,
    statements: Statements,
    key_cache: KeyCache,
    pruning: VecDeque<Prune>,
    /// Workflows added since the last batch of deletions.
    added: u64,
    commits: Arc<AtomicU64>,
    /// Notified after each commit.
    written: Arc<Notify>,
    /// Notified after workflows were deleted.
    pruned: Arc<Notify>,
    lease_table: LeaseTable,
    /// Reads the workflows of a claim.
    reader: Arc<Reader>,
    /// The last `PRAGMA data_version` of SQLite; another value means that another connection
    /// committed.
    data_version: Option<i64>,
}

/// The signals of the writer to the rest of the store.
#[derive(Debug)]
pub(super) struct WriterSignals {
    /// Counts commits.
    pub(super) commits: Arc<AtomicU64>,
    /// Notified after each commit.
    pub(super) written: Arc<Notify>,
    /// Notified after workflows were deleted.
    pub(super) pruned: Arc<Notify>,
    /// Set once the database is gone.
    pub(super) lost: watch::Sender<Option<StoreError>>,
}

impl Writer {
    pub(super) fn new(
        connector: Connector,
        mut db: DatabaseConnection,
        file: Option<DatabaseFile>,
        reader: Arc<Reader>,
        lease_table: LeaseTable,
        signals: WriterSignals,
    ) -> Self {
        let statements = Statements::new(db.get_database_backend());
        let WriterSignals { commits, written, pruned, lost } = signals;
        let timeout = connector.timeout();
        timeout.watch(&mut db);
        Self {
            connector,
            timeout,
            file,
            lost,
            db: Some(db),
            statements,
            key_cache: KeyCache::default(),
            pruning: VecDeque::new(),
            added: 0,
            commits,
            written,
            pruned,
            lease_table,
            reader,
            data_version: None,
        }
    }

    /// Serves the queue until [`Request::Close`], or until every sender is gone; completes the
    /// requests before that.
    pub(super) async fn run(mut self, mut queue: mpsc::UnboundedReceiver<Request>) {
        let mut requests = Vec::new();
        loop {
            if self.pruning.is_empty() {
                if queue.recv_many(&mut requests, GROUP_MAX).await == 0 {
                    break;
                }
            } else {
                // Without waiting: the next batch of deletions follows at once if nobody writes.
                while requests.len() < GROUP_MAX
                    && let Ok(request) = queue.try_recv()
                {
                    requests.push(request);
                }
            }
            gleitzeit_failpoint::failpoint!("store.write.taken");
            if self.serve(requests.drain(..)).await {
                queue.close();
                // Not drained: the deletion of a large backlog takes longer than a close may, and
                // the next start repeats the request.
                for prune in self.pruning.drain(..) {
                    let _ = prune.reply.send(Ok(prune.count));
                }
            }
            self.prune_batch().await;
        }
        // After the last group: a lease that was closed before it would reject its writes.
        self.close_leases().await;
        gleitzeit_failpoint::failpoint!("store.close.leases");
        if let Some(db) = self.db.take() {
            gleitzeit_failpoint::failpoint!("store.close.drained");
            close(db).await;
        }
    }

    /// Serves requests; returns true after [`Request::Close`].
    async fn serve(&mut self, requests: impl Iterator<Item = Request>) -> bool {
        let mut is_last = false;
        let mut group = WriteGroup::default();
        for request in requests {
            match request {
                Request::Write(call, reply) => {
                    if group.must_end_before(&call.write) {
                        self.commit(std::mem::take(&mut group)).await;
                    }
                    group.add(call, reply);
                }
                // Each of the next ones commits the group first, or a request could take effect
                // before a write that was queued ahead of it.
                Request::Prune(prune) => {
                    self.commit(std::mem::take(&mut group)).await;
                    self.pruning.push_back(prune);
                }
                Request::Amend(amendment, reply) => {
                    self.commit(std::mem::take(&mut group)).await;
                    let _ = reply.send(Box::pin(self.amend(&amendment)).await);
                }
                Request::Delete(ids, reply) => {
                    self.commit(std::mem::take(&mut group)).await;
                    let _ = reply.send(Box::pin(self.delete(&ids)).await);
                }
                Request::DeleteNeeds(unused) => {
                    self.commit(std::mem::take(&mut group)).await;
                    Box::pin(self.delete_needs(unused)).await;
                }
                Request::Lease(call) => {
                    self.commit(std::mem::take(&mut group)).await;
                    // Boxed: its future is large, and without the box every write would carry it.
                    Box::pin(self.serve_lease(*call)).await;
                }
                Request::Renew => self.renew_due().await,
                Request::HasChanged(reply) => {
                    let _ = reply.send(Box::pin(self.has_changed()).await);
                }
                Request::Close => is_last = true,
            }
        }
        self.commit(group).await;
        is_last
    }

    /// Writes a group and replies to each of its callers.
    async fn commit(&mut self, group: WriteGroup) {
        let WriteGroup { calls, replies, .. } = group;
        if calls.is_empty() {
            return;
        }
        // Before the group: a large one may take longer than the rest of a lease.
        self.renew_due().await;
        let calls: Vec<&WriteCall> = calls.iter().collect();
        let answers = match self.transact(&calls).await {
            Ok(answers) => answers,
            Err(failed) if failed.is_data_error && calls.len() > 1 => self.one_by_one(&calls).await,
            Err(failed) => calls.iter().map(|_| Err(failed.error.clone())).collect(),
        };
        gleitzeit_failpoint::failpoint!("store.answer.before");
        for (reply, answer) in replies.into_iter().zip(answers) {
            // The caller may be gone; its write is committed anyway.
            let _ = reply.send(answer);
        }
        gleitzeit_failpoint::failpoint!("store.answer.after");
    }

    /// Writes each call in a transaction of its own, so that only the invalid ones of a rejected
    /// group fail.
    async fn one_by_one(&mut self, calls: &[&WriteCall]) -> Vec<Answer> {
        let mut answers = Vec::with_capacity(calls.len());
        for call in calls {
            answers.push(match self.transact(&[call]).await {
                Ok(mut answers) => answers.pop().unwrap_or_else(|| Ok(Vec::new())),
                Err(failed) => Err(failed.error),
            });
        }
        answers
    }

    /// Writes the calls whose leases exist; returns an answer for each call.
    async fn write(
        &self,
        db: &DatabaseTransaction,
        calls: &[&WriteCall],
    ) -> Result<(Vec<Answer>, CommitEffects), DbErr> {
        // Within the transaction, and before any row: a lease that another process ends between
        // this check and the commit would let a late write through.
        let lost = self.lease_table.lost(db, calls).await?;
        gleitzeit_failpoint::failpoint!("store.write.owned");
        let (statements, key_cache) = (&self.statements, &self.key_cache);
        let (answers, effects) = if lost.is_empty() {
            group::write(db, statements, key_cache, calls).await?
        } else {
            let kept = calls.iter().filter(|call| call.write.lost_of(&lost).is_none());
            let kept: Vec<&WriteCall> = kept.copied().collect();
            let (written, mut effects) = group::write(db, statements, key_cache, &kept).await?;
            effects.has_lost = true;
            let mut written = written.into_iter();
            let answer = |call: &&WriteCall| match call.write.lost_of(&lost) {
                Some(epoch) => Err(StoreError::LeaseLost { epoch }),
                None => written.next().unwrap_or_else(|| Ok(Vec::new())),
            };
            (calls.iter().map(answer).collect(), effects)
        };
        if effects.leaves_free {
            // Within the transaction: PostgreSQL delivers the notification with the commit, and
            // not at all after a rollback.
            notify::notify_other_processes(db).await?;
            gleitzeit_failpoint::failpoint!("store.write.rung");
        }
        Ok((answers, effects))
    }

    /// True if another connection committed since the last call, or if the writer cannot find out.
    async fn has_changed(&mut self) -> bool {
        let pragma = Statement::from_string(DbBackend::Sqlite, "PRAGMA data_version");
        let version = self.query(async |db| match db.query_one_raw(pragma.clone()).await? {
            Some(row) => row.try_get_by_index::<i64>(0),
            None => Ok(0),
        });
        let version = version.await.ok();
        if self.find_loss().is_some() {
            return false;
        }
        version.is_none() || std::mem::replace(&mut self.data_version, version) != version
    }

    /// Notifies the engines of this process of a deletion, and the search for unused needs.
    fn note_removed(&self) {
        self.pruned.notify_one();
        self.lease_table.notify_local();
    }

    async fn delete_needs(&mut self, unused: UnusedNeeds) {
        // Before the transaction: a group that found the hash in the cache after the deletion would
        // store a workflow without its needs.
        self.key_cache.forget_needs(&unused.hashes);
        let removed =
            self.transact_alone(async |db, _| Ok(needs::remove(db, &unused).await?)).await;
        needs::report(removed);
    }

    /// Deletes one batch for the oldest request of that kind.
    async fn prune_batch(&mut self) {
        let Some(mut prune) = self.pruning.pop_front() else { return };
        let timeout = self.timeout.clone();
        let begun = timeout.wait(pin!(self.begin())).await.map_err(TxError::rolled_back).flatten();
        let pruned = match begun {
            Ok(transaction) => {
                gleitzeit_failpoint::failpoint!("store.prune.begun");
                let added = std::mem::take(&mut self.added);
                let batch = prune::batch(&transaction, prune.before, prune.limit, added);
                let pruned = timeout.wait(pin!(batch)).await.flatten();
                self.end(transaction, pruned).await
            }
            Err(failed) => Err(failed),
        };
        match pruned {
            Ok(pruned) => {
                gleitzeit_failpoint::failpoint!("store.prune.committed");
                prune.count += pruned.ids.len();
                prune.limit -= pruned.ids.len();
                self.key_cache.forget(&pruned.ids);
                if !pruned.ids.is_empty() {
                    self.pruned.notify_one();
                }
                if pruned.more && prune.limit > 0 {
                    self.pruning.push_front(prune);
                } else {
                    let _ = prune.reply.send(Ok(prune.count));
                }
            }
            Err(failed) => {
                self.reset().await;
                let _ = prune.reply.send(Err(failed.into_store_error()));
            }
        }
    }
}

/// The calls of one transaction, and the senders of their replies.
#[derive(Debug, Default)]
struct WriteGroup {
    calls: Vec<WriteCall>,
    replies: Vec<oneshot::Sender<Answer>>,
    recorded: HashSet<WorkflowId>,
}

impl WriteGroup {
    /// True if the group must be committed before this write. A transaction writes all of its
    /// submissions first: in the same group, a change that was queued before the submission of its
    /// workflow would be applied to it.
    fn must_end_before(&self, write: &Write) -> bool {
        match write {
            Write::Submit(workflows) => {
                !self.recorded.is_empty()
                    && workflows.iter().any(|new| self.recorded.contains(&new.record.id))
            }
            Write::Record(_) => false,
        }
    }

    fn add(&mut self, call: WriteCall, reply: oneshot::Sender<Answer>) {
        if let Write::Record(changes) = &call.write {
            self.recorded.extend(changes.iter().map(|change| change.id.clone()));
        }
        self.calls.push(call);
        self.replies.push(reply);
    }
}

/// Closes a connection. The limit is for a server that never reads the farewell.
async fn close(db: DatabaseConnection) {
    match tokio::time::timeout(CLOSE_TIMEOUT, db.close()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "connection close failed"),
        Err(_) => tracing::debug!("connection close timed out; connection dropped"),
    }
}
