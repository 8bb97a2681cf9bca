//! The two ends of a subscription: the bus's, which never waits, and the listener's, a stream.
//!
//! Invariant: deliveries wait in the order of publishing; dropped events leave a count at their
//! place.

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

/// An item of a subscription.
#[derive(Debug, Clone, PartialEq)]
pub enum Delivery {
    /// The next event.
    Event(Arc<Event>),
    /// The listener was too slow: events are missing here. Those of a workflow can be read from the
    /// store, by their sequence.
    Lagged {
        /// The number of missing events.
        missed: u64,
    },
}

/// Deliveries that wait to be read; shared by both ends.
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
        // No step under the lock leaves the buffer half changed. A poisoned lock taken for an error
        // would end every listener for the panic of one.
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
    /// The number of this listener, which no other one has.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Queues an event if the listener wants it; counts it as missed if there is no room.
    pub(super) fn offer(&self, event: &Arc<Event>) {
        if !self.filter.matches(event) {
            return;
        }
        let mut buffer = self.shared.lock();
        // Never blocks: the bus would hold up every other listener, and the engine's memory with it.
        if buffer.waiting.len() >= self.capacity {
            buffer.missed += 1;
            return;
        }
        // Before the event: the count stands for what was dropped in front of it.
        if buffer.missed > 0 {
            let missed = std::mem::take(&mut buffer.missed);
            buffer.waiting.push_back(Delivery::Lagged { missed });
        }
        buffer.waiting.push_back(Delivery::Event(Arc::clone(event)));
        let reader = buffer.reader.take();
        // Woken without the lock: a waker may poll at once, which locks again.
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

    /// The next delivery if one waits already.
    pub fn try_next(&mut self) -> Option<Delivery> {
        take(&mut self.shared.lock())
    }

    fn poll_delivery(&self, cx: &Context<'_>) -> Poll<Option<Delivery>> {
        let mut buffer = self.shared.lock();
        match take(&mut buffer) {
            Some(delivery) => Poll::Ready(Some(delivery)),
            None if buffer.closed => Poll::Ready(None),
            None => {
                // Under the lock: an event that is queued between the check and this would wake no
                // one.
                buffer.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// The oldest delivery that waits; after the last one, the count of events dropped since.
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

/// Both ends; `leave` is the message by which the listener's end unsubscribes.
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
