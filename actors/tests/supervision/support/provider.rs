//! A provider that follows a script, and notes what happens to it.

use std::{
    cell::Cell,
    future::Future,
    rc::Rc,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures_util::future::LocalBoxFuture;
use gleitzeit_domain::{
    error::TaskError,
    health::HealthReport,
    provider::{Call, Outcome, Provider, ProviderSpec, Supervision},
};
use serde_json::{Value, json};
use tokio::{sync::Notify, time::Instant};

use super::PROTOCOL;

/// A step of the script; gets the number of the instance, from 1.
type Step<T> = Arc<dyn Fn(u64) -> LocalBoxFuture<'static, T> + Send + Sync>;
type Run =
    Arc<dyn Fn(u64, Call) -> LocalBoxFuture<'static, Result<Value, TaskError>> + Send + Sync>;

/// The notes about instances, each with its number and time: `built`, `ready`, `call`, `check`,
/// `shut down`, `dropped`.
#[derive(Clone, Default)]
pub(crate) struct Diary {
    entries: Arc<Mutex<Vec<(String, Instant)>>>,
    written: Arc<Notify>,
}

impl Diary {
    pub(crate) fn write(&self, what: impl Into<String>) {
        self.entries.lock().unwrap().push((what.into(), Instant::now()));
        self.written.notify_waiters();
    }

    pub(crate) fn entries(&self) -> Vec<String> {
        self.entries.lock().unwrap().iter().map(|(what, _)| what.clone()).collect()
    }

    /// When it was written, each time.
    pub(crate) fn times(&self, prefix: &str) -> Vec<Instant> {
        let entries = self.entries.lock().unwrap();
        entries.iter().filter(|(what, _)| what.starts_with(prefix)).map(|(_, at)| *at).collect()
    }

    /// The time between one entry and the next.
    pub(crate) fn gaps(&self, prefix: &str) -> Vec<Duration> {
        self.times(prefix).windows(2).map(|pair| pair[1] - pair[0]).collect()
    }

    pub(crate) fn count(&self, prefix: &str) -> usize {
        self.times(prefix).len()
    }

    /// Waits until it was written `count` times.
    pub(crate) async fn until(&self, prefix: &str, count: usize) {
        loop {
            let written = self.written.notified();
            tokio::pin!(written);
            written.as_mut().enable();
            if self.count(prefix) >= count {
                return;
            }
            written.await;
        }
    }
}

/// The steps of a provider; by default all is well and a call returns its parameters at once.
#[derive(Clone)]
pub(crate) struct Script {
    pub(crate) build: Arc<dyn Fn(u64) -> Result<(), TaskError> + Send + Sync>,
    pub(crate) initialize: Step<Result<(), TaskError>>,
    pub(crate) execute: Run,
    pub(crate) health: Step<HealthReport>,
    pub(crate) shutdown: Step<()>,
    pub(crate) on_drop: Arc<dyn Fn(u64) + Send + Sync>,
    pub(crate) grace: Duration,
    pub(crate) diary: Diary,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            build: Arc::new(|_| Ok(())),
            initialize: step(|_| async { Ok(()) }),
            execute: run(|_, call| async move { Ok(json!({ "params": *call.params })) }),
            health: step(|_| async { HealthReport::healthy() }),
            shutdown: step(|_| async {}),
            on_drop: Arc::new(|_| {}),
            grace: Duration::ZERO,
            diary: Diary::default(),
        }
    }
}

pub(crate) fn step<T: 'static, F>(body: impl Fn(u64) -> F + Send + Sync + 'static) -> Step<T>
where
    F: Future<Output = T> + 'static,
{
    Arc::new(move |instance| Box::pin(body(instance)))
}

pub(crate) fn run<F>(body: impl Fn(u64, Call) -> F + Send + Sync + 'static) -> Run
where
    F: Future<Output = Result<Value, TaskError>> + 'static,
{
    Arc::new(move |instance, call| Box::pin(body(instance, call)))
}

impl Script {
    /// Runs calls this way.
    pub(crate) fn executing<F>(body: impl Fn(u64, Call) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Value, TaskError>> + 'static,
    {
        Self { execute: run(body), ..Self::default() }
    }

    pub(crate) fn spec(&self, id: &str) -> ProviderSpec {
        self.spec_of(id, PROTOCOL)
    }

    pub(crate) fn spec_of(&self, id: &str, protocol: &str) -> ProviderSpec {
        let script = self.clone();
        let built = AtomicU64::new(0);
        let factory = move || {
            let number = built.fetch_add(1, Ordering::SeqCst) + 1;
            script.diary.write(format!("built {number}"));
            (script.build)(number)?;
            Ok(ScriptedProvider { number, script: script.clone(), busy: Rc::default() })
        };
        ProviderSpec::new(id, protocol, factory).unwrap().supervision(quick())
    }
}

/// Supervision whose figures are easy to reckon with.
pub(crate) fn quick() -> Supervision {
    Supervision {
        health_interval: Duration::from_secs(30),
        health_timeout: Duration::from_secs(10),
        unhealthy_after: 3,
        restart_after: 6,
        restarts_max: 5,
        restart_window: Duration::from_mins(10),
        backoff_min: Duration::from_secs(1),
        backoff_max: Duration::from_secs(4),
        lifecycle_timeout: Duration::from_secs(20),
    }
}

struct ScriptedProvider {
    number: u64,
    script: Script,
    busy: Rc<Cell<bool>>,
}

impl ScriptedProvider {
    fn write(&self, what: &str) {
        self.script.diary.write(format!("{what} {}", self.number));
    }
}

#[async_trait(?Send)]
impl Provider for ScriptedProvider {
    async fn initialize(&self) -> Result<(), TaskError> {
        (self.script.initialize)(self.number).await?;
        self.write("ready");
        Ok(())
    }

    async fn execute(&self, call: Call) -> Result<Outcome, TaskError> {
        self.script.diary.write(format!("call {} of {}", call.task_id, self.number));
        (self.script.execute)(self.number, call).await.map(Outcome::from)
    }

    fn grace(&self) -> Duration {
        self.script.grace
    }

    async fn health_check(&self) -> HealthReport {
        assert!(!self.busy.replace(true), "checks overlap");
        let busy = Rc::clone(&self.busy);
        let _free = Free(busy);
        self.write("check");
        let report = (self.script.health)(self.number).await;
        self.write("answer");
        report
    }

    async fn shutdown(&self) {
        self.write("shut down");
        (self.script.shutdown)(self.number).await;
    }
}

struct Free(Rc<Cell<bool>>);

impl Drop for Free {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

impl Drop for ScriptedProvider {
    fn drop(&mut self) {
        self.write("dropped");
        (self.script.on_drop)(self.number);
    }
}

/// Holds calls until the test lets them go.
#[derive(Clone)]
pub(crate) struct Gate(Arc<tokio::sync::Semaphore>);

impl Default for Gate {
    fn default() -> Self {
        Self(Arc::new(tokio::sync::Semaphore::new(0)))
    }
}

impl Gate {
    pub(crate) async fn pass(&self) {
        self.0.acquire().await.unwrap().forget();
    }

    /// Lets `count` calls go, those that wait first.
    pub(crate) fn open(&self, count: usize) {
        self.0.add_permits(count);
    }
}
