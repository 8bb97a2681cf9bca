//! One workflow while it runs: its tasks' states, its events, and what is still to be written.
//!
//! Kept by the `ExecutionEngine`. Pure: the time comes in, what to write and to publish comes out.
//!
//! Invariants: a task changes its status only as the table of [`TaskStatus`] allows; sequences grow
//! by one; an event of an outcome is released only after [`committed`](Run::committed) confirms
//! that it is stored.

mod changes;
mod decided;
mod ending;
mod failure;
mod interruption;
mod measure;
mod refusal;
mod resolution;
mod steps;
#[cfg(test)]
mod tests;
mod unstored;

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};

use crate::{
    event::{Event, EventData, SubscriberCount},
    id::WorkflowId,
    plan::Plan,
    store::Epoch,
    task::{TaskRecord, TaskStatus},
    workflow::{WorkflowRecord, WorkflowStatus},
};

pub use decided::DecidedCounts;
pub use failure::Interruption;
pub use measure::NESTING_MAX;
pub(crate) use measure::check_value;
pub use refusal::Refused;
pub use resolution::Resolved;
pub use unstored::{Unstored, UnstoredLimits};

#[cfg(test)]
use interruption::CUT_OFF_MAX;

/// Names a running workflow within this process; never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunKey(pub u64);

/// Names one task of a running workflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskKey {
    /// The workflow.
    pub run: RunKey,
    /// The task's place in it.
    pub index: u32,
}

/// Tells attempts under way that something of their workflow was cancelled or interrupted.
#[derive(Debug, Default)]
pub struct CancelSignal(AtomicU32);

impl CancelSignal {
    /// Grows with every cancellation and interruption.
    pub fn epoch(&self) -> u32 {
        self.0.load(Ordering::Acquire)
    }

    fn raise(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

/// The effect of the end of an attempt on its task.
#[derive(Debug, Clone, PartialEq)]
pub enum AttemptOutcome {
    /// The task is settled; true when it completed.
    Settled(bool),
    /// It is to be tried again after this pause.
    Retry(Duration),
    /// The task was settled before, or this is an older attempt: nothing changed.
    Stale,
}

/// Why tasks are stopped before their end.
#[derive(Debug, Clone, PartialEq)]
pub enum StopCause {
    /// Someone asked.
    Cancelled {
        /// In their words.
        reason: Arc<str>,
    },
    /// The workflow's time ran out.
    TimedOut {
        /// The limit.
        limit: Duration,
    },
}

/// One workflow while it runs.
#[derive(Debug)]
pub struct Run {
    plan: Arc<Plan>,
    record: WorkflowRecord,
    unsettled: u32,
    signal: Arc<CancelSignal>,
    dirty: Vec<u32>,
    workflow_dirty: bool,
    /// True if the workflow started since the last write; the next write includes it.
    begun: bool,
    unsaved: Vec<Event>,
    unpublished: Vec<Event>,
    subscribers: SubscriberCount,
    outstanding: bool,
    first_failure: Option<u32>,
    /// Queued tasks that are written down as waiting for a provider.
    waits: BTreeSet<u32>,
    epoch: Option<Epoch>,
    /// The longest result that is taken, in bytes of JSON.
    result_max: u64,
    /// The time of the latest event.
    logged_at: DateTime<Utc>,
    /// Ended calls since the last write was taken.
    unstored: Unstored,
    /// Completed tasks whose results are in the write in progress, if the store can return them.
    storing: Vec<u32>,
    results: Results,
    /// Attempts whose outcome the store has refused once: what is written of them now is our own.
    refused: BTreeSet<(u32, u32)>,
}

/// The location of the large results of stored tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Results {
    /// All of them here.
    Here,
    /// All of them here so far; each is dropped once it is stored.
    DroppedWhenStored,
    /// Some results are in the store only.
    Elsewhere,
}

impl Run {
    /// A workflow that was accepted at `now`; nothing is ready yet.
    /// Events are kept for `audience` only while that is not empty.
    pub fn new(plan: Arc<Plan>, subscribers: SubscriberCount, now: DateTime<Utc>) -> Self {
        let tasks = plan
            .tasks
            .iter()
            .zip(0_u32..)
            .map(|(task, index)| {
                TaskRecord::pending(index, task.id.clone(), Arc::clone(&task.name))
            })
            .collect();
        let record = WorkflowRecord {
            id: plan.id.clone(),
            name: plan.name.clone(),
            status: WorkflowStatus::Pending,
            created_at: now,
            started_at: None,
            completed_at: None,
            error: None,
            last_sequence: 0,
            spec: Arc::clone(&plan.spec),
            tasks,
        };
        let mut run = Self::resume(plan, subscribers, record);
        run.outstanding = true;
        // The submission and at least one event for each ready task. In a store in memory the same
        // list keeps growing: a small one reserves its whole course.
        let tasks = run.record.tasks.len();
        run.unsaved.reserve(if tasks <= 4 { 3 * tasks + 3 } else { tasks + 2 });
        run.log(
            now,
            EventData::WorkflowSubmitted {
                name: Arc::clone(&run.record.name),
                task_count: u32::try_from(run.record.tasks.len()).unwrap_or(u32::MAX),
            },
        );
        run
    }

