//! The thread of the actors: start, service, stop.

use std::{sync::Arc, time::Duration};

use gleitzeit_actors::{
    execution_engine::{Recover, Recovered, StopReport},
    system::{self, Actors},
};
#[cfg(feature = "typed")]
use gleitzeit_domain::protocol::ProtocolSpec;
use gleitzeit_domain::{
    error::{ErrorCode, TaskError},
    provider::{Placement, ProviderSpec},
    store::Store,
};
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    StopRequest, builder::RuntimeBuilder, error::StartError, parts, results::ResultWriter,
};
use crate::handle::Handle;

/// The watch interval on a clock that jumps, without other threads or processes.
const NO_WATCH: Duration = Duration::from_hours(24);
/// The time in which the store may flush after the last outcome.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);

pub(super) type Ready = oneshot::Sender<Result<(Handle, Recovered), StartError>>;

pub(super) fn control_thread(
    builder: RuntimeBuilder,
    ready: Ready,
    stops: mpsc::UnboundedReceiver<StopRequest>,
    fails: &watch::Sender<Option<TaskError>>,
) {
    let system = actix_rt::System::new();
    system.block_on(async move {
        match begin(builder).await {
            Ok((actors, store, handle, recovered, results)) => {
                gleitzeit_failpoint::failpoint!("runtime.start.ready");
                if ready.send(Ok((handle, recovered))).is_ok() {
                    run(actors, store, stops, results, fails).await;
                } else {
                    // The caller of `start` was dropped.
                    end(actors, &*store, Duration::ZERO).await;
                    results.finish().await;
                }
            }
            Err(error) => {
                let _ = ready.send(Err(error));
            }
        }
    });
    actix_rt::System::current().stop();
    let _ = system.run();
}

/// Adds the protocol and the provider of each service.
#[cfg(feature = "typed")]
pub(super) fn with_services(
    mut protocols: Vec<ProtocolSpec>,
    mut providers: Vec<ProviderSpec>,
    services: Vec<crate::service::Service>,
    is_local: bool,
) -> Result<(Vec<ProtocolSpec>, Vec<ProviderSpec>), StartError> {
    for service in services {
        let service = if is_local { service.on_one_thread() } else { service };
        let built = service.build()?;
        protocols.push(built.protocol);
        providers.push(built.provider);
    }
    Ok((protocols, providers))
}

pub(super) type Begun = (Actors, Arc<dyn Store>, Handle, Recovered, ResultWriter);

pub(super) async fn begin(builder: RuntimeBuilder) -> Result<Begun, StartError> {
    let RuntimeBuilder {
        settings,
        providers,
        protocols,
        #[cfg(feature = "typed")]
        services,
        strategies,
        store,
        recover,
        wait_policy,
        settings_providers,
        is_local,
    } = builder;
    #[cfg(feature = "typed")]
    let (protocols, providers) = with_services(protocols, providers, services, is_local)?;
    #[cfg(feature = "ollama")]
    gleitzeit_providers::tls::install_crypto_provider();
    parts::log_warnings(&settings);
    let catalog = parts::catalog(&settings, protocols)?;
    let mut specs = if settings_providers { settings.provider_specs()? } else { Vec::new() };
    specs.extend(providers);
    if is_local {
        for spec in &mut specs {
            spec.placement = Placement::Control;
        }
    }
    let levels = actix_rt::spawn(check_levels(specs.clone(), settings.provider_kinds.clone()));
    // Resumed workflows run at once, so the levels must be checked before. Without recovery, the
    // check runs while the rest starts.
    let levels = if recover {
        levels.await.map_err(|_| StartError::Died)??;
        None
    } else {
        Some(levels)
    };
    gleitzeit_failpoint::failpoint!("runtime.start.before");
    let chosen = match store {
        Some(chosen) => chosen,
        None => parts::choose_store(&settings).await?,
    };
    let store = Arc::clone(&chosen.store);
    gleitzeit_failpoint::failpoint!("runtime.start.store");
    let mut parts = parts::parts(&settings, strategies, catalog, recover, wait_policy);
    if is_local {
        parts.workers = 0;
        // They would be most of what happens on a clock that jumps.
        parts.balancer.watch_interval = NO_WATCH;
        parts.engine.sweep = NO_WATCH;
    }
    let results = ResultWriter::start(settings.clone());
    parts.engine.results = Some(results.sender());
    let actors = match system::start(parts, Arc::clone(&store)) {
        Ok(actors) => actors,
        Err(unknown) => {
            close(&*store).await;
            return Err(unknown.into());
        }
    };
    let handle = Handle::new(actors.addresses.clone(), chosen, actors.follower.clone());
    gleitzeit_failpoint::failpoint!("runtime.start.actors");
    let mut begun = register_and_recover(&handle, specs, recover).await;
    if let (Ok(_), Some(levels)) = (&begun, levels)
        && let Err(error) = levels.await.unwrap_or(Err(StartError::Died))
    {
        begun = Err(error);
    }
    match begun {
        Ok(recovered) => {
            parts::keep_tidy(&settings, &store);
            Ok((actors, store, handle, recovered, results))
        }
        Err(error) => {
            end(actors, &*store, Duration::ZERO).await;
            Err(error)
        }
    }
}

