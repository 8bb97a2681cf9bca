//! Calls that wait for a provider: in line by method, by priority and age.
//!
//! A call whose providers are all busy waits as long as it takes. One whose providers are all down
//! waits from when it came or from when the last of them went down, whichever was later, for as long
//! as its method or [`WaitPolicy`] says; after [`CAUSE_AFTER`] the caller learns why, so that others
//! can see it.
//!
//! The rule is that of the engine's ready queue, over all methods of a provider that has room: the
//! most urgent first, then the oldest, and one in [`PICKS_PER_OLDEST`] is the oldest whatever its
//! priority. Who waits for another provider than the one where it failed holds up nobody behind it.

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

/// So many waiters that avoid a free provider are looked at before the search is given up.
const PASSED_OVER_MAX: usize = 128;

/// A wait is reported when the providers have been down this long: without the delay each start of a
/// provider would write a row for each task that is early.
const CAUSE_AFTER: Duration = Duration::from_secs(1);

/// An error names the causes of so many providers.
const CAUSES_MAX: usize = 3;

/// Priority, then age.
type Place = (Priority, u64);

/// Who waits for one method.
#[derive(Debug, Default)]
pub(super) struct Line {
    queue: BTreeMap<Place, Waiter>,
    /// When its providers were last seen to go down; `None` while one is up.
    down_since: Option<Instant>,
}

impl Line {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// True when the first one avoids a provider, so that another one may be served before it.
    pub(super) fn first_is_choosy(&self) -> bool {
        self.queue.first_key_value().is_some_and(|(_, waiter)| waiter.avoid.is_some())
    }

    /// The first one, or the oldest, among those who avoid none of `busy`.
    fn next(&self, oldest: bool, busy: &[ProviderId]) -> Option<Place> {
        let fits = |(_, waiter): &(&Place, &Waiter)| {
            waiter.avoid.as_ref().is_none_or(|avoid| !busy.contains(avoid))
        };
        if !oldest {
            let found = self.queue.iter().take(PASSED_OVER_MAX).find(fits);
            return found.map(|(place, _)| *place);
        }
        let of_each = Priority::ALL.into_iter().filter_map(|priority| {
            let lane = self.queue.range((priority, 0)..=(priority, u64::MAX));
            lane.take(PASSED_OVER_MAX).find(fits).map(|(place, _)| *place)
        });
        of_each.min_by_key(|(_, age)| *age)
    }

    /// When the next wait may end, or its cause is due. `limit` holds for methods without a limit of
    /// their own.
    fn next_due(&self, limit: Duration) -> Option<Instant> {
        let down = self.down_since?;
        let dues = self.queue.values().flat_map(|waiter| {
            let since = waiter.since.max(down);
            let told = waiter.cause.is_some().then(|| down + CAUSE_AFTER);
            [Some(since + waiter.limit.unwrap_or(limit)), told]
        });
        dues.flatten().min()
    }
}

#[derive(Debug)]
struct Waiter {
    task: TaskKey,
    /// From when the wait for a provider that is down counts.
    since: Instant,
    /// What the method says.
    limit: Option<Duration>,
    avoid: Option<ProviderId>,
    /// Takes the cause of the wait; `None` once it was sent.
    cause: Option<oneshot::Sender<Arc<str>>>,
    answer: oneshot::Sender<Result<ProviderTicket, TaskError>>,
}

/// A line that is being served.
struct Turn {
    capability: Capability,
    /// Providers that have no alternative with room; whoever avoids one of them cannot be served.
    busy: Vec<ProviderId>,
    done: bool,
}

/// Some wait may be over.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct EndWaits;

impl LoadBalancer {
    pub(super) fn wait_in_line(
        &mut self,
        request: PickRequest,
        down: bool,
        ctx: &mut Context<Self>,
    ) -> Picked {
        let capability = request.method.capability.as_ref();
        let limit = request.method.spec.provider_wait_seconds.map(|limit| limit.min(WAIT_MAX));
        let mut since = Instant::now();
        if down {
            since = self.waits_since(capability, since);
            let wait = limit.unwrap_or_else(|| self.wait_limit(capability));
            if since + wait <= Instant::now() {
                return Picked::Refused(self.unavailable(capability, wait));
            }
        }
        let (answer, ticket) = oneshot::channel();
        let (told, cause) = oneshot::channel();
        let line = self.waiting.entry(capability.clone()).or_default();
        line.down_since = if down { line.down_since.or(Some(since)) } else { None };
        let (task, avoid) = (request.task, request.avoid);
        let waiter = Waiter { task, since, limit, avoid, cause: Some(told), answer };
        self.next_age += 1;
        line.queue.insert((request.priority, self.next_age), waiter);
        self.waiters += 1;
        self.arm(ctx);
        Picked::Waiting(Waiting { ticket, cause })
    }

    /// From when a wait that begins `now` counts.
    fn waits_since(&mut self, capability: &Capability, now: Instant) -> Instant {
        let absent = self.settings.wait_policy == WaitPolicy::OnceForAbsent
            && !self.providers_of(capability).any(|provider_handle| provider_handle.has_served);
        if absent { *self.first_missed.entry(capability.clone()).or_insert(now) } else { now }
    }

