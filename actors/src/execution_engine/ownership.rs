//! Whose workflows these are, where several processes share a store: the engine's lease.
//!
//! The lease is taken when it is first needed and renewed while the engine owns something: an idle
//! engine asks the store nothing. It looks for what it may claim, and for what other processes ask
//! of it, when the store notifies, when another process's lease may be dead, and, far apart,
//! for safety.
//!
//! Invariant: what runs here bears the lease that is held. When that is lost, all of it goes at
//! once, and the store refuses what is still on its way.

use std::{future::Future, pin::Pin, rc::Rc, sync::Arc, task, time::Duration};

use actix::{WeakAddr, prelude::*};
use chrono::{DateTime, Utc};
use futures_util::StreamExt as _;
use gleitzeit_domain::{
    id::WorkflowId,
    problem::SubmitError,
    run::RunKey,
    store::{
        Epoch, Store, StoreError,
        lease::{Ask, Lease, Request, RequestAnswer},
    },
};
use tokio::{sync::oneshot, time::Instant};

use super::{
    ActiveRun, Cancel, CancelTask, ExecutionEngine, Phase, ResolveUnknown, Waiter,
    control::under_way,
    recovery::{self, Recovered},
    requests,
};
use crate::{
    addresses::ActorAddresses, dependency_resolver::RemoveWorkflows, follower::Follower,
    load_balancer::RestartProvider,
};

/// A renewal that failed is tried again after this part of the term.
const RENEW_AGAIN: u32 = 10;

/// Another lease is looked at only once it has certainly run out.
const SLACK: Duration = Duration::from_millis(20);

/// After a claim that failed.
const CLAIM_AGAIN: Duration = Duration::from_secs(1);

/// The lease, and what depends on it.
#[derive(Debug, Default)]
pub(super) struct Ownership {
    held: Option<Held>,
    /// The store is being asked for one, or for another term.
    asking: bool,
    /// Who waits for that.
    waiting: Vec<oneshot::Sender<Result<Option<Epoch>, StoreError>>>,
    renewal: Option<SpawnHandle>,
    looking: PollState,
    /// The start has asked for what is there: before that, no provider may be there to run it.
    has_begun: bool,
    /// There was more to claim than there was room for.
    deferred_some: bool,
    next_look: Option<(Instant, SpawnHandle)>,
    /// Up to which request to all processes this one has seen them.
    asked: Rc<requests::LastAsked>,
}

/// Whether it looks for something to claim or to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum PollState {
    #[default]
    No,
    Now,
    /// Something rang meanwhile.
    NowAndAgain,
}

/// The store is being asked for a lease.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked;

/// A lease that is held, as far as is known.
#[derive(Debug, Clone, Copy)]
struct Held {
    lease: Lease,
    /// When it was asked for, or last renewed.
    since: Instant,
}

impl Held {
    /// True while it is certain enough that nobody has ended it.
    fn is_fresh(&self) -> bool {
        self.lease.term.is_none_or(|term| self.since.elapsed() < term / 2)
    }
}

impl Ownership {
    /// True if a lease is held whose term is not over.
    pub(super) fn is_in_term(&self) -> bool {
        self.held.is_some_and(|held| held.lease.term.is_none_or(|term| held.since.elapsed() < term))
    }
}

/// Asks for the engine's lease; `None` where the store has none.
#[derive(Debug, Message)]
#[rtype(result = "Result<Option<Epoch>, StoreError>")]
pub(super) struct NeedLease;

/// Asks for the lease in order to close it; it is held no more.
#[derive(Debug, Message)]
#[rtype(result = "Option<Epoch>")]
pub(super) struct GiveUpLease;

/// What the store said of the lease, asked for at `since`.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct LeaseTaken {
    answer: Result<Lease, StoreError>,
    since: Instant,
    /// The store's time, and when it was so.
    time: Option<(DateTime<Utc>, Instant)>,
}

/// It is time to renew.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Renew;

/// There may be something to claim, or to answer.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct Look;

/// What this process can run has changed: there may be something to claim that it could not before.
/// Sent by whoever adds a protocol or a provider.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct OfferChanged;

