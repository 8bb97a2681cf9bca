//! gleitzeit is a durable workflow engine you embed in a Rust service: one crate, one SQLite file (or
//! PostgreSQL), no server.
//!
//! A workflow is a graph of tasks; each task calls a *method* of a typed *protocol*, served by a
//! supervised *provider*: Python code, an LLM server, or your own.
//!
//! ```
//! use gleitzeit::{Runtime, Settings, TaskSpec, WorkflowSpec, providers::echo};
//! use serde_json::json;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let settings = Settings::from_toml("[storage]\nurl = \"memory\"")?;
//! let runtime = Runtime::builder(settings)
//!     .without_settings_providers()
//!     .provider(echo::spec("echo"))
//!     .start_blocking()?;
//! let ended = runtime.run(
//!     WorkflowSpec::new("greeting")
//!         .task(TaskSpec::new("hello", "echo/echo").params(json!({ "text": "hello" })))
//!         .task(TaskSpec::new("again", "echo/echo").params(json!({ "text": "${hello.text}!" }))),
//! )?;
//! assert_eq!(ended.tasks[1].result.as_deref(), Some(&json!({ "text": "hello!" })));
//! runtime.stop(std::time::Duration::from_secs(5));
//! # Ok(())
//! # }
//! ```

mod chosen_store;
pub mod files;
pub mod handle;
pub mod protocol_files;
pub mod results;
pub mod runtime;
#[cfg(feature = "python")]
pub mod sandbox;
#[cfg(feature = "typed")]
pub mod service;
pub mod settings;
pub mod telemetry;

/// For implementations of [`Provider`] and [`Store`].
pub use async_trait::async_trait;
pub use gleitzeit_actors::{
    self as actors,
    event_bus::{Delivery, EventFilter, Subscription},
    execution_engine::{EngineCounts, Recovered, StopReport},
    load_balancer::WaitPolicy,
    memory_store::MemoryStore,
    provider_supervisor::{ProviderState, ProviderStatus},
};
pub use gleitzeit_domain::{
    self as domain,
    balance::{Candidate, LoadBalancingStrategy, PickContext, StrategyFactory},
    error::{ErrorCode, TaskError},
    event::{Event, EventData},
    file_access::FileAccess,
    health::{HealthReport, HealthStatus},
    id::{ProtocolId, ProviderId, TaskId, Version, WorkflowId},
    metrics::{ExecutionStats, MethodSummary, Metrics},
    problem::{Problem, SubmitError},
    protocol::{Effect, MethodSpec, ParameterSpec, ProtocolSpec},
    provider::{Call, Outcome, Placement, Provider, ProviderSpec, Supervision},
    resources::ResourceRequirements,
    retry::{Backoff, RetryPolicy},
    store::{ListFilter, Store, StoreError},
    task::{OnDependencyFailure, Priority, TaskRecord, TaskStatus},
    workflow::{
        Reference, ResultError, TaskHandle, TaskSpec, WorkflowBuilder, WorkflowRecord,
        WorkflowSpec, WorkflowStatus, WorkflowSummary,
    },
};
pub use gleitzeit_providers as providers;
/// The store in a database.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use gleitzeit_storage as storage;
/// For transactions that [`Handle::submit_in`] takes part in.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use gleitzeit_storage::sea_orm;
pub use handle::{
    CheckedWorkflow, EngineState, Enqueued, Follow, Handle, Health, RetryError, StoreState,
    SubmitFileError,
};
pub use runtime::{BlockingRuntime, LocalRuntime, Runtime, RuntimeBuilder, StartError};
/// For the types of typed handlers.
#[cfg(feature = "typed")]
pub use schemars;
pub use settings::Settings;

/// The program of the page on services is compiled and run.
#[cfg(all(doctest, feature = "typed"))]
#[doc = include_str!("../docs/services.md")]
struct Services;

/// The program of the README is compiled and run.
#[cfg(all(doctest, feature = "typed"))]
#[doc = include_str!("../README.md")]
struct Readme;
