//! The meaning of the store's answer for a submission.

use super::{
    super::{
        Callers, Effect, Engine, Existed, NotStored, Now, Reply, Step, SubmitOutcomes,
        effect::Notice,
    },
    PendingSubmission,
};
use crate::{
    event::Event,
    problem::SubmitError,
    run::{RunKey, StopCause},
    store::Submitted,
};
use std::sync::Arc;

/// The consequence of a batch that was stored.
#[derive(Debug, Default)]
struct StoredEffects {
    events: Vec<Event>,
    /// Ended already.
    done: Vec<RunKey>,
    /// To be stopped at once, and why.
    cancelled: Vec<(RunKey, Arc<str>)>,
    /// Graphs that are of no use.
    unwanted: Vec<RunKey>,
}

impl<C: Callers> Engine<C> {
    /// The answers of the store to a batch.
    pub fn submissions_stored(&mut self, outcomes: SubmitOutcomes, now: Now) {
        let batch = std::mem::take(&mut self.submissions.storing);
        let mut stored = StoredEffects::default();
        for (key, outcome) in batch.into_iter().zip(outcomes) {
            self.submission_stored(key, outcome, &mut stored, now);
        }
        let StoredEffects { events, done, cancelled, unwanted } = stored;
        if !unwanted.is_empty() {
            self.effects.push_back(Effect::RemoveGraphs(unwanted));
        }
        self.publish(events);
        self.forget(done);
        for (key, reason) in cancelled {
            self.stop_run(key, &StopCause::Cancelled { reason }, now);
        }
        self.write_changes(now);
        self.wake();
        self.store_new(now);
        self.check_drained();
    }

    fn submission_stored(
        &mut self,
        key: RunKey,
        outcome: Result<Submitted, NotStored>,
        stored: &mut StoredEffects,
        now: Now,
    ) {
        match outcome {
            Ok(Submitted::Created) => self.activate(key, stored, now),
            Ok(Submitted::Existed) => {
                stored.unwanted.push(key);
                self.existed(key);
            }
            Err(NotStored::Content(error, events)) if self.may_be_bare(key) => {
                self.log(Notice::StoredBare(error));
                if let Some(active) = self.runs.get_mut(&key) {
                    active.is_bare = true;
                    active.run.was_not_stored(events);
                    self.submissions.new.push(key);
                }
            }
            Err(NotStored::Store(error) | NotStored::Content(error, _)) => {
                let workflow = self.runs.get(&key).map(|active| active.run.id().clone());
                self.log(Notice::NotStored(workflow, error.clone()));
                stored.unwanted.push(key);
                self.reject_submission(key, &SubmitError::Store(error));
            }
            Err(NotStored::Unconfirmed(error, new)) => {
                stored.unwanted.push(key);
                self.add_unconfirmed(key, error, *new);
            }
            // No caller was answered yet, so it is written again under the next lease.
            Err(NotStored::LeaseLost { epoch, events, is_unconfirmed }) => {
                // Before the workflow is added again: its next write must not bear the lost lease.
                self.lose_lease(epoch);
                if is_unconfirmed {
                    self.submissions.note_claimed(key);
                }
                if let Some(active) = self.runs.get_mut(&key) {
                    active.run.was_not_stored(events);
                    self.submissions.new.push(key);
                }
            }
        }
    }

    /// True if the outcome of an early task may be what the store refuses.
    fn may_be_bare(&self, key: RunKey) -> bool {
        self.runs.get(&key).is_some_and(|active| !active.is_bare && active.run.has_outcomes())
    }

    /// A stored workflow begins, or continues, or has ended by now.
    fn activate(&mut self, key: RunKey, stored: &mut StoredEffects, now: Now) {
        self.stats.workflows_submitted += 1;
        self.step(Step::SubmissionActivated);
        let epoch = self.runs.get(&key).and_then(|active| active.run.epoch());
        if self.is_lost(epoch) {
            self.stored_too_late(key, stored);
            return;
        }
        let Some(active) = self.runs.get_mut(&key) else { return };
        // Before `begin`: changes of the tasks that start now are written on their own.
        active.is_new = false;
        active.run.committed();
        active.run.release_events(&mut stored.events);
        let is_stored = !active.run.is_uncommitted();
        if is_stored {
            active.replies.confirm(&active.run, &mut self.effects);
            self.budget.subtract(active.run.take_unstored());
        }
        if let Some(pending) = self.submissions.pending.remove(&key) {
            let PendingSubmission { id, accepted, mut replies, cancelled, .. } = pending;
            for accepted in accepted {
                self.effects.push_back(Effect::Reply(Reply::Accepted(accepted, Ok(id.clone()))));
            }
            if active.run.is_settled() {
                // There is nothing to cancel: the callers see their channel close.
                replies.on_stored.clear();
            } else {
                stored.cancelled.extend(cancelled.map(|reason| (key, reason)));
            }
            active.replies.append(replies);
        }
        if active.run.is_done() {
            self.step(Step::EarlyStored);
            stored.done.push(key);
            return;
        }
        let next = std::mem::take(&mut active.next_tasks);
        self.begin(key, now);
        if is_stored {
            self.enqueue_ready(key, next, now);
        } else {
            // What ended during the write is not stored with it: its dependents wait for that.
            self.step(Step::EarlyChanged);
            self.mark_dirty(key);
            self.batcher.ready_after_write(key, next);
        }
    }

    /// The store had a workflow of this id before; it is not run here a second time.
    fn existed(&mut self, key: RunKey) {
        self.step(Step::SubmissionExisted);
        let Some(pending) = self.discard_submission(key) else { return };
        let PendingSubmission { id, spec, accepted, replies, is_claimed, .. } = pending;
        // It will run here, or where it was claimed, but may not run yet.
        let is_unconfirmed = self.unconfirmed.contains(&id);
        let ended = replies.on_end;
        let existed = Existed { id, spec, accepted, ended, is_claimed, is_unconfirmed };
        self.effects.push_back(Effect::Existed(Box::new(existed)));
    }

    /// Stored under a lease that is gone since: the process that claims it runs it.
    fn stored_too_late(&mut self, key: RunKey, stored: &mut StoredEffects) {
        stored.unwanted.push(key);
        let Some(pending) = self.discard_submission(key) else { return };
        let PendingSubmission { id, accepted, replies, .. } = pending;
        for accepted in accepted {
            self.effects.push_back(Effect::Reply(Reply::Accepted(accepted, Ok(id.clone()))));
        }
        replies.fail(&id, None, &mut self.effects);
    }
}
