//! From the end of an attempt to its consequences: decided, written, told, followed up.
//!
//! `TasksFinished` → the run decides (settled or retried) → `DependencyResolver` says what follows
//! → one write for all of it → only then are events told, waiters answered and dependents queued.

use std::{
    collections::HashSet, future::Future, pin::Pin, rc::Rc, sync::Arc, task, time::Duration,
};

use actix::prelude::*;
use gleitzeit_domain::{
    error::{ErrorCode, TaskError},
    graph::Settlement,
    provider::Outcome,
    run::{AttemptOutcome, RunKey, TaskKey, Unstored},
    store::{Store, StoreError, WorkflowChange},
    task::TaskStatus,
    workflow::{WorkflowRecord, WorkflowStatus},
};
use rustc_hash::FxHashSet;
use tokio::sync::oneshot;

use super::{
    ActiveRun, ExecutionEngine, Phase, Reader, TaskEnd,
    control::under_way,
    refusal::{Refusal, write_each},
};
use crate::{
    dependency_resolver::{LoseResults, RemoveWorkflows, SettleTasks, Settled, TaskOutcome},
    monitor::{CallSample, RecordCalls},
    pipeline::TasksFinished,
};

/// First and longest pause before a failed write is tried again.
const WRITE_PAUSE_MIN: Duration = Duration::from_millis(50);
const WRITE_PAUSE_MAX: Duration = Duration::from_secs(5);

/// Characters of a cause in the log.
const CAUSE_MAX: usize = 300;
/// Results of more bytes are not written together where they are of several workflows: on its way
/// to the disk a store holds each of them several times.
const WRITE_MAX: u64 = 16 * 1024 * 1024;

/// What waits to be written, and what is being written.
#[derive(Debug, Default)]
pub(super) struct Writer {
    /// Runs that changed since their last write.
    touched: Vec<RunKey>,
    /// Tasks that become queued once the changes in `touched` are stored.
    ready: Vec<(RunKey, Vec<u32>)>,
    /// The same, of the write under way.
    writing: Vec<RunKey>,
    writing_ready: Vec<(RunKey, Vec<u32>)>,
    /// Told once the write under way is stored; whoever asks later waits for a later one.
    writing_acks: Vec<(RunKey, oneshot::Sender<()>)>,
    /// The same, with the state as that write leaves it.
    writing_readers: Vec<(RunKey, Reader, Arc<WorkflowRecord>)>,
    /// What of it counts as not stored until then.
    writing_unstored: Unstored,
    busy: bool,
    failures: u32,
}

impl Writer {
    pub(super) fn is_idle(&self) -> bool {
        !self.busy && self.touched.is_empty()
    }

    /// True while the store refuses writes.
    pub(super) fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// What becomes ready by the write that begins now; what waits for a later one stays.
    fn take_ready(&mut self) {
        self.writing_ready = std::mem::take(&mut self.ready);
        if !self.touched.is_empty() {
            let later: FxHashSet<RunKey> = self.touched.iter().copied().collect();
            self.ready =
                self.writing_ready.extract_if(.., |(run, _)| later.contains(run)).collect();
        }
    }

    /// Takes over who waits for the write that begins now.
    fn promise(&mut self, key: RunKey, active: &mut ActiveRun) {
        self.writing_acks.extend(active.acks.drain(..).map(|ack| (key, ack)));
        if active.run.is_lean() {
            active.send_readers_to_store();
        }
        if !active.readers.is_empty() {
            let record = Arc::new(active.run.record().clone());
            let readers = active.readers.drain(..);
            self.writing_readers.extend(readers.map(|it| (key, it, Arc::clone(&record))));
        }
    }

    /// What was promised for a run will not be stored.
    pub(super) fn fail_replies(&mut self, key: RunKey) {
        self.writing_acks.retain(|(of, _)| *of != key);
        let broken = self.writing_readers.extract_if(.., |(of, ..)| *of == key);
        for (_, reader, _) in broken {
            let _ = reader.send(None);
        }
    }

