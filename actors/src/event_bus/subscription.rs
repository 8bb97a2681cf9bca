//! The two ends of a subscription: the bus's, which never waits, and the listener's, a stream.
//!
//! Invariant: what waits is in the order of publishing, with a mark wherever events were dropped.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use actix::WeakAddr;
use futures_util::Stream;
use gleitzeit_domain::event::Event;

use super::{EventBus, EventFilter, Unsubscribe};

/// What a listener gets.
#[derive(Debug, Clone, PartialEq)]
pub enum Delivery {
    /// The next event.
    Event(Arc<Event>),
    /// The listener was too slow: in this place so many events are missing. Those of a workflow
    /// can be read from the store, by their sequence.
    Lagged {
        /// How many.
        missed: u64,
    },
}

/// What waits to be read; shared by both ends.
#[derive(Debug, Default)]
struct Buffer {
    waiting: VecDeque<Delivery>,
    /// Events dropped since the last one in `waiting`.
    missed: u64,
    closed: bool,
    reader: Option<Waker>,
}

#[derive(Debug, Default)]
struct Shared(Mutex<Buffer>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Buffer> {
        // No step under the lock leaves the buffer half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bus's end. Dropping it ends the stream once everything that waits has been read.
#[derive(Debug)]
pub(super) struct Sink {
    number: u64,
    filter: EventFilter,
    capacity: usize,
    shared: Arc<Shared>,
}

impl Sink {
    /// Tells this listener from others.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Puts an event where the listener will find it, if it wants it and there is room.
    pub(super) fn offer(&self, event: &Arc<Event>) {
        if !self.filter.matches(event) {
            return;
        }
        let mut buffer = self.shared.lock();
        if buffer.waiting.len() >= self.capacity {
            buffer.missed += 1;
            return;
        }
        if buffer.missed > 0 {
            let missed = std::mem::take(&mut buffer.missed);
            buffer.waiting.push_back(Delivery::Lagged { missed });
        }
        buffer.waiting.push_back(Delivery::Event(Arc::clone(event)));
        let reader = buffer.reader.take();
        drop(buffer);
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let mut buffer = self.shared.lock();
        buffer.closed = true;
        let reader = buffer.reader.take();
        drop(buffer);
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

/// The listener's end: a stream of [`Delivery`], usable from any thread. Ends when the bus does;
/// dropping it unsubscribes.
#[derive(Debug)]
pub struct Subscription {
    shared: Arc<Shared>,
    bus: WeakAddr<EventBus>,
    leave: Option<Unsubscribe>,
}

impl Subscription {
    /// The next delivery; `None` when the bus has stopped and nothing more waits. Nothing is lost
    /// when the future is dropped before it is ready.
    pub async fn next(&mut self) -> Option<Delivery> {
        poll_fn(|cx| self.poll_delivery(cx)).await
    }

    /// What waits already, without waiting for more.
    pub fn try_next(&mut self) -> Option<Delivery> {
        take(&mut self.shared.lock())
    }

    fn poll_delivery(&self, cx: &Context<'_>) -> Poll<Option<Delivery>> {
        let mut buffer = self.shared.lock();
        match take(&mut buffer) {
            Some(delivery) => Poll::Ready(Some(delivery)),
            None if buffer.closed => Poll::Ready(None),
            None => {
                buffer.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// The oldest that waits; behind the last one, the mark of what was dropped after it.
fn take(buffer: &mut Buffer) -> Option<Delivery> {
    let next = buffer.waiting.pop_front();
    if next.is_none() && buffer.missed > 0 {
        return Some(Delivery::Lagged { missed: std::mem::take(&mut buffer.missed) });
    }
    next
}

impl Stream for Subscription {
    type Item = Delivery;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Delivery>> {
        self.poll_delivery(cx)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let (Some(bus), Some(leave)) = (self.bus.upgrade(), self.leave.take()) {
            bus.do_send(leave);
        }
    }
}

/// Both ends; `leave` is how the listener's end unsubscribes.
pub(super) fn pair(
    number: u64,
    filter: EventFilter,
    capacity: usize,
    (bus, leave): (WeakAddr<EventBus>, Unsubscribe),
) -> (Sink, Subscription) {
    let shared = Arc::new(Shared::default());
    let sink = Sink { number, filter, capacity: capacity.max(1), shared: Arc::clone(&shared) };
    (sink, Subscription { shared, bus, leave: Some(leave) })
}
