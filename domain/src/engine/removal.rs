//! The removal of a run: one way, whatever the reason.

use std::sync::Arc;

use super::{Callers, Effect, Engine, Notice, Step, active_run::ActiveRun, under_way_of};
use crate::{error::TaskError, run::RunKey, workflow::WorkflowStatus};

/// Why a run is removed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Removal<'a> {
    /// It has ended, and all of it is stored.
    Ended,
    /// Another process runs it, or may.
    Released,
    /// It can no longer be stored.
    Abandoned(&'a TaskError),
    /// The submission is not stored here; the callers are those of the submission.
    Discarded,
}

impl<C: Callers> Engine<C> {
    /// Removes a run with all that refers to it, and answers its callers as the reason demands. Its
    /// graph is removed by the caller, which may do so for many at once.
    pub(super) fn remove_run(&mut self, key: RunKey, why: Removal<'_>) {
        let Some(active) = self.runs.remove(&key) else { return };
        let ActiveRun { run, replies, mut attached, timers, initial_tasks, .. } = *active;
        // A retry of a removed run would be found by its key, and queue a task that is gone.
        self.timers.remove(&timers);
        self.budget.subtract(run.unstored());
        let mut under_way = Vec::new();
        // A run without its initial tasks in the queue has nothing on its way.
        if !matches!(why, Removal::Ended) && initial_tasks.is_empty() {
            run.interrupt();
            under_way = under_way_of(key, &run);
        }
        self.end_calls(under_way);
        // The write under way may still succeed, but nothing here waits for it any more.
        attached.redirect_to_store(&mut self.effects);
        if let Removal::Discarded = why {
            // Its id and its load belong to the submission, which may be stored still.
            replies.fail(run.id(), None, &mut self.effects);
            self.update_gate();
            return;
        }
        // From here on the id may be submitted or claimed again.
        self.ids.remove(run.id());
        self.load = self.load.saturating_sub(run.record().tasks.len() as u64);
        match why {
            Removal::Ended => {
                self.recoveries.note_settled(run.id());
                match run.record().status {
                    WorkflowStatus::Completed => self.stats.workflows_completed += 1,
                    WorkflowStatus::Cancelled => self.stats.workflows_cancelled += 1,
                    _ => self.stats.workflows_failed += 1,
                }
                let is_lean = run.is_lean();
                let record = Arc::new(run.into_record());
                self.log(Notice::Ended(Arc::clone(&record)));
                replies.end(&record, is_lean, &mut self.effects);
            }
            Removal::Abandoned(error) => {
                self.stats.workflows_failed += 1;
                replies.fail(run.id(), Some(error), &mut self.effects);
                self.update_gate();
            }
            Removal::Released | Removal::Discarded => {
                replies.fail(run.id(), None, &mut self.effects);
                self.update_gate();
            }
        }
    }

    /// Removes runs that have ended and are stored.
    pub(super) fn forget(&mut self, keys: Vec<RunKey>) {
        if keys.is_empty() {
            return;
        }
        self.step(Step::ForgetBegun);
        for key in &keys {
            self.remove_run(*key, Removal::Ended);
        }
        self.step(Step::ForgetAnswered);
        // After a burst the maps would keep the memory of its peak for ever.
        if self.runs.is_empty() {
            self.runs.shrink_to(64);
            self.ids.shrink_to(64);
        }
        self.effects.push_back(Effect::RemoveGraphs(keys));
        self.claim_deferred();
    }
}
