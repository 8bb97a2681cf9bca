//! One workflow while it runs: its tasks' states, its events, and what is still to be written.
//!
//! Kept by the `ExecutionEngine`. Pure: the time comes in, what to write and to publish comes out.
//!
//! Invariants: a task steps only as the table of [`TaskStatus`] allows; sequences grow by one; an
//! event of an outcome is released only when [`committed`](Run::committed) says that it is stored.

mod ending;
mod failure;
mod interruption;
mod measure;
mod refusal;
mod resolution;
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
use serde_json::Value;

use crate::{
    error::{ErrorCode, TaskError},
    event::{Event, EventData, SubscriberCount},
    id::{ProviderId, WorkflowId},
    plan::Plan,
    provider::Outcome,
    store::{Epoch, NewWorkflow, WorkflowChange, WorkflowState},
    task::{ImpossibleTransition, TaskRecord, TaskStatus, WAITS},
    workflow::{WorkflowRecord, WorkflowStatus},
};

pub use failure::Interruption;
pub use measure::NESTING_MAX;
pub use refusal::Refused;
pub use resolution::Resolved;
pub use unstored::{Unstored, UnstoredLimits};

#[cfg(test)]
use interruption::CUT_OFF_MAX;

use measure::{NotAResult, error_size, result_size, storable};

/// Results of more bytes are read from the store by whoever asks, once they are in it: tens of
/// thousands of them in one workflow would else fill the memory until its end.
const KEPT_MAX: u64 = 16 * 1024;

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

/// What the end of an attempt means for its task.
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
    /// The workflow began since the last write, which is told with the next one.
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
    /// Completed tasks whose results the write under way holds, where the store can give them back.
    storing: Vec<u32>,
    results: Results,
    /// Attempts whose outcome the store has refused once: what is written of them now is our own.
    refused: BTreeSet<(u32, u32)>,
}

