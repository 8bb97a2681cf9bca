//! Providers come and go: started on the thread of their placement, restarted, stopped.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use actix::{dev::channel, prelude::*};
use actix_rt::{Arbiter, ArbiterHandle};
use futures_util::future::join_all;
use gleitzeit_domain::{
    balance::{ProviderEntry, Registration},
    error::{ErrorCode, TaskError},
    event::EventData,
    health::HealthStatus,
    id::{Capability, ProviderId},
    provider::{Placement, ProviderSpec},
    restart::{RestartBudget, RestartPolicy},
};
use tokio::{sync::watch, time::Instant};

use super::{LoadBalancer, ProviderHandle, Reach};
use crate::{
    monitor::GetProviderHealth,
    provider_supervisor::{
        GetStatus, ProviderState, ProviderStatus, ProviderSupervisor, Restart, Stop,
        SupervisorGeneration,
    },
    supervision::{RestartLimitReached, start_supervised_or},
};

/// Adds a provider and starts it. It gets calls as soon as it is ready; one that is down is tried
/// again with a backoff.
///
/// # Errors
/// [`RegisterProviderError`].
#[derive(Debug, Message)]
#[rtype(result = "Result<(), RegisterProviderError>")]
pub struct RegisterProvider {
    /// What it is made from.
    pub spec: ProviderSpec,
    /// Every method that it serves.
    pub capabilities: Vec<Capability>,
}

/// Why a provider was not added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegisterProviderError {
    /// Another one has its id.
    #[error("a provider `{id}` is registered already; choose another id or remove that one")]
    IdTaken {
        /// The id.
        id: ProviderId,
    },
    /// It serves nothing.
    #[error("provider `{id}` serves no method; name a protocol or capabilities")]
    NoCapabilities {
        /// Its id.
        id: ProviderId,
    },
}

/// Removes a provider: no new calls, those in flight end within the deadline.
///
/// # Errors
/// `PROVIDER_NOT_FOUND`.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), TaskError>")]
pub struct RemoveProvider {
    /// Which one.
    pub id: ProviderId,
    /// How long calls in flight may take.
    pub deadline: Duration,
}

/// Gives a provider a new instance and a fresh budget.
///
/// # Errors
/// `PROVIDER_NOT_FOUND`.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), TaskError>")]
pub struct RestartProvider(pub ProviderId);

/// Asks how every provider is, by id. For one whose thread is blocked it is what was last known.
#[derive(Debug, Message)]
#[rtype(result = "Vec<ProviderStatus>")]
pub struct GetProviders;

/// Asks for the methods that any provider serves, however it is at the moment.
#[derive(Debug, Message)]
#[rtype(result = "BTreeSet<Capability>")]
pub struct GetServed;

/// A supervisor panicked beyond its budget and is gone.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct SupervisorLost {
    id: ProviderId,
    tenure: u64,
    panic: String,
}

/// Stops every provider.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct StopProviders {
    /// How long calls in flight may take.
    pub deadline: Duration,
}

/// Restarts of a supervisor itself, should it panic.
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
const ANSWER_WAIT: Duration = Duration::from_secs(2);

fn not_found(id: &ProviderId) -> TaskError {
    TaskError::new(ErrorCode::ProviderNotFound, format!("no provider has the id `{id}`"))
}

impl LoadBalancer {
    /// Starts a supervisor on the thread of its placement.
    ///
    /// `before` is what is told of the provider under its last supervisor.
    pub(super) fn start_supervisor(
        &mut self,
        spec: &Arc<ProviderSpec>,
        before: Option<&ProviderStatus>,
        ctx: &mut Context<Self>,
    ) -> ProviderHandle {
        let (thread, place) = self.place(spec.placement);
        let (sender, receiver) = channel::channel(1);
        let supervisor = Addr::new(sender);
        let (made_from, events, clock) = (Arc::clone(spec), self.bus.clone(), self.clock);
        let balancer = ctx.address();
        self.next_tenure += 1;
        let tenure = SupervisorGeneration {
            number: self.next_tenure,
            generation: before.map_or(0, |before| before.generation),
            restarts: before.map_or(0, |before| before.restarts + 1),
        };
        let start = move || {
            let context = Context::with_receiver(receiver);
            let listener = balancer.clone().recipient();
            let (id, tenure_number) = (made_from.id.clone(), tenure.number);
            let give_up = move |RestartLimitReached { panic, .. }| {
                balancer.do_send(SupervisorLost { id, tenure: tenure_number, panic });
            };
            start_supervised_or(context, SUPERVISOR_RESTARTS, give_up, |_| {
                ProviderSupervisor::new(made_from, listener, events, clock, tenure)
            });
        };
        let is_local = place.is_none();
        match place {
            None => start(),
            Some(arbiter) => {
                arbiter.spawn_fn(start);
            }
        }
        let (attends, attended) = watch::channel(());
        let reach = Reach {
            provider_id: spec.id.clone(),
            supervisor: supervisor.clone(),
            balancer: ctx.address(),
            attended,
        };
        ProviderHandle {
            reach: Arc::new(reach),
            supervisor,
            spec: Arc::clone(spec),
            tenure: tenure.number,
            status: unheard(spec, tenure),
            is_lost: false,
            has_served: false,
            thread,
            is_local,
            last_pong: Instant::now(),
            blocks: RestartBudget::new(RestartPolicy {
                window: BLOCKS_WINDOW,
                ..RestartPolicy::from(&spec.supervision)
            }),
            attends,
        }
    }

