//! Gives back what it was given: for tests, examples and benchmarks.
//!
//! A supervisor calls it like any provider. Its behaviour is fixed, so that every other effect is
//! one of the runtime around it.
//!
//! Invariant: every call is counted once, when it begins.

use std::{
    collections::BTreeMap,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use chrono::{DateTime, SecondsFormat, Utc};
use gleitzeit_domain::{
    error::{ErrorCode, TaskError},
    id::{ProtocolId, ProviderId, Version},
    provider::{Call, Outcome, Placement, Provider, ProviderSpec, Supervision},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{config, kind::ProviderKind};

/// The kind `echo` of settings, which has no `config`.
pub fn kind() -> ProviderKind {
    ProviderKind::new("echo", |request| {
        let NoConfig {} = config::read(request.config)?;
        Ok(spec(request.id.clone()))
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoConfig {}

/// A provider of `echo/v1.0`: `echo`, `sleep`, `fail`, `ping`, `timestamp` and `delay`.
///
/// It lives with the control actors: an answer costs less than a message to another thread.
pub fn spec(id: impl Into<ProviderId>) -> ProviderSpec {
    spec_counted(id).0
}

/// The same, with the number of calls it has begun; the number outlives restarts.
pub fn spec_counted(id: impl Into<ProviderId>) -> (ProviderSpec, Arc<AtomicU64>) {
    let calls = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&calls);
    let spec = ProviderSpec {
        id: id.into(),
        capabilities: Vec::new(),
        protocols: vec![ProtocolId::new("echo", Version { major: 1, minor: 0, patch: 0 })],
        weight: 1.0,
        max_concurrent: None,
        placement: Placement::Control,
        supervision: Supervision::default(),
        supervision_chosen: false,
        kind: "echo".into(),
        config: BTreeMap::new(),
        factory: Arc::new(move || Ok(Rc::new(Echo::counting(Arc::clone(&counter))))),
    };
    (spec, calls)
}

/// The provider itself, for a host that builds its own [`ProviderSpec`].
#[derive(Debug, Default)]
pub struct Echo {
    calls: Arc<AtomicU64>,
}

impl Echo {
    /// A provider that counts its calls in `calls`.
    pub fn counting(calls: Arc<AtomicU64>) -> Self {
        Self { calls }
    }
}

/// Parameters of `sleep` and `delay`.
#[derive(Deserialize)]
struct Sleep {
    seconds: f64,
}

/// Parameters of `fail`.
#[derive(Deserialize)]
struct Fail {
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    code: Option<ErrorCode>,
    #[serde(default)]
    times: Option<u32>,
}

#[async_trait(?Send)]
impl Provider for Echo {
    /// `echo` answers with its parameters; `sleep` too, after `seconds`; `fail` fails with
    /// `message` and `code`, where `times` is given only in that many first attempts. `ping`,
    /// `timestamp` and `delay` answer as they did in Python Gleitzeit 0.0.4.
    async fn execute(&self, call: Call) -> Result<Outcome, TaskError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        match call.method_name() {
            "echo" => {}
            "sleep" => tokio::time::sleep(pause("sleep", &call.params)?).await,
            "fail" => fail(&call.params, call.attempt)?,
            "ping" => {
                let response = call.params.get("message").filter(|message| !message.is_null());
                let response = response.cloned().unwrap_or_else(|| "pong".into());
                return Ok(json!({ "response": response, "timestamp": timestamp() }).into());
            }
            "timestamp" => return Ok(now().into()),
            "delay" => {
                let seconds = pause("delay", &call.params)?;
                tokio::time::sleep(seconds).await;
                let answer = json!({
                    "delayed_for_seconds": seconds.as_secs_f64(),
                    "parameters": *call.params,
                    "timestamp": timestamp(),
                });
                return Ok(answer.into());
            }
            other => {
                return Err(TaskError::new(
                    ErrorCode::MethodNotSupported,
                    format!(
                        "the echo provider serves echo, sleep, fail, ping, timestamp and delay, not `{other}`"
                    ),
                ));
            }
        }
        // Nobody else may hold the parameters any more; then nothing is copied.
        Ok(Outcome::from(call.params))
    }
}

fn now() -> Value {
    let now = machine_now();
    #[expect(clippy::cast_precision_loss, reason = "microseconds of this century fit")]
    let seconds = now.timestamp_micros() as f64 / 1e6;
    json!({ "timestamp": iso(now), "unix_timestamp": seconds })
}

fn timestamp() -> String {
    iso(machine_now())
}

/// `Utc::now` panics if the clock stands before 1970.
fn machine_now() -> DateTime<Utc> {
    SystemTime::now().into()
}

fn iso(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

fn pause(method: &str, params: &Value) -> Result<Duration, TaskError> {
    let Sleep { seconds } = read(method, params)?;
    Duration::try_from_secs_f64(seconds).map_err(|_| {
        TaskError::new(
            ErrorCode::InvalidParams,
            format!("echo/{method}: `seconds` is {seconds}; expected a number of seconds from 0"),
        )
    })
}

fn fail(params: &Value, attempt: u32) -> Result<(), TaskError> {
    let Fail { message, code, times } = read("fail", params)?;
    if times.is_some_and(|times| attempt > times) {
        return Ok(());
    }
    let message = message.unwrap_or_else(|| "asked to fail".to_owned());
    let error = TaskError::new(code.unwrap_or(ErrorCode::TaskExecutionFailed), message);
    // `times` without `code` is meant to exercise retries.
    Err(if times.is_some() && code.is_none() { error.retryable(true) } else { error })
}

fn read<'de, T: Deserialize<'de>>(method: &str, params: &'de Value) -> Result<T, TaskError> {
    T::deserialize(params).map_err(|wrong| {
        TaskError::new(ErrorCode::InvalidParams, format!("echo/{method}: {wrong}"))
    })
}
