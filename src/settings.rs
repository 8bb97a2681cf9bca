//! The settings: every knob, its type, its unit and its bounds.
//!
//! Read by the runtime, the command line and embedding services. `config/default.toml` is the
//! one place where a default stands; it is compiled in, and [`Settings::default`] reads it.
//! [`Sources`] layers files and variables over it.
//!
//! Invariant: settings that were loaded have passed [`Settings::check`].

mod amount;
mod layers;
mod load;
mod near_miss;
mod path;
mod problem;
mod providers;
mod relative;
mod renamed;
mod secret;
mod tree;

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    num::{NonZeroU32, NonZeroU64, NonZeroUsize},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use gleitzeit_domain::{
    duration,
    file_access::FileAccess,
    id::{ProtocolId, ProviderId},
    provider::Supervision,
    resources::Resources,
    retry::RetryPolicy,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use gleitzeit_providers::guarded::Guarded;

pub use amount::Amount;
pub use gleitzeit_providers::{
    kinds::{ProviderKind, ProviderKinds},
    security::{PolicyPreset, SecuritySettings},
};
pub use gleitzeit_storage::{Durability, StoreUrl};
pub use load::Sources;
pub use problem::{SettingsError, SettingsProblem};

/// Everything that can be set.
///
/// `Serialize` and `Debug` hide secrets, so that both may be shown.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// How much is done at once, and for how long.
    pub engine: EngineSettings,
    /// The resources that all tasks share.
    pub resources: ResourceSettings,
    /// The store of workflows.
    pub storage: StorageSettings,
    /// Which provider serves a call.
    pub balancing: BalancingSettings,
    /// How providers are watched, where they say nothing themselves.
    pub supervision: SupervisionSettings,
    /// The providers, by id.
    pub providers: BTreeMap<ProviderId, ProviderSettings>,
    /// The protocols that are read from files.
    pub protocols: ProtocolSettings,
    /// How often is measured.
    pub monitoring: MonitoringSettings,
    /// Logging: level and format.
    pub logging: LoggingSettings,
    /// The health endpoint of `gleitzeit serve`.
    #[serde(default)]
    pub server: ServerSettings,
    /// The rights of code that tasks bring along.
    pub security: SecuritySettings,
    /// The files that these were read from.
    #[serde(skip)]
    pub read_from: Vec<PathBuf>,
    /// Keys by an older name, which count and are to be renamed.
    #[serde(skip)]
    pub warnings: Vec<SettingsProblem>,
    /// The kinds that a provider may be of.
    #[serde(skip)]
    pub provider_kinds: ProviderKinds,
}

/// `[engine]`: how much is done at once, and for how long.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineSettings {
    /// Calls in flight at once, over all workflows.
    pub max_concurrent_tasks: NonZeroU64,
    /// Tasks taken in and not settled; a submission beyond it is refused with `QUEUE_FULL`.
    pub max_queued_tasks: NonZeroU64,
    /// The result of a task may have so many MiB of JSON; a longer one fails its task. At most 256:
    /// a database refuses a row of a gigabyte.
    pub max_result_mb: NonZeroU64,
    /// Limit of one attempt, where neither task nor method says one. In files: seconds.
    #[serde(with = "duration")]
    pub default_timeout: Duration,
    /// A task waits so long for a provider. In files: seconds.
    #[serde(with = "duration")]
    pub provider_wait_timeout: Duration,
    /// Running tasks may take so long to end when the runtime stops. In files: seconds.
    #[serde(with = "duration")]
    pub shutdown_deadline: Duration,
    /// Worker threads of providers; one less than there are cores where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_threads: Option<NonZeroUsize>,
    /// Makes jitter and random balancing repeatable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Names that `${env.NAME}` may read.
    pub env_allowed: Vec<String>,
    /// Retries, where neither the task nor its method says any.
    pub retry: RetryPolicy,
}

impl EngineSettings {
    /// Worker threads: as set, or one less than there are cores, at least 1.
    pub fn provider_threads(&self) -> usize {
        self.provider_threads.map_or_else(
            || thread::available_parallelism().map_or(1, |cores| (cores.get() - 1).max(1)),
            NonZeroUsize::get,
        )
    }
}

