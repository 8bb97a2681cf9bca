//! The one task that writes.
//!
//! Asked through a queue by every call that writes; asks the database. It takes what is there,
//! writes it in one transaction, commits, and answers everyone: a lone call waits for nobody, and
//! under load a commit carries thousands of changes. On a server a statement that is not answered is
//! given up, and with it the connection ([`patience`](super::patience)): before the commit nothing
//! has happened then, and a commit that was given up may have happened or not.
//!
//! On a file each commit first looks whether the file is still the one that was opened
//! ([`database_file`](super::database_file)). Once it is not, nothing more is written.
//!
//! Invariant: calls take effect in the order in which they were queued; a call is answered `Ok`
//! only after the commit that holds it.

use std::{
    collections::{HashSet, VecDeque},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use gleitzeit_domain::{
    id::WorkflowId,
    store::{Amendment, Deletion, StoreError},
};
use sea_orm::{
    ConnectionTrait as _, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr,
    SqliteTransactionMode, Statement, TransactionOptions, TransactionTrait as _,
};
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::{
    call::{Call, Write},
    database_file::{self, DatabaseFile},
    fault::{Cause, Fault},
    group::{self, Answer, CommitEffects, Places},
    leases::{self, LeaseTable, Reply},
    location::Location,
    needs::{self, Unused},
    notifier,
    open::Connector,
    patience::Patience,
    prune,
    read::{self, ReadError, Reader},
    statements::Statements,
};

/// Calls of one transaction; each may hold thousands of changes.
const GROUP_MAX: usize = 1024;

/// How often a group is tried while another process is in the way, or the connection breaks
/// before the commit was asked for.
const TRIES: usize = 3;

/// After so long a connection is not looked for again: whoever waits is told, and asks again.
const TRIES_LAST: Duration = Duration::from_secs(2);

/// How long a connection may take to close.
const CLOSING: Duration = Duration::from_secs(2);

/// What the writer is asked.
#[derive(Debug)]
pub(super) enum Request {
    /// To write.
    Write(Call, oneshot::Sender<Answer>),
    /// To forget what settled long ago.
    Prune(Prune),
    /// To change the submission of a settled workflow.
    Amend(Box<Amendment>, Reply<bool>),
    /// To delete workflows.
    Delete(Vec<WorkflowId>, Reply<Vec<Deletion>>),
    /// To forget needs that no workflow has.
    ForgetNeeds(Unused),
    /// To do something about a lease.
    Lease(Box<leases::Call>),
    /// To renew the leases that are due.
    Wake,
    /// To tell whether another connection has written since this was asked before.
    #[cfg_attr(
        not(all(feature = "sqlite", target_os = "linux")),
        allow(dead_code, reason = "asked by the watch on a file alone")
    )]
    Look(oneshot::Sender<bool>),
    /// To finish what was asked before, and to end.
    Close,
}

/// A request to forget, under way.
#[derive(Debug)]
pub(super) struct Prune {
    /// What settled before this; `None` for the oldest, whenever they did.
    pub(super) before: Option<DateTime<Utc>>,
    /// How many more.
    pub(super) limit: usize,
    /// How many so far.
    pub(super) count: usize,
    pub(super) answer: oneshot::Sender<Result<usize, StoreError>>,
}

/// Writes.
#[derive(Debug)]
pub(super) struct Writer {
    connector: Connector,
    patience: Patience,
    /// `None` on a server.
    file: Option<DatabaseFile>,
    /// Why nothing can be written any more.
    lost: watch::Sender<Option<StoreError>>,
    /// `None` after a fault, until the next transaction.
    db: Option<DatabaseConnection>,
    statements: Statements,
    places: Places,
    pruning: VecDeque<Prune>,
    /// Workflows that came in since the last batch of these.
    came: u64,
    commits: Arc<AtomicU64>,
    /// Told of each commit.
    written: Arc<Notify>,
    /// Told when workflows were forgotten.
    pruned: Arc<Notify>,
    pub(super) lease_table: LeaseTable,
    /// For what it claims.
    reader: Arc<Reader>,
    /// What SQLite said when it was asked whether another connection has written.
    data_version: Option<i64>,
}

