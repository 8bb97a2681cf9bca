//! A call that writes, with its rows.
//!
//! The rows are encoded while the writer waits for the database, on the same thread. The writer
//! encodes a call again if its rows were used by a failed attempt, or if they could not be encoded;
//! then it also reports the error.

use std::{collections::BTreeSet, sync::Mutex};

use gleitzeit_domain::store::{Epoch, NewWorkflow, WorkflowChange};

use super::rows::{self, Prepared, Rows};

/// A call that writes.
#[derive(Debug)]
pub(super) enum Write {
    /// `Store::submit`
    Submit(Vec<NewWorkflow>),
    /// `Store::record`
    Record(Vec<WorkflowChange>),
}

impl Write {
    /// Adds the leases of its workflows; usually one.
    pub(super) fn add_epochs(&self, epochs: &mut BTreeSet<Epoch>) {
        match self {
            Self::Submit(workflows) => epochs.extend(workflows.iter().filter_map(|new| new.epoch)),
            Self::Record(changes) => {
                epochs.extend(changes.iter().filter_map(|change| change.epoch));
            }
        }
    }

    /// The first of its leases that is among `lost`.
    pub(super) fn lost_of(&self, lost: &[Epoch]) -> Option<Epoch> {
        let mut epochs = BTreeSet::new();
        self.add_epochs(&mut epochs);
        lost.iter().copied().find(|epoch| epochs.contains(epoch))
    }
}

/// A call with its rows.
#[derive(Debug)]
pub(super) struct WriteCall {
    pub(super) write: Write,
    // A mutex, because a group shares its calls while it takes their rows.
    prepared: Mutex<Option<Prepared>>,
}

impl WriteCall {
    pub(super) fn new(write: Write) -> Self {
        Self { write, prepared: Mutex::new(None) }
    }

    /// Encodes the rows; yields to the writer after each batch.
    pub(super) async fn prepare(&mut self) {
        let prepared = match &self.write {
            Write::Submit(workflows) => {
                let mut encoded = Vec::with_capacity(workflows.len());
                for batch in workflows.chunks(ENCODE_BATCH) {
                    // Without an error: the writer encodes the call again, and replies with the
                    // error.
                    let Ok(rows) = rows::encode_all(batch) else { return };
                    encoded.extend(rows);
                    tokio::task::yield_now().await;
                }
                Prepared::Submit(encoded)
            }
            Write::Record(changes) => {
                let mut all = Rows::default();
                for (batch, number) in changes.chunks(ENCODE_BATCH).zip((0..).step_by(ENCODE_BATCH))
                {
                    let Ok(rows) = rows::by_number(batch, number) else { return };
                    all.append(rows);
                    tokio::task::yield_now().await;
                }
                Prepared::Record(all)
            }
        };
        self.prepared = Mutex::new(Some(prepared));
    }

    /// The rows; `None` from the second time on.
    pub(super) fn take_prepared(&self) -> Option<Prepared> {
        self.prepared.lock().ok()?.take()
    }
}

/// Workflows encoded between two yields, some ten microseconds: the writer waits at most that long
/// after an answer of the database.
const ENCODE_BATCH: usize = 8;
