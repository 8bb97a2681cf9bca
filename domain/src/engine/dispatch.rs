//! From queued to executing: whose turn it is, and how many at once.
//!
//! A task takes part in `max_concurrent_tasks` from its dispatch to its end, except while it waits
//! for resources or a provider; so many may wait that way (`max_parked_tasks`) that those who need
//! neither are not delayed by them. One whose providers are all down counts nowhere (`away`).

use std::sync::Arc;

use super::{
    Callers, DispatchedTask, Effect, Engine, Now, Phase, Step, TaskStart, timers::TimerKind,
};
use crate::{
    event::Event,
    queue::{Kind, Pick},
    run::{Interruption, RunKey, TaskKey},
    task::TaskStatus,
};

/// The tasks that may be dispatched now.
#[derive(Debug)]
pub struct DispatchBudget {
    /// How many tasks.
    room: usize,
    /// How many of them may have an effect.
    effects: u64,
    pick: Pick,
}

impl<C: Callers> Engine<C> {
    /// Puts a queued task into the ready queue, or into the backlog of its workflow if that runs
    /// enough at once.
    pub(super) fn enqueue(&mut self, key: RunKey, index: u32, now: Now) {
        let Some(active) = self.runs.get_mut(&key) else { return };
        if active.paused.is_some() {
            return;
        }
        let limit = active.run.plan().spec.tasks[index as usize].total_timeout;
        // The time of a task begins with its first attempt, and covers all of them.
        let limit = limit.filter(|_| active.run.task(index).attempts == 0);
        let has_slot = active.slots.acquire(index);
        if let Some(limit) = limit {
            let task = TaskKey { run: key, index };
            self.set_timer(key, limit, TimerKind::TaskLimit(task, limit), now);
        }
        if has_slot {
            self.push_ready(key, index);
        }
    }

    /// Queues tasks whose dependencies have settled.
    pub(super) fn enqueue_ready(&mut self, key: RunKey, ready: Vec<u32>, now: Now) {
        for index in ready {
            let Some(active) = self.runs.get_mut(&key) else { return };
            // Cancelled meanwhile, or already on its way: nothing to queue.
            if active.run.queue(index, now.wall).is_ok() {
                self.step(Step::TaskQueued);
                self.enqueue(key, index, now);
            }
        }
    }

    /// Puts a queued task that has a slot into the ready queue.
    fn push_ready(&mut self, run: RunKey, index: u32) {
        let Some(active) = self.runs.get(&run) else { return };
        let plan = active.run.plan();
        let has_effect = plan.tasks[index as usize].has_effect();
        let kind = if has_effect { Kind::Effect } else { Kind::Pure };
        self.ready.push(plan.spec.tasks[index as usize].priority, kind, TaskKey { run, index });
    }

    /// A task of a workflow no longer has its slot: the next of the backlog may have it.
    pub(super) fn release_slot(&mut self, key: RunKey) {
        let Some(active) = self.runs.get_mut(&key) else { return };
        let (run, ready) = (&active.run, &mut self.ready);
        let plan = run.plan();
        active.slots.release(
            |index| run.task(index).status == TaskStatus::Queued,
            |index| {
                let has_effect = plan.tasks[index as usize].has_effect();
                let kind = if has_effect { Kind::Effect } else { Kind::Pure };
                let task = TaskKey { run: key, index };
                ready.push(plan.spec.tasks[index as usize].priority, kind, task);
            },
        );
    }

    /// The tasks that may be dispatched now; `has_lease` while no other process can have taken
    /// over. `None` if none may, or none waits.
    pub fn dispatch_budget(&self, has_lease: bool) -> Option<DispatchBudget> {
        let is_running = self.phase == Phase::Running && !self.ready.is_empty();
        if !is_running || self.budget.is_memory_full() {
            return None;
        }
        // Tasks that wait have no slot: otherwise an outage of one provider would stop all others.
        let moving = self.in_flight.saturating_sub(self.parked + self.away);
        let room = self.config.max_concurrent_tasks.max(1).saturating_sub(moving);
        let may_begin = has_lease && !self.batcher.is_failing();
        let (pick, effects) = self.budget.pick(moving, may_begin);
        Some(DispatchBudget { room, effects, pick })
    }

    /// The next task to run within `budget`.
    pub fn next_dispatch(
        &mut self,
        budget: &mut DispatchBudget,
    ) -> Option<DispatchedTask<C::Span>> {
        while budget.room > 0 && self.parked < self.config.max_parked_tasks {
            let task = self.ready.pop(budget.pick)?;
            // Settled while it waited.
            let Some(dispatched) = self.dispatched(task) else { continue };
            budget.effects = budget.effects.saturating_sub(u64::from(dispatched.has_effect()));
            if budget.effects == 0 {
                budget.pick = Pick::PureOnly;
            }
            budget.room -= 1;
            // Counted here and not at its start: a task takes part in `max_concurrent_tasks` from
            // its dispatch.
            self.in_flight += 1;
            return Some(dispatched);
        }
        None
    }