/// What the writer tells without being asked.
#[derive(Debug)]
pub(super) struct Tells {
    /// Counts commits.
    pub(super) commits: Arc<AtomicU64>,
    /// Told of each commit.
    pub(super) written: Arc<Notify>,
    /// Told when workflows were forgotten.
    pub(super) pruned: Arc<Notify>,
    /// Told why the database is gone.
    pub(super) lost: watch::Sender<Option<StoreError>>,
}

impl Writer {
    pub(super) fn new(
        connector: Connector,
        mut db: DatabaseConnection,
        file: Option<DatabaseFile>,
        reader: Arc<Reader>,
        lease_table: LeaseTable,
        tells: Tells,
    ) -> Self {
        let statements = Statements::new(db.get_database_backend());
        let Tells { commits, written, pruned, lost } = tells;
        let patience = connector.patience();
        patience.watch(&mut db);
        Self {
            connector,
            patience,
            file,
            lost,
            db: Some(db),
            statements,
            places: Places::default(),
            pruning: VecDeque::new(),
            came: 0,
            commits,
            written,
            pruned,
            lease_table,
            reader,
            data_version: None,
        }
    }

    /// Serves the queue until it is closed, by [`Request::Close`] or because nobody can ask any
    /// more; whatever was asked before is done.
    pub(super) async fn run(mut self, mut queue: mpsc::UnboundedReceiver<Request>) {
        let mut requests = Vec::new();
        loop {
            if self.pruning.is_empty() {
                if queue.recv_many(&mut requests, GROUP_MAX).await == 0 {
                    break;
                }
            } else {
                while requests.len() < GROUP_MAX
                    && let Ok(request) = queue.try_recv()
                {
                    requests.push(request);
                }
            }
            gleitzeit_failpoint::failpoint!("store.write.taken");
            if self.serve(requests.drain(..)).await {
                queue.close();
                // What is left to forget can wait for the next run.
                for prune in self.pruning.drain(..) {
                    let _ = prune.answer.send(Ok(prune.count));
                }
            }
            self.prune_some().await;
        }
        self.close_leases().await;
        gleitzeit_failpoint::failpoint!("store.close.leases");
        if let Some(db) = self.db.take() {
            gleitzeit_failpoint::failpoint!("store.close.drained");
            close(db).await;
        }
    }

    /// True when the queue is to be closed.
    async fn serve(&mut self, requests: impl Iterator<Item = Request>) -> bool {
        let mut is_last = false;
        let mut group = Gathered::default();
        for request in requests {
            match request {
                Request::Write(call, answer) => {
                    if group.must_end_before(&call.write) {
                        self.commit(std::mem::take(&mut group)).await;
                    }
                    group.add(call, answer);
                }
                Request::Prune(prune) => {
                    self.commit(std::mem::take(&mut group)).await;
                    self.pruning.push_back(prune);
                }
                Request::Amend(amendment, answer) => {
                    self.commit(std::mem::take(&mut group)).await;
                    let _ = answer.send(Box::pin(self.amend(&amendment)).await);
                }
                Request::Delete(ids, answer) => {
                    self.commit(std::mem::take(&mut group)).await;
                    let _ = answer.send(Box::pin(self.delete(&ids)).await);
                }
                Request::ForgetNeeds(unused) => {
                    self.commit(std::mem::take(&mut group)).await;
                    Box::pin(self.forget_needs(unused)).await;
                }
                Request::Lease(call) => {
                    self.commit(std::mem::take(&mut group)).await;
                    // Rare, and large: what every write passes through is kept small.
                    Box::pin(self.serve_lease(*call)).await;
                }
                Request::Wake => self.renew_due().await,
                Request::Look(answer) => {
                    let _ = answer.send(Box::pin(self.has_changed()).await);
                }
                Request::Close => is_last = true,
            }
        }
        self.commit(group).await;
        is_last
    }