/// Where the large results of stored tasks are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Results {
    /// All of them here.
    Here,
    /// All of them here so far; each is dropped once it is stored.
    DroppedWhenStored,
    /// Some of them in the store only.
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
        // The submission and one for each task that is ready, at least. In a store in memory the
        // same list goes on to grow: a small one is given room for the whole course.
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

    /// What it does.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// Its id.
    pub fn id(&self) -> &WorkflowId {
        &self.record.id
    }

    /// Where it stands now, committed or not.
    pub fn record(&self) -> &WorkflowRecord {
        &self.record
    }

    /// Where it ended, by value.
    pub fn into_record(self) -> WorkflowRecord {
        self.record
    }

    /// The state of a task.
    pub fn task(&self, index: u32) -> &TaskRecord {
        &self.record.tasks[index as usize]
    }

    /// What attempts watch.
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

    // ---- steps of a task ----

    /// A task's dependencies have settled: it waits for its turn.
    ///
    /// # Errors
    /// [`ImpossibleTransition`] as the table says.
    pub fn queue(&mut self, index: u32, now: DateTime<Utc>) -> Result<(), ImpossibleTransition> {
        self.step(index, TaskStatus::Queued)?;
        let task = &mut self.record.tasks[index as usize];
        task.due_at = None;
        let task_id = task.id.clone();
        let priority = self.plan.spec.tasks[index as usize].priority;
        self.log(now, EventData::TaskQueued { task_id, priority });
        Ok(())
    }

    /// An attempt begins; its number comes back.
    ///
    /// # Errors
    /// [`ImpossibleTransition`] as the table says.
    pub fn start(
        &mut self,
        index: u32,
        provider_id: ProviderId,
        now: DateTime<Utc>,
    ) -> Result<u32, ImpossibleTransition> {
        self.step(index, TaskStatus::Executing)?;
        if self.record.started_at.is_none() {
            self.record.started_at = Some(now);
            self.begun = true;
            self.log(now, EventData::WorkflowStarted {});
        }
        if self.record.status == WorkflowStatus::Pending {
            self.record.status = WorkflowStatus::Running;
            self.begun = true;
        }
        let call = self.plan.tasks[index as usize].capability();
        self.waits_no_more(index);
        let task = &mut self.record.tasks[index as usize];
        task.attempts += 1;
        task.started_at = Some(now);
        task.provider_id = Some(provider_id.clone());
        let (task_id, attempt) = (task.id.clone(), task.attempts);
        self.log(now, EventData::TaskStarted { task_id, call, attempt, provider_id });
        Ok(attempt)
    }

    /// A queued task waits for providers that are all down, `reason` says why: written down, so that
    /// others see it. True if that is news.
    pub fn wait_for_provider(
        &mut self,
        index: u32,
        attempt: u32,
        reason: &Arc<str>,
        now: DateTime<Utc>,
    ) -> bool {
        let task = &mut self.record.tasks[index as usize];
        if task.status != TaskStatus::Queued || task.attempts + 1 != attempt {
            return false;
        }
        let message = format!("{WAITS}{reason}");
        task.error = Some(Arc::new(TaskError::new(ErrorCode::ProviderNotAvailable, message)));
        let task_id = task.id.clone();
        self.waits.insert(index);
        self.set_dirty(index);
        self.log(now, EventData::TaskWaiting { task_id, reason: Arc::clone(reason) });
        true
    }

    /// True for a task that is written down as waiting for a provider.
    pub fn waits_for_provider(&self, index: u32) -> bool {
        self.waits.contains(&index)
    }

    /// What was written down of a wait is over.
    fn waits_no_more(&mut self, index: u32) {
        if self.waits.remove(&index) {
            self.record.tasks[index as usize].error = None;
            self.set_dirty(index);
        }
    }

    /// An attempt goes to another provider, because the one it was to go to broke down before its
    /// call began.
    pub fn hand_over(&mut self, index: u32, provider_id: ProviderId) {
        self.record.tasks[index as usize].provider_id = Some(provider_id);
    }

    /// Writes a started task down before its call, for a method that must not run twice.
    pub fn save_start(&mut self, index: u32) {
        self.set_dirty(index);
        self.workflow_dirty = true;
    }

    /// Has a start written that has taken so long that others are to see it.
    pub fn record_start(&mut self, index: u32) {
        self.set_dirty(index);
    }

    /// An attempt ended. `random` (0..1) draws the jitter of a retry; `duration` is of the call.
    pub fn finish(
        &mut self,
        index: u32,
        attempt: u32,
        outcome: Result<Outcome, TaskError>,
        duration: Option<Duration>,
        now: DateTime<Utc>,
        random: f64,
    ) -> AttemptOutcome {
        let task = &mut self.record.tasks[index as usize];
        let running = match task.status {
            TaskStatus::Executing => task.attempts == attempt,
            // Refused before its call began: parameters, resources, no provider.
            TaskStatus::Queued => task.attempts + 1 == attempt,
            _ => false,
        };
        if !running {
            return AttemptOutcome::Stale;
        }
        if task.status == TaskStatus::Queued {
            task.attempts = attempt;
        }
        self.waits.remove(&index);
        task.duration = duration.map(|span| span.as_secs_f64());
        let has_effect =
            task.status == TaskStatus::Executing && self.plan.tasks[index as usize].has_effect();
        let outcome = outcome.and_then(|Outcome { value, .. }| {
            let size = result_size(&value, self.result_max).map_err(NotAResult::into_error)?;
            Ok((value, size))
        });
        match outcome {
            Ok((value, size)) => {
                self.unstored += Unstored::of_call(has_effect, size);
                self.complete(index, value, size, now);
                AttemptOutcome::Settled(true)
            }
            Err(error) => {
                let error = storable(error, self.result_max);
                self.unstored += Unstored::of_call(has_effect, error_size(&error));
                self.fail_attempt(index, error, now, random)
            }
        }
    }

    fn complete(&mut self, index: u32, value: Arc<Value>, size: u64, now: DateTime<Utc>) {
        let task = &mut self.record.tasks[index as usize];
        task.result = Some(value);
        task.error = None;
        let event = EventData::TaskCompleted {
            task_id: task.id.clone(),
            execution_time: task.duration.unwrap_or(0.0),
            provider_id: task.provider_id.clone(),
            result_size: size,
        };
        self.settle(index, TaskStatus::Completed, now);
        self.log(now, event);
    }

    /// A task ends with an error and is not tried again. No effect on a settled one.
    pub fn fail(&mut self, index: u32, error: TaskError, now: DateTime<Utc>) {
        if self.record.tasks[index as usize].status.is_settled() {
            return;
        }
        let task = &self.record.tasks[index as usize];
        let event = EventData::TaskFailed {
            task_id: task.id.clone(),
            error_code: error.code,
            error_message: error.message.as_ref().into(),
            is_retryable: error.is_retryable(),
            attempt_count: task.attempts,
            max_retries: self.plan.tasks[index as usize].retry.max_attempts.saturating_sub(1),
        };
        self.record.tasks[index as usize].error = Some(Arc::new(error));
        self.settle(index, TaskStatus::Failed, now);
        self.log(now, event);
    }

    /// A task's whole time ran out, pauses included.
    pub fn time_out(&mut self, index: u32, limit: Duration, now: DateTime<Utc>) {
        let task = &self.record.tasks[index as usize];
        let event = EventData::TaskTimeout {
            task_id: task.id.clone(),
            scope: "task".into(),
            limit: limit.as_secs_f64(),
            attempt_count: task.attempts,
        };
        let mut message = format!(
            "task `{}` did not end within {limit:?} over all its attempts; raise `total_timeout`",
            task.id
        );
        if let Some(wait) = task.error.as_ref().filter(|_| self.waits.contains(&index)) {
            message = format!("{message}; it still {}", wait.message);
        }
        self.log(now, event);
        self.fail(index, TaskError::new(ErrorCode::TaskTimeout, message).retryable(false), now);
        self.signal.raise();
    }

    /// A task is skipped because task `because` did not complete.
    pub fn skip(&mut self, index: u32, because: u32, now: DateTime<Utc>) {
        if self.record.tasks[index as usize].status.is_settled() {
            return;
        }
        let failed_task_id = self.record.tasks[because as usize].id.clone();
        let error = self.dependency_error(because);
        let task = &mut self.record.tasks[index as usize];
        let event = EventData::TaskSkipped { task_id: task.id.clone(), failed_task_id };
        task.error = Some(Arc::new(error));
        self.settle(index, TaskStatus::Skipped, now);
        self.log(now, event);
    }

    /// A task fails because task `because` did not complete.
    pub fn fail_dependency(&mut self, index: u32, because: u32, now: DateTime<Utc>) {
        let error = self.dependency_error(because);
        self.fail(index, error, now);
    }

    fn dependency_error(&self, because: u32) -> TaskError {
        let task = &self.record.tasks[because as usize];
        TaskError::new(
            ErrorCode::TaskDependencyFailed,
            format!("needs task `{}`, which is {}", task.id, task.status),
        )
        .with_data(serde_json::json!({ "failed_task_id": task.id }))
    }

    /// Stops one task; true when it was not settled before.
    pub fn cancel_task(&mut self, index: u32, reason: &Arc<str>, now: DateTime<Utc>) -> bool {
        if self.record.tasks[index as usize].status.is_settled() {
            return false;
        }
        let task = &mut self.record.tasks[index as usize];
        let event =
            EventData::TaskCancelled { task_id: task.id.clone(), reason: Arc::clone(reason) };
        let message = format!("task `{}` was cancelled: {reason}", task.id);
        task.error = Some(Arc::new(TaskError::new(ErrorCode::TaskCancelled, message)));
        self.settle(index, TaskStatus::Cancelled, now);
        self.signal.raise();
        self.log(now, event);
        true
    }

    /// After a crash: the task had begun, and must not run twice.
    pub fn outcome_unknown(&mut self, index: u32, now: DateTime<Utc>) {
        let task = &mut self.record.tasks[index as usize];
        if !task.status.can_become(TaskStatus::OutcomeUnknown) {
            return;
        }
        task.status = TaskStatus::OutcomeUnknown;
        let event = EventData::TaskOutcomeUnknown {
            task_id: task.id.clone(),
            attempt_count: task.attempts,
        };
        self.set_dirty(index);
        self.log(now, event);
    }

    fn step(&mut self, index: u32, to: TaskStatus) -> Result<(), ImpossibleTransition> {
        let task = &mut self.record.tasks[index as usize];
        task.status = task.status.step(to)?;
        Ok(())
    }

    fn settle(&mut self, index: u32, to: TaskStatus, now: DateTime<Utc>) {
        let task = &mut self.record.tasks[index as usize];
        debug_assert!(task.status.can_become(to), "{} to {to}", task.status);
        task.status = to;
        task.completed_at = Some(now);
        task.due_at = None;
        self.waits.remove(&index);
        self.unsettled -= 1;
        if matches!(to, TaskStatus::Failed | TaskStatus::Cancelled) {
            self.first_failure.get_or_insert(index);
        }
        self.set_dirty(index);
    }

    // ---- what leaves it ----

    fn log(&mut self, now: DateTime<Utc>, data: EventData) {
        // A clock that was set right meanwhile must not turn the order of events round.
        let now = now.max(self.logged_at);
        self.logged_at = now;
        self.record.last_sequence += 1;
        let event = Event {
            timestamp: now,
            workflow_id: Some(self.record.id.clone()),
            sequence: self.record.last_sequence,
            data,
        };
        if !self.subscribers.is_empty() {
            self.unpublished.push(event.clone());
        }
        self.unsaved.push(event);
    }

    fn set_dirty(&mut self, index: u32) {
        // The same task twice is sorted out when the change is taken.
        self.dirty.push(index);
    }

    /// What a store writes first, with all that has become of it by now. That a task is in line or
    /// runs is not worth a row, here as later: after a restart it is put in line anew.
    pub fn take_new(&mut self) -> NewWorkflow {
        self.outstanding = true;
        self.storing = std::mem::take(&mut self.dirty);
        self.workflow_dirty = false;
        self.begun = false;
        let mut record = self.record.clone();
        for task in &mut record.tasks {
            match task.status {
                TaskStatus::Queued => task.status = TaskStatus::Pending,
                // From the second attempt on, those before it are to count.
                TaskStatus::Executing if task.attempts == 1 => {
                    let (id, name) = (task.id.clone(), Arc::clone(&task.name));
                    *task = TaskRecord::pending(task.index, id, name);
                }
                _ => {}
            }
        }
        NewWorkflow {
            record,
            events: std::mem::take(&mut self.unsaved),
            epoch: self.epoch,
            needs: self.plan.needs.clone(),
        }
    }

    /// What [`take_new`](Self::take_new) gave was not stored, and is to be given again.
    pub fn was_not_stored(&mut self, mut events: Vec<Event>) {
        events.append(&mut self.unsaved);
        self.unsaved = events;
    }

    /// What changed since the last time, if that must be written. Until
    /// [`committed`](Self::committed), the next call answers nothing.
    pub fn take_change(&mut self) -> Option<WorkflowChange> {
        if self.outstanding || (self.dirty.is_empty() && !self.workflow_dirty) {
            return None;
        }
        self.outstanding = true;
        let mut tasks = std::mem::take(&mut self.dirty);
        tasks.sort_unstable();
        tasks.dedup();
        self.storing.clone_from(&tasks);
        let tasks = tasks.iter().map(|at| self.record.tasks[*at as usize].clone()).collect();
        // Its start alone is not worth a write, but must not be told a second time after a crash.
        let changed = std::mem::take(&mut self.workflow_dirty) | std::mem::take(&mut self.begun);
        let workflow = changed.then(|| WorkflowState {
            status: self.record.status,
            started_at: self.record.started_at,
            completed_at: self.record.completed_at,
            error: self.record.error.clone(),
        });
        Some(WorkflowChange {
            id: self.record.id.clone(),
            workflow,
            tasks,
            events: std::mem::take(&mut self.unsaved),
            last_sequence: self.record.last_sequence,
            epoch: self.epoch,
        })
    }

    /// What [`take_new`](Self::take_new) or [`take_change`](Self::take_change) gave is stored.
    pub fn committed(&mut self) {
        self.outstanding = false;
        let stored = std::mem::take(&mut self.storing);
        // What has ended is answered from here, with all that is still there.
        if self.results == Results::Here || self.is_settled() {
            return;
        }
        for index in stored {
            self.shed_result(index);
        }
    }

    /// Drops the large results of a run that was read from the store, where that is wished for.
    pub fn shed_stored_results(&mut self) {
        if self.results != Results::Here {
            for index in 0..u32::try_from(self.record.tasks.len()).unwrap_or(u32::MAX) {
                self.shed_result(index);
            }
        }
    }

    fn shed_result(&mut self, index: u32) {
        let result = &mut self.record.tasks[index as usize].result;
        if result.as_ref().is_some_and(|result| measure::is_larger(result, KEPT_MAX)) {
            *result = None;
            self.results = Results::Elsewhere;
        }
    }

    /// Events that may be told now, appended to `out`: all up to the last one stored, and those
    /// behind it too unless an outcome among them is still to be stored.
    pub fn release_events(&mut self, out: &mut Vec<Event>) {
        if self.outstanding {
            return;
        }
        if self.dirty.is_empty() && !self.workflow_dirty {
            out.append(&mut self.unpublished);
        } else {
            let stored = self.unsaved.first().map_or(u64::MAX, |event| event.sequence);
            let count = self.unpublished.partition_point(|event| event.sequence < stored);
            out.extend(self.unpublished.drain(..count));
        }
    }
}
