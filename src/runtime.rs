//! Starts and stops everything: a thread of its own with the actors, the store and the providers.
//!
//! [`Runtime::start`] works from any program: a multi-threaded tokio runtime, actix-web, or a plain
//! `main` through [`RuntimeBuilder::start_blocking`]. The host talks to it through a [`Handle`],
//! which can be cloned and sent anywhere.
//!
//! Stopping: no new work, running tasks end up to a deadline, providers stop, the store is flushed,
//! threads are joined. What was cut off is in the report and in the store; the next start goes on
//! with it.

mod blocking;
mod local;
mod parts;
mod results;

use std::{sync::Arc, thread, time::Duration};

use gleitzeit_actors::{
    execution_engine::{Recover, Recovered, StopReport},
    load_balancer::WaitPolicy,
    system::{self, Actors},
};
use gleitzeit_domain::{
    balance::{StrategyFactory, UnknownStrategy},
    error::{ErrorCode, TaskError},
    protocol::{ProtocolSpec, catalog::ProtocolCatalog},
    provider::{Placement, ProviderSpec},
    store::{Store, StoreError},
};
use tokio::sync::{mpsc, oneshot, watch};

pub use blocking::BlockingRuntime;
pub use local::LocalRuntime;
pub use parts::{open_existing_store, open_store};

use results::ResultWriter;

use crate::{
    handle::Handle,
    settings::{Settings, SettingsError},
};

/// Between two clean-ups of settled workflows.
const RETENTION_ROUND: Duration = Duration::from_hours(1);
/// Between two looks for what nobody tells of: there is no other thread, and no other process.
const NO_WATCH: Duration = Duration::from_hours(24);
/// Workflows forgotten in one go.
const RETENTION_BATCH: usize = 5_000;
/// The store may take this long to flush after the last outcome.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);