    /// Writes a group and answers for each of its calls.
    async fn commit(&mut self, group: Gathered) {
        let Gathered { calls, waiting, .. } = group;
        if calls.is_empty() {
            return;
        }
        self.renew_due().await;
        let calls: Vec<&Call> = calls.iter().collect();
        let answers = match self.transact(&calls).await {
            Ok(answers) => answers,
            Err(failure) if failure.is_content && calls.len() > 1 => self.one_by_one(&calls).await,
            Err(failure) => calls.iter().map(|_| Err(failure.error.clone())).collect(),
        };
        gleitzeit_failpoint::failpoint!("store.answer.before");
        for (waiting, answer) in waiting.into_iter().zip(answers) {
            // Whoever asked may be gone; the write stands all the same.
            let _ = waiting.send(answer);
        }
        gleitzeit_failpoint::failpoint!("store.answer.after");
    }

    /// Something in a group is refused: each call in a transaction of its own, so that only the
    /// bad ones fail.
    async fn one_by_one(&mut self, calls: &[&Call]) -> Vec<Answer> {
        let mut answers = Vec::with_capacity(calls.len());
        for call in calls {
            answers.push(match self.transact(&[call]).await {
                Ok(mut answers) => answers.pop().unwrap_or_else(|| Ok(Vec::new())),
                Err(failure) => Err(failure.error),
            });
        }
        answers
    }

    /// Writes calls in one transaction; tries again where that cannot do harm.
    async fn transact(&mut self, calls: &[&Call]) -> Result<Vec<Answer>, Failure> {
        let mut tries = Tries::begin();
        loop {
            match self.attempt(calls).await {
                Ok((answers, effects)) => {
                    if effects.leaves_free {
                        self.lease_table.ring();
                    }
                    self.came += effects.came;
                    self.places.learn(effects);
                    return Ok(answers);
                }
                Err(Attempt::RolledBack(fault)) => {
                    self.reset().await;
                    if !fault.may_pass_again() || tries.are_over(&fault) {
                        let is_content = fault.cause == Cause::Content;
                        let error = self.explain(fault).of_write();
                        return Err(Failure { is_content, error });
                    }
                    tracing::debug!(detail = fault.detail, "group is written again");
                }
                Err(Attempt::NotCommitted(fault)) => {
                    self.reset().await;
                    return Err(Failure { is_content: false, error: fault.of_commit() });
                }
            }
        }
    }

    async fn attempt(&mut self, calls: &[&Call]) -> Result<(Vec<Answer>, CommitEffects), Attempt> {
        gleitzeit_failpoint::failpoint!("store.begin.before");
        let patience = self.patience.clone();
        let transaction =
            patience.wait(pin!(self.begin())).await.map_err(Attempt::rolled_back)??;
        gleitzeit_failpoint::failpoint!("store.begin.after");
        let written = patience.wait(pin!(self.write(&transaction, calls))).await;
        self.end(transaction, written.flatten()).await
    }

    /// Writes the calls that bear no lost lease; an answer for each.
    async fn write(
        &self,
        db: &DatabaseTransaction,
        calls: &[&Call],
    ) -> Result<(Vec<Answer>, CommitEffects), DbErr> {
        let lost = self.lease_table.lost(db, calls).await?;
        gleitzeit_failpoint::failpoint!("store.write.owned");
        let (statements, places) = (&self.statements, &self.places);
        let (answers, effects) = if lost.is_empty() {
            group::write(db, statements, places, calls).await?
        } else {
            let kept = calls.iter().filter(|call| call.write.lost_of(&lost).is_none());
            let kept: Vec<&Call> = kept.copied().collect();
            let (written, mut effects) = group::write(db, statements, places, &kept).await?;
            effects.has_lost = true;
            let mut written = written.into_iter();
            let answer = |call: &&Call| match call.write.lost_of(&lost) {
                Some(epoch) => Err(StoreError::LeaseLost { epoch }),
                None => written.next().unwrap_or_else(|| Ok(Vec::new())),
            };
            (calls.iter().map(answer).collect(), effects)
        };
        if effects.leaves_free {
            notifier::announce(db).await?;
            gleitzeit_failpoint::failpoint!("store.write.rung");
        }
        Ok((answers, effects))
    }

