//! From queued to executing: whose turn it is, and how many at once.
//!
//! A task takes part in `max_concurrent_tasks` from its dispatch to its end, except while it waits
//! for resources or a provider; so many may wait that way (`max_parked_tasks`) that those who need
//! neither are not held up by them. One whose providers are all down counts nowhere (`away`).

use std::sync::Arc;

use actix::prelude::*;
use gleitzeit_domain::{
    engine::DispatchedTask,
    queue::Pick,
    run::{RunKey, TaskKey},
    task::TaskStatus,
};

use super::{ActiveRun, CallerSpan, ExecutionEngine, Phase};
use crate::pipeline::{
    self, Attempt, StillScheduled, TaskWaits, TasksStarted, WaitingCountChanged,
};

impl ActiveRun {
    /// True for a task that takes one of the places of `parallel_max`.
    pub(super) fn counts(&self, index: u32) -> bool {
        match self.run.task(index).status {
            TaskStatus::Executing => true,
            TaskStatus::Queued => !self.backlog.contains(&index),
            _ => false,
        }
    }
}

impl ExecutionEngine {
    /// Puts a queued task in line, or into its workflow's backlog where that runs enough at once.
    pub(super) fn enqueue(&mut self, key: RunKey, index: u32, ctx: &mut Context<Self>) {
        let Some(active) = self.runs.get_mut(&key).filter(|active| active.held.is_none()) else {
            return;
        };
        let spec = &active.run.plan().spec.tasks[index as usize];
        let limit = spec.total_timeout;
        if active.run.task(index).attempts == 0
            && let Some(limit) = limit
        {
            self.time_task(TaskKey { run: key, index }, limit, ctx);
        }
        let Some(active) = self.runs.get_mut(&key) else { return };
        if active.parallel < active.parallel_max {
            active.parallel += 1;
            self.line_up(key, index);
        } else {
            active.backlog.push_back(index);
        }
    }

    /// Queues tasks whose dependencies have settled.
    pub(super) fn enqueue_ready(&mut self, key: RunKey, ready: Vec<u32>, ctx: &mut Context<Self>) {
        let now = self.clock.now();
        for index in ready {
            let Some(active) = self.runs.get_mut(&key) else { return };
            // Cancelled meanwhile, or already on its way: nothing to queue.
            if active.run.queue(index, now).is_ok() {
                gleitzeit_failpoint::failpoint!("engine.written.queued");
                self.enqueue(key, index, ctx);
            }
        }
    }

    /// A queued or dispatched task of a workflow is so no more: the next of its backlog may be.
    pub(super) fn release_slot(&mut self, key: RunKey) {
        let Some(active) = self.runs.get_mut(&key) else { return };
        active.parallel = active.parallel.saturating_sub(1);
        while let Some(active) = self.runs.get_mut(&key)
            && active.parallel < active.parallel_max
        {
            let Some(index) = active.backlog.pop_front() else { return };
            // What was cancelled meanwhile stays out.
            if active.run.task(index).status == TaskStatus::Queued {
                active.parallel += 1;
                self.line_up(key, index);
            }
        }
    }

    /// Sends as many tasks on their way as there is room for.
    pub(super) fn dispatch(&mut self, _: &mut Context<Self>) {
        if !matches!(self.phase, Phase::Running) || self.ready.is_empty() {
            return;
        }
        // Outcomes that are not stored fill the memory, and a crash runs their calls again.
        if self.is_memory_full() {
            return;
        }
        let Some(route) = self.route.clone() else { return };
        let mut batch = Vec::new();
        let moving = self.in_flight.saturating_sub(self.parked + self.away);
        let mut room = self.settings.max_concurrent_tasks.max(1).saturating_sub(moving);
        let (mut pick, mut effects) = self.dispatchable(moving);
        while room > 0 && self.parked < self.settings.max_parked_tasks {
            let Some(task) = self.ready.pop(pick) else { break };
            let Some(item) = self.item(task) else { continue };
            effects = effects.saturating_sub(u64::from(item.has_effect()));
            if effects == 0 {
                pick = Pick::PureOnly;
            }
            batch.push(Attempt::new(item, &route));
            room -= 1;
        }
        if batch.is_empty() {
            return;
        }
        self.in_flight += batch.len();
        gleitzeit_failpoint::failpoint!("engine.dispatch");
        actix_rt::spawn(pipeline::run(route, batch));
    }

