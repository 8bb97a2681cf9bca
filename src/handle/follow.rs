//! A workflow's events from any point on, up to its end.
//!
//! Asked by listeners that must not miss anything: what is stored comes from the store, what
//! happens comes from the event bus, and wherever the two do not meet, or the listener fell behind,
//! the store fills the gap.
//!
//! Invariant: the sequences that come out grow by one.

use std::{collections::VecDeque, time::Duration};

use futures_util::{Stream, stream};
use gleitzeit_actors::event_bus::{Delivery, Subscription};
use gleitzeit_domain::{
    error::{ErrorCode, TaskError},
    event::{Event, EventData},
    id::WorkflowId,
};

use super::{Handle, stopped};

/// Stored events that are read at once.
const PAGE: usize = 1_000;

/// Between two looks at what another process runs: of its events nobody here is told.
const LOOK_PAUSE: Duration = Duration::from_millis(300);

/// The events of one workflow, in order and without a gap; made by [`Handle::follow`].
#[derive(Debug)]
pub struct Follow {
    handle: Handle,
    id: WorkflowId,
    /// The sequence of the last event that came out.
    last: u64,
    /// Of the store, not yet out.
    page: VecDeque<Event>,
    /// What happens from the making on.
    live: Subscription,
    /// The store may have more than came out.
    is_behind: bool,
    /// Another process runs it, or nobody does.
    is_elsewhere: bool,
    is_over: bool,
}

impl Follow {
    pub(super) fn new(handle: Handle, id: WorkflowId, after: u64, live: Subscription) -> Self {
        let page = VecDeque::new();
        Self {
            handle,
            id,
            last: after,
            page,
            live,
            is_behind: true,
            is_elsewhere: false,
            is_over: false,
        }
    }

    /// The next event; `None` once the workflow has settled and all of its events came out. Nothing
    /// is lost when the future is dropped before it is ready.
    ///
    /// # Errors
    /// `WORKFLOW_NOT_FOUND` where there is none; `SYSTEM_SHUTDOWN` when the runtime stops before
    /// the workflow's end; those of the store.
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
            let told = if self.is_elsewhere {
                tokio::time::timeout(LOOK_PAUSE, self.live.next()).await
            } else {
                Ok(self.live.next().await)
            };
            let Ok(told) = told else {
                self.is_behind = true;
                continue;
            };
            match told {
                None => return Err(stopped(())),
                Some(Delivery::Event(event)) if event.sequence <= self.last => {}
                Some(Delivery::Event(event)) if event.sequence == self.last + 1 => {
                    self.last = event.sequence;
                    // Only the store knows whether somebody opened it again.
                    self.is_behind = is_end(&event.data);
                    return Ok(Some(Event::clone(&event)));
                }
                // What is missing here was told before this listener came, or dropped.
                Some(Delivery::Event(_) | Delivery::Lagged { .. }) => self.is_behind = true,
            }
        }
    }

    /// The same as a stream; it ends after an error.
    pub fn into_stream(self) -> impl Stream<Item = Result<Event, TaskError>> + Send {
        stream::try_unfold(self, |mut follow| async {
            Ok(follow.next().await?.map(|event| (event, follow)))
        })
    }

    /// Reads what the store has more; where that is nothing, finds out whether more can come.
    async fn catch_up(&mut self) -> Result<(), TaskError> {
        if self.read_on().await? {
            return Ok(());
        }
        let running = self.handle.running(&self.id).await;
        self.is_elsewhere = running.is_none();
        let record = match running {
            Some(record) => Some(record),
            None => self.handle.workflow(&self.id).await?,
        };
        match record {
            // Its next event will be told: the listening began before this look.
            Some(record) if !record.status.is_settled() => self.is_behind = false,
            // All of it is stored now; some may not have been a moment ago.
            Some(_) => self.is_over = !self.read_on().await?,
            // Forgotten while it was followed.
            None if self.last > 0 => self.is_over = true,
            None => {
                let message = format!("no workflow has the id `{}`", self.id);
                return Err(TaskError::new(ErrorCode::WorkflowNotFound, message));
            }
        }
        Ok(())
    }

    /// False when the store has nothing more.
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