    /// Does something in a transaction of its own; tries again where that cannot do harm.
    pub(super) async fn transact_alone<T>(
        &mut self,
        mut work: impl AsyncFnMut(&DatabaseTransaction, &mut LeaseTable) -> Result<T, Refusal>,
    ) -> Result<T, StoreError> {
        let mut tries = Tries::begin();
        loop {
            let patience = self.patience.clone();
            let begun =
                patience.wait(pin!(self.begin())).await.map_err(Attempt::rolled_back).flatten();
            let attempt = match begun {
                Ok(transaction) => {
                    let worked =
                        patience.wait(pin!(work(&transaction, &mut self.lease_table))).await;
                    match worked.map_err(Refusal::from).flatten() {
                        Ok(done) => self.end(transaction, Ok(done)).await,
                        Err(Refusal::Database(error)) => self.end(transaction, Err(error)).await,
                        Err(Refusal::Answer(error)) => {
                            self.roll_back(transaction).await;
                            if error.is_transient() {
                                self.reset().await;
                            }
                            return Err(error);
                        }
                    }
                }
                Err(attempt) => Err(attempt),
            };
            let fault = match attempt {
                Ok(done) => return Ok(done),
                Err(Attempt::RolledBack(fault)) => fault,
                Err(Attempt::NotCommitted(fault)) => {
                    self.reset().await;
                    return Err(fault.of_commit());
                }
            };
            self.reset().await;
            if !fault.may_pass_again() || tries.are_over(&fault) {
                return Err(self.explain(fault).of_write());
            }
        }
    }

    /// Adds to a complaint about a locked file who holds it.
    fn explain(&self, mut fault: Fault) -> Fault {
        if fault.cause == Cause::Locked
            && let Location::Sqlite(path) = &self.connector.location
            && let Some(who) = database_file::who_writes(path)
        {
            fault.detail = format!("{}; {who}", fault.detail);
        }
        fault
    }

    /// Asks something outside a transaction; tries again on a new connection.
    pub(super) async fn look<T>(
        &mut self,
        mut ask: impl AsyncFnMut(&DatabaseConnection) -> Result<T, DbErr>,
    ) -> Result<T, StoreError> {
        let mut tries = Tries::begin();
        loop {
            let patience = self.patience.clone();
            let answer = patience.wait(async { ask(self.connection().await?).await });
            let answer = answer.await.flatten();
            let fault = match answer {
                Ok(answer) => return Ok(answer),
                Err(error) => Fault::from(error),
            };
            self.reset().await;
            if !fault.may_pass_again() || tries.are_over(&fault) {
                return Err(fault.of_read());
            }
        }
    }

    /// Reads at one moment, on the connection that writes, and without the lock that writing takes.
    pub(super) async fn read<T>(
        &mut self,
        ask: impl AsyncFnOnce(&DatabaseTransaction, &LeaseTable) -> Result<T, ReadError>,
    ) -> Result<T, StoreError> {
        let patience = self.patience.clone();
        let db = self.connection().await.map_err(|error| Fault::from(error).of_read())?.clone();
        let lease_table = &self.lease_table;
        let asks = async {
            let moment = read::snapshot(&db).await?;
            let answer = ask(&moment, lease_table).await?;
            moment.commit().await?;
            Ok(answer)
        };
        let answer = match patience.wait(asks).await {
            Ok(answer) => answer.map_err(|ReadError(error)| error),
            Err(silent) => Err(Fault::from(silent).of_read()),
        };
        if answer.is_err() {
            drop(db);
            self.reset().await;
        }
        answer
    }

    /// Whether another connection has written since this was asked before; true where nobody knows.
    async fn has_changed(&mut self) -> bool {
        let pragma = Statement::from_string(DbBackend::Sqlite, "PRAGMA data_version");
        let version = self.look(async |db| match db.query_one_raw(pragma.clone()).await? {
            Some(row) => row.try_get_by_index::<i64>(0),
            None => Ok(0),
        });
        let version = version.await.ok();
        if self.find_loss().is_some() {
            return false;
        }
        version.is_none() || std::mem::replace(&mut self.data_version, version) != version
    }

