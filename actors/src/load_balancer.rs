//! Knows the providers and chooses the one that serves a call.
//!
//! Asked by the pipeline for every call, by the engine to end calls, by the runtime's owner to add
//! and remove providers. Every `ProviderSupervisor` reports its state here. [`ProviderTable`] makes
//! the choice. This actor answers, and queues a call that cannot be served now: for a busy provider
//! until it has room, for a provider that is down as long as [`WaitPolicy`] and the method say.
//!
//! Invariant: a provider's calls in flight are the live [`ProviderTicket`]s.

mod directory;
mod settings;
mod supervisors;
mod ticket;
mod waiting;
mod watchdog;

use std::{collections::HashMap, pin::Pin, sync::Arc, task, time::Duration};

use actix::prelude::*;
use actix_rt::ArbiterHandle;
use gleitzeit_domain::{
    balance::{Pick, ProviderTable, Strategies, UnknownStrategy},
    error::TaskError,
    health::HealthStatus,
    id::{Capability, ProviderId},
    protocol::MethodRef,
    run::TaskKey,
    task::Priority,
};
use tokio::{sync::oneshot, time::Instant};

use crate::{
    event_bus::Publish,
    provider_supervisor::{CancelCalls, ProviderState, ProviderStatusChanged},
};

pub use directory::{
    GetProviders, GetServed, RegisterProvider, RegisterProviderError, RemoveProvider,
    RestartProvider, StopProviders,
};
use settings::WAIT_MAX;
pub use settings::{BalancerSettings, WaitPolicy};
use supervisors::ProviderHandle;
pub use ticket::ProviderTicket;
use ticket::ReleaseTicket;

/// Asks for providers, one for each request, in order.
#[derive(Debug, Message)]
#[rtype(result = "Vec<Picked>")]
pub struct PickProviders(pub Vec<PickRequest>);

/// One call that needs a provider.
#[derive(Debug)]
pub struct PickRequest {
    /// The task that makes the call.
    pub task: TaskKey,
    /// The method to call.
    pub method: MethodRef,
    /// The order among calls that wait.
    pub priority: Priority,
    /// The provider of a failed attempt: chosen only if no other one is well enough.
    pub avoid: Option<ProviderId>,
}

/// The answer to a [`PickRequest`].
#[derive(Debug)]
pub enum Picked {
    /// A provider with room.
    Now(ProviderTicket),
    /// A place in the queue of the method.
    Waiting(Waiting),
    /// No provider will serve the call.
    Refused(TaskError),
}

/// A wait for a provider; as a future it resolves with [`ticket`](Self::ticket).
#[derive(Debug)]
pub struct Waiting {
    /// The provider, or the error that ends the wait; closes if the wait is cancelled.
    pub ticket: oneshot::Receiver<Result<ProviderTicket, TaskError>>,
    /// Sent once if all providers of the method are down: the cause, as far as it is known. Closes
    /// empty if the wait ends before.
    pub cause: oneshot::Receiver<Arc<str>>,
}

impl Future for Waiting {
    type Output = Result<Result<ProviderTicket, TaskError>, oneshot::error::RecvError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> task::Poll<Self::Output> {
        Pin::new(&mut self.ticket).poll(cx)
    }
}

/// Ends the waits and the calls of cancelled tasks, at every provider.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct CancelTasks(pub Arc<Vec<TaskKey>>);

/// The actor. One per system, on the control arbiter.
pub struct LoadBalancer {
    settings: BalancerSettings,
    table: ProviderTable<ProviderHandle>,
    /// Calls that wait, by method; no queue is empty.
    waiting: HashMap<Capability, waiting::WaitQueue>,
    /// Calls in all queues together.
    waiters: usize,
    /// The first request for a method whose providers had never served.
    first_missed: HashMap<Capability, Instant>,
    next_age: u64,
    /// Waiters served since the last one that was chosen by age.
    served: u32,
    workers: Vec<ArbiterHandle>,
    next_worker: usize,
    next_supervisor: u64,
    last_round: Instant,
    bus: Recipient<Publish>,
    clock: crate::Clock,
    started_at: Instant,
    /// The timer for the next wait that may end.
    alarm: Option<(Instant, SpawnHandle)>,
}

impl LoadBalancer {
    /// A balancer without providers; it will spread them over the threads of `workers`.
    ///
    /// # Errors
    /// [`UnknownStrategy`] if the settings name a strategy that `strategies` does not have.
    pub fn new(
        mut settings: BalancerSettings,
        strategies: &Strategies,
        workers: Vec<ArbiterHandle>,
        bus: Recipient<Publish>,
        clock: crate::Clock,
    ) -> Result<Self, UnknownStrategy> {
        // An instant plus a longer wait would overflow, which panics.
        settings.provider_wait = settings.provider_wait.min(WAIT_MAX);
        Ok(Self {
            table: ProviderTable::new(&settings.balance, strategies)?,
            settings,
            waiting: HashMap::new(),
            waiters: 0,
            first_missed: HashMap::new(),
            next_age: 0,
            served: 0,
            workers,
            next_worker: 0,
            next_supervisor: 0,
            last_round: Instant::now(),
            bus,
            clock,
            started_at: Instant::now(),
            alarm: None,
        })
    }