    /// Lets a new supervisor take the place of one that is gone or gets no more answers from its
    /// thread. Calls in flight there are abandoned.
    pub(super) fn replace_supervisor(
        &mut self,
        id: &ProviderId,
        spec: &Arc<ProviderSpec>,
        blocks: Option<RestartBudget>,
        ctx: &mut Context<Self>,
    ) {
        let Some(entry) = self.table.find(id).and_then(|slot| self.table.get(slot)) else { return };
        let registration = entry.registration.clone();
        let Some(old) = self.table.remove(id) else { return };
        let mut provider_handle = self.start_supervisor(spec, Some(&old.status), ctx);
        if let Some(blocks) = blocks {
            provider_handle.blocks = blocks;
        }
        provider_handle.has_served = old.has_served;
        self.table.register(registration, provider_handle);
        // Should its thread wake up, it finds that it has been given up.
        old.supervisor.do_send(Stop { deadline: Duration::ZERO });
        stop_thread(old.thread);
        self.review_lines(ctx);
    }

    /// A provider whose supervisor is gone for good: only a restart by message helps.
    pub(super) fn lose(&mut self, id: &ProviderId, reason: String, ctx: &mut Context<Self>) {
        let slot = self.table.find(id);
        let Some(provider_handle) = slot.and_then(|slot| self.table.handle_mut(slot)) else {
            return;
        };
        provider_handle.is_lost = true;
        provider_handle.status.state = ProviderState::Failed;
        provider_handle.status.health = HealthStatus::Unknown;
        provider_handle.status.detail.clone_from(&reason);
        let generation = provider_handle.status.generation;
        tracing::error!(provider = %id, generation, reason, "provider failed");
        let (provider_id, reason) = (id.clone(), reason.into());
        let event = EventData::ProviderFailed { provider_id, generation, reason };
        self.bus.do_send(crate::system_event(self.clock.now(), event));
        self.table.set_available(id, false);
        self.table.set_health(id, HealthStatus::Unknown);
        self.review_lines(ctx);
    }