    /// A run whose change is not stored after all, and is to be written again: so do the promises
    /// that were given with it, and the tasks that were to become ready, wait for that.
    pub(super) fn put_off(&mut self, key: RunKey, active: &mut ActiveRun) {
        self.writing.retain(|writing| *writing != key);
        let acks = self.writing_acks.extract_if(.., |(of, _)| *of == key);
        active.acks.extend(acks.map(|(_, ack)| ack));
        self.fail_replies(key);
        self.ready.extend(self.writing_ready.extract_if(.., |(of, _)| *of == key));
    }

    /// Tasks of a run do not become ready by what was decided before.
    pub(super) fn forget_ready(&mut self, key: RunKey, tasks: &HashSet<u32>) {
        for (_, ready) in self.ready.iter_mut().filter(|(of, _)| *of == key) {
            ready.retain(|task| !tasks.contains(task));
        }
    }

    /// What was promised is stored.
    fn complete_replies(&mut self) {
        for (_, ack) in self.writing_acks.drain(..) {
            let _ = ack.send(());
        }
        for (_, reader, record) in self.writing_readers.drain(..) {
            let _ = reader.send(Some(record));
        }
    }
}

/// What follows from settled tasks.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct DependentsResolved {
    /// One for each settled task that was asked about.
    asked: Vec<RunKey>,
    settlements: Vec<(RunKey, Settlement)>,
}

/// What the store said of a write.
#[derive(Debug, Default, Message)]
#[rtype(result = "()")]
pub(super) struct Written {
    /// What was not written, and why; writing it again may succeed.
    pub(super) again: Option<(StoreError, Vec<WorkflowChange>)>,
    /// Workflows of which something can never be stored.
    pub(super) refused: Vec<Refusal>,
}

type Writing = Pin<Box<dyn Future<Output = Written>>>;

fn write(store: Arc<dyn Store>, changes: Vec<WorkflowChange>) -> Writing {
    Box::pin(async move {
        // Kept for another try, where there can be need of one.
        let kept = if store.is_fallible() { changes.clone() } else { Vec::new() };
        gleitzeit_failpoint::failpoint!("engine.write.before");
        match store.record(changes).await {
            Ok(()) => {
                gleitzeit_failpoint::failpoint!("engine.write.after");
                Written::default()
            }
            Err(error) if error.is_transient() || error == StoreError::Closed => {
                Written { again: Some((error, kept)), refused: Vec::new() }
            }
            Err(error) => write_each(&*store, kept, error).await,
        }
    })
}

impl ActiveRun {
    /// All of it is stored: whoever asked for its state is told.
    fn tell_state(&mut self) {
        if self.run.is_lean() {
            self.send_readers_to_store();
        }
        let record = self.run.record();
        for reader in self.readers.drain(..) {
            let _ = reader.send(Some(Arc::new(record.clone())));
        }
    }

    /// The store has all of it; here, large results are left out.
    fn send_readers_to_store(&mut self) {
        for reader in self.readers.drain(..) {
            let _ = reader.send(None);
        }
    }

    /// The same, and whoever waits for what was asked of it before.
    pub(super) fn tell_stored(&mut self) {
        self.tell_state();
        for ack in self.acks.drain(..) {
            let _ = ack.send(());
        }
    }
}

impl ExecutionEngine {
    /// Notes that a run has something to be written.
    pub(super) fn touch(&mut self, key: RunKey) {
        if let Some(active) = self.runs.get_mut(&key)
            && !active.is_new
            && !std::mem::replace(&mut active.touched, true)
        {
            self.writer.touched.push(key);
        }
    }

    /// Tells a run's events that need not wait for a write.
    pub(super) fn release(&mut self, key: RunKey) {
        let mut events = Vec::new();
        if let Some(active) = self.runs.get_mut(&key) {
            active.run.release_events(&mut events);
        }
        self.publish(events);
    }

