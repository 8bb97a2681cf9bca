//! Restarts an actor after a panic, within a budget.
//!
//! `actix::Supervisor` restarts an actor that *stopped*; a panic unwinds through it and ends the
//! actor for good. [`start_supervised`] does the opposite: a panic is followed by a pause and
//! [`Supervised::restarting`], an ordinary stop is final.
//!
//! A restart keeps the address, the queued messages and the actor value (so `restarting` must reset
//! it). It loses the message being handled (the sender gets [`MailboxError::Closed`]), timers,
//! spawned futures and every stored [`SpawnHandle`], whose numbers are reused. [`Actor::started`]
//! runs in every life: timers are armed there. A panic in `started` or `restarting` counts like any
//! other.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use actix::{dev::ContextFut, prelude::*};
use futures_util::FutureExt as _;
use gleitzeit_domain::restart::{RestartBudget, RestartPolicy};
use tokio::time::{Instant, sleep};

use crate::guard::panic_text;

/// Sent once, when the restart budget is spent and the actor is gone.
#[derive(Debug, Clone, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct RestartLimitReached {
    /// The type name of the actor.
    pub actor: &'static str,
    /// The text of the last panic.
    pub panic: String,
}

/// Starts an actor on the current arbiter and restarts it after panics.
///
/// With a policy of no restarts the first panic is escalated: if the actor's state is the truth, a
/// stop is better than a state that was changed half-way.
///
/// # Panics
/// When called outside a `System`, as every actor start.
pub fn start_supervised<A>(
    policy: RestartPolicy,
    escalate_to: Recipient<RestartLimitReached>,
    make: impl FnOnce(&mut Context<A>) -> A,
) -> Addr<A>
where
    A: Supervised + Actor<Context = Context<A>>,
{
    start_supervised_in(Context::new(), policy, escalate_to, make)
}

/// Starts an actor whose context, and so its address, exists already: for two actors that
/// address each other.
///
/// # Panics
/// When called outside a `System`, as every actor start.
pub fn start_supervised_in<A>(
    ctx: Context<A>,
    policy: RestartPolicy,
    escalate_to: Recipient<RestartLimitReached>,
    make: impl FnOnce(&mut Context<A>) -> A,
) -> Addr<A>
where
    A: Supervised + Actor<Context = Context<A>>,
{
    start_supervised_or(ctx, policy, move |reached| escalate_to.do_send(reached), make)
}

/// Starts an actor with any function for the escalation: for one of many actors of a type, which
/// [`RestartLimitReached`] does not distinguish.
///
/// # Panics
/// When called outside a `System`, as every actor start.
pub fn start_supervised_or<A>(
    mut ctx: Context<A>,
    policy: RestartPolicy,
    escalate: impl FnOnce(RestartLimitReached) + 'static,
    make: impl FnOnce(&mut Context<A>) -> A,
) -> Addr<A>
where
    A: Supervised + Actor<Context = Context<A>>,
{
    let actor = make(&mut ctx);
    let addr = ctx.address();
    actix_rt::spawn(supervise(ctx.into_future(actor), policy, escalate));
    addr
}

async fn supervise<A>(
    mut life: ContextFut<A, Context<A>>,
    policy: RestartPolicy,
    escalate: impl FnOnce(RestartLimitReached),
) where
    A: Supervised + Actor<Context = Context<A>>,
{
    let actor = std::any::type_name::<A>();
    let started_at = Instant::now();
    let mut budget = RestartBudget::new(policy);
    let mut ended = live(&mut life).await;
    while let Some(panic) = ended {
        let Some(pause) = budget.spend(started_at.elapsed()) else {
            tracing::error!(actor, panic, "actor failed: restart limit reached");
            escalate(RestartLimitReached { actor, panic });
            // The destructor of a context polls the actor once more, which may panic once more: while
            // unwinding, that would abort the process.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(life)));
            return;
        };
        tracing::warn!(actor, panic, ?pause, "actor restarts");
        sleep(pause).await;
        ended = match catch_unwind(AssertUnwindSafe(|| life.restart())) {
            Ok(true) => live(&mut life).await,
            // The last address is gone: a new life could never get a message, nor be stopped.
            Ok(false) => None,
            Err(panic) => Some(panic_text(&*panic)),
        };
    }
}

/// Runs an actor until it stops or panics; returns the panic's text.
async fn live<A>(life: &mut ContextFut<A, Context<A>>) -> Option<String>
where
    A: Actor<Context = Context<A>>,
{
    let ended = AssertUnwindSafe(life).catch_unwind().await;
    ended.err().map(|panic| panic_text(&*panic))
}

/// A policy that escalates the first panic.
pub const ESCALATE_AT_ONCE: RestartPolicy = RestartPolicy {
    restarts_max: 0,
    window: Duration::ZERO,
    pause_min: Duration::ZERO,
    pause_max: Duration::ZERO,
};

#[cfg(test)]
mod tests;