/// Why a runtime did not start. Nothing of it is left behind.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The settings are wrong.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A provider cannot be registered.
    #[error("provider `{id}` cannot be registered: {message}")]
    Provider {
        /// Which provider.
        id: String,
        /// What is wrong.
        message: String,
    },
    /// Protocols cannot be read or registered.
    #[error("protocols: {message}")]
    Protocols {
        /// Each with what is wrong.
        message: String,
    },
    /// A service cannot be registered.
    #[cfg(feature = "typed")]
    #[error(transparent)]
    Service(#[from] crate::service::ServiceError),
    /// The settings name a balancing strategy that is not there.
    #[error("[balancing]: {0}")]
    Strategy(#[from] UnknownStrategy),
    /// The store cannot be opened or read.
    #[error("store {url}: {error}")]
    Store {
        /// Which store, without its password.
        url: String,
        /// What it said.
        error: StoreError,
    },
    /// This program was built without that kind of store.
    #[error("store {url}: {message}")]
    StoreKind {
        /// Which store, without its password.
        url: String,
        /// What to do.
        message: String,
    },
    /// The unfinished workflows could not be taken up.
    #[error("unfinished workflows could not be taken up: {0}")]
    Recovery(TaskError),
    /// The operating system gave no thread.
    #[error("no thread for the runtime: {0}")]
    Thread(#[from] std::io::Error),
    /// The runtime's thread ended before it was ready.
    #[error("the runtime's thread ended before it was ready; the log says why")]
    Died,
}

impl StartError {
    /// The code of the table.
    pub fn code(&self) -> ErrorCode {
        match self {
            #[cfg(feature = "typed")]
            Self::Service(_) => ErrorCode::ConfigurationError,
            Self::Settings(_)
            | Self::Provider { .. }
            | Self::Protocols { .. }
            | Self::Strategy(_)
            | Self::StoreKind { .. } => ErrorCode::ConfigurationError,
            Self::Store { error, .. } => error.code(),
            Self::Recovery(error) => error.code,
            Self::Thread(_) => ErrorCode::ResourceExhausted,
            Self::Died => ErrorCode::InternalError,
        }
    }
}

/// The protocols that a runtime of these settings begins with.
///
/// # Errors
/// [`StartError::Protocols`].
pub fn protocols(settings: &Settings) -> Result<ProtocolCatalog, StartError> {
    parts::catalog(settings, Vec::new())
}

/// A running gleitzeit. Dropping it stops it too, without waiting for running tasks.
#[derive(Debug)]
pub struct Runtime {
    handle: Handle,
    recovered: Recovered,
    stop: mpsc::UnboundedSender<StopRequest>,
    failed: watch::Receiver<Option<TaskError>>,
    thread: Option<thread::JoinHandle<()>>,
}

#[derive(Debug)]
struct StopRequest {
    deadline: Duration,
    report: Option<oneshot::Sender<StopReport>>,
}

impl Runtime {
    /// Starts with everything that `settings` say.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(settings: Settings) -> Result<Self, StartError> {
        Self::builder(settings).start().await
    }

    /// To add providers, protocols, strategies or a store before the start.
    pub fn builder(settings: Settings) -> RuntimeBuilder {
        RuntimeBuilder {
            settings,
            providers: Vec::new(),
            protocols: Vec::new(),
            #[cfg(feature = "typed")]
            services: Vec::new(),
            strategies: Vec::new(),
            store: None,
            recover: true,
            wait_policy: WaitPolicy::default(),
            settings_providers: true,
            is_local: false,
        }
    }

    /// What the host talks to.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// What was taken up at the start.
    pub fn recovered(&self) -> Recovered {
        self.recovered
    }

    /// Waits until the runtime has stopped although nobody asked it to, and says why: its store is
    /// gone, or a part of it failed for good. What was acknowledged before is in the store.
    pub async fn failed(&self) -> TaskError {
        let mut failed = self.failed.clone();
        let why = match failed.wait_for(Option::is_some).await {
            Ok(why) => why.clone(),
            Err(_) => None,
        };
        match why {
            Some(why) => why,
            None => std::future::pending().await,
        }
    }

    /// Takes nothing more in, lets running tasks end within `deadline`, stops everything and waits
    /// for it. The report tells what was cut off.
    pub async fn stop(mut self, deadline: Duration) -> StopReport {
        let (report, reported) = oneshot::channel();
        let _ = self.stop.send(StopRequest { deadline, report: Some(report) });
        let report = reported.await.unwrap_or_default();
        self.join();
        report
    }

    /// The thread has nothing left to do when this is called, so it is short.
    fn join(&mut self) {
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the runtime's thread panicked while it stopped");
        }
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        // After `stop` nobody listens any more.
        let _ = self.stop.send(StopRequest { deadline: Duration::ZERO, report: None });
    }
}

/// Collects what is added to the settings before the start.
pub struct RuntimeBuilder {
    settings: Settings,
    providers: Vec<ProviderSpec>,
    protocols: Vec<ProtocolSpec>,
    #[cfg(feature = "typed")]
    services: Vec<crate::service::Service>,
    strategies: Vec<(String, StrategyFactory)>,
    store: Option<Arc<dyn Store>>,
    recover: bool,
    wait_policy: WaitPolicy,
    settings_providers: bool,
    is_local: bool,
}

impl std::fmt::Debug for RuntimeBuilder {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("RuntimeBuilder")
            .field("providers", &self.providers)
            .finish_non_exhaustive()
    }
}

impl RuntimeBuilder {
    /// Adds a provider to those of the settings.
    #[must_use]
    pub fn provider(mut self, spec: ProviderSpec) -> Self {
        self.providers.push(spec);
        self
    }

    /// Adds a protocol to the built-in ones and those of the settings' directory.
    #[must_use]
    pub fn protocol(mut self, spec: ProtocolSpec) -> Self {
        self.protocols.push(spec);
        self
    }

    /// Adds a service: its protocol and its provider.
    #[cfg(feature = "typed")]
    #[must_use]
    pub fn service(mut self, service: crate::service::Service) -> Self {
        self.services.push(service);
        self
    }

    /// Adds a balancing strategy that settings may name.
    #[must_use]
    pub fn strategy(mut self, name: impl Into<String>, factory: StrategyFactory) -> Self {
        self.strategies.push((name.into(), factory));
        self
    }