/// A look has ended.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct Looked;

/// All was claimed that could be; there may be more after this time.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct PollAfter(pub(super) Option<Duration>);

type Taking = Pin<Box<dyn Future<Output = LeaseTaken>>>;

/// A store that does not tell its time within this is asked again with the next renewal.
const TIME_LIMIT: Duration = Duration::from_secs(1);

/// Another term for the lease that is held, or a new lease.
fn take(store: Arc<dyn Store>, held: Option<Epoch>, owner: Arc<str>, term: Duration) -> Taking {
    let since = Instant::now();
    Box::pin(async move {
        let answer = renew_or_open(&*store, held, &owner, term).await;
        let time = match &answer {
            Ok(_) => tokio::time::timeout(TIME_LIMIT, store.shared_time()).await,
            Err(_) => Ok(Ok(None)),
        };
        let time = time.ok().and_then(Result::ok).flatten().map(|now| (now, Instant::now()));
        LeaseTaken { answer, since, time }
    })
}

async fn renew_or_open(
    store: &dyn Store,
    held: Option<Epoch>,
    owner: &str,
    term: Duration,
) -> Result<Lease, StoreError> {
    let Some(leases) = store.leases() else {
        return Err(StoreError::Open { detail: "it has no leases".into() });
    };
    gleitzeit_failpoint::failpoint!("engine.lease.before");
    if let Some(epoch) = held
        && leases.renew_lease(epoch, term).await?
    {
        return Ok(Lease { epoch, term: Some(term) });
    }
    gleitzeit_failpoint::failpoint!("engine.lease.opening");
    leases.open_lease(owner, term).await
}

impl ExecutionEngine {
    /// The lease for what is written now; `None` where the store has none. While it is
    /// being asked for, wait: [`store_new`](Self::store_new) is called once it is there.
    pub(super) fn lease_now(&mut self, ctx: &mut Context<Self>) -> Result<Option<Epoch>, Asked> {
        if self.store.leases().is_none() {
            return Ok(None);
        }
        if !self.ownership.held.is_some_and(|held| held.is_fresh()) {
            self.ask_for_lease(ctx);
        }
        let held = self.ownership.held.filter(Held::is_fresh).ok_or(Asked)?;
        // While it owned nothing, it was not renewed.
        if self.ownership.renewal.is_none()
            && let Some(term) = held.lease.term
        {
            self.renew_later(Some((term / 3).saturating_sub(held.since.elapsed())), ctx);
        }
        Ok(Some(held.lease.epoch))
    }

    /// True for a run that another process may have taken up by now.
    pub(super) fn is_lost(&self, epoch: Option<Epoch>) -> bool {
        epoch.is_some() && epoch != self.ownership.held.map(|held| held.lease.epoch)
    }

    /// True while the lease is this one, and has not been renewed after `since`.
    pub(super) fn holds(&self, epoch: Epoch, since: Instant) -> bool {
        self.ownership.held.is_some_and(|held| held.lease.epoch == epoch && held.since == since)
    }

    fn ask_for_lease(&mut self, ctx: &mut Context<Self>) {
        if std::mem::replace(&mut self.ownership.asking, true) {
            return;
        }
        let held = self.ownership.held.map(|held| held.lease.epoch);
        let owner = Arc::clone(&self.settings.owner);
        let mut taking = take(Arc::clone(&self.store), held, owner, self.settings.lease_term);
        // A store in memory is done at once and needs no task.
        let mut unwoken = task::Context::from_waker(task::Waker::noop());
        match taking.as_mut().poll(&mut unwoken) {
            task::Poll::Ready(taken) => self.lease_taken(taken, ctx),
            task::Poll::Pending => {
                let engine = ctx.address();
                actix_rt::spawn(async move { engine.do_send(taking.await) });
            }
        }
    }

