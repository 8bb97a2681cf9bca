//! Runs workflows: takes them in, dispatches their tasks, writes down and tells what happened.
//!
//! Asked by the runtime's handle; asks the `ProtocolRegistry`, the `DependencyResolver` and the
//! store through short free futures, and sends tasks into the `pipeline`. One message comes back
//! from there: `TasksFinished`.
//!
//! Everything is done in batches that grow with the load by themselves: what comes in while a
//! batch is under way forms the next one. So a lone task waits for nobody, and under load the
//! price of a message, a spawn and a commit is shared.
//!
//! Invariants: intake is bounded here and nowhere else; an outcome is told, and its dependents
//! start, only after it is stored; at most one write of new workflows and one of changes is under
//! way, so that the store sees a workflow's changes in order. Its state is the truth, so it is not
//! restarted after a panic: the system stops, and the next start recovers from the store.

mod admission;
mod control;
mod dispatch;
mod doubts;
mod effect_gate;
mod giving_up;
mod health;
mod long_starts;
mod ownership;
mod recovery;
mod refusal;
mod requests;
mod settlement;
#[cfg(test)]
mod tests;
mod timers;

use std::{
    collections::{HashMap, VecDeque},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use actix::prelude::*;
use chrono::{DateTime, Utc};
use gleitzeit_domain::{
    engine::TaskEnd,
    error::TaskError,
    event::{Event, EventData, SubscriberCount},
    id::WorkflowId,
    metrics::ExecutionStats,
    plan::Draft,
    problem::SubmitError,
    queue::ReadyQueue,
    random::Random,
    run::{Run, RunKey, TaskKey, UnstoredLimits},
    store::Store,
    workflow::WorkflowRecord,
};
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::sync::{mpsc, oneshot};

use crate::{
    addresses::ActorAddresses, clock::Clock, event_bus::Publish, follower::Follower,
    guarded_store::guarded, monitor::GetStats, pipeline::Route,
};

pub use crate::provider_supervisor::CallerSpan;
pub use control::{
    Cancel, CancelTask, Connect, EngineCounts, GetEngineCounts, GetWorkflow, IsIdle,
    ResolveUnknown, Shutdown, StopReport, Wait,
};
pub use health::{EngineHealth, GetHealth, LeaseHealth};
pub use ownership::OfferChanged;
pub use recovery::{Recover, Recovered, Reopen};

/// How the engine runs.
#[derive(Debug, Clone)]
pub struct EngineSettings {
    /// Tasks executing at once; at least 1.
    pub max_concurrent_tasks: usize,
    /// Tasks of unsettled workflows; more are refused with `QUEUE_FULL`.
    pub max_queued_tasks: u64,
    /// Bytes of JSON that the result of a task may have; a longer one fails its task.
    pub max_result_bytes: u64,
    /// Bytes of outcomes that may wait for the store before dispatch pauses.
    pub max_unstored_bytes: u64,
    /// Dispatched tasks that may wait for resources or a provider before dispatch pauses.
    pub max_parked_tasks: usize,
    /// Seeds the jitter of retries.
    pub seed: u64,
    /// Names this process to people who look at who holds which lease.
    pub owner: Arc<str>,
    /// How long its lease is good for without being renewed, where the store goes by time.
    pub lease_term: Duration,
    /// Claims stored workflows that no live process runs; otherwise it runs what is submitted here.
    pub takes_over: bool,
    /// The longest time between two looks for something to claim.
    pub sweep: Duration,
    /// Told the end of each workflow that asks for its results in files, after it is stored.
    pub results: Option<mpsc::UnboundedSender<Arc<WorkflowRecord>>>,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self {
            max_concurrent_tasks: 64,
            max_queued_tasks: 1_000_000,
            max_result_bytes: 64 * 1024 * 1024,
            max_unstored_bytes: 64 * 1024 * 1024,
            max_parked_tasks: 1_024,
            seed: 0,
            owner: "gleitzeit".into(),
            lease_term: Duration::from_secs(15),
            takes_over: false,
            sweep: Duration::from_mins(5),
            results: None,
        }
    }
}

/// Submits a workflow.
///
/// The answer comes through channels, not as the message's result: thousands of submissions in
/// flight would each cost a task of their own otherwise.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Submit {
    /// The workflow.
    pub draft: Draft,
    /// Told its id once it is stored, or why it is not.
    pub accepted: Option<oneshot::Sender<Result<WorkflowId, SubmitError>>>,
    /// Told its end.
    pub settled: Option<oneshot::Sender<WaitAnswer>>,
    /// Where it was submitted.
    pub span: CallerSpan,
}

