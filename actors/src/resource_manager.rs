//! Grants resource leases to tasks, by priority and age.
//!
//! Asked by the pipeline before it picks a provider; asks no other actor. [`LeaseQueue`] counts and
//! orders; this actor answers, and frees the resources of dropped leases.
//!
//! A lease also counts one slot of `max_concurrent_tasks`, so that the bound on executing tasks is
//! an exact sum like that of every resource.
//!
//! Invariant: what is taken is the sum of all live leases.

use std::{collections::HashMap, sync::Arc};

use actix::prelude::*;
use gleitzeit_domain::{
    lease_queue::{Answer, ExceedsTotal, Granted, LeaseQueue, Ticket},
    resources::Resources,
    run::TaskKey,
    task::Priority,
};
use tokio::sync::oneshot;

/// Requests leases. Each is granted at once, queued, or refused.
#[derive(Debug, Message)]
#[rtype(result = "Vec<Grant>")]
pub struct Acquire(pub Vec<Need>);

/// The request of one task.
#[derive(Debug)]
pub struct Need {
    /// The task that will hold the lease.
    pub task: TaskKey,
    /// The amount of each resource.
    pub need: Resources,
    /// The order among tasks that wait.
    pub priority: Priority,
}

/// The answer to a [`Need`].
#[derive(Debug)]
pub enum Grant {
    /// The lease.
    Leased(ResourceLease),
    /// A place in the queue; the channel closes if the wait is cancelled.
    Waiting(oneshot::Receiver<ResourceLease>),
    /// The machine has less in total: waiting would not help.
    Refused(ExceedsTotal),
}

/// Resources that one task holds until this is dropped.
#[derive(Debug)]
pub struct ResourceLease {
    held: Resources,
    manager: Addr<ResourceManager>,
}

impl ResourceLease {
    /// The resources that are held.
    pub fn held(&self) -> Resources {
        self.held
    }
}

impl Drop for ResourceLease {
    fn drop(&mut self) {
        // `do_send`: a destructor cannot wait, and a refused message would lose the resources.
        self.manager.do_send(Release { held: self.held });
    }
}

/// Sent by a dropped [`ResourceLease`].
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Release {
    held: Resources,
}

/// Cancels the waits of these tasks; tasks that do not wait are ignored.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct CancelWaiting(pub Arc<Vec<TaskKey>>);

/// Returns how much is taken, and how many tasks wait.
#[derive(Debug, Message)]
#[rtype(result = "ResourceReport")]
pub struct GetResources;

/// The use of resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, MessageResponse)]
pub struct ResourceReport {
    /// The resources of the machine.
    pub total: Resources,
    /// The sum of all live leases.
    pub taken: Resources,
    /// Tasks that wait for a lease.
    pub waiting: usize,
}

/// A task in the queue; `granted` is `None` for a request that is granted at once.
#[derive(Debug)]
struct Waiter {
    task: TaskKey,
    granted: Option<oneshot::Sender<ResourceLease>>,
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
        let lease = |held| ResourceLease { held, manager: manager.clone() };
        // A channel costs an allocation: under load most requests are granted at once.
        let at_once = self.queue.waiting() == 0 && need.fits_in(self.queue.free());
        let (granted, awaited) = if at_once { (None, None) } else { some_pair(oneshot::channel()) };
        match self.queue.request(need, priority, Waiter { task, granted }) {
            Ok(Answer::Granted(Granted { held, .. })) => Grant::Leased(lease(held)),
            Ok(Answer::Waiting(ticket)) => {
                self.tickets.insert(task, ticket);
                // Without a channel the wait reads as cancelled; a request that the queue did not
                // grant although it fits would otherwise never be answered.
                Grant::Waiting(awaited.unwrap_or_else(|| oneshot::channel().1))
            }
            Err(refusal) => Grant::Refused(refusal),
        }
    }

    fn hand_out(&mut self, granted: Vec<Granted<Waiter>>, manager: &Addr<Self>) {
        // All leases before the first answer: if an answer panics, the leases that are left are
        // dropped and released. Granted one by one, they would be lost to the count.
        let lease =
            |Granted { held, waiter }| (ResourceLease { held, manager: manager.clone() }, waiter);
        let leases: Vec<(ResourceLease, Waiter)> = granted.into_iter().map(lease).collect();
        for (lease, waiter) in leases {
            self.tickets.remove(&waiter.task);
            // If the waiter is gone, the lease is dropped and returns as a `Release`.
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
        let granted = self.queue.release(&held);
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
            // The head of the queue may have been this one: others behind it may fit now.
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