    fn lease_taken(&mut self, taken: LeaseTaken, ctx: &mut Context<Self>) {
        let LeaseTaken { answer, since, time } = taken;
        self.ownership.asking = false;
        if let Some((now, at)) = time
            && let Some(by) = self.clock.correct(now, at)
        {
            tracing::info!(%by, "this machine's clock differs from the store's; its time is taken");
            self.shift_new(by);
        }
        let told = match answer {
            Ok(lease) => {
                gleitzeit_failpoint::failpoint!("engine.lease.taken");
                let before = self.ownership.held.replace(Held { lease, since });
                self.lease_changed(Some((lease, since)), ctx);
                if let Some(before) = before.filter(|it| it.lease.epoch != lease.epoch) {
                    self.part_with_all(before.lease.epoch);
                }
                // From when it was asked for: an answer that was long on its way is old by now.
                let pause = |term: Duration| (term / 3).saturating_sub(since.elapsed());
                self.renew_later(lease.term.map(pause), ctx);
                Ok(Some(lease.epoch))
            }
            Err(error) => {
                tracing::error!(%error, "the lease could not be taken or renewed");
                let term = self.settings.lease_term;
                self.renew_later(Some(term / RENEW_AGAIN), ctx);
                Err(error)
            }
        };
        for waiting in self.ownership.waiting.drain(..) {
            let _ = waiting.send(told.clone());
        }
        if let Err(error) = told
            && !self.ownership.held.is_some_and(|held| held.is_fresh())
        {
            self.turn_all_away(&SubmitError::Store(error));
        }
    }

    /// Renews after a pause, if it owns something by then.
    fn renew_later(&mut self, pause: Option<Duration>, ctx: &mut Context<Self>) {
        if let Some(before) = self.ownership.renewal.take() {
            ctx.cancel_future(before);
        }
        self.ownership.renewal = pause.map(|pause| ctx.notify_later(Renew, pause));
    }

    /// The lease is gone: what it owned is another's by now.
    pub(super) fn lose(&mut self, epoch: Epoch, ctx: &mut Context<Self>) {
        if self.ownership.held.is_none_or(|held| held.lease.epoch != epoch) {
            return;
        }
        self.ownership.held = None;
        self.lease_changed(None, ctx);
        self.part_with_all(epoch);
        if self.settings.takes_over {
            ctx.address().do_send(Look);
        }
    }

    fn part_with_all(&mut self, epoch: Epoch) {
        // What is not stored is nobody else's; the answer to its write says what becomes of it.
        let is_theirs = |active: &ActiveRun| active.run.epoch() == Some(epoch) && !active.is_new;
        let theirs = self.runs.iter().filter(|(_, active)| is_theirs(active));
        let keys: Vec<RunKey> = theirs.map(|(key, _)| *key).collect();
        self.stats.leases_lost += 1;
        if keys.is_empty() {
            // An idle engine does not renew: nothing of it was taken over.
            tracing::debug!(%epoch, "the lease is gone; it owned nothing");
            return;
        }
        tracing::error!(
            %epoch,
            workflows = keys.len(),
            "the lease is gone; its workflows are run by whoever claims them"
        );
        for key in keys {
            self.release_run(key);
        }
    }

    /// Another process runs this workflow: its calls here end, and whoever waits for it is answered
    /// when it settles there.
    pub(super) fn release_run(&mut self, key: RunKey) {
        let Some(active) = self.runs.remove(&key) else { return };
        let id = active.run.id().clone();
        self.ids.remove(&id);
        self.drop_timers(&active.timers);
        self.load = self.load.saturating_sub(active.run.record().tasks.len() as u64);
        self.writer.fail_replies(key);
        self.forget_unstored(active.run.unstored());
        active.run.interrupt();
        self.end_calls(under_way(key, &active.run));
        for reader in active.readers {
            let _ = reader.send(None);
        }
        for waiter in active.waiters {
            self.await_elsewhere(id.clone(), waiter);
        }
        self.addresses().resolver.do_send(RemoveWorkflows(vec![key]));
    }

    /// Answers once a workflow that does not run here has settled.
    pub(super) fn await_elsewhere(&self, id: WorkflowId, waiter: Waiter) {
        actix_rt::spawn(settled_elsewhere(self.follower.clone(), id, waiter));
    }

    // ---- looking for work ----

