//! Calls that wait for a provider: in line by method, by priority and age.
//!
//! A call whose providers are all busy waits as long as it takes; one whose providers are all down
//! waits `provider_wait` from when it came or from when the last of them went down, whichever was
//! later.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use actix::prelude::*;
use gleitzeit_domain::{
    balance::{Pick, Slot},
    error::{ErrorCode, TaskError},
    id::{Capability, ProviderId},
    run::TaskKey,
    task::Priority,
};
use tokio::{sync::oneshot, time::Instant};

use super::{LoadBalancer, PickRequest, Picked, ProviderTicket};

/// Who waits for one method.
#[derive(Debug, Default)]
pub(super) struct Line {
    queue: BTreeMap<(Priority, u64), Waiter>,
    next_age: u64,
    /// When its providers were last seen to go down; `None` while one is up.
    down_since: Option<Instant>,
}

impl Line {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    fn push(&mut self, priority: Priority, waiter: Waiter) {
        self.next_age += 1;
        self.queue.insert((priority, self.next_age), waiter);
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
        line.push(request.priority, waiter);
        self.waiters += 1;
        self.arm(ctx);
        Picked::Waiting(ticket)
    }

    /// True when no provider of a method is up.
    pub(super) fn is_down(&mut self, capability: &Capability) -> bool {
        let now = self.now();
        matches!(self.book.pick(capability, None, now), Pick::Unavailable | Pick::NotSupported)
    }

    /// Serves those who wait for what a provider can do, as long as there is room.
    pub(super) fn serve_slot(&mut self, slot: Slot, ctx: &mut Context<Self>) {
        if self.waiters == 0 {
            return;
        }
        let Some(entry) = self.book.get(slot) else { return };
        let lines = entry.registration.capabilities.iter();
        let lines: Vec<Capability> =
            lines.filter(|capability| self.waiting.contains_key(capability)).cloned().collect();
        for capability in lines {
            self.serve_line(&capability, ctx);
        }
    }

    fn serve_line(&mut self, capability: &Capability, ctx: &mut Context<Self>) {
        let balancer = ctx.address();
        while let Some((place, avoid)) = self.first_in_line(capability) {
            let Ok(ticket) = self.try_pick(capability, avoid.as_ref(), &balancer) else { break };
            let line = self.waiting.get_mut(capability);
            if let Some(waiter) = line.and_then(|line| line.queue.remove(&place)) {
                self.waiters -= 1;
                // A waiter that has gone away drops its ticket, which comes back as a `GiveBack`.
                let _ = waiter.answer.send(Ok(ticket));
            }
        }
        if self.waiting.get(capability).is_some_and(Line::is_empty) {
            self.waiting.remove(capability);
        }
    }

    fn first_in_line(
        &self,
        capability: &Capability,
    ) -> Option<((Priority, u64), Option<ProviderId>)> {
        let (place, waiter) = self.waiting.get(capability)?.queue.first_key_value()?;
        Some((*place, waiter.avoid.clone()))
    }

    /// After a provider went down or came up: whose providers are all down now?
    pub(super) fn note_outages(&mut self, ctx: &mut Context<Self>) {
        let lines: Vec<Capability> = self.waiting.keys().cloned().collect();
        let now = Instant::now();
        for capability in lines {
            let down = self.is_down(&capability);
            if let Some(line) = self.waiting.get_mut(&capability) {
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
