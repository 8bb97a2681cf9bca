//! A running workflow with what the engine needs around it.

use chrono::{DateTime, Utc};
use rustc_hash::FxHashSet;

use super::{Attached, Callers, Replies, slots::Slots, timers::RunTimers};
use crate::{run::Run, task::TaskStatus};

/// A running workflow.
#[expect(clippy::struct_excessive_bools, reason = "facts that do not exclude each other")]
#[derive(Debug)]
pub(super) struct ActiveRun<C: Callers> {
    /// The workflow.
    pub(super) run: Box<Run>,
    /// Tasks queued or dispatched, and those that wait for these to be fewer.
    pub(super) slots: Slots,
    /// Callers that wait for the next write, or for the end.
    pub(super) replies: Replies<C>,
    /// Callers that the write under way answers.
    pub(super) attached: Attached<C>,
    /// The run's entries among the timers.
    pub(super) timers: RunTimers,
    /// When its time limit began.
    pub(super) started_at: DateTime<Utc>,
    /// In the list of changed runs.
    pub(super) is_dirty: bool,
    /// Not stored yet: nothing of it is published, and what changes is written with it, or in the
    /// next write after it.
    pub(super) is_new: bool,
    /// The store refused it together with its first outcomes: those are written after it.
    pub(super) is_bare: bool,
    /// Queued tasks of a new workflow that are not in the ready queue yet.
    pub(super) initial_tasks: Vec<u32>,
    /// Tasks that are to be queued after those, once their outcome is stored.
    pub(super) next_tasks: Vec<u32>,
    /// Here to be changed by a command only: none of its tasks runs.
    pub(super) paused: Option<Paused>,
    /// The process that ran it died, and may have been running what is ready.
    pub(super) is_inherited: bool,
    /// Tasks whose next start is stored before their call: they may be what ended a process.
    pub(super) saves_start: FxHashSet<u32>,
    /// The span of its submission, if that was here.
    pub(super) span: C::Span,
}

/// A workflow that waits for a command, or for that to be stored; then it is released.
#[derive(Debug, Default)]
pub(super) struct Paused {
    /// The command was carried out, or there will be none.
    pub(super) is_decided: bool,
    /// Tasks that it settled, of which it is not known yet what follows.
    pub(super) settling: u32,
}

impl<C: Callers> ActiveRun<C> {
    /// A run that is stored, and of which nothing is queued.
    pub(super) fn new(run: Box<Run>) -> Self {
        Self {
            slots: Slots::new(run.plan().spec.max_parallel_tasks),
            // From the submission, also over a restart: a limit must not begin again with each
            // process.
            started_at: run.record().created_at,
            run,
            replies: Replies::default(),
            attached: Attached::default(),
            timers: RunTimers::default(),
            is_dirty: false,
            is_new: false,
            is_bare: false,
            initial_tasks: Vec::new(),
            next_tasks: Vec::new(),
            paused: None,
            is_inherited: false,
            saves_start: FxHashSet::default(),
            span: C::Span::default(),
        }
    }

    /// True for a task that has a slot.
    pub(super) fn has_slot(&self, index: u32) -> bool {
        match self.run.task(index).status {
            TaskStatus::Executing => true,
            TaskStatus::Queued => !self.slots.is_waiting(index),
            _ => false,
        }
    }

    /// True for a paused workflow that is changed as it was to be, and stored.
    pub(super) fn is_released(&self) -> bool {
        let is_over = |paused: &Paused| paused.is_decided && paused.settling == 0;
        self.paused.as_ref().is_some_and(is_over)
            && !self.run.is_uncommitted()
            && !self.run.is_settled()
    }
}