/// `[resources]`: what all tasks share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResourceSettings {
    /// Processor cores; a fraction is allowed.
    pub cpu_cores: Amount,
    /// Memory in MiB.
    pub memory_mb: Amount,
    /// Memory of graphics processors in MiB.
    pub gpu_memory_mb: Amount,
    /// Temporary disk space in MiB.
    pub disk_space_mb: Amount,
    /// Network bandwidth in megabits a second.
    pub network_bandwidth_mbps: Amount,
}

impl ResourceSettings {
    /// The totals in whole units, with `slots` tasks at once. What cannot be detected is
    /// unlimited.
    pub fn totals(&self, slots: u64) -> Resources {
        Resources {
            slots,
            cpu_millicores: self.cpu_cores.units(1000.0, amount::detect_millicores),
            memory_mib: self.memory_mb.units(1.0, amount::detect_memory_mib),
            gpu_memory_mib: self.gpu_memory_mb.units(1.0, || None),
            disk_mib: self.disk_space_mb.units(1.0, || None),
            bandwidth_mbps: self.network_bandwidth_mbps.units(1.0, || None),
        }
    }
}

/// `[storage]`: where workflows are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StorageSettings {
    /// Which store.
    pub url: StoreUrl,
    /// The failures that a commit survives.
    pub durability: Durability,
    /// Settled workflows are forgotten after so many days; 0 keeps them.
    pub retention_days: u32,
    /// Of a database: above so many MiB in use, the oldest settled workflows are forgotten; 0 for
    /// any size.
    pub max_size_mb: u64,
    /// Settled workflows that the memory store keeps, the newest.
    pub memory_history_max: usize,
    /// On PostgreSQL: what a process ran is taken over by others so long after it last renewed its
    /// lease. On SQLite it is at once, when the process has ended. In files: seconds.
    #[serde(with = "duration")]
    pub lease_ttl: Duration,
    /// True lets each process that runs or stores workflows make the database and bring its schema
    /// up to date; false leaves that to `gleitzeit db migrate`.
    pub auto_migrate: bool,
    /// On PostgreSQL: a statement that was not answered by then is given up, and its connection
    /// replaced. In files: seconds.
    #[serde(with = "duration")]
    pub statement_timeout: Duration,
    /// On PostgreSQL with `sslmode=verify-ca` or `verify-full`: a file in PEM with certificates to
    /// trust, besides the built-in ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
}

/// A result as JSON may be written with escapes, and stands in a statement with others: both
/// databases refuse what has a gigabyte.
const RESULT_MAX_MB: NonZeroU64 = NonZeroU64::new(256).unwrap();

/// A lease that is shorter runs out under a process that the machine did not run for a moment.
const LEASE_MIN: Duration = Duration::from_millis(500);

/// A statement that is given up sooner may be one that a busy server was about to answer.
const STATEMENT_TIMEOUT_MIN: Duration = Duration::from_secs(1);

impl StorageSettings {
    /// Which store, with the certificates that its server is checked by.
    pub fn url(&self) -> StoreUrl {
        match &self.ca_file {
            Some(file) => self.url.clone().with_ca_file(file),
            None => self.url.clone(),
        }
    }

    /// How a database is used.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub fn sql_options(&self) -> gleitzeit_storage::SqlOptions {
        gleitzeit_storage::SqlOptions {
            durability: self.durability,
            max_bytes: self.max_bytes(),
            auto_migrate: self.auto_migrate,
            statement_timeout: self.statement_timeout,
        }
    }

    /// The size that a database is kept below, in bytes; `None` for any.
    pub fn max_bytes(&self) -> Option<u64> {
        (self.max_size_mb > 0).then(|| self.max_size_mb.saturating_mul(1024 * 1024))
    }

    /// How long settled workflows are kept; `None` for ever.
    pub fn retention(&self) -> Option<Duration> {
        (self.retention_days > 0)
            .then(|| Duration::from_secs(u64::from(self.retention_days) * 24 * 60 * 60))
    }
}

