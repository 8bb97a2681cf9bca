//! Knows the providers and chooses who serves a call.
//!
//! Asked by the pipeline for every call, by the engine to end calls, by the runtime's owner to add
//! and remove providers; told by every `ProviderSupervisor` what it can promise. The choice is
//! [`ProviderTable`]'s; this actor answers, and lets wait who cannot be served now: for a busy
//! provider until it has room, for one that is down as long as [`WaitPolicy`] and the method say.
//!
//! Invariant: a provider's calls in flight are the live [`ProviderTicket`]s.

mod directory;
mod waiting;
mod watchdog;

use std::{collections::HashMap, pin::Pin, sync::Arc, task, time::Duration};

use actix::prelude::*;
use actix_rt::ArbiterHandle;
use gleitzeit_domain::{
    balance::{BalanceConfig, Pick, ProviderTable, Sample, Slot, Strategies, UnknownStrategy},
    error::TaskError,
    health::HealthStatus,
    id::{Capability, ProviderId},
    protocol::MethodRef,
    provider::{ProviderSpec, Supervision},
    restart::RestartBudget,
    run::TaskKey,
    task::Priority,
};
use tokio::{
    sync::{oneshot, watch},
    time::Instant,
};

use crate::{
    event_bus::Publish,
    provider_supervisor::{
        CancelCalls, ProviderState, ProviderStatus, ProviderStatusChanged, ProviderSupervisor,
    },
};

pub use directory::{
    GetProviders, GetServed, RegisterProvider, RegisterProviderError, RemoveProvider,
    RestartProvider, StopProviders,
};

/// Asks for providers; each answer comes at once or waits.
#[derive(Debug, Message)]
#[rtype(result = "Vec<Picked>")]
pub struct PickProviders(pub Vec<PickRequest>);

/// One call that needs a provider.
#[derive(Debug)]
pub struct PickRequest {
    /// Of which task.
    pub task: TaskKey,
    /// What is called.
    pub method: MethodRef,
    /// Who is served first, where there is a wait.
    pub priority: Priority,
    /// Where the last attempt failed; chosen only where nobody else is well enough.
    pub avoid: Option<ProviderId>,
}

/// The answer to a [`PickRequest`].
#[derive(Debug)]
pub enum Picked {
    /// This one.
    Now(ProviderTicket),
    /// It comes when one has room.
    Waiting(Waiting),
    /// Nobody will serve it.
    Refused(TaskError),
}

/// The wait for a provider; as a future it gives what [`ticket`](Self::ticket) gives.
#[derive(Debug)]
pub struct Waiting {
    /// The provider, or why there is none; closes when the wait is cancelled.
    pub ticket: oneshot::Receiver<Result<ProviderTicket, TaskError>>,
    /// Sent once if all providers of the method are down: the cause, as far as it is known. Closes
    /// empty if the wait ends before.
    pub cause: oneshot::Receiver<Arc<str>>,
}

impl Future for Waiting {
    type Output = Result<Result<ProviderTicket, TaskError>, oneshot::error::RecvError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> task::Poll<Self::Output> {
        Pin::new(&mut self.ticket).poll(cx)
    }
}

/// The right to make one call; it counts as in flight until it is dropped.
#[derive(Debug)]
pub struct ProviderTicket {
    slot: Slot,
    sample: Option<Sample>,
    reach: Arc<Reach>,
}

/// How to reach a provider; shared by all of its tickets.
#[derive(Debug)]
struct Reach {
    provider_id: ProviderId,
    supervisor: Addr<ProviderSupervisor>,
    balancer: Addr<LoadBalancer>,
    /// Closes when nobody attends to the provider's calls any more.
    attended: watch::Receiver<()>,
}

impl ProviderTicket {
    /// Who was chosen.
    pub fn provider_id(&self) -> &ProviderId {
        &self.reach.provider_id
    }

    /// Where to send the call.
    pub fn supervisor(&self) -> &Addr<ProviderSupervisor> {
        &self.reach.supervisor
    }

    /// True when both are for one provider.
    pub fn same_provider(&self, other: &Self) -> bool {
        self.slot == other.slot
    }

    /// Comes when nobody attends to the provider's calls any more: its thread is blocked and given
    /// up, or the provider was removed. A call that has no answer by then gets none.
    pub async fn abandoned(&self) {
        let mut attended = self.reach.attended.clone();
        while attended.changed().await.is_ok() {}
    }

