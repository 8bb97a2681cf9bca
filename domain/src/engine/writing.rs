//! From a changed run to a stored change, and what follows from that.

use super::{
    Callers, Effect, Engine, Now, Step, WriteOutcome, active_run::ActiveRun, effect::Notice,
};
use crate::{
    run::{RunKey, Unstored},
    store::{StoreError, WorkflowChange},
};

impl<C: Callers> Engine<C> {
    /// A run has something to be written.
    pub(super) fn mark_dirty(&mut self, key: RunKey) {
        // What is new is written whole; its changes until then go with it.
        if let Some(active) = self.runs.get_mut(&key)
            && !active.is_new
            && !std::mem::replace(&mut active.is_dirty, true)
        {
            self.batcher.mark_dirty(key);
        }
    }

    /// Writes what changed, unless a write is under way; then its end does.
    pub(super) fn write_changes(&mut self, now: Now) {
        while let count @ 1.. = self.batcher.waiting() {
            let mut changes = Vec::with_capacity(count);
            let (runs, effects) = (&mut self.runs, &mut self.effects);
            self.batcher.begin(|key| {
                let Some(active) = runs.get_mut(&key) else { return Unstored::default() };
                let ActiveRun { run, replies, attached, is_dirty, .. } = &mut **active;
                // Before the change is taken: a change during the write marks the run again.
                *is_dirty = false;
                let mut unstored = Unstored::default();
                if let Some(change) = run.take_change() {
                    changes.push(change);
                    unstored = run.take_unstored();
                }
                attached.attach(replies, run, effects);
                unstored
            });
            if !changes.is_empty() {
                self.effects.push_back(Effect::Record(changes));
                return;
            }
            // Nothing to store, but callers may wait for it.
            self.write_stored(now);
        }
    }

    /// The answer of the store to a write.
    pub fn written(&mut self, WriteOutcome { again, rejected }: WriteOutcome, now: Now) {
        for rejected in rejected {
            self.change_rejected(rejected, now);
        }
        match again {
            // Nothing is reported as stored that is not: the same write is tried until it succeeds.
            Some((error, changes)) => self.write_again(error, changes),
            None => self.write_stored(now),
        }
        self.write_changes(now);
    }

    fn write_again(&mut self, error: StoreError, changes: Vec<WorkflowChange>) {
        if error == StoreError::Closed {
            self.log(Notice::StoreClosed(changes.len()));
            return;
        }
        let pause = self.batcher.failed();
        self.update_gate();
        self.log(Notice::WriteFailed(error, changes.len(), pause));
        self.redirect_reads_to_store();
        self.effects.push_back(Effect::RecordAfter(pause, changes));
        self.check_drained();
    }

    /// It is not known how long the store refuses writes: readers get what it has.
    fn redirect_reads_to_store(&mut self) {
        for key in self.batcher.unsettled() {
            let Some(active) = self.runs.get_mut(&key) else { continue };
            active.attached.redirect_to_store(&mut self.effects);
            active.replies.redirect_to_store(&mut self.effects);
        }
    }

    fn write_stored(&mut self, now: Now) {
        let (keys, stored) = self.batcher.stored();
        // Before anything is dispatched below: what is stored makes room for calls.
        self.budget.subtract(stored);
        self.update_gate();
        self.step(Step::WriteAnswered);
        let mut events = Vec::new();
        let mut done = Vec::new();
        let mut paused = Vec::new();
        for key in keys {
            let Some(active) = self.runs.get_mut(&key) else { continue };
            let ActiveRun { run, replies, attached, .. } = &mut **active;
            attached.complete(&mut self.effects);
            run.committed();
            run.release_events(&mut events);
            if run.is_done() {
                done.push(key);
            } else if !run.is_uncommitted() {
                replies.send_state(run, &mut self.effects);
                if active.paused.is_some() {
                    paused.push(key);
                }
            }
        }
        self.step(Step::WriteConfirmed);
        self.publish(events);
        self.step(Step::WritePublished);
        self.forget(done);
        for key in paused {
            self.release_if_decided(key);
        }
        self.step(Step::WriteForgotten);
        // Only now: what made these tasks ready is stored.
        for (key, ready) in self.batcher.take_ready() {
            self.enqueue_ready(key, ready, now);
            self.publish_released(key);
        }
        self.effects.push_back(Effect::Dispatch);
        self.check_drained();
    }
}
