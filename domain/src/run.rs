//! One workflow while it runs: its tasks' states, its events, and what is still to be written.
//!
//! Kept by the `ExecutionEngine`. Pure: the time comes in, what to write and to publish comes out.
//!
//! Invariants: a task steps only as the table of [`TaskStatus`] allows; sequences grow by one; an
//! event of an outcome is released only when [`committed`](Run::committed) says that it is stored.

use std::{
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
    event::{Audience, Event, EventData},
    id::{ProviderId, WorkflowId},
    plan::Plan,
    provider::Outcome,
    retry::RetryPolicy,
    store::{NewWorkflow, WorkflowChange, WorkflowState},
    task::{ImpossibleTransition, TaskRecord, TaskStatus},
    workflow::{WorkflowRecord, WorkflowStatus},
};

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
pub enum Verdict {
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
    executing: u32,
    signal: Arc<CancelSignal>,
    dirty: Vec<u32>,
    workflow_dirty: bool,
    unsaved: Vec<Event>,
    unpublished: Vec<Event>,
    audience: Audience,
    outstanding: bool,
    first_failure: Option<u32>,
}

impl Run {
    /// A workflow that was accepted at `now`; nothing is ready yet.
    /// Events are kept for `audience` only while that is not empty.
    pub fn new(plan: Arc<Plan>, audience: Audience, now: DateTime<Utc>) -> Self {
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
        let mut run = Self::resume(plan, audience, record);
        // The submission and one for each task that is ready, at least.
        run.unsaved.reserve(run.record.tasks.len() + 2);
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
    pub fn resume(plan: Arc<Plan>, audience: Audience, record: WorkflowRecord) -> Self {
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
            executing: 0,
            signal: Arc::default(),
            dirty: Vec::new(),
            workflow_dirty: false,
            unsaved: Vec::new(),
            unpublished: Vec::new(),
            audience,
            outstanding: false,
            first_failure,
        }
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
        self.executing += 1;
        if self.record.started_at.is_none() {
            self.record.started_at = Some(now);
            self.log(now, EventData::WorkflowStarted {});
        }
        if self.record.status == WorkflowStatus::Pending {
            self.record.status = WorkflowStatus::Running;
        }
        let call = self.plan.tasks[index as usize].capability();
        let task = &mut self.record.tasks[index as usize];
        task.attempts += 1;
        task.started_at = Some(now);
        task.provider_id = Some(provider_id.clone());
        let (task_id, attempt) = (task.id.clone(), task.attempts);
        self.log(now, EventData::TaskStarted { task_id, call, attempt, provider_id });
        Ok(attempt)
    }

    /// An attempt goes to another provider, because the one it was to go to broke down before its
    /// call began.
    pub fn hand_over(&mut self, index: u32, provider_id: ProviderId) {
        self.record.tasks[index as usize].provider_id = Some(provider_id);
    }

    /// Writes a started task down before its call, for a method that must not run twice.
    pub fn save_start(&mut self, index: u32) {
        self.mark(index);
        self.workflow_dirty = true;
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
    ) -> Verdict {
        let task = &mut self.record.tasks[index as usize];
        let running = match task.status {
            TaskStatus::Executing => task.attempts == attempt,
            // Refused before its call began: parameters, resources, no provider.
            TaskStatus::Queued => task.attempts + 1 == attempt,
            _ => false,
        };
        if !running {
            return Verdict::Stale;
        }
        if task.status == TaskStatus::Queued {
            task.attempts = attempt;
        }
        task.duration = duration.map(|span| span.as_secs_f64());
        match outcome {
            Ok(outcome) => {
                self.complete(index, outcome.value, now);
                Verdict::Settled(true)
            }
            Err(error) => self.fail_attempt(index, error, now, random),
        }
    }