    /// A workflow as a store remembers it.
    pub fn resume(plan: Arc<Plan>, subscribers: SubscriberCount, record: WorkflowRecord) -> Self {
        let open = record.tasks.iter().filter(|task| !task.status.is_settled()).count();
        let first_failure = record
            .tasks
            .iter()
            .find(|task| matches!(task.status, TaskStatus::Failed | TaskStatus::Cancelled))
            .map(|task| task.index);
        Self {
            plan,
            record,
            unsettled: u32::try_from(open).unwrap_or(u32::MAX),
            signal: Arc::default(),
            dirty: Vec::new(),
            workflow_dirty: false,
            begun: false,
            unsaved: Vec::new(),
            unpublished: Vec::new(),
            subscribers,
            outstanding: false,
            first_failure,
            waits: BTreeSet::new(),
            epoch: None,
            result_max: u64::MAX,
            logged_at: DateTime::UNIX_EPOCH,
            unstored: Unstored::default(),
            storing: Vec::new(),
            results: Results::Here,
            refused: BTreeSet::new(),
        }
    }

    /// Bounds the results of its tasks, in bytes of JSON. A longer one fails its task before the
    /// store is asked, which would refuse it for ever.
    pub fn limit_results(&mut self, bytes: u64) {
        self.result_max = bytes;
    }

    /// Large results are dropped from memory once they are stored; for a store that can be read.
    pub fn drop_stored_results(&mut self) {
        self.results = Results::DroppedWhenStored;
    }

    /// True when the record here lacks results that the store has.
    pub fn is_lean(&self) -> bool {
        self.results == Results::Elsewhere
    }

    /// Ended calls whose outcome no write has taken yet.
    pub fn unstored(&self) -> Unstored {
        self.unstored
    }

    /// The same, for the write that takes them now.
    pub fn take_unstored(&mut self) -> Unstored {
        std::mem::take(&mut self.unstored)
    }

    /// The lease that it belongs to; what is written of it from now on bears this.
    pub fn belongs_to(&mut self, epoch: Option<Epoch>) {
        self.epoch = epoch;
    }

    /// The lease that it belongs to.
    pub fn epoch(&self) -> Option<Epoch> {
        self.epoch
    }

    /// Moves every time in it, for a clock that was found to be wrong before it was stored.
    pub fn shift(&mut self, by: TimeDelta) {
        let moved = |at: &mut DateTime<Utc>| *at = at.checked_add_signed(by).unwrap_or(*at);
        moved(&mut self.record.created_at);
        moved(&mut self.logged_at);
        for task in &mut self.record.tasks {
            let times = [&mut task.started_at, &mut task.completed_at, &mut task.due_at];
            times.into_iter().flatten().for_each(moved);
        }
        let workflow = [&mut self.record.started_at, &mut self.record.completed_at];
        workflow.into_iter().flatten().for_each(moved);
        let events = self.unsaved.iter_mut().chain(&mut self.unpublished);
        events.for_each(|event| moved(&mut event.timestamp));
    }

    /// The plan.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// The id.
    pub fn id(&self) -> &WorkflowId {
        &self.record.id
    }

    /// The current record, committed or not.
    pub fn record(&self) -> &WorkflowRecord {
        &self.record
    }

    /// The final record, by value.
    pub fn into_record(self) -> WorkflowRecord {
        self.record
    }

    /// The state of a task.
    pub fn task(&self, index: u32) -> &TaskRecord {
        &self.record.tasks[index as usize]
    }

    /// True while this attempt of a task executes.
    pub fn is_executing(&self, index: u32, attempt: u32) -> bool {
        let task = self.task(index);
        task.status == TaskStatus::Executing && task.attempts == attempt
    }

    /// The signal that attempts watch.
    pub fn signal(&self) -> &Arc<CancelSignal> {
        &self.signal
    }

    /// Makes attempts that have not begun their call ask first whether they are still wanted.
    pub fn interrupt(&self) {
        self.signal.raise();
    }

    /// Tasks that are not settled.
    pub fn unsettled(&self) -> u32 {
        self.unsettled
    }

    /// True when the workflow is settled.
    pub fn is_settled(&self) -> bool {
        self.record.status.is_settled()
    }

    /// True when something waits to be written, or is being written.
    pub fn is_uncommitted(&self) -> bool {
        self.outstanding || self.workflow_dirty || !self.dirty.is_empty()
    }

    /// True when it may be forgotten: settled, and all of it written.
    pub fn is_done(&self) -> bool {
        self.is_settled() && !self.is_uncommitted()
    }
}