    /// Decides what the ends of attempts mean.
    pub(super) fn finish_attempts(&mut self, ctx: &mut Context<Self>) {
        if self.finished.is_empty() {
            return;
        }
        let now = self.clock.now();
        let ends = std::mem::take(&mut self.finished);
        let mut samples = Vec::with_capacity(ends.len());
        let mut settled = Vec::with_capacity(ends.len());
        for end in ends {
            self.in_flight = self.in_flight.saturating_sub(1);
            if matches!(self.phase, Phase::Stopped) {
                continue;
            }
            samples.extend(sample(&end));
            let random = self.random.unit();
            let TaskEnd { task, attempt, outcome, duration, .. } = end;
            let Some(active) = self.runs.get_mut(&task.run) else { continue };
            // Its call did not begin before the stop, or was ended by it as it began: it is left to
            // the next start.
            let is_left = match active.run.task(task.index).status {
                TaskStatus::Queued => true,
                TaskStatus::Executing => is_given_up(&outcome),
                _ => false,
            };
            if is_left && !matches!(self.phase, Phase::Running) {
                continue;
            }
            if let Some(duration) = duration {
                self.call_seconds += duration.as_secs_f64();
                self.calls += 1;
            }
            gleitzeit_failpoint::failpoint!("engine.end.known");
            if self.effects.was_cut_off(task, attempt) && is_given_up(&outcome) {
                let became = active.run.cut_off(task.index, attempt, now);
                self.take_back(task, became);
                continue;
            }
            let before = active.run.unstored();
            match active.run.finish(task.index, attempt, outcome, duration, now, random) {
                AttemptOutcome::Settled(completed) => {
                    self.stats.tasks_processed += 1;
                    self.stats.tasks_succeeded += u64::from(completed);
                    self.stats.tasks_failed += u64::from(!completed);
                    let outcome = TaskOutcome::from(active.run.task(task.index));
                    settled.push(Settled { task, outcome });
                    self.release_slot(task.run);
                }
                AttemptOutcome::Retry(pause) => {
                    gleitzeit_failpoint::failpoint!("engine.end.retries");
                    self.release_slot(task.run);
                    self.time_retry(task, pause, ctx);
                    self.touch(task.run);
                }
                // It was settled by someone else, who made room.
                AttemptOutcome::Stale => {}
            }
            if let Some(active) = self.runs.get(&task.run) {
                let mut ended = active.run.unstored();
                ended -= before;
                self.effects.add(ended);
            }
        }
        self.set_gate();
        if !samples.is_empty() {
            self.addresses().monitor.do_send(RecordCalls { calls: samples });
        }
        gleitzeit_failpoint::failpoint!("engine.end.concluded");
        self.follow(settled);
        self.write_changes(ctx);
        self.check_drained(ctx);
    }

    /// Asks the resolver what follows from settled tasks.
    fn follow(&mut self, settled: Vec<Settled>) {
        if settled.is_empty() {
            return;
        }
        self.settling += settled.len();
        let addresses = Rc::clone(self.addresses());
        actix_rt::spawn(async move {
            let asked = settled.iter().map(|settled| settled.task.run).collect();
            // A resolver that is gone takes the system with it; nothing follows then.
            if let Ok(settlements) = addresses.resolver.send(SettleTasks(settled)).await {
                gleitzeit_failpoint::failpoint!("engine.end.followed");
                addresses.engine.do_send(DependentsResolved { asked, settlements });
            }
        });
    }

    /// The same for a task that had completed, and has failed after all.
    pub(super) fn follow_lost_result(&mut self, lost: Settled) {
        self.settling += 1;
        let addresses = Rc::clone(self.addresses());
        actix_rt::spawn(async move {
            let asked = vec![lost.task.run];
            if let Ok(settlements) = addresses.resolver.send(LoseResults(vec![lost])).await {
                addresses.engine.do_send(DependentsResolved { asked, settlements });
            }
        });
    }

    /// A task was settled by someone's word or by time: its call ends, what follows is asked.
    /// `counted` says whether it was among those that its workflow may run at once.
    pub(super) fn settle_stopped(&mut self, task: TaskKey, counted: bool, ctx: &mut Context<Self>) {
        self.end_calls(vec![task]);
        let Some(active) = self.runs.get_mut(&task.run) else { return };
        let record = active.run.task(task.index);
        match record.status {
            TaskStatus::Cancelled => self.stats.tasks_cancelled += 1,
            TaskStatus::Completed => self.stats.tasks_succeeded += 1,
            _ => self.stats.tasks_failed += 1,
        }
        let settled = Settled { task, outcome: TaskOutcome::from(record) };
        if let Some(held) = &mut active.held {
            held.settling += 1;
        }
        self.touch(task.run);
        if counted {
            self.release_slot(task.run);
        }
        self.follow(vec![settled]);
        self.write_changes(ctx);
        self.pump_soon(ctx);
    }