/// The end of a workflow, or why it cannot be waited for.
pub type WaitAnswer = Result<Arc<WorkflowRecord>, TaskError>;

/// A caller that waits for the end of a workflow.
#[derive(Debug)]
struct Waiter {
    answer: oneshot::Sender<WaitAnswer>,
    /// True if large results may be left out.
    outline: bool,
}

impl Waiter {
    /// A caller that needs all results.
    fn whole(answer: oneshot::Sender<WaitAnswer>) -> Self {
        Self { answer, outline: false }
    }

    fn send(self, answer: WaitAnswer) {
        let _ = self.answer.send(answer);
    }
}

/// Told the state of a workflow; `None` sends it to the store.
type Reader = oneshot::Sender<Option<Arc<WorkflowRecord>>>;

/// Works off what has come in since the last time.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Pump;

/// A running workflow with what the engine needs around it.
#[expect(clippy::struct_excessive_bools, reason = "facts that do not exclude each other")]
#[derive(Debug)]
struct ActiveRun {
    run: Box<Run>,
    /// Tasks queued or dispatched, and how many may be.
    parallel: u32,
    parallel_max: u32,
    /// Ready tasks that wait for `parallel` to fall.
    backlog: VecDeque<u32>,
    /// Told the end.
    waiters: Vec<Waiter>,
    /// Told the state once it is stored.
    readers: Vec<Reader>,
    /// Told that what has changed by now is stored.
    acks: Vec<oneshot::Sender<()>>,
    timers: Vec<timers::TimerKey>,
    /// Beyond this many, rung ones are sorted out.
    timers_max: usize,
    /// When its time began.
    born: DateTime<Utc>,
    /// In the list of changed runs.
    touched: bool,
    /// Not stored yet: nothing of it is told, and what changes is written with it, or right behind.
    is_new: bool,
    /// The store refused it together with what has become of it: that is written behind it.
    is_bare: bool,
    /// Queued tasks of a new workflow that are not in line yet.
    first: Vec<u32>,
    /// What is to be queued behind them, once their outcome is stored.
    follows: Vec<u32>,
    /// Here to be changed by a person's word only: none of its tasks is run.
    held: Option<Held>,
    /// The process that ran it died, and may have been running what is ready.
    was_left_behind: bool,
    /// Tasks whose next start is stored before their call, for they may be what killed a process.
    saves_start: FxHashSet<u32>,
    /// Where it was submitted, if that was here.
    span: CallerSpan,
}

/// A workflow that waits for a person's word, or for that to be stored; then it is given up.
#[derive(Debug, Default)]
struct Held {
    was_asked: bool,
    /// Tasks that were settled by it, of which nobody knows yet what follows.
    settling: u32,
}

impl ActiveRun {
    fn new(run: Box<Run>) -> Self {
        let parallel_max = run.plan().spec.max_parallel_tasks.unwrap_or(u32::MAX);
        let born = run.record().created_at;
        Self {
            run,
            parallel: 0,
            parallel_max,
            backlog: VecDeque::new(),
            waiters: Vec::new(),
            readers: Vec::new(),
            acks: Vec::new(),
            timers: Vec::new(),
            timers_max: timers::TIMERS_KEPT,
            born,
            touched: false,
            is_new: false,
            is_bare: false,
            first: Vec::new(),
            follows: Vec::new(),
            held: None,
            was_left_behind: false,
            saves_start: FxHashSet::default(),
            span: None,
        }
    }
}

/// Whether work is taken in and dispatched.
#[derive(Debug)]
enum Phase {
    Running,
    /// No intake, no dispatch; running tasks end.
    Draining(oneshot::Sender<StopReport>),
    Stopped,
}

/// The actor. One per system, on the control arbiter.
pub struct ExecutionEngine {
    settings: EngineSettings,
    store: Arc<dyn Store>,
    follower: Follower,
    clock: Clock,
    random: Random,
    subscribers: SubscriberCount,
    addresses: Option<Rc<ActorAddresses>>,
    route: Option<Rc<Route>>,
    phase: Phase,
    runs: FxHashMap<RunKey, Box<ActiveRun>>,
    ids: HashMap<WorkflowId, RunKey>,
    next_key: u64,
    ready: ReadyQueue<TaskKey>,
    in_flight: usize,
    parked: usize,
    /// Dispatched tasks that wait for providers that are down.
    away: usize,
    /// Settled tasks on their way to the resolver and back.
    settling: usize,
    /// Tasks of the workflows that were taken in and are not settled.
    load: u64,
    refusing: bool,
    pumping: bool,
    intake: Vec<(RunKey, Draft)>,
    finished: Vec<TaskEnd>,
    admission: admission::Admission,
    recoveries: recovery::Recoveries,
    ownership: ownership::Ownership,
    giving_up: giving_up::GivingUp,
    long_starts: long_starts::LongStarts,
    writer: settlement::Writer,
    effects: effect_gate::Effects,
    timers: timers::Timers,
    stats: ExecutionStats,
    call_seconds: f64,
    calls: u64,
}