/// `[balancing]`: which provider serves a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BalancingSettings {
    /// The strategy of protocols that `protocols` does not name.
    pub default: String,
    /// Strategies by protocol, written with its version (`llm/v1.0`) or without (`llm`).
    pub protocols: BTreeMap<String, String>,
}

impl BalancingSettings {
    /// The name of the strategy for a protocol: that of its exact version, that of its name, or
    /// the default.
    pub fn strategy(&self, protocol: &ProtocolId) -> &str {
        let exact = self
            .protocols
            .iter()
            .find(|(key, _)| key.parse::<ProtocolId>().is_ok_and(|key| key == *protocol));
        exact
            .map(|(_, strategy)| strategy)
            .or_else(|| self.protocols.get(protocol.name()))
            .unwrap_or(&self.default)
    }
}

/// `[supervision]`: how a provider is watched. What is absent is taken from the level above.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SupervisionSettings {
    /// From the end of one health check to the start of the next. In files: seconds.
    #[serde(with = "duration::option", skip_serializing_if = "Option::is_none")]
    pub health_interval: Option<Duration>,
    /// A check that takes longer has failed. In files: seconds.
    #[serde(with = "duration::option", skip_serializing_if = "Option::is_none")]
    pub health_timeout: Option<Duration>,
    /// Failed checks in a row that make it unhealthy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unhealthy_after: Option<NonZeroU32>,
    /// Failed checks in a row that replace the instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_after: Option<NonZeroU32>,
    /// Restarts allowed within `restart_window`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restarts_max: Option<u32>,
    /// Length of the sliding window. In files: seconds.
    #[serde(with = "duration::option", skip_serializing_if = "Option::is_none")]
    pub restart_window: Option<Duration>,
    /// Pause before the first restart. In files: seconds.
    #[serde(with = "duration::option", skip_serializing_if = "Option::is_none")]
    pub backoff_min: Option<Duration>,
    /// Longest pause. In files: seconds.
    #[serde(with = "duration::option", skip_serializing_if = "Option::is_none")]
    pub backoff_max: Option<Duration>,
    /// Starting and stopping may take this long. In files: seconds.
    #[serde(with = "duration::option", skip_serializing_if = "Option::is_none")]
    pub lifecycle_timeout: Option<Duration>,
}

impl SupervisionSettings {
    /// True when everything is left to the level above.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// These, over `base`.
    pub fn over(&self, base: Supervision) -> Supervision {
        Supervision {
            health_interval: self.health_interval.unwrap_or(base.health_interval),
            health_timeout: self.health_timeout.unwrap_or(base.health_timeout),
            unhealthy_after: self.unhealthy_after.map_or(base.unhealthy_after, NonZeroU32::get),
            restart_after: self.restart_after.map_or(base.restart_after, NonZeroU32::get),
            restarts_max: self.restarts_max.unwrap_or(base.restarts_max),
            restart_window: self.restart_window.unwrap_or(base.restart_window),
            backoff_min: self.backoff_min.unwrap_or(base.backoff_min),
            backoff_max: self.backoff_max.unwrap_or(base.backoff_max),
            lifecycle_timeout: self.lifecycle_timeout.unwrap_or(base.lifecycle_timeout),
        }
    }
}

/// `[providers.<id>]`: one provider.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderSettings {
    /// The kind, by the name that [`provider_kinds`](Settings::provider_kinds) has.
    pub kind: String,
    /// False leaves it out.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Calls in flight at once; the kind's own bound where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_concurrent: Option<NonZeroU32>,
    /// The share under the weighted strategy; 0 gets nothing while another is there.
    #[serde(default = "one")]
    pub weight: f64,
    /// How it is watched, where it differs from `[supervision]`.
    #[serde(default, skip_serializing_if = "SupervisionSettings::is_empty")]
    pub supervision: SupervisionSettings,
    /// The keys of the kind.
    #[serde(default, skip_serializing_if = "ProviderConfig::is_empty")]
    pub config: ProviderConfig,
}