    /// Follows the store's notifications for as long as both live.
    pub(super) fn listen(&self, engine: WeakAddr<Self>) {
        let Some(leases) = self.store.leases() else { return };
        let mut notifications = leases.notifications();
        actix_rt::spawn(async move {
            while notifications.next().await.is_some() {
                let Some(engine) = engine.upgrade() else { return };
                engine.do_send(Look);
            }
        });
    }

    /// There is room again for what could not be claimed.
    pub(super) fn claim_deferred(&mut self, ctx: &mut Context<Self>) {
        if self.ownership.deferred_some && self.load < self.settings.max_queued_tasks / 2 {
            self.ownership.deferred_some = false;
            ctx.address().do_send(Look);
        }
    }

    /// Notes that there was no room for all that could be claimed.
    pub(super) fn defer_some(&mut self) {
        self.ownership.deferred_some = true;
    }

    /// All that is there is claimed at the start; what rings meanwhile is looked at after that.
    pub(super) fn begin_looking(&mut self) {
        self.ownership.has_begun = true;
        self.ownership.looking = PollState::Now;
    }

    fn look(&mut self, ctx: &mut Context<Self>) {
        let owns = !self.runs.is_empty();
        let may_look = matches!(self.phase, Phase::Running) && self.store.leases().is_some();
        if !may_look || !(owns || self.settings.takes_over) {
            return;
        }
        if self.ownership.looking != PollState::No {
            self.ownership.looking = PollState::NowAndAgain;
            return;
        }
        self.ownership.looking = PollState::Now;
        gleitzeit_failpoint::failpoint!("engine.look.begun");
        let store = Arc::clone(&self.store);
        let addresses = Rc::clone(self.addresses());
        let takes_over = self.settings.takes_over && self.ownership.has_begun;
        let recovery = takes_over.then(|| self.begin_recovery());
        let held = self.ownership.held.map(|held| held.lease.epoch);
        let asked = Rc::clone(&self.ownership.asked);
        let engine = ctx.address();
        actix_rt::spawn(async move {
            if let Some(epoch) = held.filter(|_| owns) {
                serve_requests(&*store, &addresses, epoch).await;
            }
            requests::serve_those_to_all(&*store, &addresses, &asked).await;
            if let Some(recovery) = recovery {
                match recovery::claim_all(&recovery, store).await {
                    Ok(recovered) => tell(recovered),
                    Err(error) => {
                        tracing::error!(%error, "no work could be claimed");
                        addresses.engine.do_send(PollAfter(Some(CLAIM_AGAIN)));
                    }
                }
            }
            engine.do_send(Looked);
        });
    }

    /// Looks again at `pause` from now, or when it would have anyway.
    fn look_in(&mut self, pause: Option<Duration>, ctx: &mut Context<Self>) {
        if !self.settings.takes_over || self.store.leases().is_none() {
            return;
        }
        let sweep = self.settings.sweep;
        let pause = pause.map_or(sweep, |pause| (pause + SLACK).min(sweep));
        let Some(at) = Instant::now().checked_add(pause) else { return };
        if let Some((before, handle)) = self.ownership.next_look {
            if before > Instant::now() && before <= at {
                return;
            }
            ctx.cancel_future(handle);
        }
        self.ownership.next_look = Some((at, ctx.notify_later(Look, pause)));
    }
}

/// Answers a caller once a workflow has settled in the store, unless the caller goes before.
pub(super) async fn settled_elsewhere(follower: Follower, id: WorkflowId, mut waiter: Waiter) {
    let answer = tokio::select! {
        answer = follower.settled(&id, !waiter.outline) => answer,
        // The watch would else go on for as long as the workflow runs.
        () = waiter.answer.closed() => return,
    };
    waiter.send(answer);
}

fn tell(recovered: Recovered) {
    if recovered.workflows > 0 {
        tracing::info!(recovered.workflows, recovered.tasks, "workflows were claimed");
    }
}

