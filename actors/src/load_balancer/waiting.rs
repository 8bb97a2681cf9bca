//! Calls that wait for a provider: one queue per method, by priority and age.
//!
//! If all providers of a method are busy, its calls wait without a limit. If all are down, a call
//! waits from its arrival or from the end of the last provider, whichever is later, for as long as
//! the method or [`WaitPolicy`] says. After [`CAUSE_AFTER`] the caller is sent the cause, so that
//! others can see it.
//!
//! A provider with room serves all methods that it has as the engine's ready queue does: by priority,
//! then by age, and one in [`PICKS_PER_OLDEST`] is the oldest whatever its priority. A waiter that
//! avoids the free provider holds up none after it.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use actix::prelude::*;
use gleitzeit_domain::{
    balance::{ProviderEntry, Slot},
    error::{ErrorCode, TaskError},
    health::HealthStatus,
    id::{Capability, ProviderId},
    queue::PICKS_PER_OLDEST,
    run::TaskKey,
    task::Priority,
};
use tokio::{sync::oneshot, time::Instant};

use super::{
    LoadBalancer, PickRequest, Picked, ProviderHandle, ProviderTicket, WAIT_MAX, WaitPolicy,
    Waiting,
};
use crate::provider_supervisor::{ProviderState, ProviderStatus};

/// Waiters that avoid a free provider and are passed over before the search ends: a longer search
/// would cost more than the wait for the next release.
const PASSED_OVER_MAX: usize = 128;

/// A wait is reported when the providers have been down this long: else each start of a provider
/// would write a row for each task that is early.
const CAUSE_AFTER: Duration = Duration::from_secs(1);

/// Providers whose causes an error names.
const CAUSES_MAX: usize = 3;

/// The order of waiters: priority, then age.
type WaitKey = (Priority, u64);

/// The calls that wait for one method.
#[derive(Debug, Default)]
pub(super) struct WaitQueue {
    calls: BTreeMap<WaitKey, Waiter>,
    /// When the last of its providers went down; `None` while one is up.
    down_since: Option<Instant>,
}

impl WaitQueue {
    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// True if the first waiter avoids a provider, so that another one may be served before it.
    pub(super) fn first_has_exclusions(&self) -> bool {
        self.calls.first_key_value().is_some_and(|(_, waiter)| waiter.avoid.is_some())
    }

    /// The first waiter, or the oldest, among those that avoid none of `busy`.
    fn next(&self, oldest: bool, busy: &[ProviderId]) -> Option<WaitKey> {
        let fits = |(_, waiter): &(&WaitKey, &Waiter)| {
            waiter.avoid.as_ref().is_none_or(|avoid| !busy.contains(avoid))
        };
        if !oldest {
            // Bounded: with many waiters that avoid one provider, each release would scan them all.
            let found = self.calls.iter().take(PASSED_OVER_MAX).find(fits);
            return found.map(|(key, _)| *key);
        }
        let of_each = Priority::ALL.into_iter().filter_map(|priority| {
            let lane = self.calls.range((priority, 0)..=(priority, u64::MAX));
            lane.take(PASSED_OVER_MAX).find(fits).map(|(key, _)| *key)
        });
        of_each.min_by_key(|(_, age)| *age)
    }

    /// When the next wait may end, or its cause is due. `limit` bounds methods without a limit of
    /// their own.
    fn next_due(&self, limit: Duration) -> Option<Instant> {
        let down = self.down_since?;
        let dues = self.calls.values().flat_map(|waiter| {
            let since = waiter.since.max(down);
            let cause = waiter.cause.is_some().then(|| down + CAUSE_AFTER);
            [Some(since + waiter.limit.unwrap_or(limit)), cause]
        });
        dues.flatten().min()
    }
}

#[derive(Debug)]
struct Waiter {
    task: TaskKey,
    /// From when the wait for a provider that is down counts.
    since: Instant,
    /// The limit of the method, if it has one.
    limit: Option<Duration>,
    avoid: Option<ProviderId>,
    /// The channel for the cause of the wait; `None` once that was sent.
    cause: Option<oneshot::Sender<Arc<str>>>,
    answer: oneshot::Sender<Result<ProviderTicket, TaskError>>,
}

/// How far the queue of a method has been served.
struct ServeCursor {
    capability: Capability,
    /// Providers without an alternative that has room: a waiter that avoids one cannot be served.
    busy: Vec<ProviderId>,
    done: bool,
}

/// A wait may be over, or a cause is due.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct EndWaits;

