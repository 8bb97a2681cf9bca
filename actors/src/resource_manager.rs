//! Grants resource leases to tasks, by priority and age.
//!
//! Asked by the pipeline before it picks a provider; asks nobody. The counting and the order are
//! [`LeaseQueue`]'s; this actor answers, and takes back what dropped leases return.
//!
//! A lease also counts one slot of `max_concurrent_tasks`, so that the bound on executing tasks is
//! the same exact sum as that of every resource.

use std::{collections::HashMap, sync::Arc};

use actix::prelude::*;
use gleitzeit_domain::{
    lease_queue::{Answer, ExceedsTotal, Granted, LeaseQueue, Ticket},
    resources::Resources,
    run::TaskKey,
    task::Priority,
};
use tokio::sync::oneshot;

/// Asks for leases; each is granted at once, waits its turn, or is refused.
#[derive(Debug, Message)]
#[rtype(result = "Vec<Grant>")]
pub struct Acquire(pub Vec<Need>);

/// What one task needs.
#[derive(Debug)]
pub struct Need {
    /// Which task.
    pub task: TaskKey,
    /// How much.
    pub need: Resources,
    /// Who is served first.
    pub priority: Priority,
}

/// The answer to a [`Need`].
#[derive(Debug)]
pub enum Grant {
    /// Here it is.
    Leased(Lease),
    /// It comes when its turn does; the channel closes when the wait is cancelled.
    Waiting(oneshot::Receiver<Lease>),
    /// No amount of waiting would help.
    Refused(ExceedsTotal),
}

/// Resources held by one task; dropping it gives them back.
#[derive(Debug)]
pub struct Lease {
    held: Resources,
    manager: Addr<ResourceManager>,
}

impl Lease {
    /// What is held.
    pub fn held(&self) -> Resources {
        self.held
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.manager.do_send(Release { held: self.held });
    }
}

/// Sent by a dropped [`Lease`].
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Release {
    held: Resources,
}

/// Ends the wait of cancelled tasks.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct CancelWaiting(pub Arc<Vec<TaskKey>>);

/// Asks how much there is.
#[derive(Debug, Message)]
#[rtype(result = "ResourceReport")]
pub struct GetResources;

/// How much there is, and how many wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, MessageResponse)]
pub struct ResourceReport {
    /// All there is.
    pub total: Resources,
    /// What live leases hold.
    pub taken: Resources,
    /// Tasks that wait for a lease.
    pub waiting: usize,
}

/// Who waits; the channel is there once it is known that there is need of one.
#[derive(Debug)]
struct Waiter {
    task: TaskKey,
    granted: Option<oneshot::Sender<Lease>>,
}

/// The actor. One per system, on the control arbiter.
#[derive(Debug)]
pub struct ResourceManager {
    queue: LeaseQueue<Waiter>,
    tickets: HashMap<TaskKey, Ticket>,
}

impl ResourceManager {
    /// A manager with all of `total` free.
    pub fn new(total: Resources) -> Self {
        Self { queue: LeaseQueue::new(total), tickets: HashMap::new() }
    }

    fn answer(&mut self, Need { task, need, priority }: Need, manager: &Addr<Self>) -> Grant {
        let lease = |held| Lease { held, manager: manager.clone() };
        // The common case needs no channel.
        let at_once = self.queue.waiting() == 0 && need.fits_in(self.queue.free());
        let (granted, awaited) = if at_once { (None, None) } else { some_pair(oneshot::channel()) };
        match self.queue.request(need, priority, Waiter { task, granted }) {
            Ok(Answer::Granted(Granted { held, .. })) => Grant::Leased(lease(held)),
            Ok(Answer::Waiting(ticket)) => {
                self.tickets.insert(task, ticket);
                // A closed channel reads as a cancelled wait.
                Grant::Waiting(awaited.unwrap_or_else(|| oneshot::channel().1))
            }
            Err(refusal) => Grant::Refused(refusal),
        }
    }

    fn hand_out(&mut self, granted: Vec<Granted<Waiter>>, manager: &Addr<Self>) {
        // All leases before the first answer: should that panic, the rest come back.
        let lease = |Granted { held, waiter }| (Lease { held, manager: manager.clone() }, waiter);
        let leases: Vec<(Lease, Waiter)> = granted.into_iter().map(lease).collect();
        for (lease, waiter) in leases {
            self.tickets.remove(&waiter.task);
            // A waiter that has gone away drops its lease, which comes back as a `Release`.
            if let Some(granted) = waiter.granted {
                let _ = granted.send(lease);
            }
        }
    }
}

fn some_pair<A, B>((one, other): (A, B)) -> (Option<A>, Option<B>) {
    (Some(one), Some(other))
}

impl Actor for ResourceManager {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(crate::MAILBOX);
    }
}

impl Supervised for ResourceManager {}

impl Handler<Acquire> for ResourceManager {
    type Result = MessageResult<Acquire>;

    fn handle(&mut self, Acquire(needs): Acquire, ctx: &mut Self::Context) -> Self::Result {
        let manager = ctx.address();
        MessageResult(needs.into_iter().map(|need| self.answer(need, &manager)).collect())
    }
}

impl Handler<Release> for ResourceManager {
    type Result = ();

    fn handle(&mut self, Release { held }: Release, ctx: &mut Self::Context) {
        let granted = self.queue.give_back(&held);
        if !granted.is_empty() {
            self.hand_out(granted, &ctx.address());
        }
    }
}

impl Handler<CancelWaiting> for ResourceManager {
    type Result = ();

    fn handle(&mut self, CancelWaiting(tasks): CancelWaiting, ctx: &mut Self::Context) {
        for task in tasks.iter() {
            let ticket = self.tickets.remove(task);
            if let Some((_, granted)) = ticket.and_then(|ticket| self.queue.cancel(ticket)) {
                self.hand_out(granted, &ctx.address());
            }
        }
    }
}

impl Handler<GetResources> for ResourceManager {
    type Result = ResourceReport;

    fn handle(&mut self, _: GetResources, _: &mut Self::Context) -> ResourceReport {
        ResourceReport {
            total: *self.queue.total(),
            taken: self.queue.taken(),
            waiting: self.queue.waiting(),
        }
    }
}