/// Does what other processes ask, and answers.
async fn serve_requests(store: &dyn Store, addresses: &ActorAddresses, epoch: Epoch) {
    let Some(leases) = store.leases() else { return };
    let requests = match leases.requests(epoch).await {
        Ok(requests) => requests,
        Err(error) => {
            tracing::error!(%error, "requests of other processes could not be read");
            return;
        }
    };
    gleitzeit_failpoint::failpoint!("engine.request.read");
    for (key, request) in requests {
        let Some(answer) = serve(addresses, request).await else { return };
        gleitzeit_failpoint::failpoint!("engine.request.served");
        if let Err(error) = leases.answer(key, answer).await {
            tracing::error!(%error, "the answer to another process could not be stored");
        }
    }
}

/// `None` when the engine is gone.
async fn serve(
    addresses: &ActorAddresses,
    Request { workflow: id, ask }: Request,
) -> Option<RequestAnswer> {
    match ask {
        Ask::Cancel { reason } => addresses.engine.send(Cancel { id, reason }).await.ok(),
        Ask::CancelTask { task, reason } => {
            addresses.engine.send(CancelTask { id, task, reason }).await.ok()
        }
        Ask::Settle { task, verdict } => {
            addresses.engine.send(ResolveUnknown { id, task, verdict }).await.ok()
        }
        // Asked of all, and not about a workflow.
        Ask::RestartProvider { provider } => {
            addresses.balancer.send(RestartProvider(provider)).await.ok()
        }
    }
}

impl Handler<NeedLease> for ExecutionEngine {
    type Result = ResponseFuture<Result<Option<Epoch>, StoreError>>;

    fn handle(&mut self, _: NeedLease, ctx: &mut Self::Context) -> Self::Result {
        let (answer, answered) = oneshot::channel();
        // Before it is asked for: a store may refuse at once, and whoever waits must hear of it.
        self.ownership.waiting.push(answer);
        if let Ok(lease) = self.lease_now(ctx) {
            drop(answered);
            self.ownership.waiting.retain(|waiting| !waiting.is_closed());
            return Box::pin(async move { Ok(lease) });
        }
        Box::pin(async { answered.await.unwrap_or(Err(StoreError::Closed)) })
    }
}

impl Handler<GiveUpLease> for ExecutionEngine {
    type Result = MessageResult<GiveUpLease>;

    fn handle(&mut self, _: GiveUpLease, ctx: &mut Self::Context) -> Self::Result {
        self.renew_later(None, ctx);
        self.lease_changed(None, ctx);
        MessageResult(self.ownership.held.take().map(|held| held.lease.epoch))
    }
}

impl Handler<LeaseTaken> for ExecutionEngine {
    type Result = ();

    fn handle(&mut self, taken: LeaseTaken, ctx: &mut Self::Context) {
        self.lease_taken(taken, ctx);
        self.store_new(ctx);
        self.check_drained(ctx);
    }
}

impl Handler<Renew> for ExecutionEngine {
    type Result = ();

    fn handle(&mut self, _: Renew, ctx: &mut Self::Context) {
        self.ownership.renewal = None;
        let in_doubt = !self.admission.doubts.is_empty();
        let owns = !self.runs.is_empty() || !self.admission.is_empty() || in_doubt;
        if owns && self.ownership.held.is_some() && !matches!(self.phase, Phase::Stopped) {
            self.ask_for_lease(ctx);
        }
    }
}

impl Handler<Look> for ExecutionEngine {
    type Result = ();

    fn handle(&mut self, _: Look, ctx: &mut Self::Context) {
        self.look(ctx);
    }
}

impl Handler<OfferChanged> for ExecutionEngine {
    type Result = ();

    fn handle(&mut self, _: OfferChanged, ctx: &mut Self::Context) {
        // Before the start has claimed what is there, it is about to.
        if self.ownership.has_begun {
            self.look(ctx);
        }
    }
}

impl Handler<Looked> for ExecutionEngine {
    type Result = ();

    fn handle(&mut self, _: Looked, ctx: &mut Self::Context) {
        gleitzeit_failpoint::failpoint!("engine.look.ended");
        if std::mem::take(&mut self.ownership.looking) == PollState::NowAndAgain {
            self.look(ctx);
        }
    }
}

impl Handler<PollAfter> for ExecutionEngine {
    type Result = ();

    fn handle(&mut self, PollAfter(pause): PollAfter, ctx: &mut Self::Context) {
        self.look_in(pause, ctx);
    }
}