impl LoadBalancer {
    pub(super) fn enqueue(
        &mut self,
        request: PickRequest,
        down: bool,
        ctx: &mut Context<Self>,
    ) -> Picked {
        let capability = request.method.capability.as_ref();
        let limit = request.method.spec.provider_wait_seconds.map(|limit| limit.min(WAIT_MAX));
        let mut since = Instant::now();
        if down {
            // Refused at once if the limit is over already: a waiter would be sent the same error
            // one timer later.
            since = self.waits_since(capability, since);
            let wait = limit.unwrap_or_else(|| self.wait_limit(capability));
            if since + wait <= Instant::now() {
                return Picked::Refused(self.unavailable(capability, wait));
            }
        }
        let (answer, ticket) = oneshot::channel();
        let (cause_sender, cause) = oneshot::channel();
        let queue = self.waiting.entry(capability.clone()).or_default();
        queue.down_since = if down { queue.down_since.or(Some(since)) } else { None };
        let (task, avoid) = (request.task, request.avoid);
        let waiter = Waiter { task, since, limit, avoid, cause: Some(cause_sender), answer };
        self.next_age += 1;
        queue.calls.insert((request.priority, self.next_age), waiter);
        self.waiters += 1;
        self.arm(ctx);
        Picked::Waiting(Waiting { ticket, cause })
    }

    /// The instant from which a wait that begins `now` counts.
    fn waits_since(&mut self, capability: &Capability, now: Instant) -> Instant {
        let absent = self.settings.wait_policy == WaitPolicy::OnceForAbsent
            && !self.providers_of(capability).any(|provider| provider.has_served);
        if absent { *self.first_missed.entry(capability.clone()).or_insert(now) } else { now }
    }

    /// The limit of a method that sets none.
    fn wait_limit(&self, capability: &Capability) -> Duration {
        match self.settings.wait_policy {
            // Without the condition, a call of a method that no provider of this process has
            // registered would never end, and its workflow would hang.
            WaitPolicy::Unlimited if self.table.supports(capability) => WAIT_MAX,
            _ => self.settings.provider_wait,
        }
    }

    fn providers_of<'a>(
        &'a self,
        capability: &'a Capability,
    ) -> impl Iterator<Item = &'a ProviderHandle> {
        let serves = move |entry: &&ProviderEntry<ProviderHandle>| {
            entry.registration.capabilities.iter().any(|it| it == capability)
        };
        self.table.iter().map(|(_, entry)| entry).filter(serves).map(|entry| &entry.handle)
    }

    /// Serves the waiters of all methods of a provider while it has room.
    pub(super) fn serve_slot(&mut self, slot: Slot) {
        if self.waiters == 0 {
            return;
        }
        let Some(entry) = self.table.get(slot) else { return };
        let queues = entry.registration.capabilities.iter();
        let queues: Vec<Capability> =
            queues.filter(|capability| self.waiting.contains_key(capability)).cloned().collect();
        self.serve_queues(queues);
    }

    /// Serves these queues as one while there is room.
    pub(super) fn serve_queues(&mut self, queues: Vec<Capability>) {
        let turn = |capability| ServeCursor { capability, busy: Vec::new(), done: false };
        let mut cursors: Vec<ServeCursor> = queues.into_iter().map(turn).collect();
        while let Some((at, key)) = self.next_waiter(&cursors) {
            let ServeCursor { capability, busy, done } = &mut cursors[at];
            let waiter = self.waiting.get(capability).and_then(|queue| queue.calls.get(&key));
            let avoid = waiter.and_then(|waiter| waiter.avoid.clone());
            let Ok(ticket) = self.try_pick(capability, avoid.as_ref()) else {
                // A waiter that avoids a provider says nothing about the others: only one without
                // an exclusion proves that the method has no room left.
                match avoid {
                    Some(avoided) => busy.push(avoided),
                    None => *done = true,
                }
                continue;
            };
            let queue = self.waiting.get_mut(capability);
            if let Some(waiter) = queue.and_then(|queue| queue.calls.remove(&key)) {
                self.waiters -= 1;
                self.served = (self.served + 1) % PICKS_PER_OLDEST;
                // If the waiter is gone, the ticket is dropped and returns as a `ReleaseTicket`.
                let _ = waiter.answer.send(Ok(ticket));
            }
        }
        for ServeCursor { capability, .. } in cursors {
            if self.waiting.get(&capability).is_some_and(WaitQueue::is_empty) {
                self.waiting.remove(&capability);
            }
        }
    }

    /// The next waiter, and the index of its queue.
    fn next_waiter(&self, cursors: &[ServeCursor]) -> Option<(usize, WaitKey)> {
        let oldest = self.served + 1 == PICKS_PER_OLDEST;
        let open = cursors.iter().enumerate().filter(|(_, turn)| !turn.done);
        let firsts = open.filter_map(|(at, turn)| {
            Some((at, self.waiting.get(&turn.capability)?.next(oldest, &turn.busy)?))
        });
        if oldest {
            firsts.min_by_key(|(_, (_, age))| *age)
        } else {
            firsts.min_by_key(|(_, key)| *key)
        }
    }

    /// Serves whom it can after a provider was added, removed or changed, and notes the methods whose
    /// providers are all down.
    pub(super) fn review_queues(&mut self, ctx: &mut Context<Self>) {
        if self.waiters > 0 {
            let queues: Vec<Capability> = self.waiting.keys().cloned().collect();
            self.serve_queues(queues);
            let now = Instant::now();
            for (capability, queue) in &mut self.waiting {
                let down = !self.table.is_up(capability);
                // Kept while it stays down: each change of another provider would else begin every
                // wait again.
                queue.down_since = if down { queue.down_since.or(Some(now)) } else { None };
            }
        }
        self.arm(ctx);
    }

    pub(super) fn remove_waiters(&mut self, tasks: &[TaskKey]) {
        // The common case: a cancelled workflow may have thousands of tasks, and none waits.
        if self.waiters == 0 {
            return;
        }
        let gone: HashSet<&TaskKey> = tasks.iter().collect();
        for queue in self.waiting.values_mut() {
            let before = queue.calls.len();
            queue.calls.retain(|_, waiter| !gone.contains(&waiter.task));
            self.waiters -= before - queue.calls.len();
        }
        self.waiting.retain(|_, queue| !queue.is_empty());
    }

    /// Sets the alarm to the first wait that may end, or to the first cause that is due.
    pub(super) fn arm(&mut self, ctx: &mut Context<Self>) {
        let dues = self.waiting.iter();
        let due = dues.filter_map(|(it, queue)| queue.next_due(self.wait_limit(it))).min();
        match (due, self.alarm) {
            // An alarm that is early sets itself again; one more timer for each call would not end.
            (Some(due), Some((at, _))) if at <= due => {}
            (Some(due), old) => {
                if let Some((_, handle)) = old {
                    ctx.cancel_future(handle);
                }
                let pause = due.saturating_duration_since(Instant::now());
                self.alarm = Some((due, ctx.notify_later(EndWaits, pause)));
            }
            (None, _) => {}
        }
    }

    /// The reasons why no provider serves a method, as far as their supervisors know.
    fn cause(&self, capability: &Capability) -> String {
        let mut causes: Vec<String> = self.providers_of(capability).map(why_down).collect();
        causes.truncate(CAUSES_MAX);
        if causes.is_empty() { "no provider serves it".to_owned() } else { causes.join("; ") }
    }

    fn unavailable(&self, capability: &Capability, wait: Duration) -> TaskError {
        if self.table.supports(capability) {
            let cause = self.cause(capability);
            let message = format!("no provider of {capability} served within {wait:?}: {cause}");
            TaskError::new(ErrorCode::ProviderNotAvailable, message)
        } else {
            let message = format!(
                "no provider serves {capability}, and none was added within {wait:?}; a section \
                 `[providers.<id>]` of the settings adds one of a built-in kind, and a program that \
                 embeds gleitzeit registers its own"
            );
            TaskError::new(ErrorCode::MethodNotSupported, message)
        }
    }
}