    /// Notes how the call went, for strategies that learn from it.
    pub fn finished(&mut self, latency: Duration, ok: bool) {
        self.sample = Some(Sample { latency, ok });
    }
}

impl Drop for ProviderTicket {
    fn drop(&mut self) {
        self.reach.balancer.do_send(ReleaseTicket { slot: self.slot, sample: self.sample });
    }
}

/// Sent by a dropped [`ProviderTicket`].
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct ReleaseTicket {
    slot: Slot,
    sample: Option<Sample>,
}

/// Ends the waits and the calls of cancelled tasks, wherever they run.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct CancelTasks(pub Arc<Vec<TaskKey>>);

/// A longer wait for a provider is this long: far beyond any, and no instant overflows.
const WAIT_MAX: Duration = Duration::from_hours(24 * 365 * 30);

/// How long calls wait for providers that are down, where their method does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WaitPolicy {
    /// Each attempt waits `provider_wait`.
    #[default]
    EachAttempt,
    /// As above, but calls wait only once for a provider that has never served: when
    /// `provider_wait` has passed since the first call, further calls are refused at once. For a
    /// process that runs one workflow and ends.
    OnceForAbsent,
    /// Without a limit: the limits of the task and of its workflow hold. For a process that serves.
    Unlimited,
}

/// How the balancer runs.
#[derive(Debug, Clone)]
pub struct BalancerSettings {
    /// Which strategy serves which protocol.
    pub balance: BalanceConfig,
    /// How long a call waits for a provider to come up; also for one of a method that no provider
    /// serves.
    pub provider_wait: Duration,
    /// Which calls `provider_wait` holds for.
    pub wait_policy: WaitPolicy,
    /// How providers are watched that do not say it themselves.
    pub supervision: Option<Supervision>,
    /// Between two rounds that look for blocked threads.
    pub watch_interval: Duration,
}

impl Default for BalancerSettings {
    fn default() -> Self {
        Self {
            balance: BalanceConfig::default(),
            provider_wait: Duration::from_secs(30),
            wait_policy: WaitPolicy::default(),
            supervision: None,
            watch_interval: Duration::from_secs(5),
        }
    }
}

/// How to reach a provider, and what it was made from.
struct ProviderHandle {
    reach: Arc<Reach>,
    supervisor: Addr<ProviderSupervisor>,
    spec: Arc<ProviderSpec>,
    /// Which of its supervisors is listened to.
    tenure: u64,
    /// As last told; `failed` here also when there is no supervisor any more.
    status: ProviderStatus,
    /// True when only a new supervisor can bring it back.
    is_lost: bool,
    /// True once it has served, under any of its supervisors.
    has_served: bool,
    /// Of a provider with a thread of its own.
    thread: Option<actix_rt::Arbiter>,
    /// True where a sign of life would come from this very thread.
    is_local: bool,
    last_pong: Instant,
    /// How often it may block its thread.
    blocks: RestartBudget,
    /// Dropped when nobody attends to its calls any more.
    attends: watch::Sender<()>,
}

/// The actor. One per system, on the control arbiter.
pub struct LoadBalancer {
    settings: BalancerSettings,
    table: ProviderTable<ProviderHandle>,
    waiting: HashMap<Capability, waiting::Line>,
    waiters: usize,
    /// When a method was first asked for whose providers had never served.
    first_missed: HashMap<Capability, Instant>,
    next_age: u64,
    /// Waiters served since it was the turn of the oldest.
    served: u32,
    workers: Vec<ArbiterHandle>,
    next_worker: usize,
    next_tenure: u64,
    last_round: Instant,
    bus: Recipient<Publish>,
    clock: crate::Clock,
    born: Instant,
    alarm: Option<(Instant, SpawnHandle)>,
}

impl LoadBalancer {
    /// A balancer without providers; theirs will be dealt over `workers`.
    ///
    /// # Errors
    /// [`UnknownStrategy`] when the settings name one that is not among `strategies`.
    pub fn new(
        mut settings: BalancerSettings,
        strategies: &Strategies,
        workers: Vec<ArbiterHandle>,
        bus: Recipient<Publish>,
        clock: crate::Clock,
    ) -> Result<Self, UnknownStrategy> {
        settings.provider_wait = settings.provider_wait.min(WAIT_MAX);
        Ok(Self {
            table: ProviderTable::new(&settings.balance, strategies)?,
            settings,
            waiting: HashMap::new(),
            waiters: 0,
            first_missed: HashMap::new(),
            next_age: 0,
            served: 0,
            workers,
            next_worker: 0,
            next_tenure: 0,
            last_round: Instant::now(),
            bus,
            clock,
            born: Instant::now(),
            alarm: None,
        })
    }

