//! What must hold of a store and of calls after every step, whatever the store said.
//!
//! Each rule names the invariant of ARCHITECTURE.md that it looks at. What is found is kept until
//! the end, for the step may lie in a thread whose panics are caught.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Mutex, MutexGuard},
};

use gleitzeit::{
    Call, Event, EventData, ListFilter, OnDependencyFailure, Store, TaskId, TaskStatus, WorkflowId,
    WorkflowRecord,
};
use tokio::sync::mpsc;

/// Memory of all tasks together, in MiB.
pub(crate) const MEMORY_MIB: u64 = 100;
/// Calls at once.
pub(crate) const CALLS_MAX: usize = 8;
/// Tasks taken in and not settled.
pub(crate) const INTAKE_MAX: usize = 150;

/// A task whose outcome nobody knows: a person has to say.
pub(crate) type Unconfirmed = (WorkflowId, TaskId);

#[derive(Debug, Default)]
struct Notes {
    broken: Vec<String>,
    acknowledged: BTreeSet<WorkflowId>,
    /// What was stored as the end of each task.
    ended: HashMap<(WorkflowId, TaskId), String>,
    /// Calls begun, by task, of those that must not run twice.
    begun_once: BTreeMap<(WorkflowId, TaskId), usize>,
    running: usize,
    memory: u64,
    steps: usize,
    crashes: usize,
    /// Calls of workflows that were not stored.
    early: usize,
}

/// Looks at everything.
#[derive(Debug)]
pub(crate) struct Audit {
    notes: Mutex<Notes>,
    unconfirmed: mpsc::UnboundedSender<Unconfirmed>,
}

impl Audit {
    /// One that looks, and the tasks that need a person.
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<Unconfirmed>) {
        let (unconfirmed, receiver) = mpsc::unbounded_channel();
        (Self { notes: Mutex::default(), unconfirmed }, receiver)
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().expect("nobody panics here")
    }

    fn expect(&self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.notes().broken.push(what());
        }
    }

    /// A submission was acknowledged.
    pub(crate) fn acknowledged(&self, id: &WorkflowId) {
        self.notes().acknowledged.insert(id.clone());
    }

    /// An engine crashed.
    pub(crate) fn crashed(&self) {
        self.notes().crashes += 1;
    }

    fn crashes(&self) -> usize {
        self.notes().crashes
    }

    /// How many steps were looked at, and how many calls came before their workflow was stored,
    /// unless one broke a rule.
    pub(crate) fn verdict(&self) -> (usize, usize) {
        let notes = self.notes();
        assert!(notes.broken.is_empty(), "{:#?}", notes.broken);
        (notes.steps, notes.early)
    }

    /// Looks at what a write left in the store.
    pub(crate) async fn inspect(&self, store: &dyn Store, ids: Vec<WorkflowId>) {
        self.notes().steps += 1;
        for id in ids {
            let record = store.workflow(&id).await.expect("the store below works");
            let events = store.events(&id, 0, usize::MAX).await.expect("the store below works");
            match record {
                Some(record) => self.inspect_record(&record, &events),
                None => self.expect(false, || format!("2: {id} is gone")),
            }
        }
        self.inspect_all(store).await;
    }

    async fn inspect_all(&self, store: &dyn Store) {
        let all = ListFilter { limit: usize::MAX >> 1, ..ListFilter::default() };
        let listed = store.list(all).await.expect("the store below works");
        let there: BTreeSet<WorkflowId> = listed.into_iter().map(|summary| summary.id).collect();
        let lost: Vec<_> = self.notes().acknowledged.difference(&there).cloned().collect();
        self.expect(lost.is_empty(), || format!("2: acknowledged and lost: {lost:?}"));
        let unsettled = store.unsettled().await.expect("the store below works");
        let tasks: usize = unsettled.iter().map(|record| record.tasks.len()).sum();
        self.expect(tasks <= INTAKE_MAX, || format!("6: {tasks} tasks were taken in"));
    }

    fn inspect_record(&self, record: &WorkflowRecord, events: &[Event]) {
        let id = &record.id;
        let sequences: Vec<u64> = events.iter().map(|event| event.sequence).collect();
        let whole: Vec<u64> = (1..=record.last_sequence).collect();
        self.expect(sequences == whole, || format!("8: events of {id}: {sequences:?}"));
        // The other way round may be seen for a moment: the last outcome is stored, and that the
        // workflow has ended comes with the next write, or when it is taken up. That it comes at
        // all is seen by waiting for it.
        let open = record.tasks.iter().any(|task| !task.status.is_settled());
        self.expect(!open || !record.status.is_settled(), || format!("4: {record:?}"));
        for task in &record.tasks {
            let mut status = TaskStatus::Pending;
            let mut taken_up = 0;
            for step in steps_of(&task.id, events) {
                // The next engine begins anew with what was under way when one crashed.
                let was_under_way = matches!(status, TaskStatus::Queued | TaskStatus::Executing);
                if was_under_way && step == TaskStatus::Queued && taken_up < self.crashes() {
                    taken_up += 1;
                    status = TaskStatus::Pending;
                }
                self.expect(status.can_become(step), || {
                    format!("1: {id}/{} went from {status} to {step}", task.id)
                });
                status = step;
            }
            if task.status.is_settled() {
                let is_reported = status == task.status;
                self.expect(is_reported, || format!("8: {id}/{} is {status} by events", task.id));
                self.inspect_end(id, &task.id, &format!("{} {:?}", task.status, task.result));
            }
            if task.status == TaskStatus::OutcomeUnknown {
                // The test may be over.
                let _ = self.unconfirmed.send((id.clone(), task.id.clone()));
            }
        }
    }

    /// What is stored as the end of a task stays.
    fn inspect_end(&self, id: &WorkflowId, task: &TaskId, end: &str) {
        let key = (id.clone(), task.clone());
        let before = self.notes().ended.entry(key).or_insert_with(|| end.to_owned()).clone();
        self.expect(before == end, || format!("2: {id}/{task} was {before}, and is {end}"));
    }

    /// Looks at a call that begins; what is returned counts it as running.
    pub(crate) async fn begin<'a>(&'a self, store: &dyn Store, call: &Call) -> Running<'a> {
        let running = Running::new(self, call.resources.memory_mib);
        let (id, task) = (&call.workflow_id, &call.task_id);
        let text = call.params.to_string();
        self.expect(!text.contains("${"), || format!("5: {id}/{task} was called with {text}"));
        let Some(record) = store.workflow(id).await.expect("the store below works") else {
            // Only what has no effect, of a workflow that nobody can have submitted before.
            let is_early =
                call.method_name() == "pure" && uuid::Uuid::parse_str(id.as_str()).is_ok();
            self.expect(is_early, || format!("2: {id} was called and is not stored"));
            self.notes().early += usize::from(is_early);
            return running;
        };
        let of = |task: &str| record.tasks.iter().find(|it| it.id.as_str() == task);
        let stored = of(task.as_str()).expect("its own task");
        self.expect(!stored.status.is_settled(), || {
            format!("2: {id}/{task} was called though it is {}", stored.status)
        });
        let spec =
            record.spec.tasks.iter().find(|it| it.id == task.as_str()).expect("its own task");
        let runs_anyway = spec.on_dependency_failure == OnDependencyFailure::Run;
        for before in &spec.dependencies {
            let status = of(before).expect("a task of it").status;
            let is_met = status == TaskStatus::Completed || (runs_anyway && status.is_settled());
            self.expect(is_met, || format!("5: {id}/{task} was called while {before} is {status}"));
        }
        if call.method_name() == "once" {
            let begun = {
                let mut notes = self.notes();
                let count = notes.begun_once.entry((id.clone(), task.clone())).or_default();
                *count += 1;
                *count
            };
            self.expect(begun == 1 && stored.status == TaskStatus::Executing, || {
                format!("2: call {begun} of {id}/{task}, which is {}", stored.status)
            });
        }
        running
    }
}