    /// A task ready to go, unless it was settled while it waited.
    fn item(&self, task: TaskKey) -> Option<DispatchedTask<CallerSpan>> {
        let active = self.runs.get(&task.run)?;
        let record = active.run.task(task.index);
        (record.status == TaskStatus::Queued).then(|| DispatchedTask {
            task,
            attempt: record.attempts + 1,
            plan: Arc::clone(active.run.plan()),
            signal: Arc::clone(active.run.signal()),
            epoch: active.run.signal().epoch(),
            saves_start: active.saves_start.contains(&task.index),
            avoid: record.provider_id.clone(),
            span: active.span.clone(),
        })
    }
}

impl Handler<TasksStarted> for ExecutionEngine {
    type Result = ();

    fn handle(&mut self, TasksStarted { starts, saved }: TasksStarted, ctx: &mut Self::Context) {
        let now = self.clock.now();
        let mut to_save = None;
        let mut waited_runs = false;
        let mut started = Vec::with_capacity(starts.len());
        let mut events = Vec::new();
        for start in starts {
            let Some(active) = self.runs.get_mut(&start.task.run) else { continue };
            if active.run.task(start.task.index).status == TaskStatus::Executing {
                active.run.hand_over(start.task.index, start.provider_id);
                continue;
            }
            let waited = active.run.waits_for_provider(start.task.index);
            // Settled meanwhile: its end will be found stale.
            if active.run.start(start.task.index, start.provider_id, now).is_err() {
                continue;
            }
            active.saves_start.remove(&start.task.index);
            if start.save {
                active.run.save_start(start.task.index);
                gleitzeit_failpoint::failpoint!("engine.start.noted");
                to_save = Some(start.task.run);
                self.touch(start.task.run);
            } else if waited {
                // Others read that it waits; that it runs is written with it.
                waited_runs = true;
                self.touch(start.task.run);
            } else {
                started.push(start.task);
                if !active.run.is_uncommitted() {
                    active.run.release_events(&mut events);
                }
            }
        }
        self.publish(events);
        self.note_starts(started, ctx);
        match (saved, to_save) {
            // All starts of a message go in one write; the last one's commit is that of all.
            (Some(saved), Some(key)) => {
                if let Some(active) = self.runs.get_mut(&key) {
                    active.acks.push(saved);
                }
                self.write_changes(ctx);
            }
            (Some(saved), None) => {
                let _ = saved.send(());
            }
            (None, _) => {}
        }
        if waited_runs {
            self.write_changes(ctx);
        }
    }
}

impl Handler<StillScheduled> for ExecutionEngine {
    type Result = Vec<bool>;

    fn handle(
        &mut self,
        StillScheduled(tasks): StillScheduled,
        _: &mut Self::Context,
    ) -> Vec<bool> {
        if matches!(self.phase, Phase::Stopped) {
            return vec![false; tasks.len()];
        }
        // What has not begun when the engine stops is left to the next start.
        let runs_on = matches!(self.phase, Phase::Running);
        let wanted = |(task, attempt): (TaskKey, u32)| {
            self.runs.get(&task.run).is_some_and(|active| {
                let record = active.run.task(task.index);
                match record.status {
                    TaskStatus::Queued => runs_on && record.attempts + 1 == attempt,
                    TaskStatus::Executing => record.attempts == attempt,
                    _ => false,
                }
            })
        };
        tasks.into_iter().map(wanted).collect()
    }
}

impl Handler<WaitingCountChanged> for ExecutionEngine {
    type Result = ();

    fn handle(&mut self, change: WaitingCountChanged, ctx: &mut Self::Context) {
        self.parked = self.parked.saturating_add_signed(change.parked);
        self.away = self.away.saturating_add_signed(change.away);
        // One more that waits leaves its place to another; one fewer, its place among those who may.
        self.pump_soon(ctx);
    }
}

impl Handler<TaskWaits> for ExecutionEngine {
    type Result = ();

    fn handle(&mut self, message: TaskWaits, ctx: &mut Self::Context) {
        let TaskWaits { task, attempt, reason } = message;
        let now = self.clock.now();
        let Some(active) = self.runs.get_mut(&task.run) else { return };
        if active.run.wait_for_provider(task.index, attempt, &reason, now) {
            self.touch(task.run);
            self.write_changes(ctx);
        }
    }
}
