//! A store that fails now and then, over one that works: every call to it may be refused, time out,
//! or be done and reported as failed.
//!
//! What comes next is decided by a seed and by the order of the calls. After each write that was
//! done, the [`Audit`] looks at what is stored.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use futures_util::{StreamExt as _, stream::BoxStream};
use gleitzeit::{
    Event, ListFilter, Store, StoreError, WorkflowId, WorkflowRecord, WorkflowSummary, async_trait,
    domain::needs::Offer,
    domain::store::{
        Epoch, LeaseStore, NewWorkflow, Submitted, WorkflowChange,
        lease::{
            Claimed, ClaimedOne, Lease, Release, Request, RequestAnswer, RequestKey, Standing,
        },
    },
};
use tokio::sync::watch;

use super::audit::Audit;

/// So long hangs a call before it is given up.
const HANGS: Duration = Duration::from_millis(5);

/// What a call meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The store is not there: nothing was done.
    Unavailable,
    /// No answer came in time: nothing was done, but who would know.
    TimedOut,
    /// It was done, and the answer was lost.
    DoneButFailed,
}

/// What a call may come to when it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Read,
    Write,
    /// A write that its caller cannot repeat: a store sees to it by itself that it is done, or not,
    /// as it says.
    Claim,
}

/// Random numbers from a seed: `SplitMix64`.
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % sides
    }
}

/// A store that fails now and then.
pub(crate) struct Faulty {
    inner: Arc<dyn Store>,
    audit: Arc<Audit>,
    percent: u64,
    dice: Mutex<Dice>,
    /// Faults met so far: unavailable, timed out, done but reported failed.
    met: [AtomicUsize; 3],
    /// Writes until the store is cut off, as by a crash.
    writes_left: AtomicUsize,
    is_cut: watch::Sender<bool>,
    /// Leases that were opened, answered for or not.
    opened: Mutex<Vec<Epoch>>,
}

impl Faulty {
    /// Fails `percent` of all calls, and is cut off after so many writes.
    pub(crate) fn over(
        inner: Arc<dyn Store>,
        audit: Arc<Audit>,
        percent: u64,
        seed: u64,
        writes: usize,
    ) -> Arc<Self> {
        Arc::new(Self {
            inner,
            audit,
            percent,
            dice: Mutex::new(Dice(seed)),
            met: Default::default(),
            writes_left: AtomicUsize::new(writes),
            is_cut: watch::Sender::new(false),
            opened: Mutex::default(),
        })
    }

    /// Waits until no write arrives any more.
    pub(crate) async fn cut(&self) {
        let _ = self.is_cut.subscribe().wait_for(|cut| *cut).await;
    }

    /// Faults met so far: unavailable, timed out, done but reported failed.
    pub(crate) fn met(&self) -> [usize; 3] {
        [0, 1, 2].map(|at| self.met[at].load(Ordering::Relaxed))
    }

    /// Ends the leases that were opened here, as a server does when it learns that their process
    /// is gone.
    pub(crate) async fn end_leases(&self) {
        let opened = std::mem::take(&mut *self.opened.lock().expect("nobody panics here"));
        for epoch in opened {
            self.leased().close_lease(epoch).await.expect("the store below works");
        }
    }

    fn fault(&self, kind: Kind) -> Option<Fault> {
        let mut dice = self.dice.lock().expect("nobody panics here");
        if dice.roll(100) >= self.percent {
            return None;
        }
        let which = dice.roll(if kind == Kind::Write { 3 } else { 2 });
        self.met[usize::try_from(which).expect("three at most")].fetch_add(1, Ordering::Relaxed);
        Some(match which {
            0 => Fault::Unavailable,
            1 => Fault::TimedOut,
            _ => Fault::DoneButFailed,
        })
    }

    /// Does the call, or fails it, or both.
    async fn meet<T>(
        &self,
        kind: Kind,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        if *self.is_cut.borrow() {
            return Err(StoreError::Closed);
        }
        let detail = "as the test wants it".to_owned();
        match self.fault(kind) {
            None => call.await,
            Some(Fault::Unavailable) => Err(StoreError::Unavailable { detail }),
            Some(Fault::TimedOut) => {
                tokio::time::sleep(HANGS).await;
                Err(match kind {
                    Kind::Write => StoreError::Unknown { detail },
                    Kind::Read | Kind::Claim => StoreError::Unavailable { detail },
                })
            }
            Some(Fault::DoneButFailed) => {
                call.await?;
                Err(StoreError::Unknown { detail })
            }
        }
    }

    /// The same for a write of workflows, which is looked at as soon as it is done.
    async fn meet_write<T>(
        &self,
        ids: Vec<WorkflowId>,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let audited = async {
            let answer = call.await?;
            self.audit.inspect(&*self.inner, ids).await;
            if self.writes_left.fetch_sub(1, Ordering::Relaxed) == 1 {
                self.is_cut.send_replace(true);
            }
            Ok(answer)
        };
        self.meet(Kind::Write, audited).await
    }

