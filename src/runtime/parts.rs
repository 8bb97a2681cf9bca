//! From settings to what the actors are made from.

use std::{collections::HashMap, sync::Arc, time::Duration};

use gleitzeit_actors::{
    execution_engine::EngineSettings,
    load_balancer::{BalancerSettings, WaitPolicy},
    memory_store::MemoryStore,
    system::SystemConfig,
};
use gleitzeit_domain::{
    balance::{BalanceConfig, Strategies, StrategyFactory},
    plan::PlanDefaults,
    protocol::{ProtocolSpec, builtin, catalog::ProtocolCatalog},
    provider::Supervision,
    store::Store,
};

use super::error::StartError;
use crate::{chosen_store::ChosenStore, handle::shared_now, protocol_files, settings::Settings};

/// The pause between two clean-ups of settled workflows.
const RETENTION_ROUND: Duration = Duration::from_hours(1);
/// The number of workflows that one statement deletes.
const RETENTION_BATCH: usize = 5_000;

/// The built-in protocols, those of the settings' directory, and `added`.
pub(super) fn catalog(
    settings: &Settings,
    added: Vec<ProtocolSpec>,
) -> Result<ProtocolCatalog, StartError> {
    let directory = &settings.protocols.directory;
    let mut specs = builtin::all();
    if directory.is_dir() {
        let found =
            protocol_files::load_dir(directory).map_err(|errors| StartError::Protocols {
                message: errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
            })?;
        specs.extend(found);
    }
    specs.extend(added);
    let mut catalog = ProtocolCatalog::new();
    catalog.register_all(specs).map_err(|errors| StartError::Protocols {
        message: errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
    })?;
    Ok(catalog)
}

/// Opens the store of the settings without a runtime. A missing database is made.
///
/// # Errors
/// [`StartError::Store`] and [`StartError::StoreKind`].
pub async fn open_store(settings: &Settings) -> Result<Arc<dyn Store>, StartError> {
    choose_store(settings).await.map(|chosen| chosen.store)
}

/// The store of the settings, as a runtime keeps it.
pub(super) async fn choose_store(settings: &Settings) -> Result<ChosenStore, StartError> {
    let url = &settings.storage.url();
    if url.is_memory() {
        let memory = MemoryStore::new(settings.storage.memory_history_max);
        return Ok(ChosenStore::new(Arc::new(memory)));
    }
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    {
        use gleitzeit_storage::SqlStore;
        match SqlStore::connect(url, settings.storage.sql_options()).await {
            Ok(store) => Ok(ChosenStore::in_database(Arc::new(store))),
            Err(error) => Err(StartError::Store { url: url.to_string(), error }),
        }
    }
    #[cfg(not(any(feature = "sqlite", feature = "postgres")))]
    Err(StartError::StoreKind {
        url: url.to_string(),
        message: "this program was built without databases; use `memory`, or build it with the \
                  feature `sqlite` or `postgres`"
            .to_owned(),
    })
}

/// Opens the store of the settings to read from it: nothing is made or migrated, and a read-only
/// database can be read. `None` if there is no database yet.
///
/// # Errors
/// As [`open_store`].
pub async fn open_existing_store(
    settings: &Settings,
) -> Result<Option<Arc<dyn Store>>, StartError> {
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    if !settings.storage.url.is_memory() {
        use gleitzeit_storage::ReadOnlyStore;
        let url = &settings.storage.url();
        return match ReadOnlyStore::open(url, settings.storage.sql_options()).await {
            Ok(store) => Ok(store.map(|store| Arc::new(store) as Arc<dyn Store>)),
            Err(error) => Err(StartError::Store { url: url.to_string(), error }),
        };
    }
    open_store(settings).await.map(Some)
}

/// The policies of tasks that set none.
pub(super) fn plan_defaults(settings: &Settings) -> PlanDefaults {
    let engine = &settings.engine;
    PlanDefaults {
        timeout: engine.default_timeout,
        retry: Arc::new(engine.retry.clone()),
        env: Some(Arc::new(engine.env_allowed.iter().cloned().collect())),
    }
}

/// The strategies of load balancing.
pub(super) fn balance(settings: &Settings, seed: u64) -> BalanceConfig {
    BalanceConfig {
        strategy: settings.balancing.default.clone(),
        protocols: settings.balancing.protocols.clone(),
        seed,
        ..BalanceConfig::default()
    }
}

/// Logs the settings that are set by an old name.
pub(super) fn log_warnings(settings: &Settings) {
    for warning in &settings.warnings {
        tracing::warn!(%warning, "setting by an old name");
    }
}

/// Everything the actors are made from.
pub(super) fn parts(
    settings: &Settings,
    added: Vec<(String, StrategyFactory)>,
    catalog: ProtocolCatalog,
    takes_over: bool,
    wait_policy: WaitPolicy,
) -> SystemConfig {
    let engine = &settings.engine;
    let seed = engine.seed.unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0);
    let slots = engine.max_concurrent_tasks.get();
    let strategies = added
        .into_iter()
        .fold(Strategies::default(), |all, (name, factory)| all.with(name, factory));
    let env = engine.env_allowed.iter().map(|name| (name.clone(), std::env::var(name).ok()));
    SystemConfig {
        engine: EngineSettings {
            max_concurrent_tasks: usize::try_from(slots).unwrap_or(usize::MAX),
            max_result_bytes: engine.max_result_mb.get().saturating_mul(1024 * 1024),
            max_queued_tasks: engine.max_queued_tasks.get(),
            seed,
            owner: uuid::Uuid::new_v4().to_string().into(),
            lease_term: settings.storage.lease_ttl,
            takes_over,
            ..EngineSettings::default()
        },
        balancer: BalancerSettings {
            balance: balance(settings, seed),
            provider_wait: engine.provider_wait_timeout,
            wait_policy,
            supervision: Some(settings.supervision.over(Supervision::default())),
            ..BalancerSettings::default()
        },
        strategies,
        resources: settings.resources.totals(slots),
        catalog,
        defaults: plan_defaults(settings),
        env: env.collect::<HashMap<_, _>>(),
        monitor_interval: settings.monitoring.interval,
        memory_mib: crate::telemetry::process_memory_mib,
        workers: engine.provider_threads(),
    }
}

/// Forgets old workflows: once after the start, then at long intervals.
pub(super) fn keep_tidy(settings: &Settings, store: &Arc<dyn Store>) {
    let Some(age) = settings.storage.retention() else { return };
    let store = Arc::downgrade(store);
    actix_rt::spawn(async move {
        loop {
            let Some(store) = store.upgrade() else { return };
            // The clock by which they settled, and not one that is wrong on this machine alone.
            let before = shared_now(&*store).await - age;
            loop {
                match store.prune(before, RETENTION_BATCH).await {
                    Ok(count) if count == RETENTION_BATCH => {}
                    Ok(_) => break,
                    Err(error) => {
                        tracing::warn!(%error, "deletion of old workflows failed");
                        break;
                    }
                }
            }
            drop(store);
            tokio::time::sleep(RETENTION_ROUND).await;
        }
    });
}