const fn yes() -> bool {
    true
}

const fn one() -> f64 {
    1.0
}

/// `[providers.<id>.config]`: read by the provider's kind when it is built.
#[derive(Clone, PartialEq, Default, Deserialize)]
#[serde(transparent)]
pub struct ProviderConfig(pub Map<String, Value>);

impl ProviderConfig {
    /// True when everything is left to the kind's defaults.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The same with the values of secret keys hidden.
    pub fn masked(&self) -> Map<String, Value> {
        secret::hide(&self.0)
    }
}

impl fmt::Debug for ProviderConfig {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.masked(), out)
    }
}

impl Serialize for ProviderConfig {
    fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        self.masked().serialize(out)
    }
}

/// `[protocols]`: where protocols come from, besides those built in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProtocolSettings {
    /// The `*.toml` files in this directory are registered at start, if it exists.
    pub directory: PathBuf,
}

/// `[monitoring]`: how often is measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MonitoringSettings {
    /// Between two measurements; zero for none. In files: seconds.
    #[serde(with = "duration")]
    pub interval: Duration,
}

/// `[logging]`: what is logged, and how. Only the program reads it, a library never does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoggingSettings {
    /// A level, or directives such as `info,gleitzeit=debug`.
    pub level: String,
    /// The form of a line.
    pub format: LogFormat,
}

/// The form of a line of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For a person.
    Text,
    /// One JSON object a line.
    Json,
}

/// `[server]`: the address at which `gleitzeit serve` reports its health. Only the program reads it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerSettings {
    /// The address, such as `127.0.0.1:8080`, at which `GET /healthz` is answered; nowhere if
    /// absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<SocketAddr>,
}

impl Default for Settings {
    /// The defaults of `config/default.toml`.
    fn default() -> Self {
        let sources = Sources::nothing();
        sources.load().expect("config/default.toml is compiled in, and a test reads it")
    }
}

impl Settings {
    /// The settings of this process: defaults, the file that `GLEITZEIT_ENV` names, variables.
    ///
    /// # Errors
    /// [`SettingsError`] with everything that is wrong.
    pub fn load() -> Result<Self, SettingsError> {
        Sources::of_process().load()
    }

    /// Defaults with `text` over them; no file and no variable is read.
    ///
    /// # Errors
    /// [`SettingsError`] with everything that is wrong.
    pub fn from_toml(text: &str) -> Result<Self, SettingsError> {
        Sources::nothing().with_text("settings", text).load()
    }

    /// How the provider is watched: its own settings over `[supervision]`.
    pub fn supervision_of(&self, provider: &ProviderSettings) -> Supervision {
        provider.supervision.over(self.supervision.over(Supervision::default()))
    }

    /// The providers that are not left out.
    pub fn enabled_providers(&self) -> impl Iterator<Item = (&ProviderId, &ProviderSettings)> {
        self.providers.iter().filter(|(_, provider)| provider.enabled)
    }

    /// Checks bounds, and settings that must fit together: no type can express them.
    ///
    /// # Errors
    /// [`SettingsError`] with everything that is wrong.
    pub fn check(&self) -> Result<(), SettingsError> {
        let mut problems = Vec::new();
        let mut wrong = |path: String, message: String| {
            problems.push(SettingsProblem::new(path, message));
        };
        self.check_spans(&mut wrong);
        self.check_balancing(&mut wrong);
        self.check_security(&mut wrong);
        for (id, provider) in &self.providers {
            if !provider.weight.is_finite() || provider.weight < 0.0 {
                let message = format!("{} is no weight; expected 0 or more", provider.weight);
                wrong(format!("providers.{}.weight", path::key(id.as_str())), message);
            }
        }
        if self.engine.max_result_mb > RESULT_MAX_MB {
            let message =
                format!("{}; expected at most {RESULT_MAX_MB}", self.engine.max_result_mb);
            wrong("engine.max_result_mb".into(), message);
        }
        if self.engine.retry.max_attempts == 0 {
            wrong("engine.retry.max_attempts".into(), "0 attempts; expected at least 1".into());
        }
        if problems.is_empty() { Ok(()) } else { Err(SettingsError { problems }) }
    }