/// Checks that what each provider needs of this machine can be had, such as its isolation.
async fn check_levels(
    specs: Vec<ProviderSpec>,
    kinds: gleitzeit_providers::kinds::ProviderKinds,
) -> Result<(), StartError> {
    for spec in &specs {
        let Some(kind) = kinds.get(&spec.kind) else { continue };
        let refused = |message| StartError::Provider { id: spec.id.to_string(), message };
        kind.check(spec).await.map_err(refused)?;
    }
    Ok(())
}

async fn register_and_recover(
    handle: &Handle,
    specs: Vec<ProviderSpec>,
    recover: bool,
) -> Result<Recovered, StartError> {
    for spec in specs {
        let id = spec.id.to_string();
        handle
            .register_provider(spec)
            .await
            .map_err(|error| StartError::Provider { id, message: error.message.into_owned() })?;
    }
    gleitzeit_failpoint::failpoint!("runtime.start.providers");
    if !recover {
        return Ok(Recovered::default());
    }
    let recovered = handle.addresses().engine.send(Recover { id: None, hold: false }).await;
    let recovered = recovered.map_err(|_| StartError::Died)?.map_err(StartError::Recovery)?;
    gleitzeit_failpoint::failpoint!("runtime.start.recovered");
    if recovered.workflows > 0 {
        tracing::info!(recovered.workflows, recovered.tasks, "unfinished workflows resumed");
    }
    Ok(recovered)
}

/// Runs until a stop is requested, or until it cannot continue.
async fn run(
    mut actors: Actors,
    store: Arc<dyn Store>,
    mut stops: mpsc::UnboundedReceiver<StopRequest>,
    results: ResultWriter,
    fails: &watch::Sender<Option<TaskError>>,
) {
    // Acknowledged work is stored; an inconsistent state must not continue.
    let at_once = Some(StopRequest { deadline: Duration::ZERO, report: None });
    let (request, failure) = tokio::select! {
        request = stops.recv() => (request, None),
        limit_reached = &mut actors.failed => {
            let actor = limit_reached.map_or("an actor", |limit_reached| limit_reached.actor);
            let message = format!("{actor} failed for good; the log says why");
            (at_once, Some(TaskError::new(ErrorCode::InternalError, message)))
        }
        gone = store.lost() => (at_once, Some(gone.into())),
    };
    let deadline = request.as_ref().map_or(Duration::ZERO, |request| request.deadline);
    let report = end(actors, &*store, deadline).await;
    results.finish().await;
    if let Some(answer) = request.and_then(|request| request.report) {
        let _ = answer.send(report);
    }
    // A stop that was asked for after a failure finds the channel closed, and a default report.
    fails.send_replace(failure);
}

pub(super) async fn end(actors: Actors, store: &dyn Store, deadline: Duration) -> StopReport {
    gleitzeit_failpoint::failpoint!("runtime.stop.asked");
    let report = actors.stop(deadline).await;
    gleitzeit_failpoint::failpoint!("runtime.stop.actors");
    close(store).await;
    gleitzeit_failpoint::failpoint!("runtime.stop.store");
    report
}

async fn close(store: &dyn Store) {
    if let Err(error) = store.close(CLOSE_LIMIT).await {
        tracing::error!(%error, "the store did not close in order");
    }
}