    fn place(&mut self, placement: Placement) -> (Option<Arbiter>, Option<ArbiterHandle>) {
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

/// What is told of a provider that has not said anything yet.
fn unheard(spec: &ProviderSpec, tenure: SupervisorGeneration) -> ProviderStatus {
    ProviderStatus {
        provider_id: spec.id.clone(),
        kind: Arc::clone(&spec.kind),
        state: ProviderState::Starting,
        health: HealthStatus::Unknown,
        detail: String::new(),
        generation: tenure.generation,
        restarts: tenure.restarts,
        in_flight: 0,
        calls_total: 0,
        calls_failed: 0,
    }
}

/// Stops a provider; one whose thread is blocked is not waited for.
async fn stop(provider_handle: ProviderHandle, deadline: Duration) {
    let stopped = provider_handle.supervisor.send(Stop { deadline });
    if provider_handle.supervisor.send(GetStatus).timeout(ANSWER_WAIT).await.is_ok() {
        let limit = deadline
            .saturating_add(provider_handle.spec.supervision.lifecycle_timeout)
            .saturating_add(ANSWER_WAIT);
        let _ = stopped.timeout(limit).await;
    }
    stop_thread(provider_handle.thread);
}

/// Ends a provider's thread, if it has one of its own.
pub(super) fn stop_thread(thread: Option<Arbiter>) {
    if let Some(thread) = thread {
        thread.stop();
        // Joining would wait for a thread that may be blocked; it ends by itself.
    }
}

impl Handler<RegisterProvider> for LoadBalancer {
    type Result = Result<(), RegisterProviderError>;

    fn handle(&mut self, message: RegisterProvider, ctx: &mut Self::Context) -> Self::Result {
        let RegisterProvider { mut spec, capabilities } = message;
        if let Some(general) = self.settings.supervision {
            spec.supervise_by_default(general);
        }
        let id = spec.id.clone();
        if self.table.find(&id).is_some() {
            return Err(RegisterProviderError::IdTaken { id });
        }
        if capabilities.is_empty() {
            return Err(RegisterProviderError::NoCapabilities { id });
        }
        let registration = Registration {
            id: id.clone(),
            capabilities: capabilities.clone(),
            weight: spec.weight,
            max_concurrent: spec.max_concurrent,
        };
        let provider_handle = self.start_supervisor(&Arc::new(spec), None, ctx);
        self.table.register(registration, provider_handle);
        let event = EventData::ProviderRegistered { provider_id: id, capabilities };
        self.bus.do_send(crate::system_event(self.clock.now(), event));
        Ok(())
    }
}

impl Handler<RemoveProvider> for LoadBalancer {
    type Result = ResponseFuture<Result<(), TaskError>>;

    fn handle(&mut self, message: RemoveProvider, ctx: &mut Self::Context) -> Self::Result {
        let RemoveProvider { id, deadline } = message;
        let Some(provider_handle) = self.table.remove(&id) else {
            return Box::pin(async move { Err(not_found(&id)) });
        };
        self.review_lines(ctx);
        Box::pin(async move {
            stop(provider_handle, deadline).await;
            Ok(())
        })
    }
}

impl Handler<RestartProvider> for LoadBalancer {
    type Result = Result<(), TaskError>;

    fn handle(
        &mut self,
        RestartProvider(id): RestartProvider,
        ctx: &mut Self::Context,
    ) -> Self::Result {
        let slot = self.table.find(&id).ok_or_else(|| not_found(&id))?;
        let entry = self.table.get(slot).ok_or_else(|| not_found(&id))?;
        if entry.handle.is_lost {
            let spec = Arc::clone(&entry.handle.spec);
            self.replace_supervisor(&id, &spec, None, ctx);
        } else {
            entry.handle.supervisor.do_send(Restart);
        }
        Ok(())
    }
}

/// How a provider is: by its own word, or, where it does not answer, as last told.
fn ask(entry: &ProviderEntry<ProviderHandle>) -> impl Future<Output = ProviderStatus> + use<> {
    let provider_handle = &entry.handle;
    let asked = (!provider_handle.is_lost)
        .then(|| provider_handle.supervisor.send(GetStatus).timeout(ANSWER_WAIT));
    let mut last = provider_handle.status.clone();
    last.in_flight = entry.in_flight() as usize;
    async move {
        let Some(asked) = asked else { return last };
        asked.await.unwrap_or_else(|_| {
            last.detail = format!("gave no sign of life within {ANSWER_WAIT:?}");
            last
        })
    }
}

impl Handler<GetProviders> for LoadBalancer {
    type Result = ResponseFuture<Vec<ProviderStatus>>;

    fn handle(&mut self, _: GetProviders, _: &mut Self::Context) -> Self::Result {
        let asked: Vec<_> = self.table.iter().map(|(_, entry)| ask(entry)).collect();
        Box::pin(async move {
            let mut all = join_all(asked).await;
            all.sort_by(|one, other| one.provider_id.cmp(&other.provider_id));
            all
        })
    }
}

impl Handler<GetServed> for LoadBalancer {
    type Result = MessageResult<GetServed>;

    fn handle(&mut self, _: GetServed, _: &mut Self::Context) -> Self::Result {
        let served = self.table.iter().flat_map(|(_, entry)| &entry.registration.capabilities);
        MessageResult(served.cloned().collect())
    }
}

impl Handler<StopProviders> for LoadBalancer {
    type Result = ResponseFuture<()>;

    fn handle(
        &mut self,
        StopProviders { deadline }: StopProviders,
        _: &mut Self::Context,
    ) -> Self::Result {
        let ids: Vec<ProviderId> =
            self.table.iter().map(|(_, entry)| entry.registration.id.clone()).collect();
        let mut stopping = Vec::new();
        for id in ids {
            if let Some(provider_handle) = self.table.remove(&id) {
                stopping.push(stop(provider_handle, deadline));
            }
        }
        Box::pin(async move {
            join_all(stopping).await;
        })
    }
}

impl Handler<SupervisorLost> for LoadBalancer {
    type Result = ();

    /// Its provider is gone with it; all others are untouched.
    fn handle(&mut self, message: SupervisorLost, ctx: &mut Self::Context) {
        let SupervisorLost { id, tenure, panic } = message;
        let entry = self.table.find(&id).and_then(|slot| self.table.get(slot));
        if entry.is_some_and(|entry| entry.handle.tenure == tenure && !entry.handle.is_lost) {
            self.lose(&id, format!("its supervisor panicked: {panic}"), ctx);
        }
    }
}

impl Handler<GetProviderHealth> for LoadBalancer {
    type Result = MessageResult<GetProviderHealth>;

    fn handle(&mut self, _: GetProviderHealth, _: &mut Self::Context) -> Self::Result {
        let health = |(_, entry): (_, &ProviderEntry<ProviderHandle>)| {
            (entry.registration.id.clone(), entry.health())
        };
        MessageResult(self.table.iter().map(health).collect())
    }
}