    /// How long a call waits whose method says nothing.
    fn wait_limit(&self, capability: &Capability) -> Duration {
        match self.settings.wait_policy {
            // A method that no provider of this process serves is not worth an endless wait.
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

    /// Serves those who wait for what a provider can do, as long as there is room.
    pub(super) fn serve_slot(&mut self, slot: Slot) {
        if self.waiters == 0 {
            return;
        }
        let Some(entry) = self.table.get(slot) else { return };
        let lines = entry.registration.capabilities.iter();
        let lines: Vec<Capability> =
            lines.filter(|capability| self.waiting.contains_key(capability)).cloned().collect();
        self.serve_lines(lines);
    }

    /// Serves these lines as one, as long as there is room.
    pub(super) fn serve_lines(&mut self, lines: Vec<Capability>) {
        let turn = |capability| Turn { capability, busy: Vec::new(), done: false };
        let mut turns: Vec<Turn> = lines.into_iter().map(turn).collect();
        while let Some((at, place)) = self.next_in_lines(&turns) {
            let Turn { capability, busy, done } = &mut turns[at];
            let waiter = self.waiting.get(capability).and_then(|line| line.queue.get(&place));
            let avoid = waiter.and_then(|waiter| waiter.avoid.clone());
            let Ok(ticket) = self.try_pick(capability, avoid.as_ref()) else {
                match avoid {
                    Some(avoided) => busy.push(avoided),
                    None => *done = true,
                }
                continue;
            };
            let line = self.waiting.get_mut(capability);
            if let Some(waiter) = line.and_then(|line| line.queue.remove(&place)) {
                self.waiters -= 1;
                self.served = (self.served + 1) % PICKS_PER_OLDEST;
                // A waiter that has gone away drops its ticket, which comes back as a `ReleaseTicket`.
                let _ = waiter.answer.send(Ok(ticket));
            }
        }
        for Turn { capability, .. } in turns {
            if self.waiting.get(&capability).is_some_and(Line::is_empty) {
                self.waiting.remove(&capability);
            }
        }
    }

    /// Whose turn it is, and in which line.
    fn next_in_lines(&self, turns: &[Turn]) -> Option<(usize, Place)> {
        let oldest = self.served + 1 == PICKS_PER_OLDEST;
        let open = turns.iter().enumerate().filter(|(_, turn)| !turn.done);
        let firsts = open.filter_map(|(at, turn)| {
            Some((at, self.waiting.get(&turn.capability)?.next(oldest, &turn.busy)?))
        });
        if oldest {
            firsts.min_by_key(|(_, (_, age))| *age)
        } else {
            firsts.min_by_key(|(_, place)| *place)
        }
    }

    /// After a provider came, went or changed: who can be served, and whose providers are all down?
    pub(super) fn review_lines(&mut self, ctx: &mut Context<Self>) {
        if self.waiters > 0 {
            let lines: Vec<Capability> = self.waiting.keys().cloned().collect();
            self.serve_lines(lines);
            let now = Instant::now();
            for (capability, line) in &mut self.waiting {
                let down = !self.table.is_up(capability);
                line.down_since = if down { line.down_since.or(Some(now)) } else { None };
            }
        }
        self.arm(ctx);
    }

    pub(super) fn leave_line(&mut self, tasks: &[TaskKey]) {
        if self.waiters == 0 {
            return;
        }
        let gone: HashSet<&TaskKey> = tasks.iter().collect();
        for line in self.waiting.values_mut() {
            let before = line.queue.len();
            line.queue.retain(|_, waiter| !gone.contains(&waiter.task));
            self.waiters -= before - line.queue.len();
        }
        self.waiting.retain(|_, line| !line.is_empty());
    }

    /// Sets the alarm to the first wait that may end, or whose cause is due.
    pub(super) fn arm(&mut self, ctx: &mut Context<Self>) {
        let dues = self.waiting.iter();
        let due = dues.filter_map(|(it, line)| line.next_due(self.wait_limit(it))).min();
        match (due, self.alarm) {
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

    /// Why nobody serves a method, as far as its providers' supervisors know.
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
                "no provider serves {capability}, and none came within {wait:?}; a section \
                 `[providers.<id>]` of the settings adds one of a built-in kind, and a program that \
                 embeds gleitzeit registers its own"
            );
            TaskError::new(ErrorCode::MethodNotSupported, message)
        }
    }
}

/// What keeps a provider from serving.
fn why_down(provider_handle: &ProviderHandle) -> String {
    let ProviderStatus { provider_id, state, health, detail, .. } = &provider_handle.status;
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
        let lines: Vec<Capability> = self.waiting.keys().cloned().collect();
        for capability in lines {
            let limit = self.wait_limit(&capability);
            let mut over = Vec::new();
            let mut told = Vec::new();
            let Some(line) = self.waiting.get_mut(&capability) else { continue };
            let Some(down) = line.down_since else { continue };
            let is_over =
                |waiter: &Waiter| waiter.since.max(down) + waiter.limit.unwrap_or(limit) <= now;
            over.extend(line.queue.extract_if(.., |_, waiter| is_over(waiter)));
            if down + CAUSE_AFTER <= now {
                told.extend(line.queue.values_mut().filter_map(|waiter| waiter.cause.take()));
            }
            for (_, waiter) in over {
                self.waiters -= 1;
                let error = self.unavailable(&capability, waiter.limit.unwrap_or(limit));
                let _ = waiter.answer.send(Err(error));
            }
            if !told.is_empty() {
                let cause: Arc<str> = self.cause(&capability).into();
                for waiter in told {
                    let _ = waiter.send(Arc::clone(&cause));
                }
            }
        }
        self.waiting.retain(|_, line| !line.is_empty());
        self.arm(ctx);
    }
}