/// The reason why a provider does not serve.
fn why_down(provider: &ProviderHandle) -> String {
    let ProviderStatus { provider_id, state, health, detail, .. } = &provider.status;
    let what = match state {
        ProviderState::Starting if detail.is_empty() => "is starting",
        ProviderState::Starting | ProviderState::BackingOff => "is down",
        ProviderState::Serving if *health == HealthStatus::Unhealthy => "is unhealthy",
        ProviderState::Serving => "serves others only",
        ProviderState::Failed => "has failed and is not tried again until it is restarted",
        ProviderState::Stopped => "is stopped",
    };
    if detail.is_empty() {
        format!("provider `{provider_id}` {what}")
    } else {
        format!("provider `{provider_id}` {what}: {detail}")
    }
}

impl Handler<EndWaits> for LoadBalancer {
    type Result = ();

    fn handle(&mut self, _: EndWaits, ctx: &mut Self::Context) {
        self.alarm = None;
        let now = Instant::now();
        let queues: Vec<Capability> = self.waiting.keys().cloned().collect();
        for capability in queues {
            let limit = self.wait_limit(&capability);
            let mut over = Vec::new();
            let mut to_notify = Vec::new();
            let Some(queue) = self.waiting.get_mut(&capability) else { continue };
            let Some(down) = queue.down_since else { continue };
            let is_over =
                |waiter: &Waiter| waiter.since.max(down) + waiter.limit.unwrap_or(limit) <= now;
            over.extend(queue.calls.extract_if(.., |_, waiter| is_over(waiter)));
            if down + CAUSE_AFTER <= now {
                to_notify.extend(queue.calls.values_mut().filter_map(|waiter| waiter.cause.take()));
            }
            for (_, waiter) in over {
                self.waiters -= 1;
                let error = self.unavailable(&capability, waiter.limit.unwrap_or(limit));
                let _ = waiter.answer.send(Err(error));
            }
            if !to_notify.is_empty() {
                let cause: Arc<str> = self.cause(&capability).into();
                for waiter in to_notify {
                    let _ = waiter.send(Arc::clone(&cause));
                }
            }
        }
        self.waiting.retain(|_, queue| !queue.is_empty());
        self.arm(ctx);
    }
}
