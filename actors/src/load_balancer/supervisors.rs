//! Supervisors of providers: started on the thread of their placement, replaced, stopped.
//!
//! Invariant: the table has one supervisor per provider; reports of an earlier one count no more.

use std::{sync::Arc, time::Duration};

use actix::{dev::channel, prelude::*};
use actix_rt::{Arbiter, ArbiterHandle};
use gleitzeit_domain::{
    event::EventData,
    health::HealthStatus,
    id::ProviderId,
    provider::{Placement, ProviderSpec},
    restart::{RestartBudget, RestartPolicy},
};
use tokio::{sync::watch, time::Instant};

use super::{LoadBalancer, ticket::ProviderAddress};
use crate::{
    provider_supervisor::{
        GetStatus, ProviderState, ProviderStatus, ProviderSupervisor, Stop, SupervisorGeneration,
    },
    supervision::{RestartLimitReached, start_supervised_or},
};

/// A supervisor panicked beyond its budget and is gone.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct SupervisorLost {
    id: ProviderId,
    supervisor_number: u64,
    panic: String,
}

/// Restarts of a supervisor itself after a panic.
const SUPERVISOR_RESTARTS: RestartPolicy = RestartPolicy {
    restarts_max: 5,
    window: Duration::from_mins(1),
    pause_min: Duration::from_millis(100),
    pause_max: Duration::from_secs(10),
};

/// A provider may block its thread `restarts_max` times within this: each time costs a thread,
/// which ends only when it is blocked no more.
const BLOCKS_WINDOW: Duration = Duration::from_hours(1);

/// A thread that is not blocked answers within this.
pub(super) const ANSWER_WAIT: Duration = Duration::from_secs(2);

/// A provider: how to reach it, what it is made from, and its last report.
pub(super) struct ProviderHandle {
    pub(super) address: Arc<ProviderAddress>,
    pub(super) supervisor: Addr<ProviderSupervisor>,
    pub(super) spec: Arc<ProviderSpec>,
    /// The supervisor whose reports count.
    pub(super) supervisor_number: u64,
    /// As last reported; `failed` also if there is no supervisor any more.
    pub(super) status: ProviderStatus,
    /// True if only a new supervisor can bring the provider back.
    pub(super) is_lost: bool,
    /// True once the provider has served, under any of its supervisors.
    pub(super) has_served: bool,
    /// The provider's own thread, if it has one.
    pub(super) thread: Option<Arbiter>,
    /// True on the control thread itself, which cannot find itself blocked.
    pub(super) is_local: bool,
    pub(super) last_pong: Instant,
    /// How often the provider may block its thread.
    pub(super) blocks: RestartBudget,
    /// Dropped when no supervisor answers for the calls in flight any more.
    pub(super) liveness: watch::Sender<()>,
}

impl LoadBalancer {
    /// Starts a supervisor on the thread of its placement. `before` is the last status of the
    /// provider under its former supervisor.
    pub(super) fn start_supervisor(
        &mut self,
        spec: &Arc<ProviderSpec>,
        before: Option<&ProviderStatus>,
        ctx: &mut Context<Self>,
    ) -> ProviderHandle {
        let (thread, arbiter) = self.choose_thread(spec.placement);
        // The address exists before the actor: a provider that blocks its thread while it is built
        // must not hold up the balancer, and calls queue in the meantime.
        let (sender, receiver) = channel::channel(1);
        let supervisor = Addr::new(sender);
        let (made_from, events, clock) = (Arc::clone(spec), self.bus.clone(), self.clock);
        let balancer = ctx.address();
        self.next_supervisor += 1;
        let generation = SupervisorGeneration {
            number: self.next_supervisor,
            // Counted on: a person reads them as the provider's, whichever supervisor counts.
            generation: before.map_or(0, |before| before.generation),
            restarts: before.map_or(0, |before| before.restarts + 1),
        };
        let start = move || {
            let context = Context::with_receiver(receiver);
            let listener = balancer.clone().recipient();
            let (id, supervisor_number) = (made_from.id.clone(), generation.number);
            let escalate = move |RestartLimitReached { panic, .. }| {
                balancer.do_send(SupervisorLost { id, supervisor_number, panic });
            };
            start_supervised_or(context, SUPERVISOR_RESTARTS, escalate, |_| {
                ProviderSupervisor::new(made_from, listener, events, clock, generation)
            });
        };
        let is_local = arbiter.is_none();
        match arbiter {
            None => start(),
            Some(arbiter) => {
                arbiter.spawn_fn(start);
            }
        }
        let (liveness, watcher) = watch::channel(());
        let address = ProviderAddress {
            provider_id: spec.id.clone(),
            supervisor: supervisor.clone(),
            releases: ctx.address().recipient(),
            liveness: watcher,
        };
        ProviderHandle {
            address: Arc::new(address),
            supervisor,
            spec: Arc::clone(spec),
            supervisor_number: generation.number,
            status: initial_status(spec, generation),
            is_lost: false,
            has_served: false,
            thread,
            is_local,
            last_pong: Instant::now(),
            blocks: RestartBudget::new(RestartPolicy {
                window: BLOCKS_WINDOW,
                ..RestartPolicy::from(&spec.supervision)
            }),
            liveness,
        }
    }