    fn complete(&mut self, index: u32, value: Arc<Value>, now: DateTime<Utc>) {
        let size = json_size(&value);
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

    fn fail_attempt(
        &mut self,
        index: u32,
        error: TaskError,
        now: DateTime<Utc>,
        random: f64,
    ) -> Verdict {
        let planned = &self.plan.tasks[index as usize];
        let attempt = self.record.tasks[index as usize].attempts;
        if error.code == ErrorCode::TaskTimeout {
            let event = EventData::TaskTimeout {
                task_id: planned.id.clone(),
                scope: "attempt".into(),
                limit: planned.timeout.as_secs_f64(),
                attempt_count: attempt,
            };
            self.log(now, event);
        }
        let planned = &self.plan.tasks[index as usize];
        if let Some(pause) = planned.retry.pause_after(attempt, &error, random) {
            self.await_retry(index, error, pause, now);
            return Verdict::Retry(pause);
        }
        let error = exhausted(error, attempt, &planned.retry);
        self.fail(index, error, now);
        Verdict::Settled(false)
    }

    fn await_retry(&mut self, index: u32, error: TaskError, pause: Duration, now: DateTime<Utc>) {
        let max_retries = self.plan.tasks[index as usize].retry.max_attempts.saturating_sub(1);
        let due_at = later(now, pause);
        let task = &mut self.record.tasks[index as usize];
        if task.status == TaskStatus::Executing {
            self.executing -= 1;
        }
        debug_assert!(task.status.can_become(TaskStatus::RetryPending), "{}", task.status);
        task.status = TaskStatus::RetryPending;
        task.due_at = Some(due_at);
        let event = EventData::TaskRetryScheduled {
            task_id: task.id.clone(),
            attempt_count: task.attempts,
            max_retries,
            delay: pause.as_secs_f64(),
            due_at,
            error_code: error.code,
            error_message: error.message.as_ref().into(),
        };
        task.error = Some(Arc::new(error));
        self.mark(index);
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
        let message = format!(
            "task `{}` did not end within {limit:?} over all its attempts; raise `total_timeout`",
            task.id
        );
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
        self.mark(index);
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
        if task.status == TaskStatus::Executing {
            self.executing -= 1;
        }
        task.status = to;
        task.completed_at = Some(now);
        task.due_at = None;
        self.unsettled -= 1;
        if matches!(to, TaskStatus::Failed | TaskStatus::Cancelled) {
            self.first_failure.get_or_insert(index);
        }
        self.mark(index);
    }

    // ---- the workflow ----

    /// Settles the workflow when all of its tasks are; true when it did now.
    pub fn conclude(&mut self, now: DateTime<Utc>) -> bool {
        if self.unsettled > 0 || self.is_settled() {
            return false;
        }
        let failure = self.first_failure.or_else(|| {
            let skipped = |task: &&TaskRecord| task.status == TaskStatus::Skipped;
            self.record.tasks.iter().find(skipped).map(|task| task.index)
        });
        let duration = self.close(now);
        let event = match failure {
            None => {
                self.record.status = WorkflowStatus::Completed;
                EventData::WorkflowCompleted { duration }
            }
            Some(index) => {
                let task = &self.record.tasks[index as usize];
                let why = task.error.as_ref().map_or_else(String::new, |e| format!(": {e}"));
                let message = format!("task `{}` is {}{why}", task.id, task.status);
                self.record.status = WorkflowStatus::Failed;
                self.failed_event(ErrorCode::WorkflowExecutionFailed, message, duration)
            }
        };
        self.log(now, event);
        true
    }

    /// Stops every task that is not settled, and the workflow with them; false when it was settled.
    pub fn stop(&mut self, cause: &StopCause, now: DateTime<Utc>) -> bool {
        if self.is_settled() {
            return false;
        }
        let reason: Arc<str> = match cause {
            StopCause::Cancelled { reason } => Arc::clone(reason),
            StopCause::TimedOut { limit } => {
                format!("the workflow did not end within {limit:?}").into()
            }
        };
        for index in 0..u32::try_from(self.record.tasks.len()).unwrap_or(u32::MAX) {
            if let StopCause::TimedOut { limit } = cause
                && self.task(index).status == TaskStatus::Executing
            {
                let event = EventData::TaskTimeout {
                    task_id: self.task(index).id.clone(),
                    scope: "workflow".into(),
                    limit: limit.as_secs_f64(),
                    attempt_count: self.task(index).attempts,
                };
                self.log(now, event);
            }
            self.cancel_task(index, &reason, now);
        }
        let duration = self.close(now);
        let event = match cause {
            StopCause::Cancelled { .. } => {
                self.record.status = WorkflowStatus::Cancelled;
                let error = TaskError::new(ErrorCode::WorkflowCancelled, reason.to_string());
                self.record.error = Some(Arc::new(error));
                EventData::WorkflowCancelled { reason, duration }
            }
            StopCause::TimedOut { .. } => {
                self.record.status = WorkflowStatus::TimedOut;
                self.failed_event(ErrorCode::WorkflowTimeout, reason.to_string(), duration)
            }
        };
        self.log(now, event);
        true
    }

    fn close(&mut self, now: DateTime<Utc>) -> f64 {
        self.record.completed_at = Some(now);
        self.workflow_dirty = true;
        (now - self.record.created_at).to_std().unwrap_or_default().as_secs_f64()
    }

    fn failed_event(&mut self, code: ErrorCode, message: String, duration: f64) -> EventData {
        let event = EventData::WorkflowFailed {
            status: self.record.status.as_str().into(),
            error_code: code,
            error_message: message.as_str().into(),
            duration,
        };
        self.record.error = Some(Arc::new(TaskError::new(code, message)));
        event
    }

    /// Opens a settled workflow again: every task that did not complete is pending as at first.
    ///
    /// True when there was such a task.
    pub fn reopen(&mut self) -> bool {
        let mut reopened = 0;
        for task in &mut self.record.tasks {
            if task.status.can_become(TaskStatus::Pending) {
                let again = TaskRecord::pending(task.index, task.id.clone(), task.name.clone());
                *task = again;
                self.dirty.push(task.index);
                reopened += 1;
            }
        }
        self.unsettled += reopened;
        self.first_failure = None;
        if reopened > 0 {
            self.record.status = WorkflowStatus::Running;
            self.record.completed_at = None;
            self.record.error = None;
            self.workflow_dirty = true;
        }
        reopened > 0
    }

    // ---- what leaves it ----

    fn log(&mut self, now: DateTime<Utc>, data: EventData) {
        self.record.last_sequence += 1;
        let event = Event {
            timestamp: now,
            workflow_id: Some(self.record.id.clone()),
            sequence: self.record.last_sequence,
            data,
        };
        if !self.audience.is_empty() {
            self.unpublished.push(event.clone());
        }
        self.unsaved.push(event);
    }

    fn mark(&mut self, index: u32) {
        // The same task twice in one change is rare and near the end.
        if !self.dirty.iter().rev().take(4).any(|at| *at == index) {
            self.dirty.push(index);
        }
    }

    /// What a store writes first.
    pub fn take_new(&mut self) -> NewWorkflow {
        self.outstanding = true;
        self.dirty = Vec::new();
        self.workflow_dirty = false;
        NewWorkflow { record: self.record.clone(), events: std::mem::take(&mut self.unsaved) }
    }

    /// What changed since the last time, if that must be written. Until
    /// [`committed`](Self::committed), the next call answers nothing.
    pub fn take_change(&mut self) -> Option<WorkflowChange> {
        if self.outstanding || (self.dirty.is_empty() && !self.workflow_dirty) {
            return None;
        }
        self.outstanding = true;
        let tasks = std::mem::take(&mut self.dirty);
        let tasks = tasks.iter().map(|at| self.record.tasks[*at as usize].clone()).collect();
        let workflow = std::mem::take(&mut self.workflow_dirty).then(|| WorkflowState {
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
        })
    }

    /// What [`take_new`](Self::take_new) or [`take_change`](Self::take_change) gave is stored.
    pub fn committed(&mut self) {
        self.outstanding = false;
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

/// `pause` after `now`, or the end of time.
fn later(now: DateTime<Utc>, pause: Duration) -> DateTime<Utc> {
    let pause = TimeDelta::from_std(pause).unwrap_or(TimeDelta::MAX);
    now.checked_add_signed(pause).unwrap_or(DateTime::<Utc>::MAX_UTC)
}

/// Says that attempts were used up, where more than one was allowed for this error.
fn exhausted(mut error: TaskError, attempt: u32, policy: &RetryPolicy) -> TaskError {
    let allowed = policy.max_attempts;
    if allowed > 1 && attempt >= allowed && policy.allows(&error) {
        let last = serde_json::to_value(&error).unwrap_or_default();
        error = TaskError::new(
            ErrorCode::TaskRetryExhausted,
            format!("all {allowed} attempts failed; the last one: {error}"),
        )
        .with_data(serde_json::json!({ "attempts": attempt, "last_error": last }));
    }
    error
}

/// About how many bytes a value takes as JSON; escapes are not counted.
fn json_size(value: &Value) -> u64 {
    fn len(text: &str) -> u64 {
        text.len() as u64 + 2
    }
    match value {
        Value::Null => 4,
        Value::Bool(flag) => 5 - u64::from(*flag),
        Value::Number(number) => match number.as_u64() {
            Some(n) => u64::from(n.checked_ilog10().unwrap_or(0)) + 1,
            None => number.to_string().len() as u64,
        },
        Value::String(text) => len(text),
        Value::Array(items) => {
            let commas = (items.len() as u64).saturating_sub(1);
            items.iter().map(json_size).sum::<u64>() + commas + 2
        }
        Value::Object(fields) => {
            let commas = (fields.len() as u64).saturating_sub(1);
            fields.iter().map(|(key, it)| len(key) + 1 + json_size(it)).sum::<u64>() + commas + 2
        }
    }
}