    fn check_spans(&self, wrong: &mut impl FnMut(String, String)) {
        let lease = self.storage.lease_ttl;
        if lease < LEASE_MIN {
            wrong(
                "storage.lease_ttl".into(),
                format!("{lease:?}; expected at least {LEASE_MIN:?}"),
            );
        }
        let statement = self.storage.statement_timeout;
        if statement < STATEMENT_TIMEOUT_MIN {
            wrong(
                "storage.statement_timeout".into(),
                format!("{statement:?}; expected at least {STATEMENT_TIMEOUT_MIN:?}"),
            );
        }
        let mut positive = |path: String, span: Option<Duration>| {
            if span.is_some_and(|span| span.is_zero()) {
                wrong(path, "0 seconds; expected more than 0".into());
            }
        };
        positive("engine.default_timeout".into(), Some(self.engine.default_timeout));
        let supervised = self.providers.iter().map(|(id, provider)| {
            (format!("providers.{}.supervision", path::key(id.as_str())), &provider.supervision)
        });
        for (path, spans) in supervised.chain([("supervision".to_owned(), &self.supervision)]) {
            positive(format!("{path}.health_interval"), spans.health_interval);
            positive(format!("{path}.health_timeout"), spans.health_timeout);
            positive(format!("{path}.restart_window"), spans.restart_window);
            positive(format!("{path}.lifecycle_timeout"), spans.lifecycle_timeout);
        }
        for (id, provider) in &self.providers {
            let Supervision { backoff_min, backoff_max, .. } = self.supervision_of(provider);
            if backoff_min > backoff_max {
                wrong(
                    format!("providers.{}.supervision.backoff_min", path::key(id.as_str())),
                    format!("{backoff_min:?} is above backoff_max, which is {backoff_max:?}"),
                );
            }
        }
    }

    fn check_balancing(&self, wrong: &mut impl FnMut(String, String)) {
        for key in self.balancing.protocols.keys() {
            let named = gleitzeit_domain::id::is_name(key) || key.parse::<ProtocolId>().is_ok();
            if !named {
                let message = format!("`{key}` is no protocol; expected `name` or `name/version`");
                wrong(format!("balancing.protocols.{}", path::key(key)), message);
            }
        }
    }

    /// Files that no task is given: the database with the files beside it, and the settings.
    pub(crate) fn guarded(&self) -> Guarded {
        Guarded::of(self.storage.url.sqlite_path(), &self.read_from)
    }

    /// True for a file that no task is given, under whatever name: the database, those beside it,
    /// the settings.
    pub fn is_guarded(&self, file: &Path) -> bool {
        self.guarded().is(file).is_some()
    }

    /// The files of a workflow's place that these settings permit its tasks to see.
    pub fn permitted(&self, file_access: &FileAccess) -> Vec<PathBuf> {
        let files: Vec<&str> = file_access.files.iter().map(String::as_str).collect();
        let fit = self.guarded().fit(&files, &self.security.workflow_file_roots);
        fit.into_iter().map(PathBuf::from).collect()
    }

    /// Shown to every task, so nothing of the service's own may be in it.
    fn check_read_only_paths(&self, wrong: &mut impl FnMut(String, String)) {
        let guarded = self.guarded();
        for (number, path) in self.security.read_only_paths.iter().enumerate() {
            if let Some(file) = guarded.seen_through(path) {
                let message = format!(
                    "`{}` would show tasks `{}`, which belongs to the service; name the directories \
                     and files that tasks need, or move the database and the settings elsewhere",
                    path.display(),
                    file.display()
                );
                wrong(format!("security.read_only_paths.{number}"), message);
            }
        }
    }

    fn check_security(&self, wrong: &mut impl FnMut(String, String)) {
        self.check_read_only_paths(wrong);
        if let Some(message) = self.security.weakness_of(self.security.sandbox) {
            wrong("security.sandbox".into(), message);
        }
    }
}