    pub(super) fn learn(&mut self, effects: CommitEffects) {
        self.places.learn(effects);
    }

    /// Looks up anew where workflows are, for another process may have forgotten some.
    pub(super) fn forget_places(&mut self) {
        self.places.forget_all();
    }

    pub(super) fn forget_place(&mut self, id: &WorkflowId) {
        self.places.forget(std::slice::from_ref(id));
    }

    /// Workflows were removed, and others are notified: of their needs some may be nobody's now.
    pub(super) fn note_removed(&self) {
        self.pruned.notify_one();
        self.lease_table.ring();
    }

    pub(super) fn reader(&self) -> Arc<Reader> {
        Arc::clone(&self.reader)
    }

    async fn connection(&mut self) -> Result<&DatabaseConnection, DbErr> {
        let db = if let Some(db) = self.db.take() {
            db
        } else {
            let mut db = self.connector.writer_again().await?;
            self.patience.watch(&mut db);
            db
        };
        Ok(self.db.insert(db))
    }

    async fn begin(&mut self) -> Result<DatabaseTransaction, Attempt> {
        if let Some(gone) = &*self.lost.borrow() {
            return Err(Attempt::RolledBack(Fault::gone(gone)));
        }
        let db = self.connection().await.map_err(Attempt::rolled_back)?;
        let options = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        };
        db.begin_with_options(options).await.map_err(Attempt::rolled_back)
    }

    async fn end<T>(
        &mut self,
        transaction: DatabaseTransaction,
        written: Result<T, DbErr>,
    ) -> Result<T, Attempt> {
        let written = match written {
            Ok(written) => written,
            Err(error) => {
                self.roll_back(transaction).await;
                return Err(Attempt::rolled_back(error));
            }
        };
        if let Some(gone) = self.find_loss() {
            self.roll_back(transaction).await;
            return Err(Attempt::RolledBack(Fault::gone(&gone)));
        }
        match self.patience.wait(pin!(Self::commit_now(transaction))).await.flatten() {
            Ok(()) => {
                gleitzeit_failpoint::failpoint!("store.commit.after");
                self.commits.fetch_add(1, Ordering::Relaxed);
                self.written.notify_one();
                Ok(written)
            }
            Err(error) => Err(Attempt::NotCommitted(error.into())),
        }
    }

    /// One that fails, or is not answered, is done by the database when the connection goes.
    async fn roll_back(&self, transaction: DatabaseTransaction) {
        let _ = self.patience.wait(pin!(transaction.rollback())).await;
    }

    /// Looks whether the database is still where it was, on a file; what it finds once is for ever.
    fn find_loss(&mut self) -> Option<StoreError> {
        if self.lost.borrow().is_some() {
            return self.lost.borrow().clone();
        }
        let detail = self.file.as_mut()?.loss().or_else(|| self.lease_table.loss())?;
        let gone = StoreError::Gone { detail };
        tracing::error!(error = %gone, "database is gone; nothing more is stored");
        self.lost.send_replace(Some(gone.clone()));
        Some(gone)
    }

    async fn commit_now(transaction: DatabaseTransaction) -> Result<(), DbErr> {
        gleitzeit_failpoint::failpoint!("store.commit.before");
        transaction.commit().await
    }

    /// Lets go of a connection that may be in any state, and of what was known by it.
    async fn reset(&mut self) {
        self.places.forget_all();
        self.data_version = None;
        if let Some(file) = &mut self.file {
            file.forget_beside();
        }
        let Some(db) = self.db.take() else { return };
        if self.file.is_some() {
            close(db).await;
        } else {
            // A server that does not answer would keep the next transaction waiting here, too.
            tokio::spawn(close(db));
        }
    }

    async fn forget_needs(&mut self, unused: Unused) {
        // From here on they are written with whatever needs them, removed or not.
        self.places.forget_needs(&unused.hashes);
        let removed =
            self.transact_alone(async |db, _| Ok(needs::remove(db, &unused).await?)).await;
        needs::report(removed);
    }

    /// Does one batch of the oldest request to forget.
    async fn prune_some(&mut self) {
        let Some(mut prune) = self.pruning.pop_front() else { return };
        let patience = self.patience.clone();
        let begun = patience.wait(pin!(self.begin())).await.map_err(Attempt::rolled_back).flatten();
        let pruned = match begun {
            Ok(transaction) => {
                gleitzeit_failpoint::failpoint!("store.prune.begun");
                let came = std::mem::take(&mut self.came);
                let batch = prune::batch(&transaction, prune.before, prune.limit, came);
                let pruned = patience.wait(pin!(batch)).await.flatten();
                self.end(transaction, pruned).await
            }
            Err(attempt) => Err(attempt),
        };
        match pruned {
            Ok(pruned) => {
                gleitzeit_failpoint::failpoint!("store.prune.committed");
                prune.count += pruned.ids.len();
                prune.limit -= pruned.ids.len();
                self.places.forget(&pruned.ids);
                if !pruned.ids.is_empty() {
                    self.pruned.notify_one();
                }
                if pruned.more && prune.limit > 0 {
                    self.pruning.push_front(prune);
                } else {
                    let _ = prune.answer.send(Ok(prune.count));
                }
            }
            Err(attempt) => {
                self.reset().await;
                let error = match attempt {
                    Attempt::RolledBack(fault) => fault.of_write(),
                    Attempt::NotCommitted(fault) => fault.of_commit(),
                };
                let _ = prune.answer.send(Err(error));
            }
        }
    }
}