    fn now(&self) -> Duration {
        self.started_at.elapsed()
    }

    /// Chooses a provider for one call and counts the call.
    fn try_pick(
        &mut self,
        capability: &Capability,
        avoid: Option<&ProviderId>,
    ) -> Result<ProviderTicket, Pick> {
        let now = self.now();
        let pick = self.table.pick(capability, avoid, now);
        let Pick::Chosen(slot) = pick else { return Err(pick) };
        // Counted before the ticket exists: a second pick of the same batch must see the first one,
        // or both would get the last free slot.
        self.table.started(slot);
        let entry = self.table.get(slot).ok_or(pick)?;
        Ok(ProviderTicket::new(slot, Arc::clone(&entry.handle.address)))
    }

    fn answer(&mut self, request: PickRequest, ctx: &mut Context<Self>) -> Picked {
        let capability = &request.method.capability;
        // A call that is served past the queue of its method would overtake older ones for ever
        // under load. Without any waiter, the common case, no lookup is made.
        let queue = if self.waiters == 0 { None } else { self.waiting.get(&**capability) };
        if let Some(queue) = queue.filter(|queue| !queue.is_empty()) {
            let first_has_exclusions = queue.first_has_exclusions();
            let down = !self.table.is_up(capability);
            let capability = Arc::clone(capability);
            let picked = self.enqueue(request, down, ctx);
            // The first waiter may only wait because it avoids the provider that is free. Without
            // this the new one would not get that provider before the next release.
            if first_has_exclusions {
                self.serve_queues(vec![Capability::clone(&capability)]);
            }
            return picked;
        }
        match self.try_pick(capability, request.avoid.as_ref()) {
            Ok(ticket) => Picked::Now(ticket),
            Err(pick) => self.enqueue(request, pick != Pick::Busy, ctx),
        }
    }
}

impl Actor for LoadBalancer {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(crate::MAILBOX);
        // A restart drops every timer: a handle that was kept would cancel a timer of this life,
        // because actix numbers them from the start again.
        self.alarm = None;
        self.last_round = Instant::now();
        self.watch(ctx);
        // The panic may have happened while a queue was served, and its timer is gone.
        self.review_queues(ctx);
    }
}

impl Supervised for LoadBalancer {}

impl Handler<PickProviders> for LoadBalancer {
    type Result = MessageResult<PickProviders>;

    fn handle(
        &mut self,
        PickProviders(requests): PickProviders,
        ctx: &mut Self::Context,
    ) -> Self::Result {
        MessageResult(requests.into_iter().map(|request| self.answer(request, ctx)).collect())
    }
}

impl Handler<ReleaseTicket> for LoadBalancer {
    type Result = ();

    fn handle(&mut self, ReleaseTicket { slot, sample }: ReleaseTicket, _: &mut Self::Context) {
        let now = self.now();
        // A slot of a provider that was replaced is unknown to the table, which ignores it: the new
        // supervisor begins with no call in flight.
        self.table.finished(slot, sample, now);
        if self.waiters > 0 {
            self.serve_slot(slot);
        }
    }
}

impl Handler<ProviderStatusChanged> for LoadBalancer {
    type Result = ();

    fn handle(&mut self, changed: ProviderStatusChanged, ctx: &mut Self::Context) {
        let ProviderStatusChanged { supervisor_number, status } = changed;
        let id = status.provider_id.clone();
        let slot = self.table.find(&id);
        // A supervisor that was given up may wake up later; its reports would put the provider's
        // new supervisor into a state that it is not in.
        let Some(provider) = slot
            .and_then(|slot| self.table.handle_mut(slot))
            .filter(|it| it.supervisor_number == supervisor_number && !it.is_lost)
        else {
            return;
        };
        let serving = status.state == ProviderState::Serving;
        // The health of an instance that does not serve says nothing about the next one.
        let health = if serving { status.health } else { HealthStatus::Unknown };
        provider.status = status;
        provider.has_served |= serving;
        provider.last_pong = Instant::now();
        self.table.set_available(&id, serving);
        self.table.set_health(&id, health);
        self.review_queues(ctx);
    }
}

impl Handler<CancelTasks> for LoadBalancer {
    type Result = ();

    fn handle(&mut self, CancelTasks(tasks): CancelTasks, _: &mut Self::Context) {
        self.remove_waiters(&tasks);
        for (_, entry) in self.table.iter() {
            // Nobody notes which provider has which task, so all that are busy are asked. A message
            // to an idle one would wake its thread for nothing.
            if entry.in_flight() > 0 {
                entry.handle.supervisor.do_send(CancelCalls(tasks.as_ref().clone()));
            }
        }
    }
}
