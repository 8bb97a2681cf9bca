//! A workflow's events from any point on, up to its end.
//!
//! Asked by listeners that must miss nothing. Stored events come from the store, new ones from the
//! event bus if this process runs the workflow, else from the process's follower. Wherever these do
//! not meet, or the listener was too slow, the store fills the gap.
//!
//! Invariant: the sequences of the events that are returned grow by one.

use std::{collections::VecDeque, sync::Arc};

use futures_util::{Stream, stream};
use gleitzeit_actors::{
    event_bus::{Delivery, Subscription},
    follower::{Change, Watch},
};
use gleitzeit_domain::{
    error::{ErrorCode, TaskError},
    event::{Event, EventData},
    id::WorkflowId,
    workflow::WorkflowRecord,
};

use super::{Handle, stopped};

/// Stored events that are read at once.
const PAGE: usize = 1_000;

/// The events of one workflow, in order and without a gap; made by [`Handle::follow`].
#[derive(Debug)]
pub struct Follow {
    handle: Handle,
    id: WorkflowId,
    /// The sequence of the last event that was returned.
    last: u64,
    /// Read, and not returned yet.
    page: VecDeque<Event>,
    /// Events of this process from the making on.
    live: Subscription,
    /// Set while another process runs the workflow, or none does.
    remote: Option<Watch>,
    /// The store may have more than was returned.
    is_behind: bool,
    is_over: bool,
}

/// An arrival while nothing was left to return.
enum Arrival {
    Local(Option<Delivery>),
    Remote(Option<Change>),
}

impl Follow {
    pub(super) fn new(handle: Handle, id: WorkflowId, after: u64, live: Subscription) -> Self {
        let page = VecDeque::new();
        let (remote, is_behind, is_over) = (None, true, false);
        Self { handle, id, last: after, page, live, remote, is_behind, is_over }
    }

    /// The next event; `None` once the workflow has settled and all of its events were returned.
    /// Nothing is lost when the future is dropped before it is ready.
    ///
    /// # Errors
    /// `WORKFLOW_NOT_FOUND` if there is no such workflow; `SYSTEM_SHUTDOWN` if the runtime stops
    /// before the workflow's end; those of the store.
    pub async fn next(&mut self) -> Result<Option<Event>, TaskError> {
        loop {
            if let Some(event) = self.page.pop_front() {
                self.last = event.sequence;
                return Ok(Some(event));
            }
            if self.is_over {
                return Ok(None);
            }
            if self.is_behind {
                self.catch_up().await?;
                continue;
            }
            match self.arrival().await {
                Arrival::Local(None) | Arrival::Remote(None) => return Err(stopped(())),
                Arrival::Local(Some(delivery)) => {
                    if let Some(event) = self.accept(delivery) {
                        return Ok(Some(event));
                    }
                }
                Arrival::Remote(Some(change)) => self.accept_remote(change)?,
            }
        }
    }

    /// The same as a stream; it ends after an error.
    pub fn into_stream(self) -> impl Stream<Item = Result<Event, TaskError>> + Send {
        stream::try_unfold(self, |mut follow| async {
            Ok(follow.next().await?.map(|event| (event, follow)))
        })
    }

    async fn arrival(&mut self) -> Arrival {
        let Some(remote) = &mut self.remote else {
            return Arrival::Local(self.live.next().await);
        };
        // Both: a workflow of another process may be claimed by this one at any time.
        tokio::select! {
            delivery = self.live.next() => Arrival::Local(delivery),
            change = remote.next() => Arrival::Remote(change),
        }
    }

    /// The next event, if the delivery is it.
    fn accept(&mut self, delivery: Delivery) -> Option<Event> {
        match delivery {
            Delivery::Event(event) if event.sequence <= self.last => None,
            Delivery::Event(event) if event.sequence == self.last + 1 => {
                self.last = event.sequence;
                // The bus has events of workflows that run here only.
                self.remote = None;
                // Only the store knows whether the workflow was opened again.
                self.is_behind = is_end(&event.data);
                Some(Event::clone(&event))
            }
            // The events between were published before the subscription, or were dropped.
            Delivery::Event(_) | Delivery::Lagged { .. } => {
                self.is_behind = true;
                None
            }
        }
    }

    fn accept_remote(&mut self, change: Change) -> Result<(), TaskError> {
        match change {
            Change::Events(events) => {
                let new = events.iter().filter(|event| event.sequence > self.last);
                self.page.extend(new.cloned());
                if self.page.front().is_some_and(|event| event.sequence != self.last + 1) {
                    self.page.clear();
                    self.is_behind = true;
                }
            }
            Change::State { record: Some(record), .. } => {
                let has_more = record.last_sequence > self.last;
                self.is_behind = has_more;
                self.is_over = !has_more && record.status.is_settled();
            }
            Change::State { record: None, .. } | Change::Missed => self.is_behind = true,
            Change::Failed(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Reads what the store has more; if that is nothing, finds out whether more can come.
    async fn catch_up(&mut self) -> Result<(), TaskError> {
        if self.read_on().await? {
            return Ok(());
        }
        let record = self.state().await?;
        match record {
            // The next event will arrive: the subscription and the watch began before this read.
            Some(record) if !record.status.is_settled() => self.is_behind = false,
            // All of it is stored now; some may not have been a moment ago.
            Some(_) => self.is_over = !self.read_on().await?,
            // Removed from the store while it was followed.
            None if self.last > 0 => self.is_over = true,
            None => {
                let message = format!("no workflow has the id `{}`", self.id);
                return Err(TaskError::new(ErrorCode::WorkflowNotFound, message));
            }
        }
        Ok(())
    }

    /// The state of the workflow, and a watch on it if it does not run here.
    async fn state(&mut self) -> Result<Option<Arc<WorkflowRecord>>, TaskError> {
        if let Some(record) = self.handle.running(&self.id).await {
            // Its events arrive by the bus; a watch would read each once more.
            self.remote = None;
            return Ok(Some(record));
        }
        if self.remote.is_none() {
            // Before the read below: a change after it is in the first state of the watch.
            self.remote = Some(self.handle.follower.watch(&self.id, false));
        }
        Ok(self.handle.store.outline(&self.id).await?.map(Arc::new))
    }

    /// False if the store has nothing more.
    async fn read_on(&mut self) -> Result<bool, TaskError> {
        self.page = self.handle.events(&self.id, self.last, PAGE).await?.into();
        Ok(!self.page.is_empty())
    }
}

/// True for the last event of a workflow, unless it is opened again.
fn is_end(data: &EventData) -> bool {
    matches!(
        data,
        EventData::WorkflowCompleted { .. }
            | EventData::WorkflowFailed { .. }
            | EventData::WorkflowCancelled { .. }
    )
}