    fn apply(&mut self, key: RunKey, settlement: Settlement) {
        let now = self.clock.now();
        let Some(active) = self.runs.get_mut(&key) else { return };
        for (index, because) in &settlement.skipped {
            active.run.skip(*index, *because, now);
        }
        for (index, because) in &settlement.failed {
            active.run.fail_dependency(*index, *because, now);
        }
        self.stats.tasks_skipped += settlement.skipped.len() as u64;
        self.stats.tasks_failed += settlement.failed.len() as u64;
        if active.is_new {
            active.follows.extend(settlement.ready);
        } else {
            self.follow_up(key, settlement.ready);
        }
    }

    /// Tasks become ready once what has changed is stored.
    pub(super) fn follow_up(&mut self, key: RunKey, ready: Vec<u32>) {
        if !ready.is_empty() {
            self.writer.ready.push((key, ready));
        }
    }

    /// Writes what changed, unless a write is under way; then that one's end writes it.
    pub(super) fn write_changes(&mut self, ctx: &mut Context<Self>) {
        while !self.writer.busy && !self.writer.touched.is_empty() {
            let mut keys = std::mem::take(&mut self.writer.touched);
            let mut changes = Vec::with_capacity(keys.len());
            let mut count = 0;
            for key in &keys {
                count += 1;
                let Some(active) = self.runs.get_mut(key) else { continue };
                active.touched = false;
                if let Some(change) = active.run.take_change() {
                    changes.push(change);
                    self.writer.writing_unstored += active.run.take_unstored();
                }
                self.writer.promise(*key, active);
                if self.writer.writing_unstored.bytes >= WRITE_MAX {
                    break;
                }
            }
            self.writer.touched = keys.split_off(count);
            self.writer.take_ready();
            self.writer.writing = keys;
            self.writer.busy = true;
            self.write(changes, ctx);
        }
    }

    fn write(&mut self, changes: Vec<WorkflowChange>, ctx: &mut Context<Self>) {
        if changes.is_empty() {
            self.written(Written::default(), ctx);
            return;
        }
        let mut writing = write(Arc::clone(&self.store), changes);
        // A store in memory is done at once and needs no task.
        let mut unwoken = task::Context::from_waker(task::Waker::noop());
        match writing.as_mut().poll(&mut unwoken) {
            task::Poll::Ready(answer) => self.written(answer, ctx),
            task::Poll::Pending => {
                let engine = ctx.address();
                actix_rt::spawn(async move { engine.do_send(writing.await) });
            }
        }
    }

    fn written(&mut self, Written { again, refused }: Written, ctx: &mut Context<Self>) {
        for refusal in refused {
            self.refused(refusal, ctx);
        }
        if let Some((error, changes)) = again {
            self.write_again(&error, changes, ctx);
            return;
        }
        self.writer.busy = false;
        self.writer.failures = 0;
        let stored = std::mem::take(&mut self.writer.writing_unstored);
        self.forget_unstored(stored);
        gleitzeit_failpoint::failpoint!("engine.written.known");
        self.writer.complete_replies();
        gleitzeit_failpoint::failpoint!("engine.written.promises");
        let mut events = Vec::new();
        let mut done = Vec::new();
        let mut held = Vec::new();
        for key in std::mem::take(&mut self.writer.writing) {
            let Some(active) = self.runs.get_mut(&key) else { continue };
            active.run.committed();
            active.run.release_events(&mut events);
            if active.run.is_done() {
                done.push(key);
            } else if !active.run.is_uncommitted() {
                active.tell_state();
                if active.held.is_some() {
                    held.push(key);
                }
            }
        }
        self.publish(events);
        gleitzeit_failpoint::failpoint!("engine.written.told");
        self.forget(done, ctx);
        for key in held {
            self.let_go(key, ctx);
        }
        gleitzeit_failpoint::failpoint!("engine.written.forgotten");
        for (key, ready) in std::mem::take(&mut self.writer.writing_ready) {
            self.enqueue_ready(key, ready, ctx);
            self.release(key);
        }
        self.dispatch(ctx);
        self.check_drained(ctx);
    }