    fn dispatched(&self, task: TaskKey) -> Option<DispatchedTask<C::Span>> {
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

    /// Tasks start at a provider; `saved` waits until those that ask for it are stored.
    pub fn tasks_started(&mut self, starts: Vec<TaskStart>, saved: Option<C::OnStored>, now: Now) {
        let mut to_save = None;
        let mut has_waited = false;
        let mut events = Vec::new();
        for start in starts {
            let task = start.task;
            let Some(active) = self.runs.get_mut(&task.run) else { continue };
            if active.run.task(task.index).status == TaskStatus::Executing {
                active.run.hand_over(task.index, start.provider_id);
                continue;
            }
            let waited = active.run.waits_for_provider(task.index);
            // Settled meanwhile: its end will be found stale.
            if active.run.start(task.index, start.provider_id, now.wall).is_err() {
                continue;
            }
            active.saves_start.remove(&task.index);
            if start.save {
                active.run.save_start(task.index);
                to_save = Some(task.run);
                self.step(Step::StartNoted);
                self.mark_dirty(task.run);
            } else if waited {
                // Other processes read that it waits: that it runs is stored as well.
                has_waited = true;
                self.mark_dirty(task.run);
            } else {
                self.note_start(task, now, &mut events);
            }
        }
        self.publish(events);
        self.arm_long_starts(now);
        match (saved, to_save) {
            // All starts of a message are in one write; the commit of the last is that of all.
            (Some(saved), Some(key)) => {
                if let Some(active) = self.runs.get_mut(&key) {
                    active.replies.on_stored.push(saved);
                }
                self.write_changes(now);
            }
            (Some(saved), None) => {
                self.effects.push_back(Effect::Reply(super::Reply::Stored(saved)));
            }
            (None, _) => {}
        }
        if has_waited {
            self.write_changes(now);
        }
    }

    /// A start that is not stored by itself.
    fn note_start(&mut self, task: TaskKey, now: Now, events: &mut Vec<Event>) {
        let Some(active) = self.runs.get_mut(&task.run) else { return };
        // A store in memory is read by no other process, and ends with this one.
        if self.config.store.is_fallible {
            let attempt = active.run.task(task.index).attempts;
            self.long_starts.add(task, attempt, now.moment);
        }
        if !active.run.is_uncommitted() {
            active.run.release_events(events);
        }
    }

    fn arm_long_starts(&mut self, now: Now) {
        let runs = &self.runs;
        self.long_starts.shrink(|task, attempt| {
            let active = runs.get(&task.run);
            active.is_some_and(|active| active.run.is_executing(task.index, attempt))
        });
        if let Some(pause) = self.long_starts.arm(now.moment) {
            self.effects.push_back(Effect::ArmLongStarts(pause));
        }
    }

    /// Stores the starts of calls that have run for long.
    pub fn long_starts_due(&mut self, now: Now) {
        self.long_starts.fired();
        let mut unstored = Vec::new();
        while let Some((task, attempt)) = self.long_starts.next_long(now.moment) {
            let Some(active) = self.runs.get_mut(&task.run) else { continue };
            if !active.run.is_executing(task.index, attempt) {
                continue;
            }
            if active.is_new {
                // There is no row yet that a start could be added to.
                unstored.push((task, attempt));
                continue;
            }
            active.run.record_start(task.index);
            self.mark_dirty(task.run);
        }
        for (task, attempt) in unstored {
            self.long_starts.add(task, attempt, now.moment);
        }
        self.write_changes(now);
        self.arm_long_starts(now);
    }

    /// Which dispatched attempts are still to run.
    pub fn still_scheduled(&self, tasks: &[(TaskKey, u32)]) -> Vec<bool> {
        if matches!(self.phase, Phase::Flushing | Phase::Stopped) {
            return vec![false; tasks.len()];
        }
        // What has not begun when the engine stops is left to the next start.
        let runs_on = self.phase == Phase::Running;
        let is_scheduled = |(task, attempt): &(TaskKey, u32)| {
            self.runs.get(&task.run).is_some_and(|active| {
                let record = active.run.task(task.index);
                match record.status {
                    TaskStatus::Queued => runs_on && record.attempts + 1 == *attempt,
                    TaskStatus::Executing => record.attempts == *attempt,
                    _ => false,
                }
            })
        };
        tasks.iter().map(is_scheduled).collect()
    }

    /// The number of dispatched tasks that wait has changed.
    pub fn waiting_changed(&mut self, parked: isize, away: isize) {
        self.parked = self.parked.saturating_add_signed(parked);
        self.away = self.away.saturating_add_signed(away);
        // One more that waits leaves its place to another; one fewer, its place among those who may.
        self.wake();
    }

    /// A dispatched task waits for providers that are all down: stored, so that others see it.
    pub fn task_waits(&mut self, task: TaskKey, attempt: u32, reason: &Arc<str>, now: Now) {
        let Some(active) = self.runs.get_mut(&task.run) else { return };
        if active.run.wait_for_provider(task.index, attempt, reason, now.wall) {
            self.mark_dirty(task.run);
            self.write_changes(now);
        }
    }

    /// Attempts that did not begin their call, because the gate was closed.
    pub fn tasks_held(&mut self, held: Vec<(TaskKey, u32)>, now: Now) {
        self.in_flight = self.in_flight.saturating_sub(held.len());
        for (task, attempt) in held {
            self.budget.was_cut_off(task, attempt);
            let Some(active) = self.runs.get_mut(&task.run) else { continue };
            let became = active.run.hold_back(task.index, attempt, now.wall);
            self.requeue(task, became);
        }
        self.write_changes(now);
        self.wake();
        self.check_drained();
    }

    /// The end of an attempt that was cut off.
    pub(super) fn requeue(&mut self, task: TaskKey, became: Interruption) {
        match became {
            // It kept its slot.
            Interruption::Queued => self.push_ready(task.run, task.index),
            Interruption::Unknown => self.release_slot(task.run),
            Interruption::Stale => return,
        }
        self.mark_dirty(task.run);
        self.publish_released(task.run);
    }
}
