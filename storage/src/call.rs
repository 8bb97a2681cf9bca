//! Calls that write, and their rows, encoded while the writer waits for the database.
//!
//! Every request passes through [`pass_on`] on its way to the [`writer`](super::writer), on the
//! same thread and in the same order. What a call writes is known before where it goes: the rows
//! bear the call's own numbers until the writer puts keys in their place.
//!
//! Invariant: a call whose rows are not there, for they were used or cannot be encoded, is encoded
//! by the writer, which answers for it.

use std::{collections::BTreeSet, sync::Mutex};

use gleitzeit_domain::store::{Epoch, NewWorkflow, WorkflowChange};
use tokio::sync::mpsc;

use super::{
    rows::{self, EncodedNew, Rows},
    writer::Request,
};

/// A call that writes.
#[derive(Debug)]
pub(super) enum Write {
    /// `Store::submit`
    Submit(Vec<NewWorkflow>),
    /// `Store::record`
    Record(Vec<WorkflowChange>),
}

impl Write {
    /// Adds the leases that it bears, which are one as a rule.
    pub(super) fn add_epochs(&self, epochs: &mut BTreeSet<Epoch>) {
        match self {
            Self::Submit(news) => epochs.extend(news.iter().filter_map(|new| new.epoch)),
            Self::Record(changes) => {
                epochs.extend(changes.iter().filter_map(|change| change.epoch));
            }
        }
    }

    /// Which of `lost` it bears.
    pub(super) fn lost_of(&self, lost: &[Epoch]) -> Option<Epoch> {
        let mut borne = BTreeSet::new();
        self.add_epochs(&mut borne);
        lost.iter().copied().find(|epoch| borne.contains(epoch))
    }
}

/// The rows of a call.
#[derive(Debug)]
pub(super) enum Prepared {
    /// Of each new workflow.
    Submit(Vec<EncodedNew>),
    /// Each bears the number of its change for a key.
    Record(Rows),
}

/// A call with its rows.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) write: Write,
    prepared: Mutex<Option<Prepared>>,
}

impl Call {
    pub(super) fn new(write: Write) -> Self {
        Self { write, prepared: Mutex::new(None) }
    }

    /// Encodes its rows, and lets the writer have a turn between two lots of them.
    async fn prepare(&mut self) {
        let prepared = match &self.write {
            Write::Submit(news) => {
                let mut encoded = Vec::with_capacity(news.len());
                for lot in news.chunks(LOT) {
                    let Ok(rows) = rows::encode_all(lot) else { return };
                    encoded.extend(rows);
                    tokio::task::yield_now().await;
                }
                Prepared::Submit(encoded)
            }
            Write::Record(changes) => {
                let mut all = Rows::default();
                for (lot, number) in changes.chunks(LOT).zip((0..).step_by(LOT)) {
                    let Ok(rows) = rows::by_number(lot, number) else { return };
                    all.append(rows);
                    tokio::task::yield_now().await;
                }
                Prepared::Record(all)
            }
        };
        self.prepared = Mutex::new(Some(prepared));
    }

    /// Its rows, once.
    pub(super) fn take_prepared(&self) -> Option<Prepared> {
        self.prepared.lock().ok()?.take()
    }
}

/// Workflows that are encoded at a time: some ten microseconds, by which the database may have to
/// wait for the writer.
const LOT: usize = 8;

/// Prepares requests and passes them on, until nobody asks or nobody listens any more.
pub(super) async fn pass_on(
    mut queue: mpsc::UnboundedReceiver<Request>,
    writer: mpsc::UnboundedSender<Request>,
) {
    while let Some(mut request) = queue.recv().await {
        if let Request::Write(call, _) = &mut request {
            call.prepare().await;
        }
        if writer.send(request).is_err() {
            return;
        }
    }
}
