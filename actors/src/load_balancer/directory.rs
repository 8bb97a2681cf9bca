//! The providers by id: added, removed, restarted, listed, stopped.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use actix::prelude::*;
use futures_util::future::join_all;
use gleitzeit_domain::{
    balance::{ProviderEntry, Registration},
    error::{ErrorCode, TaskError},
    event::EventData,
    id::{Capability, ProviderId},
    provider::ProviderSpec,
};

use super::{
    LoadBalancer,
    supervisors::{ANSWER_WAIT, ProviderHandle, stop},
};
use crate::{
    monitor::GetProviderHealth,
    provider_supervisor::{GetStatus, ProviderStatus, Restart},
};

/// Adds a provider and starts it. The provider gets calls as soon as it is ready; one that is down
/// is started again with a backoff.
///
/// # Errors
/// [`RegisterProviderError`].
#[derive(Debug, Message)]
#[rtype(result = "Result<(), RegisterProviderError>")]
pub struct RegisterProvider {
    /// The recipe of its instances.
    pub spec: ProviderSpec,
    /// Every method that the provider serves, at least one.
    pub capabilities: Vec<Capability>,
}

/// The reason why a provider is not added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegisterProviderError {
    /// Another provider has the id.
    #[error("a provider `{id}` is registered already; choose another id or remove that one")]
    IdTaken {
        /// The id that is taken.
        id: ProviderId,
    },
    /// The provider serves no method.
    #[error("provider `{id}` serves no method; name a protocol or capabilities")]
    NoCapabilities {
        /// The id of the provider.
        id: ProviderId,
    },
}

/// Removes a provider: it gets no more calls, and those in flight end within the deadline.
///
/// # Errors
/// `PROVIDER_NOT_FOUND`.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), TaskError>")]
pub struct RemoveProvider {
    /// The provider to remove.
    pub id: ProviderId,
    /// How long calls in flight may take.
    pub deadline: Duration,
}

/// Restarts a provider with a new instance and a fresh restart budget.
///
/// # Errors
/// `PROVIDER_NOT_FOUND`.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), TaskError>")]
pub struct RestartProvider(pub ProviderId);

/// Returns the status of every provider, by id. A provider whose thread is blocked is reported as it
/// was known last.
#[derive(Debug, Message)]
#[rtype(result = "Vec<ProviderStatus>")]
pub struct GetProviders;

/// Returns the methods that any provider serves, whether it is up or down.
#[derive(Debug, Message)]
#[rtype(result = "BTreeSet<Capability>")]
pub struct GetServed;

/// Stops every provider.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct StopProviders {
    /// How long calls in flight may take.
    pub deadline: Duration,
}

fn not_found(id: &ProviderId) -> TaskError {
    TaskError::new(ErrorCode::ProviderNotFound, format!("no provider has the id `{id}`"))
}

impl Handler<RegisterProvider> for LoadBalancer {
    type Result = Result<(), RegisterProviderError>;

    fn handle(&mut self, message: RegisterProvider, ctx: &mut Self::Context) -> Self::Result {
        let RegisterProvider { mut spec, capabilities } = message;
        // Only for what the provider leaves open: a kind that needs long checks knows better.
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
        let provider = self.start_supervisor(&Arc::new(spec), None, ctx);
        self.table.register(registration, provider);
        let event = EventData::ProviderRegistered { provider_id: id, capabilities };
        self.bus.do_send(crate::system_event(self.clock.now(), event));
        Ok(())
    }
}

impl Handler<RemoveProvider> for LoadBalancer {
    type Result = ResponseFuture<Result<(), TaskError>>;

    fn handle(&mut self, message: RemoveProvider, ctx: &mut Self::Context) -> Self::Result {
        let RemoveProvider { id, deadline } = message;
        let Some(provider) = self.table.remove(&id) else {
            return Box::pin(async move { Err(not_found(&id)) });
        };
        // Before the stop: its waiters are served by others, or begin to wait for one.
        self.review_queues(ctx);
        Box::pin(async move {
            stop(provider, deadline).await;
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
            // No supervisor is left that could handle a `Restart`.
            let spec = Arc::clone(&entry.handle.spec);
            self.replace_supervisor(&id, &spec, None, ctx);
        } else {
            entry.handle.supervisor.do_send(Restart);
        }
        Ok(())
    }
}

/// The status of a provider: its answer, or its last report if it does not answer in time.
fn query_status(
    entry: &ProviderEntry<ProviderHandle>,
) -> impl Future<Output = ProviderStatus> + use<> {
    let provider = &entry.handle;
    let asked =
        (!provider.is_lost).then(|| provider.supervisor.send(GetStatus).timeout(ANSWER_WAIT));
    let mut last = provider.status.clone();
    // Counted here: a blocked supervisor cannot report the calls that it holds up.
    last.in_flight = entry.in_flight() as usize;
    async move {
        // A supervisor that is gone would cost the whole wait, for each such provider.
        let Some(asked) = asked else { return last };
        asked.await.unwrap_or_else(|_| {
            last.detail = format!("no answer within {ANSWER_WAIT:?}: its thread may be blocked");
            last
        })
    }
}

impl Handler<GetProviders> for LoadBalancer {
    type Result = ResponseFuture<Vec<ProviderStatus>>;

    fn handle(&mut self, _: GetProviders, _: &mut Self::Context) -> Self::Result {
        let asked: Vec<_> = self.table.iter().map(|(_, entry)| query_status(entry)).collect();
        Box::pin(async move {
            let mut all = join_all(asked).await;
            // The order of the table changes with every provider that is replaced.
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
            // Removed at once: a call that is released during the stop must not be given to it.
            if let Some(provider) = self.table.remove(&id) {
                stopping.push(stop(provider, deadline));
            }
        }
        Box::pin(async move {
            join_all(stopping).await;
        })
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