    /// Nothing is told as done that is not stored: the same write is tried until it succeeds.
    fn write_again(
        &mut self,
        error: &StoreError,
        changes: Vec<WorkflowChange>,
        ctx: &mut Context<Self>,
    ) {
        if *error == StoreError::Closed {
            tracing::error!(workflows = changes.len(), "the store was closed under the engine");
            return;
        }
        let doublings = self.writer.failures.min(16);
        self.writer.failures += 1;
        self.set_gate();
        let pause = WRITE_PAUSE_MIN.saturating_mul(1 << doublings).min(WRITE_PAUSE_MAX);
        tracing::error!(%error, workflows = changes.len(), ?pause, "outcomes could not be stored; they are kept and written again");
        self.redirect_reads_to_store();
        ctx.run_later(pause, move |engine, ctx| {
            engine.write(changes, ctx);
            engine.write_changes(ctx);
        });
    }

    /// A workflow that can no longer be stored is not run on: nothing of it could be told. The
    /// store has it as it was before, and the next start goes on with that.
    pub(super) fn give_up(&mut self, key: RunKey, error: &TaskError) {
        let Some(active) = self.runs.remove(&key) else { return };
        self.ids.remove(active.run.id());
        self.drop_timers(&active.timers);
        self.load = self.load.saturating_sub(active.run.record().tasks.len() as u64);
        self.stats.workflows_failed += 1;
        self.writer.fail_replies(key);
        self.forget_unstored(active.run.unstored());
        active.run.interrupt();
        self.end_calls(under_way(key, &active.run));
        for waiter in active.waiters {
            waiter.send(Err(error.clone()));
        }
        for reader in active.readers {
            let _ = reader.send(None);
        }
        self.addresses().resolver.do_send(RemoveWorkflows(vec![key]));
    }

    /// Nobody knows how long the store refuses writes: readers are told what it has.
    fn redirect_reads_to_store(&mut self) {
        for (_, reader, _) in self.writer.writing_readers.drain(..) {
            let _ = reader.send(None);
        }
        for key in self.writer.writing.iter().chain(&self.writer.touched) {
            let Some(active) = self.runs.get_mut(key) else { continue };
            for reader in active.readers.drain(..) {
                let _ = reader.send(None);
            }
        }
    }

    /// Gives back the memory of settled workflows and answers who waited for them.
    pub(super) fn forget(&mut self, keys: Vec<RunKey>, ctx: &mut Context<Self>) {
        if keys.is_empty() {
            return;
        }
        for key in &keys {
            let Some(active) = self.runs.remove(key) else { continue };
            self.ids.remove(active.run.id());
            self.recoveries.note(active.run.id());
            gleitzeit_failpoint::failpoint!("engine.forget.before");
            self.drop_timers(&active.timers);
            self.load = self.load.saturating_sub(active.run.record().tasks.len() as u64);
            match active.run.record().status {
                WorkflowStatus::Completed => self.stats.workflows_completed += 1,
                WorkflowStatus::Cancelled => self.stats.workflows_cancelled += 1,
                _ => self.stats.workflows_failed += 1,
            }
            self.effects.subtract(active.run.unstored());
            if active.run.is_lean() {
                let record = Arc::new(active.run.into_record());
                log_end(&record);
                for waiter in active.waiters {
                    if waiter.outline {
                        waiter.send(Ok(Arc::clone(&record)));
                    } else {
                        self.await_elsewhere(record.id.clone(), waiter);
                    }
                }
                for reader in active.readers {
                    let _ = reader.send(None);
                }
                continue;
            }
            let record = Arc::new(active.run.into_record());
            log_end(&record);
            if let Some(file_access) = &record.spec.file_access
                && file_access.output.is_some()
                && let Some(results) = &self.settings.results
            {
                // Whoever writes them has gone with the runtime; then they are written on resume.
                let _ = results.send(Arc::clone(&record));
            }
            for waiter in active.waiters {
                waiter.send(Ok(Arc::clone(&record)));
            }
            gleitzeit_failpoint::failpoint!("engine.forget.answered");
            for reader in active.readers {
                let _ = reader.send(Some(Arc::clone(&record)));
            }
        }
        if self.runs.is_empty() {
            self.runs.shrink_to(64);
            self.ids.shrink_to(64);
        }
        self.addresses().resolver.do_send(RemoveWorkflows(keys));
        self.claim_deferred(ctx);
    }
}

