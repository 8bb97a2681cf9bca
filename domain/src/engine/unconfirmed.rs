//! Submissions of which the store did not say whether they are stored.
//!
//! A store that is away for long leaves a submission unconfirmed: its caller gets that answer, and the
//! engine writes the workflow again until the store answers. It is stored after that, whether it was
//! before or not, and runs: otherwise it could belong to a lease whose engine does not know of it,
//! and run nowhere.
//!
//! Invariant: an unconfirmed submission ends only when its workflow runs here, is run by another
//! engine, or has settled; or when the store refuses it for ever.

use std::{sync::Arc, time::Duration};

use super::{Callers, Effect, Engine, Now, Phase};
use crate::{
    id::WorkflowId,
    problem::SubmitError,
    run::RunKey,
    store::{Epoch, NewWorkflow, StoreError},
};

/// Between two tries to confirm what is unconfirmed.
pub const CONFIRM_PAUSE: Duration = Duration::from_secs(1);

/// A submission that is not confirmed.
#[derive(Debug)]
pub struct Unconfirmed {
    /// The submission.
    pub new: NewWorkflow,
    /// Why it is to be stopped once it runs.
    pub cancelled: Option<Arc<str>>,
}

/// True if a submission is rejected for ever: asking again does not help.
pub const fn is_unconfirmable(error: &StoreError) -> bool {
    // Under the next lease the same is stored.
    !error.is_transient() && !matches!(error, StoreError::LeaseLost { .. })
}

/// The store's answers about submissions.
#[derive(Debug, Default)]
pub struct Confirmations {
    /// Submissions that are still unconfirmed.
    pub left: Vec<Unconfirmed>,
    /// Tasks of those that are not.
    pub settled_tasks: u64,
    /// The lease that turned out to be lost.
    pub lost: Option<Epoch>,
}

/// All unconfirmed submissions.
#[derive(Debug, Default)]
pub(super) struct UnconfirmedSubmissions {
    open: Vec<Unconfirmed>,
    /// Submissions that the store is asked about now.
    asked: Vec<WorkflowId>,
    is_armed: bool,
}

impl UnconfirmedSubmissions {
    /// True if every submission is confirmed.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty() && self.asked.is_empty()
    }

    /// True while it is not known whether a workflow of this id is stored.
    pub(super) fn contains(&self, id: &WorkflowId) -> bool {
        self.open.iter().any(|it| it.new.record.id == *id) || self.asked.contains(id)
    }

    /// Adds a submission.
    pub(super) fn add(&mut self, unconfirmed: Unconfirmed) {
        self.open.push(unconfirmed);
    }

    /// True if the timer is to be armed.
    pub(super) fn arm(&mut self) -> bool {
        !self.open.is_empty() && !std::mem::replace(&mut self.is_armed, true)
    }

    /// The timer has fired; true if the store may be asked.
    pub(super) fn fired(&mut self) -> bool {
        self.is_armed = false;
        self.asked.is_empty()
    }

    /// Submissions to ask the store about, under the lease that is held now.
    pub(super) fn ask(&mut self, epoch: Option<Epoch>) -> Vec<Unconfirmed> {
        let mut open = std::mem::take(&mut self.open);
        for unconfirmed in &mut open {
            unconfirmed.new.epoch = epoch;
        }
        self.asked = open.iter().map(|it| it.new.record.id.clone()).collect();
        open
    }

    /// The store was asked.
    pub(super) fn asked(&mut self, left: Vec<Unconfirmed>) {
        self.asked.clear();
        self.open.extend(left);
    }
}

impl<C: Callers> Engine<C> {
    /// It is not known whether a submission is stored. Its callers get that answer; it counts as load
    /// until the store has answered.
    pub(super) fn add_unconfirmed(&mut self, key: RunKey, error: StoreError, new: NewWorkflow) {
        let cancelled = self.submissions.cancelled(key);
        // Counted before the submission is rejected, which subtracts the same: the load never
        // dips.
        self.load += new.record.tasks.len() as u64;
        self.reject_submission(key, &SubmitError::Store(error));
        self.unconfirmed.add(Unconfirmed { new, cancelled });
        self.confirm_later();
    }

    fn confirm_later(&mut self) {
        if self.unconfirmed.arm() {
            self.effects.push_back(Effect::ArmConfirm(CONFIRM_PAUSE));
        }
    }

    /// It is time to ask the store about unconfirmed submissions.
    pub fn confirm_due(&mut self, now: Now) {
        if !self.unconfirmed.fired() || self.phase != Phase::Running {
            return;
        }
        match self.lease_now(now) {
            Ok(epoch) => {
                let asked = self.unconfirmed.ask(epoch);
                self.effects.push_back(Effect::Confirm(asked));
            }
            Err(_) => self.confirm_later(),
        }
    }

    /// The store was asked about unconfirmed submissions.
    pub fn confirmed(&mut self, Confirmations { left, settled_tasks, lost }: Confirmations) {
        // Before the lease is lost below: what is left is asked about under the next one.
        self.unconfirmed.asked(left);
        self.load = self.load.saturating_sub(settled_tasks);
        if let Some(epoch) = lost {
            self.lose_lease(epoch);
        }
        self.confirm_later();
    }
}