    /// Replaces a supervisor that is gone, or whose thread does not answer. Calls in flight there
    /// are abandoned.
    pub(super) fn replace_supervisor(
        &mut self,
        id: &ProviderId,
        spec: &Arc<ProviderSpec>,
        blocks: Option<RestartBudget>,
        ctx: &mut Context<Self>,
    ) {
        let Some(entry) = self.table.find(id).and_then(|slot| self.table.get(slot)) else { return };
        let registration = entry.registration.clone();
        // Removed, not changed: tickets of the old supervisor name the old slot, and their release
        // must not lower the count of the new one.
        let Some(old) = self.table.remove(id) else { return };
        let mut provider = self.start_supervisor(spec, Some(&old.status), ctx);
        // A fresh budget would let a provider block one thread after the other without an end.
        if let Some(blocks) = blocks {
            provider.blocks = blocks;
        }
        provider.has_served = old.has_served;
        self.table.register(registration, provider);
        // If its thread wakes up, it finds that it was given up, and drops its calls.
        old.supervisor.do_send(Stop { deadline: Duration::ZERO });
        stop_thread(old.thread);
        self.review_queues(ctx);
    }

    /// Marks a provider failed whose supervisor is gone for good: only a [`RestartProvider`] helps.
    ///
    /// [`RestartProvider`]: super::RestartProvider
    pub(super) fn mark_failed(&mut self, id: &ProviderId, reason: String, ctx: &mut Context<Self>) {
        let slot = self.table.find(id);
        let Some(provider) = slot.and_then(|slot| self.table.handle_mut(slot)) else { return };
        provider.is_lost = true;
        provider.status.state = ProviderState::Failed;
        provider.status.health = HealthStatus::Unknown;
        provider.status.detail.clone_from(&reason);
        let generation = provider.status.generation;
        tracing::error!(provider = %id, generation, reason, "provider failed");
        let (provider_id, reason) = (id.clone(), reason.into());
        let event = EventData::ProviderFailed { provider_id, generation, reason };
        self.bus.do_send(crate::system_event(self.clock.now(), event));
        self.table.set_available(id, false);
        self.table.set_health(id, HealthStatus::Unknown);
        // Waiters of a method whose last provider this was begin their limit now.
        self.review_queues(ctx);
    }

    /// The thread of a new supervisor, and its handle; neither for the control thread.
    fn choose_thread(&mut self, placement: Placement) -> (Option<Arbiter>, Option<ArbiterHandle>) {
        match placement {
            Placement::Dedicated => {
                let thread = Arbiter::new();
                let handle = thread.handle();
                (Some(thread), Some(handle))
            }
            Placement::Worker if !self.workers.is_empty() => {
                let at = self.next_worker % self.workers.len();
                self.next_worker += 1;
                (None, Some(self.workers[at].clone()))
            }
            Placement::Worker | Placement::Control => (None, None),
        }
    }
}

/// The status of a provider before its supervisor's first report.
fn initial_status(spec: &ProviderSpec, supervisor: SupervisorGeneration) -> ProviderStatus {
    ProviderStatus {
        provider_id: spec.id.clone(),
        kind: Arc::clone(&spec.kind),
        state: ProviderState::Starting,
        health: HealthStatus::Unknown,
        detail: String::new(),
        generation: supervisor.generation,
        restarts: supervisor.restarts,
        in_flight: 0,
        calls_total: 0,
        calls_failed: 0,
    }
}

/// Stops a provider; a provider whose thread is blocked is not waited for.
pub(super) async fn stop(provider: ProviderHandle, deadline: Duration) {
    // Sent before the question: a blocked thread that wakes up later still stops.
    let stopped = provider.supervisor.send(Stop { deadline });
    if provider.supervisor.send(GetStatus).timeout(ANSWER_WAIT).await.is_ok() {
        let limit = deadline
            .saturating_add(provider.spec.supervision.lifecycle_timeout)
            .saturating_add(ANSWER_WAIT);
        let _ = stopped.timeout(limit).await;
    }
    stop_thread(provider.thread);
}

/// Ends a provider's own thread.
pub(super) fn stop_thread(thread: Option<Arbiter>) {
    if let Some(thread) = thread {
        thread.stop();
        // Not joined: that would wait for a thread that may be blocked. It ends by itself.
    }
}

impl Handler<SupervisorLost> for LoadBalancer {
    type Result = ();

    /// Marks the provider failed; all others go on.
    fn handle(&mut self, message: SupervisorLost, ctx: &mut Self::Context) {
        let SupervisorLost { id, supervisor_number, panic } = message;
        let entry = self.table.find(&id).and_then(|slot| self.table.get(slot));
        // A supervisor that was replaced meanwhile takes nothing with it.
        if entry.is_some_and(|entry| {
            entry.handle.supervisor_number == supervisor_number && !entry.handle.is_lost
        }) {
            self.mark_failed(&id, format!("its supervisor panicked: {panic}"), ctx);
        }
    }
}
