//! The meaning of the store's answers to new workflows.
//!
//! The answer to a commit may be lost. The same is then written again a few times, while the caller
//! waits; after that the submission is unconfirmed.

use std::time::Duration;

use super::split_write::is_content_error;
use crate::{
    event::Event,
    store::{Epoch, NewWorkflow, StoreError, Submitted},
    workflow::WorkflowRecord,
};

/// A store that does not say whether it committed is asked again so often.
const UNKNOWN_RETRIES: u32 = 5;

/// The first pause before that; it doubles each time.
const UNKNOWN_PAUSE: Duration = Duration::from_millis(50);

/// Why a workflow was not stored.
#[derive(Debug, Clone)]
pub enum NotStored {
    /// It certainly was not.
    Store(StoreError),
    /// The same, for its content. With the events that were to be stored.
    Content(StoreError, Vec<Event>),
    /// It may be stored.
    Unconfirmed(StoreError, Box<NewWorkflow>),
    /// The lease is gone. With the events that were to be stored.
    LeaseLost {
        /// The lease.
        epoch: Epoch,
        /// The events.
        events: Vec<Event>,
        /// True if the workflow may be stored under that lease.
        is_unconfirmed: bool,
    },
}

/// The outcome of each workflow of a batch.
pub type SubmitOutcomes = Vec<Result<Submitted, NotStored>>;

/// The tries of one batch that the store did not confirm.
#[derive(Debug)]
pub struct SubmitRetries {
    /// The first answer left open whether the batch is stored.
    is_unconfirmed: bool,
    tries: u32,
}

impl SubmitRetries {
    /// After the first answer.
    pub fn new(error: &StoreError) -> Self {
        Self { is_unconfirmed: matches!(error, StoreError::Unknown { .. }), tries: 0 }
    }

    /// The pause before the batch is written again; `None` if that is of no use.
    pub fn pause(&mut self, error: &StoreError) -> Option<Duration> {
        if !self.is_unconfirmed || !error.is_transient() || self.tries == UNKNOWN_RETRIES {
            return None;
        }
        self.tries += 1;
        Some(UNKNOWN_PAUSE * (1 << (self.tries - 1)))
    }

    /// Applies the last answer to each workflow.
    pub fn finish(self, error: &StoreError, new: Vec<NewWorkflow>) -> AfterSubmit {
        let is_unconfirmed = self.is_unconfirmed;
        let of_each = |outcome: &dyn Fn(NewWorkflow) -> NotStored| {
            AfterSubmit::Known(new.clone().into_iter().map(|new| Err(outcome(new))).collect())
        };
        if let StoreError::LeaseLost { epoch } = *error {
            let lost = |new: NewWorkflow| NotStored::LeaseLost {
                epoch,
                events: new.events,
                is_unconfirmed,
            };
            return of_each(&lost);
        }
        // Not rejected: one of the tries may have committed, and the workflow runs then.
        if is_unconfirmed {
            return of_each(&|new| unconfirmed(error, new));
        }
        if new.len() == 1 && is_content_error(error) {
            return of_each(&|new| NotStored::Content(error.clone(), new.events));
        }
        if new.len() == 1 || error.is_transient() || *error == StoreError::Closed {
            return of_each(&|_| NotStored::Store(error.clone()));
        }
        // One of them may be at fault, and must not take the others with it.
        AfterSubmit::OneByOne(new)
    }
}

/// The consequence of the last answer to a batch.
#[derive(Debug)]
pub enum AfterSubmit {
    /// All is known.
    Known(SubmitOutcomes),
    /// Each is to be written alone.
    OneByOne(Vec<NewWorkflow>),
}

/// The caller must not take it for rejected: it may be stored, and will be.
pub fn unconfirmed(error: &StoreError, new: NewWorkflow) -> NotStored {
    let detail = format!(
        "{error}; the workflow is written again until the store answers, and runs then: submit it \
         again under its id `{}` only",
        new.record.id
    );
    NotStored::Unconfirmed(StoreError::Unknown { detail }, Box::new(new))
}

/// True if `stored` was written by the submission of `new`: no other submits the same id within the
/// same microsecond.
pub fn is_same_submission(stored: &WorkflowRecord, new: &WorkflowRecord) -> bool {
    stored.created_at.timestamp_micros() == new.created_at.timestamp_micros()
        && stored.last_sequence == new.last_sequence
}