    /// Uses this store, whatever the settings say.
    #[must_use]
    pub fn store(mut self, store: Arc<dyn Store>) -> Self {
        self.store = Some(store);
        self
    }

    /// Leaves unfinished workflows of the store alone: those that are there at the start, those that
    /// other processes leave behind, and those that are stored for whoever claims them.
    #[must_use]
    pub fn without_recovery(mut self) -> Self {
        self.recover = false;
        self
    }

    /// Says for which calls `engine.provider_wait_timeout` holds; without it, for each attempt.
    #[must_use]
    pub fn wait_policy(mut self, policy: WaitPolicy) -> Self {
        self.wait_policy = policy;
        self
    }

    /// Starts none of the settings' providers, only those that were added here.
    #[must_use]
    pub fn without_settings_providers(mut self) -> Self {
        self.settings_providers = false;
        self
    }

    /// Starts.
    ///
    /// # Errors
    /// [`StartError`]; then nothing runs.
    pub async fn start(self) -> Result<Runtime, StartError> {
        let (ready, is_ready) = oneshot::channel();
        let (stop, stops) = mpsc::unbounded_channel();
        let (fails, failed) = watch::channel(None);
        let thread = thread::Builder::new()
            .name("gleitzeit-actors".into())
            .spawn(move || control_thread(self, ready, stops, &fails))?;
        match is_ready.await {
            Ok(Ok((handle, recovered))) => {
                Ok(Runtime { handle, recovered, stop, failed, thread: Some(thread) })
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(StartError::Died),
        }
    }

    /// Starts from a thread without an async runtime.
    ///
    /// # Errors
    /// [`StartError`]; then nothing runs.
    pub fn start_blocking(self) -> Result<BlockingRuntime, StartError> {
        BlockingRuntime::start(self)
    }
}

type Ready = oneshot::Sender<Result<(Handle, Recovered), StartError>>;

fn control_thread(
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
                    // Whoever started it has gone away.
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
fn with_services(
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

type Begun = (Actors, Arc<dyn Store>, Handle, Recovered, ResultWriter);

async fn begin(builder: RuntimeBuilder) -> Result<Begun, StartError> {
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
    for warning in &settings.warnings {
        tracing::warn!(%warning, "setting by an old name");
    }
    let catalog = parts::catalog(&settings, protocols)?;
    let mut specs = if settings_providers { settings.provider_specs()? } else { Vec::new() };
    specs.extend(providers);
    if is_local {
        for spec in &mut specs {
            spec.placement = Placement::Control;
        }
    }
    let levels = actix_rt::spawn(check_levels(specs.clone(), settings.provider_kinds.clone()));
    // Workflows that are taken up run at once: none may begin where a level cannot be had. Where
    // nothing is taken up, the look takes place beside the rest of the start.
    let levels = if recover {
        levels.await.map_err(|_| StartError::Died)??;
        None
    } else {
        Some(levels)
    };
    gleitzeit_failpoint::failpoint!("runtime.start.before");
    let store = match store {
        Some(store) => store,
        None => parts::open_store(&settings).await?,
    };
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
    let handle = Handle::new(actors.addresses.clone(), Arc::clone(&store), actors.follower.clone());
    gleitzeit_failpoint::failpoint!("runtime.start.actors");
    let mut begun = take_up(&handle, specs, recover).await;
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

async fn take_up(
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
        tracing::info!(recovered.workflows, recovered.tasks, "unfinished workflows go on");
    }
    Ok(recovered)
}

/// Until someone stops it, or it cannot go on.
async fn run(
    mut actors: Actors,
    store: Arc<dyn Store>,
    mut stops: mpsc::UnboundedReceiver<StopRequest>,
    results: ResultWriter,
    fails: &watch::Sender<Option<TaskError>>,
) {
    // What is acknowledged is stored; half a state must not go on.
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

async fn end(actors: Actors, store: &dyn Store, deadline: Duration) -> StopReport {
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
