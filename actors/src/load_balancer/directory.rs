//! Providers come and go: started on the thread of their placement, restarted, stopped.

use std::{sync::Arc, time::Duration};

use actix::{dev::channel, prelude::*};
use actix_rt::{Arbiter, ArbiterHandle};
use futures_util::future::join_all;
use gleitzeit_domain::{
    balance::{ProviderEntry, Registration},
    error::{ErrorCode, TaskError},
    event::EventData,
    id::{Capability, ProviderId},
    provider::{Placement, ProviderSpec},
    restart::RestartPolicy,
};
use tokio::time::Instant;

use super::{Desk, LoadBalancer};
use crate::{
    monitor::GetProviderHealth,
    provider_supervisor::{GetStatus, ProviderStatus, ProviderSupervisor, Restart, Stop},
    supervision::{GaveUp, start_supervised_in},
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

/// Asks how every provider is, by id. One whose thread is blocked is left out.
#[derive(Debug, Message)]
#[rtype(result = "Vec<ProviderStatus>")]
pub struct GetProviders;

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

/// A thread that is not blocked answers within this.
const ANSWER_WAIT: Duration = Duration::from_secs(2);

fn not_found(id: &ProviderId) -> TaskError {
    TaskError::new(ErrorCode::ProviderNotFound, format!("no provider has the id `{id}`"))
}

impl LoadBalancer {
    /// Starts a supervisor on the thread of its placement.
    pub(super) fn hire(&mut self, spec: &Arc<ProviderSpec>, ctx: &mut Context<Self>) -> Desk {
        let (thread, place) = self.place(spec.placement);
        let (sender, receiver) = channel::channel(1);
        let supervisor = Addr::new(sender);
        let (made_from, events, clock) = (Arc::clone(spec), self.bus.clone(), self.clock);
        let balancer = ctx.address();
        let start = move || {
            let context = Context::with_receiver(receiver);
            let listener = balancer.clone().recipient();
            start_supervised_in(context, SUPERVISOR_RESTARTS, balancer.recipient(), |_| {
                ProviderSupervisor::new(made_from, listener, events, clock)
            });
        };
        match place {
            None => start(),
            Some(arbiter) => {
                arbiter.spawn_fn(start);
            }
        }
        Desk {
            supervisor,
            spec: Arc::clone(spec),
            generation: 0,
            thread,
            last_pong: Instant::now(),
        }
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

/// Ends a provider's thread, if it has one of its own.
pub(super) fn dismiss(thread: Option<Arbiter>) {
    if let Some(thread) = thread {
        thread.stop();
        // Joining would wait for a thread that may be blocked; it ends by itself.
    }
}

impl Handler<RegisterProvider> for LoadBalancer {
    type Result = Result<(), RegisterProviderError>;

    fn handle(&mut self, message: RegisterProvider, ctx: &mut Self::Context) -> Self::Result {
        let RegisterProvider { spec, capabilities } = message;
        let id = spec.id.clone();
        if self.book.find(&id).is_some() {
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
        let desk = self.hire(&Arc::new(spec), ctx);
        self.book.register(registration, desk);
        let event = EventData::ProviderRegistered { provider_id: id, capabilities };
        self.bus.do_send(crate::loose(self.clock.now(), event));
        Ok(())
    }
}

impl Handler<RemoveProvider> for LoadBalancer {
    type Result = ResponseFuture<Result<(), TaskError>>;

    fn handle(&mut self, message: RemoveProvider, ctx: &mut Self::Context) -> Self::Result {
        let RemoveProvider { id, deadline } = message;
        let Some(desk) = self.book.remove(&id) else {
            return Box::pin(async move { Err(not_found(&id)) });
        };
        self.note_outages(ctx);
        Box::pin(async move {
            let _ = desk.supervisor.send(Stop { deadline }).timeout(deadline + ANSWER_WAIT).await;
            dismiss(desk.thread);
            Ok(())
        })
    }
}

impl Handler<RestartProvider> for LoadBalancer {
    type Result = Result<(), TaskError>;

    fn handle(
        &mut self,
        RestartProvider(id): RestartProvider,
        _: &mut Self::Context,
    ) -> Self::Result {
        let slot = self.book.find(&id).ok_or_else(|| not_found(&id))?;
        let entry = self.book.get(slot).ok_or_else(|| not_found(&id))?;
        entry.handle.supervisor.do_send(Restart);
        Ok(())
    }
}

impl Handler<GetProviders> for LoadBalancer {
    type Result = ResponseFuture<Vec<ProviderStatus>>;

    fn handle(&mut self, _: GetProviders, _: &mut Self::Context) -> Self::Result {
        let asked: Vec<_> = self
            .book
            .iter()
            .map(|(_, entry)| entry.handle.supervisor.send(GetStatus).timeout(ANSWER_WAIT))
            .collect();
        Box::pin(async move {
            let answers = join_all(asked).await.into_iter();
            let mut all: Vec<ProviderStatus> = answers.filter_map(Result::ok).collect();
            all.sort_by(|one, other| one.provider_id.cmp(&other.provider_id));
            all
        })
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
            self.book.iter().map(|(_, entry)| entry.registration.id.clone()).collect();
        let mut stopping = Vec::new();
        for id in ids {
            if let Some(desk) = self.book.remove(&id) {
                let stop = desk.supervisor.send(Stop { deadline }).timeout(deadline + ANSWER_WAIT);
                stopping.push(async move {
                    let _ = stop.await;
                    dismiss(desk.thread);
                });
            }
        }
        Box::pin(async move {
            join_all(stopping).await;
        })
    }
}

impl Handler<GaveUp> for LoadBalancer {
    type Result = ();

    /// A supervisor panicked beyond its budget: its provider is gone, all others are untouched.
    fn handle(&mut self, GaveUp { panic, .. }: GaveUp, ctx: &mut Self::Context) {
        let gone = self.book.iter().filter(|(_, entry)| !entry.handle.supervisor.connected());
        let gone: Vec<(ProviderId, u64)> = gone
            .map(|(_, entry)| (entry.registration.id.clone(), entry.handle.generation))
            .collect();
        for (provider_id, generation) in gone {
            self.book.set_available(&provider_id, false);
            let reason = format!("its supervisor panicked: {panic}").into();
            let event = EventData::ProviderFailed { provider_id, generation, reason };
            self.bus.do_send(crate::loose(self.clock.now(), event));
        }
        self.note_outages(ctx);
    }
}

impl Handler<GetProviderHealth> for LoadBalancer {
    type Result = MessageResult<GetProviderHealth>;

    fn handle(&mut self, _: GetProviderHealth, _: &mut Self::Context) -> Self::Result {
        let health =
            |(_, entry): (_, &ProviderEntry<Desk>)| (entry.registration.id.clone(), entry.health());
        MessageResult(self.book.iter().map(health).collect())
    }
}
