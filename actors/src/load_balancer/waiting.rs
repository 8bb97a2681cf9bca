//! Calls that wait for a provider: in line by method, by priority and age.
//!
//! A call whose providers are all busy waits as long as it takes; one whose providers are all down
//! waits `provider_wait` from when it came or from when the last of them went down, whichever was
//! later.
//!
//! The rule is that of the engine's ready queue, over all methods of a provider that has room: the
//! most urgent first, then the oldest, and one in [`PICKS_PER_OLDEST`] is the oldest whatever its
//! priority. Who waits for another provider than the one where it failed holds up nobody behind it.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use actix::prelude::*;
use gleitzeit_domain::{
    balance::Slot,
    error::{ErrorCode, TaskError},
    id::{Capability, ProviderId},
    queue::PICKS_PER_OLDEST,
    run::TaskKey,
    task::Priority,
};
use tokio::{sync::oneshot, time::Instant};

use super::{LoadBalancer, PickRequest, Picked, ProviderTicket};

/// So many waiters that avoid a free provider are looked at before the search is given up.
const PASSED_OVER_MAX: usize = 128;

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

    fn earliest_end(&self, wait: Duration) -> Option<Instant> {
        let down = self.down_since?;
        let first = self.queue.values().map(|waiter| waiter.since.max(down)).min()?;
        Some(first + wait)
    }
}

#[derive(Debug)]
struct Waiter {
    task: TaskKey,
    since: Instant,
    avoid: Option<ProviderId>,
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
        let now = Instant::now();
        if down && self.settings.provider_wait.is_zero() {
            return Picked::Refused(self.unavailable(capability));
        }
        let (answer, ticket) = oneshot::channel();
        let line = self.waiting.entry(capability.clone()).or_default();
        line.down_since = if down { line.down_since.or(Some(now)) } else { None };
        let waiter = Waiter { task: request.task, since: now, avoid: request.avoid, answer };
        self.next_age += 1;
        line.queue.insert((request.priority, self.next_age), waiter);
        self.waiters += 1;
        self.arm(ctx);
        Picked::Waiting(ticket)
    }

    /// Serves those who wait for what a provider can do, as long as there is room.
    pub(super) fn serve_slot(&mut self, slot: Slot) {
        if self.waiters == 0 {
            return;
        }
        let Some(entry) = self.book.get(slot) else { return };
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
                // A waiter that has gone away drops its ticket, which comes back as a `GiveBack`.
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
                let down = !self.book.is_up(capability);
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

    /// Sets the alarm to the first wait that may be over.
    pub(super) fn arm(&mut self, ctx: &mut Context<Self>) {
        let wait = self.settings.provider_wait;
        let due = self.waiting.values().filter_map(|line| line.earliest_end(wait)).min();
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

    fn unavailable(&self, capability: &Capability) -> TaskError {
        let wait = self.settings.provider_wait;
        if self.book.supports(capability) {
            let message = format!(
                "no provider of {capability} was well within {wait:?}; see `gleitzeit providers`"
            );
            TaskError::new(ErrorCode::ProviderNotAvailable, message)
        } else {
            let message = format!(
                "no provider serves {capability}, and none came within {wait:?}; add one to \
                 `[[providers]]`"
            );
            TaskError::new(ErrorCode::MethodNotSupported, message)
        }
    }
}

impl Handler<EndWaits> for LoadBalancer {
    type Result = ();

    fn handle(&mut self, _: EndWaits, ctx: &mut Self::Context) {
        self.alarm = None;
        let now = Instant::now();
        let wait = self.settings.provider_wait;
        let lines: Vec<Capability> = self.waiting.keys().cloned().collect();
        for capability in lines {
            let error = self.unavailable(&capability);
            let Some(line) = self.waiting.get_mut(&capability) else { continue };
            let Some(down) = line.down_since else { continue };
            let over = line.queue.extract_if(.., |_, waiter| waiter.since.max(down) + wait <= now);
            for (_, waiter) in over {
                self.waiters -= 1;
                let _ = waiter.answer.send(Err(error.clone()));
            }
        }
        self.waiting.retain(|_, line| !line.is_empty());
        self.arm(ctx);
    }
}