    fn leased(&self) -> &dyn LeaseStore {
        self.inner.leases().expect("asked only where there are leases")
    }
}

#[async_trait]
impl Store for Faulty {
    fn describe(&self) -> String {
        format!("{}, {} % faulty", self.inner.describe(), self.percent)
    }

    fn leases(&self) -> Option<&dyn LeaseStore> {
        self.inner.leases().is_some().then_some(self as &dyn LeaseStore)
    }

    async fn submit(&self, new: Vec<NewWorkflow>) -> Result<Vec<Submitted>, StoreError> {
        let ids = new.iter().map(|new| new.record.id.clone()).collect();
        self.meet_write(ids, self.inner.submit(new)).await
    }

    async fn record(&self, changes: Vec<WorkflowChange>) -> Result<(), StoreError> {
        let ids = changes.iter().map(|change| change.id.clone()).collect();
        self.meet_write(ids, self.inner.record(changes)).await
    }

    async fn unsettled(&self) -> Result<Vec<WorkflowRecord>, StoreError> {
        self.meet(Kind::Read, self.inner.unsettled()).await
    }

    async fn workflow(&self, id: &WorkflowId) -> Result<Option<WorkflowRecord>, StoreError> {
        self.meet(Kind::Read, self.inner.workflow(id)).await
    }

    async fn list(&self, filter: ListFilter) -> Result<Vec<WorkflowSummary>, StoreError> {
        self.meet(Kind::Read, self.inner.list(filter)).await
    }

    async fn events(
        &self,
        id: &WorkflowId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Event>, StoreError> {
        self.meet(Kind::Read, self.inner.events(id, after, limit)).await
    }

    async fn prune(&self, before: DateTime<Utc>, limit: usize) -> Result<usize, StoreError> {
        self.meet(Kind::Write, self.inner.prune(before, limit)).await
    }

    /// Ends nothing below: the next engine goes on with it.
    async fn close(&self, _limit: Duration) -> Result<(), StoreError> {
        self.is_cut.send_replace(true);
        Ok(())
    }
}

#[async_trait]
impl LeaseStore for Faulty {
    async fn open_lease(&self, owner: &str, term: Duration) -> Result<Lease, StoreError> {
        let opening = async {
            let lease = self.leased().open_lease(owner, term).await?;
            self.opened.lock().expect("nobody panics here").push(lease.epoch);
            Ok(lease)
        };
        self.meet(Kind::Write, opening).await
    }

    async fn renew_lease(&self, epoch: Epoch, term: Duration) -> Result<bool, StoreError> {
        self.meet(Kind::Write, self.leased().renew_lease(epoch, term)).await
    }

    async fn close_lease(&self, epoch: Epoch) -> Result<(), StoreError> {
        self.meet(Kind::Write, self.leased().close_lease(epoch)).await
    }

    async fn claim(
        &self,
        epoch: Epoch,
        limit: usize,
        offer: &Offer,
    ) -> Result<Claimed, StoreError> {
        self.meet(Kind::Claim, self.leased().claim(epoch, limit, offer)).await
    }

    async fn release(
        &self,
        epoch: Epoch,
        ids: &[WorkflowId],
        why: Release,
    ) -> Result<(), StoreError> {
        self.meet(Kind::Write, self.leased().release(epoch, ids, why)).await
    }

    async fn standings(&self, ids: &[WorkflowId]) -> Result<Vec<Option<Standing>>, StoreError> {
        self.meet(Kind::Read, self.leased().standings(ids)).await
    }

    async fn claim_one(
        &self,
        epoch: Epoch,
        id: &WorkflowId,
        reopens: bool,
    ) -> Result<ClaimedOne, StoreError> {
        self.meet(Kind::Claim, self.leased().claim_one(epoch, id, reopens)).await
    }

    async fn ask(&self, request: Request) -> Result<RequestKey, StoreError> {
        self.meet(Kind::Write, self.leased().ask(request)).await
    }

    async fn requests(&self, epoch: Epoch) -> Result<Vec<(RequestKey, Request)>, StoreError> {
        self.meet(Kind::Read, self.leased().requests(epoch)).await
    }

    async fn answer(&self, key: RequestKey, answer: RequestAnswer) -> Result<(), StoreError> {
        self.meet(Kind::Write, self.leased().answer(key, answer)).await
    }

    async fn take_answer(&self, key: RequestKey) -> Result<Option<RequestAnswer>, StoreError> {
        self.meet(Kind::Claim, self.leased().take_answer(key)).await
    }

    async fn withdraw(&self, key: RequestKey) -> Result<(), StoreError> {
        self.meet(Kind::Write, self.leased().withdraw(key)).await
    }

    fn notifications(&self) -> BoxStream<'static, ()> {
        match self.inner.leases() {
            Some(leases) => leases.notifications(),
            None => futures_util::stream::pending().boxed(),
        }
    }
}
