//! The decisions of the engine: which task runs when, what is written together, who is answered.
//!
//! Pure: time and random numbers are passed in, and what is to be done is returned as [`Effect`]s, in
//! order. The actor `ExecutionEngine` of `gleitzeit-actors` passes its messages on to [`Engine`], and
//! carries the effects out before it handles the next message.
//!
//! | part | decides |
//! |---|---|
//! | `Slots`, `EffectBudget` | which tasks may be queued and dispatched |
//! | `WriteBatcher`, [`SplitWrite`] | what is written together, and again |
//! | [`Replies`] | which caller is answered by which write |
//! | `Ownership`, `UnconfirmedSubmissions` | what this process may run |
//! | `Timers`, `LongStarts` | what is due when |
//!
//! Invariants: intake is bounded here and nowhere else; an outcome is published, and its dependents
//! start, only after it is stored; at most one write of new workflows and one of changes is under
//! way, so that the store sees the changes of a workflow in order.

mod active_run;
mod attempt;
mod claims;
mod commands;
mod dispatch;
mod effect;
mod effect_budget;
mod lease;
mod leasing;
mod long_starts;
mod outcomes;
mod recovery;
mod removal;
mod replies;
mod slots;
mod split_write;
mod stopping;
mod stored;
mod submission;
mod submit_outcome;
#[cfg(test)]
mod tests;

mod timers;
mod timing;
mod unconfirmed;
mod write_batch;
mod writing;

use std::{collections::HashMap, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use rustc_hash::FxHashMap;

use self::{
    active_run::ActiveRun, claims::Recoveries, effect_budget::EffectBudget, lease::Ownership,
    long_starts::LongStarts, removal::Removal, submission::Submissions, timers::Timers,
    unconfirmed::UnconfirmedSubmissions, write_batch::WriteBatcher,
};
use crate::{
    event::{Event, EventData, SubscriberCount},
    id::WorkflowId,
    metrics::ExecutionStats,
    plan::Draft,
    queue::ReadyQueue,
    random::Random,
    run::{Run, RunKey, TaskKey, UnstoredLimits},
    task::TaskStatus,
};

pub use self::{
    attempt::{DispatchedTask, TaskEnd, TaskStart},
    claims::{ClaimBudget, RecoverOptions, ResumeError, StoredWorkflow},
    commands::Ack,
    dispatch::DispatchBudget,
    effect::{Effect, Effects, Existed, LeaseBound, Notice, Reply, Settled, Step, TaskOutcome},
    replies::{Attached, Callers, Replies, Waiter},
    split_write::{AfterWrite, RejectedChange, SplitWrite, WriteOutcome, after_write},
    stopping::{EngineCounts, LeaseHealth, StopReport, stopped},
    stored::{
        Recovered, RecoveryProgress, StoredDraft, StoredDrafts, check_settled, read_stored,
        reopened,
    },
    submission::{PlannedWorkflow, Submission},
    submit_outcome::{
        AfterSubmit, NotStored, SubmitOutcomes, SubmitRetries, is_same_submission, unconfirmed,
    },
    unconfirmed::{CONFIRM_PAUSE, Confirmations, Unconfirmed, is_unconfirmable},
};

/// Time since the start of the engine, by a clock that never goes back.
pub type Moment = Duration;

/// The time, by both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// The time of day, for what is stored.
    pub wall: DateTime<Utc>,
    /// For pauses and limits.
    pub moment: Moment,
}

/// How the engine runs.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Tasks executing at once; at least 1.
    pub max_concurrent_tasks: usize,
    /// Tasks of unsettled workflows; more are rejected.
    pub max_queued_tasks: u64,
    /// Bytes of JSON that the result of a task may have.
    pub max_result_bytes: u64,
    /// Bytes of outcomes that may wait for the store before dispatch pauses.
    pub max_unstored_bytes: u64,
    /// Dispatched tasks that may wait for resources or a provider before dispatch pauses.
    pub max_parked_tasks: usize,
    /// Seeds the jitter of retries.
    pub seed: u64,
    /// Names this process to people.
    pub owner: Arc<str>,
    /// How long a lease is good for without being renewed.
    pub lease_term: Duration,
    /// Claims stored workflows that no live process runs.
    pub takes_over: bool,
    /// The longest time between two polls for something to claim.
    pub sweep: Duration,
    /// The abilities of the store.
    pub store: StoreTraits,
    /// True to report [`Step`]s, for tests that end the process at them.
    pub reports_steps: bool,
}

/// The properties of the store that the engine decides by.
#[derive(Debug, Clone, Copy)]
pub struct StoreTraits {
    /// Several processes share it by leases.
    pub has_leases: bool,
    /// A write can fail, so that what is written is kept for another try.
    pub is_fallible: bool,
}

/// Whether work is accepted and dispatched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    /// No intake, no dispatch; running tasks end.
    Draining,
    /// The deadline has passed: calls were cut off, and what ended before it is still written.
    Flushing,
    Stopped,
}