impl ExecutionEngine {
    /// An engine without workflows. It needs [`Connect`] before anything else.
    /// `audience` is that of the event bus.
    pub fn new(
        settings: EngineSettings,
        store: Arc<dyn Store>,
        follower: Follower,
        subscribers: SubscriberCount,
        clock: Clock,
    ) -> Self {
        let concurrent = settings.max_concurrent_tasks.max(1) as u64;
        let limits = UnstoredLimits::new(concurrent, settings.max_unstored_bytes);
        Self {
            effects: effect_gate::Effects::new(store.leases().is_some(), limits),
            random: Random::seeded(settings.seed),
            settings,
            store: guarded(store),
            follower,
            clock,
            subscribers,
            addresses: None,
            route: None,
            phase: Phase::Running,
            runs: FxHashMap::default(),
            ids: HashMap::new(),
            next_key: 0,
            ready: ReadyQueue::new(),
            in_flight: 0,
            parked: 0,
            away: 0,
            settling: 0,
            load: 0,
            refusing: false,
            pumping: false,
            intake: Vec::new(),
            finished: Vec::new(),
            admission: admission::Admission::default(),
            recoveries: recovery::Recoveries::default(),
            ownership: ownership::Ownership::default(),
            giving_up: giving_up::GivingUp::default(),
            long_starts: long_starts::LongStarts::default(),
            writer: settlement::Writer::default(),
            timers: timers::Timers::default(),
            stats: ExecutionStats::default(),
            call_seconds: 0.0,
            calls: 0,
        }
    }

    fn addresses(&self) -> &Rc<ActorAddresses> {
        self.addresses.as_ref().expect("the address catalog comes before any other message")
    }

    /// What a run may keep in memory.
    fn bound_memory(&self, run: &mut Run) {
        run.limit_results(self.settings.max_result_bytes);
        // A store in memory holds the same results, and nothing is gained by dropping them.
        // Who writes the results of a batch into files needs all of them at its end.
        let file_access = run.plan().spec.file_access.as_ref();
        let is_written_out = file_access.is_some_and(|file_access| file_access.output.is_some());
        if self.store.is_fallible() && !is_written_out {
            run.drop_stored_results();
        }
    }

    fn new_key(&mut self) -> RunKey {
        self.next_key += 1;
        RunKey(self.next_key)
    }

    /// Sees to a [`Pump`] behind the messages that are queued now.
    fn pump_soon(&mut self, ctx: &Context<Self>) {
        if !self.pumping {
            self.pumping = true;
            ctx.address().do_send(Pump);
        }
    }

    fn publish(&self, events: Vec<Event>) {
        if !events.is_empty() {
            self.addresses().bus.do_send(Publish { events });
        }
    }

    fn publish_loose(&self, data: EventData) {
        self.addresses().bus.do_send(crate::system_event(self.clock.now(), data));
    }
}

impl Actor for ExecutionEngine {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(crate::MAILBOX);
    }
}

impl Supervised for ExecutionEngine {}

impl Handler<Pump> for ExecutionEngine {
    type Result = ();

    fn handle(&mut self, _: Pump, ctx: &mut Self::Context) {
        self.pumping = false;
        self.admit(ctx);
        self.finish_attempts(ctx);
        self.dispatch(ctx);
    }
}

impl Handler<GetStats> for ExecutionEngine {
    type Result = MessageResult<GetStats>;

    fn handle(&mut self, _: GetStats, _: &mut Self::Context) -> Self::Result {
        #[expect(clippy::cast_precision_loss, reason = "a mean over a count of calls")]
        let mean = if self.calls == 0 { 0.0 } else { self.call_seconds / self.calls as f64 };
        MessageResult(ExecutionStats {
            average_task_duration: mean,
            workflows_active: self.runs.len() as u64,
            tasks_queued: self.ready.len() as u64
                + self.runs.values().map(|active| active.backlog.len() as u64).sum::<u64>(),
            tasks_in_flight: self.in_flight as u64,
            ..self.stats
        })
    }
}