/// The log's name for how workflows end, so that a program which reports it itself can leave it out.
const OUTCOMES: &str = "gleitzeit::outcomes";

/// One line for each workflow that ends, so that an operator need not ask for each.
fn log_end(record: &WorkflowRecord) {
    let workflow = record.id.as_str();
    let name = &*record.name;
    match record.status {
        WorkflowStatus::Completed => {
            tracing::info!(target: OUTCOMES, workflow, name, tasks = record.tasks.len(), "workflow completed");
        }
        WorkflowStatus::Cancelled => {
            let reason = record.error.as_ref().map_or("", |error| &*error.message);
            tracing::info!(target: OUTCOMES, workflow, name, reason, "workflow cancelled");
        }
        status => {
            let failed = record.tasks.iter().find(|task| task.status == TaskStatus::Failed);
            // What a task says is text from outside: it is escaped, and stays on its line.
            let task = failed.map_or("", |task| task.id.as_str());
            let error = failed.and_then(|task| task.error.as_ref()).or(record.error.as_ref());
            let code = error.map_or("", |error| error.code.name());
            let cause = error.map_or("", |error| &*error.message);
            tracing::warn!(target: OUTCOMES, workflow, name, task, code, cause = ?shortened(cause), "workflow {status}");
        }
    }
}

/// The beginning of a text: a line of a log is no place for a whole traceback.
fn shortened(text: &str) -> &str {
    match text.char_indices().nth(CAUSE_MAX) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

/// True where nobody heard how the call ended: it was cut off, or its provider is gone.
fn is_given_up(outcome: &Result<Outcome, TaskError>) -> bool {
    use ErrorCode::{ProviderUnhealthy, TaskCancelled};
    matches!(outcome, Err(error) if matches!(error.code, ProviderUnhealthy | TaskCancelled))
}

fn sample(end: &TaskEnd) -> Option<CallSample> {
    Some(CallSample {
        capability: Arc::clone(&end.method.as_ref()?.capability),
        seconds: end.duration?.as_secs_f64(),
        memory_bytes: end.outcome.as_ref().ok().and_then(|outcome| outcome.memory_bytes),
        memory_delta_bytes: end.outcome.as_ref().ok().and_then(|it| it.memory_delta_bytes),
    })
}

impl Handler<TasksFinished> for ExecutionEngine {
    type Result = ();

    fn handle(&mut self, TasksFinished(ends): TasksFinished, ctx: &mut Self::Context) {
        if self.finished.is_empty() {
            self.finished = ends;
        } else {
            self.finished.extend(ends);
        }
        self.pump_soon(ctx);
    }
}

impl Handler<DependentsResolved> for ExecutionEngine {
    type Result = ();

    fn handle(
        &mut self,
        DependentsResolved { asked, settlements }: DependentsResolved,
        ctx: &mut Self::Context,
    ) {
        for (key, settlement) in settlements {
            self.apply(key, settlement);
            gleitzeit_failpoint::failpoint!("engine.end.applied");
        }
        self.settling = self.settling.saturating_sub(asked.len());
        let now = self.clock.now();
        for key in asked {
            let Some(active) = self.runs.get_mut(&key) else { continue };
            if let Some(held) = &mut active.held {
                held.settling = held.settling.saturating_sub(1);
            }
            active.run.conclude(now);
            if active.is_new {
                gleitzeit_failpoint::failpoint!("engine.early.ended");
            }
            self.touch(key);
        }
        self.write_changes(ctx);
        self.check_drained(ctx);
    }
}

impl Handler<Written> for ExecutionEngine {
    type Result = ();

    fn handle(&mut self, written: Written, ctx: &mut Self::Context) {
        self.written(written, ctx);
        self.write_changes(ctx);
    }
}