/// The state of the engine, and its decisions.
#[derive(Debug)]
pub struct Engine<C: Callers> {
    config: EngineConfig,
    subscribers: SubscriberCount,
    random: Random,
    phase: Phase,
    runs: FxHashMap<RunKey, Box<ActiveRun<C>>>,
    ids: HashMap<WorkflowId, RunKey>,
    next_key: u64,
    ready: ReadyQueue<TaskKey>,
    in_flight: usize,
    parked: usize,
    /// Dispatched tasks that wait for providers that are all down.
    away: usize,
    /// Settled tasks on their way to the resolver and back.
    settling: usize,
    /// Tasks of the workflows that were accepted and are not settled.
    load: u64,
    is_full: bool,
    is_awake: bool,
    intake: Vec<(RunKey, Draft)>,
    finished: Vec<TaskEnd>,
    submissions: Submissions<C>,
    unconfirmed: UnconfirmedSubmissions,
    recoveries: Recoveries,
    ownership: Ownership,
    /// Workflows on their way back to the store, and the callers that wait for that.
    releasing: HashMap<WorkflowId, Vec<C::OnStored>>,
    long_starts: LongStarts,
    batcher: WriteBatcher,
    budget: EffectBudget,
    timers: Timers,
    stats: ExecutionStats,
    call_seconds: f64,
    calls: u64,
    effects: Effects<C>,
}

impl<C: Callers> Engine<C> {
    /// An engine without workflows. Events are kept for `subscribers` only while that is not empty.
    pub fn new(config: EngineConfig, subscribers: SubscriberCount) -> Self {
        let concurrent = config.max_concurrent_tasks.max(1) as u64;
        let limits = UnstoredLimits::new(concurrent, config.max_unstored_bytes);
        Self {
            random: Random::seeded(config.seed),
            budget: EffectBudget::new(limits),
            config,
            subscribers,
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
            is_full: false,
            is_awake: false,
            intake: Vec::new(),
            finished: Vec::new(),
            submissions: Submissions::default(),
            unconfirmed: UnconfirmedSubmissions::default(),
            recoveries: Recoveries::default(),
            ownership: Ownership::default(),
            releasing: HashMap::new(),
            long_starts: LongStarts::default(),
            batcher: WriteBatcher::default(),
            timers: Timers::default(),
            stats: ExecutionStats::default(),
            call_seconds: 0.0,
            calls: 0,
            effects: Effects::new(),
        }
    }

    /// The next thing to do; `None` once all is done. A call of another method may add more.
    pub fn next_effect(&mut self) -> Option<Effect<C>> {
        self.effects.pop_front()
    }

    /// Works off what arrived since the last time.
    pub fn process(&mut self, now: Now) {
        // First, so that what arrives while this batch is worked off wakes the engine again.
        self.is_awake = false;
        if !self.intake.is_empty() {
            // First, so that a submission waits for no batch of outcomes.
            self.effects.push_back(Effect::Plan(std::mem::take(&mut self.intake)));
        }
        self.finish_attempts(now);
        // Last: what ended in this batch has released its slots by now.
        self.effects.push_back(Effect::Dispatch);
    }

    fn new_key(&mut self) -> RunKey {
        self.next_key += 1;
        RunKey(self.next_key)
    }

    /// Has [`process`](Self::process) called after the messages that are queued now.
    fn wake(&mut self) {
        if !std::mem::replace(&mut self.is_awake, true) {
            // One message for all that arrives before it is handled: that is the batch.
            self.effects.push_back(Effect::Wake);
        }
    }

    fn publish(&mut self, events: Vec<Event>) {
        if !events.is_empty() {
            self.effects.push_back(Effect::Publish(events));
        }
    }

    fn publish_system(&mut self, data: EventData) {
        self.effects.push_back(Effect::PublishSystem(data));
    }

    /// Publishes the events of a run that need not wait for a write.
    fn publish_released(&mut self, key: RunKey) {
        let mut events = Vec::new();
        if let Some(active) = self.runs.get_mut(&key) {
            active.run.release_events(&mut events);
        }
        self.publish(events);
    }

    fn log(&mut self, notice: Notice) {
        self.effects.push_back(Effect::Log(notice));
    }

    fn step(&mut self, step: Step) {
        if self.config.reports_steps {
            self.effects.push_back(Effect::Step(step));
        }
    }

    /// Limits what a run may keep in memory.
    fn bound_memory(&self, run: &mut Run) {
        run.limit_results(self.config.max_result_bytes);
        // A store in memory holds the same results, and nothing is gained by dropping them. A batch
        // whose results are written into files needs all of them at its end.
        let file_access = run.plan().spec.file_access.as_ref();
        let is_written_out = file_access.is_some_and(|file_access| file_access.output.is_some());
        if self.config.store.is_fallible && !is_written_out {
            run.drop_stored_results();
        }
    }

    /// Calls with an effect begin while what ended before can be stored.
    fn update_gate(&mut self) {
        if let Some(is_blocked) = self.budget.gate_change(self.batcher.is_failing()) {
            // Only a change: the gate is read directly before each call, and set for each batch.
            self.effects.push_back(Effect::BlockEffects(is_blocked));
        }
    }

    fn end_calls(&mut self, tasks: Vec<TaskKey>) {
        if !tasks.is_empty() {
            self.effects.push_back(Effect::EndCalls(tasks));
        }
    }
}

fn under_way_of(key: RunKey, run: &Run) -> Vec<TaskKey> {
    let is_live = |status| matches!(status, TaskStatus::Queued | TaskStatus::Executing);
    let tasks = run.record().tasks.iter().filter(|task| is_live(task.status));
    tasks.map(|task| TaskKey { run: key, index: task.index }).collect()
}