    fn now(&self) -> Duration {
        self.born.elapsed()
    }

    /// Chooses for one call and counts it.
    fn try_pick(
        &mut self,
        capability: &Capability,
        avoid: Option<&ProviderId>,
    ) -> Result<ProviderTicket, Pick> {
        let now = self.now();
        let pick = self.table.pick(capability, avoid, now);
        let Pick::Chosen(slot) = pick else { return Err(pick) };
        self.table.started(slot);
        let entry = self.table.get(slot).ok_or(pick)?;
        Ok(ProviderTicket { slot, sample: None, reach: Arc::clone(&entry.handle.reach) })
    }

    fn answer(&mut self, request: PickRequest, ctx: &mut Context<Self>) -> Picked {
        let capability = &request.method.capability;
        // Whoever waits for this method came first.
        let line = if self.waiters == 0 { None } else { self.waiting.get(&**capability) };
        if let Some(line) = line.filter(|line| !line.is_empty()) {
            let first_is_choosy = line.first_is_choosy();
            let down = !self.table.is_up(capability);
            let capability = Arc::clone(capability);
            let picked = self.wait_in_line(request, down, ctx);
            if first_is_choosy {
                self.serve_lines(vec![Capability::clone(&capability)]);
            }
            return picked;
        }
        match self.try_pick(capability, request.avoid.as_ref()) {
            Ok(ticket) => Picked::Now(ticket),
            Err(pick) => self.wait_in_line(request, pick != Pick::Busy, ctx),
        }
    }
}

impl Actor for LoadBalancer {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(crate::MAILBOX);
        self.alarm = None;
        self.last_round = Instant::now();
        self.watch(ctx);
        // After a panic: it may have hit while a line was served, and the timer is gone.
        self.review_lines(ctx);
    }
}

impl Supervised for LoadBalancer {}

impl Handler<PickProviders> for LoadBalancer {
    type Result = MessageResult<PickProviders>;

    fn handle(
        &mut self,
        PickProviders(requests): PickProviders,
        ctx: &mut Self::Context,
    ) -> Self::Result {
        MessageResult(requests.into_iter().map(|request| self.answer(request, ctx)).collect())
    }
}

impl Handler<ReleaseTicket> for LoadBalancer {
    type Result = ();

    fn handle(&mut self, ReleaseTicket { slot, sample }: ReleaseTicket, _: &mut Self::Context) {
        let now = self.now();
        self.table.finished(slot, sample, now);
        if self.waiters > 0 {
            self.serve_slot(slot);
        }
    }
}

impl Handler<ProviderStatusChanged> for LoadBalancer {
    type Result = ();

    fn handle(&mut self, status: ProviderStatusChanged, ctx: &mut Self::Context) {
        let ProviderStatusChanged { tenure, status } = status;
        let id = status.provider_id.clone();
        let slot = self.table.find(&id);
        let provider_handle = slot.and_then(|slot| self.table.handle_mut(slot));
        let Some(provider_handle) = provider_handle
            .filter(|provider_handle| provider_handle.tenure == tenure && !provider_handle.is_lost)
        else {
            return;
        };
        let serving = status.state == ProviderState::Serving;
        let health = if serving { status.health } else { HealthStatus::Unknown };
        provider_handle.status = status;
        provider_handle.has_served |= serving;
        provider_handle.last_pong = Instant::now();
        self.table.set_available(&id, serving);
        self.table.set_health(&id, health);
        self.review_lines(ctx);
    }
}

impl Handler<CancelTasks> for LoadBalancer {
    type Result = ();

    fn handle(&mut self, CancelTasks(tasks): CancelTasks, _: &mut Self::Context) {
        self.leave_line(&tasks);
        for (_, entry) in self.table.iter() {
            if entry.in_flight() > 0 {
                entry.handle.supervisor.do_send(CancelCalls(tasks.as_ref().clone()));
            }
        }
    }
}
