//! Has the store know of calls that take long.
//!
//! The start of a task is not worth a write: its outcome says it, a moment later. Of a call that still
//! runs after [`LONG`], the start is written, so that other processes see that it runs, since when and
//! where, and so that the attempt counts should this process die. All that have become long by then
//! are one write; nothing is due while nothing runs.
//!
//! Invariant: while a started task is younger than [`LONG`], a timer is armed.

use std::{collections::VecDeque, time::Duration};

use actix::prelude::*;
use gleitzeit_domain::{run::TaskKey, task::TaskStatus};
use tokio::time::Instant;

use super::ExecutionEngine;

/// A call that runs longer than this is long.
const LONG: Duration = Duration::from_secs(1);

/// Below so many starts none is looked for that has ended.
const KEPT_MIN: usize = 1_024;

/// The tasks that started of late.
#[derive(Debug, Default)]
pub(super) struct LongStarts {
    /// In the order of their starts, with the number of the attempt.
    young: VecDeque<(Instant, TaskKey, u32)>,
    /// Beyond this many, those that have ended are sorted out.
    kept_max: usize,
    is_armed: bool,
}

/// The eldest of those that started of late is long by now, if it still runs.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct LookForLong;

impl ExecutionEngine {
    /// Notes tasks that started, and whose starts are not stored.
    pub(super) fn note_starts(&mut self, started: Vec<TaskKey>, ctx: &mut Context<Self>) {
        // A store in memory is seen by nobody else, and dies with this process.
        if started.is_empty() || !self.store.is_fallible() {
            return;
        }
        let now = Instant::now();
        for task in started {
            if let Some(active) = self.runs.get(&task.run) {
                let attempt = active.run.task(task.index).attempts;
                self.long_starts.young.push_back((now, task, attempt));
            }
        }
        if self.long_starts.young.len() > self.long_starts.kept_max {
            let mut young = std::mem::take(&mut self.long_starts.young);
            young.retain(|(_, task, attempt)| self.still_runs(*task, *attempt));
            self.long_starts.kept_max = KEPT_MIN.max(2 * young.len());
            self.long_starts.young = young;
        }
        self.arm_long_starts(ctx);
    }

    fn still_runs(&self, task: TaskKey, attempt: u32) -> bool {
        self.runs.get(&task.run).is_some_and(|active| {
            let record = active.run.task(task.index);
            record.status == TaskStatus::Executing && record.attempts == attempt
        })
    }

    fn arm_long_starts(&mut self, ctx: &mut Context<Self>) {
        if self.long_starts.is_armed {
            return;
        }
        let Some((since, ..)) = self.long_starts.young.front() else { return };
        let pause = (*since + LONG).saturating_duration_since(Instant::now());
        self.long_starts.is_armed = true;
        ctx.notify_later(LookForLong, pause);
    }

    /// Writes the starts of what has become long.
    fn write_long_starts(&mut self, ctx: &mut Context<Self>) {
        let now = Instant::now();
        let mut unstored = Vec::new();
        while let Some(&(since, task, attempt)) = self.long_starts.young.front() {
            if since + LONG > now {
                break;
            }
            self.long_starts.young.pop_front();
            if !self.still_runs(task, attempt) {
                continue;
            }
            let Some(active) = self.runs.get_mut(&task.run) else { continue };
            if active.is_new {
                // There is no row yet that a start could be added to.
                unstored.push((now, task, attempt));
                continue;
            }
            active.run.record_start(task.index);
            self.touch(task.run);
        }
        self.long_starts.young.extend(unstored);
        self.write_changes(ctx);
        self.arm_long_starts(ctx);
    }
}

impl Handler<LookForLong> for ExecutionEngine {
    type Result = ();

    fn handle(&mut self, _: LookForLong, ctx: &mut Self::Context) {
        self.long_starts.is_armed = false;
        self.write_long_starts(ctx);
    }
}