/// A call that runs.
pub(crate) struct Running<'a> {
    audit: &'a Audit,
    memory: u64,
}

impl<'a> Running<'a> {
    fn new(audit: &'a Audit, memory: u64) -> Self {
        let (running, taken) = {
            let mut notes = audit.notes();
            notes.running += 1;
            notes.memory += memory;
            (notes.running, notes.memory)
        };
        audit.expect(running <= CALLS_MAX, || format!("6: {running} calls at once"));
        audit.expect(taken <= MEMORY_MIB, || format!("3: {taken} MiB are taken"));
        Self { audit, memory }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut notes = self.audit.notes();
        notes.running -= 1;
        notes.memory -= self.memory;
    }
}

/// The steps of a task, by its events.
fn steps_of(id: &TaskId, events: &[Event]) -> Vec<TaskStatus> {
    let of_it = events.iter().filter(|event| event.data.task_id() == Some(id));
    of_it
        .filter_map(|event| {
            Some(match &event.data {
                EventData::TaskQueued { .. } => TaskStatus::Queued,
                EventData::TaskStarted { .. } => TaskStatus::Executing,
                EventData::TaskCompleted { .. } => TaskStatus::Completed,
                EventData::TaskFailed { .. } => TaskStatus::Failed,
                EventData::TaskRetryScheduled { .. } => TaskStatus::RetryPending,
                EventData::TaskCancelled { .. } => TaskStatus::Cancelled,
                EventData::TaskUpstreamFailed { .. } => TaskStatus::UpstreamFailed,
                EventData::TaskOutcomeUnknown { .. } => TaskStatus::OutcomeUnknown,
                _ => return None,
            })
        })
        .collect()
}