/// How often something was tried, and since when.
struct Tries {
    count: usize,
    since: Instant,
}

impl Tries {
    fn begin() -> Self {
        Self { count: 0, since: Instant::now() }
    }

    /// Counts one that failed; true where it was the last.
    fn are_over(&mut self, fault: &Fault) -> bool {
        self.count += 1;
        let is_away = fault.cause == Cause::Connection && self.since.elapsed() > TRIES_LAST;
        self.count == TRIES || is_away
    }
}

/// Why what is done in a transaction of its own is not done.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The database complains.
    Database(DbErr),
    /// This is the answer.
    Answer(StoreError),
}

impl From<DbErr> for Refusal {
    fn from(error: DbErr) -> Self {
        Self::Database(error)
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Answer(error)
    }
}

impl From<ReadError> for Refusal {
    fn from(ReadError(error): ReadError) -> Self {
        Self::Answer(error)
    }
}

/// Why a transaction did not take place.
#[derive(Debug)]
enum Attempt {
    /// It certainly did not.
    RolledBack(Fault),
    /// Its commit was not confirmed.
    NotCommitted(Fault),
}

impl Attempt {
    fn rolled_back(error: DbErr) -> Self {
        Self::RolledBack(error.into())
    }
}

/// What is answered for a group that was not written.
#[derive(Debug)]
struct Failure {
    /// True when something in the group is at fault, not the database.
    is_content: bool,
    error: StoreError,
}

/// Calls that go into one transaction, and who waits for them.
#[derive(Debug, Default)]
struct Gathered {
    calls: Vec<Call>,
    waiting: Vec<oneshot::Sender<Answer>>,
    recorded: HashSet<WorkflowId>,
}

impl Gathered {
    /// Within a transaction all submissions come first. A change that was queued before the
    /// submission of its workflow must not apply to it.
    fn must_end_before(&self, write: &Write) -> bool {
        match write {
            Write::Submit(news) => {
                !self.recorded.is_empty()
                    && news.iter().any(|new| self.recorded.contains(&new.record.id))
            }
            Write::Record(_) => false,
        }
    }

    fn add(&mut self, call: Call, waiting: oneshot::Sender<Answer>) {
        if let Write::Record(changes) = &call.write {
            self.recorded.extend(changes.iter().map(|change| change.id.clone()));
        }
        self.calls.push(call);
        self.waiting.push(waiting);
    }
}

/// A server may never take note of it.
async fn close(db: DatabaseConnection) {
    match tokio::time::timeout(CLOSING, db.close()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "connection closed with an error"),
        Err(_) => tracing::debug!("connection was left: it did not close in time"),
    }
}
