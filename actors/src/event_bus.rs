//! Publishes events to all who subscribe: commands that follow a workflow, servers, tests.
//!
//! The engine, the provider supervisors and the monitor publish; none of them waits for an answer.
//! The bus keeps no event: a listener that subscribed late or was too slow reads the store.
//!
//! Invariants: a slow listener costs no more memory than its capacity, and others no time; the
//! events that it missed are counted and reported at their place. An event is compared with the
//! listeners of its workflow and those of all workflows, not with the rest.

mod subscription;

use std::{collections::HashMap, sync::Arc};

use actix::prelude::*;
pub use gleitzeit_domain::event::SubscriberCount;
use gleitzeit_domain::{
    event::{Event, EventData},
    id::WorkflowId,
};

use subscription::Sink;
pub use subscription::{Delivery, Subscription};

/// Publishes events, in the order in which they happened.
///
/// If events are costly to make, ask [`SubscriberCount::is_empty`] first.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct Publish {
    /// The events.
    pub events: Vec<Event>,
}

/// Subscribes to the events from now on; none that is published after the answer is missed. A filter
/// with `engine:started` or `engine:*` among its types gets that event first, although it was
/// published before: no one can subscribe before it.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Subscription")]
pub struct Subscribe {
    /// The events to deliver.
    pub filter: EventFilter,
    /// Events that may wait to be read, at least 1; further ones are dropped and counted.
    pub capacity: usize,
}

/// Sent by a dropped [`Subscription`].
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Unsubscribe {
    number: u64,
    workflow_id: Option<WorkflowId>,
}

/// The events that a listener wants.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EventFilter {
    /// The workflow; `None` for all, and for events of no workflow.
    pub workflow_id: Option<WorkflowId>,
    /// The types, such as `task:completed`, or `task:*` for all of a kind. Empty for every type.
    pub types: Vec<String>,
}

impl EventFilter {
    /// Every event of one workflow.
    pub fn workflow(id: WorkflowId) -> Self {
        Self { workflow_id: Some(id), types: Vec::new() }
    }

    /// True if the listener wants the event.
    pub fn matches(&self, event: &Event) -> bool {
        let of_workflow = self.workflow_id.is_none() || self.workflow_id == event.workflow_id;
        of_workflow && self.matches_type(event.data.event_type())
    }

    fn matches_type(&self, event_type: &str) -> bool {
        let is = |wanted: &String| match wanted.strip_suffix('*') {
            Some(kind) => event_type.starts_with(kind),
            None => event_type == wanted,
        };
        self.types.is_empty() || self.types.iter().any(is)
    }
}

/// The actor. One per system, on the control arbiter.
#[derive(Debug, Default)]
pub struct EventBus {
    /// Listeners of one workflow; no list is empty.
    by_workflow: HashMap<WorkflowId, Vec<Sink>>,
    /// Listeners of all workflows.
    of_all: Vec<Sink>,
    next_number: u64,
    subscribers: SubscriberCount,
    /// The start of the engine, for listeners that subscribe later and ask for it.
    started: Option<Arc<Event>>,
}

impl EventBus {
    /// A bus without listeners.
    pub fn new() -> Self {
        Self::default()
    }

    /// The count of listeners, kept current; to be cloned before the actor starts.
    pub fn subscribers(&self) -> SubscriberCount {
        self.subscribers.clone()
    }

    /// The listeners that may want an event.
    fn concerned(&self, event: &Event) -> impl Iterator<Item = &Sink> {
        let of_workflow = event.workflow_id.as_ref().and_then(|id| self.by_workflow.get(id));
        of_workflow.into_iter().flatten().chain(&self.of_all)
    }

    fn publish(&self, event: Event) {
        // An `Arc` per event that no one wants would be the cost of every busy engine.
        if self.concerned(&event).next().is_some() {
            let event = Arc::new(event);
            self.concerned(&event).for_each(|sink| sink.offer(&event));
        }
    }

    /// Updates the count of listeners; every change of the lists ends here.
    fn count(&self, change: impl FnOnce(usize) -> usize) {
        self.subscribers.set(change(self.subscribers.len()));
    }
}

impl Drop for EventBus {
    fn drop(&mut self) {
        // The engine makes no events for a count of zero; after the bus, no one would read them.
        self.count(|_| 0);
    }
}

impl Actor for EventBus {
    type Context = Context<Self>;
}

impl Supervised for EventBus {
    /// Keeps the listeners: dropped, their streams would end although the bus lives.
    fn restarting(&mut self, _: &mut Self::Context) {}
}

impl Handler<Publish> for EventBus {
    type Result = ();

    fn handle(&mut self, Publish { events }: Publish, _: &mut Self::Context) {
        // Looked for until it is found only: every later batch would be scanned for it.
        if self.started.is_none() {
            let start = |event: &&Event| matches!(event.data, EventData::EngineStarted { .. });
            self.started = events.iter().find(start).map(|event| Arc::new(event.clone()));
        }
        if !self.subscribers.is_empty() {
            for event in events {
                self.publish(event);
            }
        }
    }
}

impl Handler<Subscribe> for EventBus {
    type Result = MessageResult<Subscribe>;

    fn handle(&mut self, message: Subscribe, ctx: &mut Self::Context) -> Self::Result {
        let Subscribe { filter, capacity } = message;
        let number = self.next_number;
        self.next_number += 1;
        // A listener without types counts events from its subscription on: one from before would
        // be one too many.
        let asks_for_start = !filter.types.is_empty();
        let leave = Unsubscribe { number, workflow_id: filter.workflow_id.clone() };
        let of = match &filter.workflow_id {
            Some(id) => self.by_workflow.entry(id.clone()).or_default(),
            None => &mut self.of_all,
        };
        let (sink, subscription) =
            subscription::pair(number, filter, capacity, (ctx.address().downgrade(), leave));
        if let Some(started) = self.started.as_ref().filter(|_| asks_for_start) {
            sink.offer(started);
        }
        of.push(sink);
        self.count(|listeners| listeners + 1);
        MessageResult(subscription)
    }
}

impl Handler<Unsubscribe> for EventBus {
    type Result = ();

    fn handle(&mut self, message: Unsubscribe, _: &mut Self::Context) {
        let Unsubscribe { number, workflow_id } = message;
        let is_it = |sink: &Sink| sink.number() == number;
        let left = match workflow_id {
            None => self.of_all.extract_if(.., |sink| is_it(sink)).count(),
            Some(id) => {
                let Some(sinks) = self.by_workflow.get_mut(&id) else { return };
                let left = sinks.extract_if(.., |sink| is_it(sink)).count();
                // An empty list for each workflow that was ever followed would stay for ever.
                if sinks.is_empty() {
                    self.by_workflow.remove(&id);
                }
                left
            }
        };
        self.count(|listeners| listeners - left);
    }
}

#[cfg(test)]
mod tests;
