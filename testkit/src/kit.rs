//! The kit: runtimes on a virtual clock, one after the other, over one store.

use std::{sync::Arc, time::Duration};

use actix_rt::System;
use futures_util::{FutureExt as _, future::BoxFuture};
use gleitzeit::{
    Call, Handle, LocalRuntime, MethodSpec, ProtocolSpec, Runtime, RuntimeBuilder, Settings,
    Store as _, WorkflowId, WorkflowRecord, WorkflowSpec,
    service::{BuiltService, HandlerError, Service},
};
use serde_json::Value;

use crate::{
    calls::{Fake, FakeCall, Fakes, provider},
    crash::{Crash, Pattern},
    store::KitStore,
    story::Ended,
    world::World,
};

/// The longest life, in virtual time: a longer one waits for something that never happens.
const LIFE_MAX: Duration = Duration::from_hours(24 * 60);
/// The most crashes of one workflow: more are a circle.
const CRASHES_MAX: usize = 1_000;

type Configure = Box<dyn Fn(RuntimeBuilder) -> RuntimeBuilder>;

/// A runtime for a test, on the thread of the test and a virtual clock. See the [crate](crate).
pub struct TestKit {
    world: Arc<World>,
    settings: Settings,
    services: Vec<BuiltService>,
    protocols: Vec<ProtocolSpec>,
    fakes: Fakes,
    configure: Vec<Configure>,
    workflows: u32,
    lives: usize,
}

impl Default for TestKit {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for TestKit {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("TestKit").field("lives", &self.lives).finish_non_exhaustive()
    }
}

impl TestKit {
    /// A kit with default settings, an empty store and no handlers.
    pub fn new() -> Self {
        Self::with_settings("")
    }

    /// A kit with settings, as in `gleitzeit.toml`; those of the store are not used.
    ///
    /// # Panics
    /// If the settings are invalid.
    pub fn with_settings(text: &str) -> Self {
        let mut settings =
            Settings::from_toml(text).unwrap_or_else(|error| panic!("settings: {error}"));
        // Timers that fire by themselves would be most of what happens on a clock that jumps.
        settings.monitoring.interval = Duration::ZERO;
        settings.storage.retention_days = 0;
        settings.engine.seed.get_or_insert(1);
        Self {
            world: Arc::new(World::new()),
            settings,
            services: Vec::new(),
            protocols: Vec::new(),
            fakes: Fakes::new(),
            configure: Vec::new(),
            workflows: 0,
            lives: 0,
        }
    }

    /// Adds a service: its protocol and its own handlers, for methods that have no fake.
    ///
    /// # Panics
    /// If the service is invalid.
    pub fn service(&mut self, service: Service) -> &mut Self {
        let built = service.on_one_thread().build().unwrap_or_else(|error| panic!("{error}"));
        self.services.push(built);
        self
    }

    /// Adds a protocol, whose methods have fakes.
    pub fn protocol(&mut self, protocol: ProtocolSpec) -> &mut Self {
        self.protocols.push(protocol);
        self
    }

    /// Replaces the handler of `method`, written `protocol/method`, by `fake`. A protocol that was not
    /// added accepts any parameters and any result.
    pub fn fake(
        &mut self,
        method: &str,
        fake: impl Fn(FakeCall) -> Result<Value, HandlerError> + Send + Sync + 'static,
    ) -> &mut Self {
        self.fake_async(method, move |call| std::future::ready(fake(call)))
    }

    /// Replaces a handler by a fake that awaits: `tokio::time::sleep` takes virtual time.
    ///
    /// # Panics
    /// If `method` is not `protocol/method`.
    pub fn fake_async<R>(
        &mut self,
        method: &str,
        fake: impl Fn(FakeCall) -> R + Send + Sync + 'static,
    ) -> &mut Self
    where
        R: Future<Output = Result<Value, HandlerError>> + Send + 'static,
    {
        assert!(method.contains('/'), "`{method}` is not written `protocol/method`");
        let fake: Fake = Arc::new(move |call| -> BoxFuture<'static, _> { Box::pin(fake(call)) });
        self.fakes.insert(method.to_owned(), fake);
        self
    }

    /// Changes the builder of each life's runtime, for other providers or strategies.
    pub fn configure(
        &mut self,
        change: impl Fn(RuntimeBuilder) -> RuntimeBuilder + 'static,
    ) -> &mut Self {
        self.configure.push(Box::new(change));
        self
    }

    /// Plans a crash. Each takes place once, in any life.
    pub fn crash(&mut self, crash: Crash) -> &mut Self {
        self.world.plan(crash);
        self
    }

    /// Runs a workflow to its end, through every crash that is planned.
    ///
    /// # Panics
    /// If the workflow is rejected, or does not settle. A task whose outcome is unknown waits for a
    /// person; [`live`](Self::live) lets a test decide instead.
    #[track_caller]
    pub fn run(&mut self, spec: WorkflowSpec) -> Ended {
        self.run_to(spec, None)
    }

    /// Runs a workflow until an event, such as `task:outcome_unknown charge`, is stored, or to its
    /// end.
    ///
    /// # Panics
    /// As [`run`](Self::run).
    #[track_caller]
    pub fn run_until(&mut self, spec: WorkflowSpec, event: &str) -> Ended {
        self.run_to(spec, Some(&Pattern::read(event)))
    }

    #[track_caller]
    fn run_to(&mut self, mut spec: WorkflowSpec, until: Option<&Pattern>) -> Ended {
        self.workflows += 1;
        let number = self.workflows;
        let id = spec.id.get_or_insert_with(|| format!("workflow-{number}").into()).clone();
        for _ in 0..CRASHES_MAX {
            let (world, spec) = (Arc::clone(&self.world), spec.clone());
            let ended = self.live(async |handle| {
                let run = run_here(&handle, spec, &id);
                match until {
                    None => run.await,
                    Some(pattern) => tokio::select! {
                        biased;
                        () = happens(&world, &id, pattern) => {}
                        () = run => {}
                    },
                }
            });
            if ended.is_some() {
                return self.ended(&id);
            }
        }
        panic!("workflow `{id}` crashed {CRASHES_MAX} times");
    }

    /// Runs one life: a runtime starts on the store, `story` uses it, and it stops in order. `None` if
    /// it crashed before the end of the story.
    ///
    /// # Panics
    /// If the runtime does not start, or if the story takes longer than 60 days.
    #[track_caller]
    pub fn live<T>(&mut self, story: impl AsyncFnOnce(Handle) -> T) -> Option<T> {
        let builder = self.builder();
        self.lives += 1;
        let world = Arc::clone(&self.world);
        let system = System::with_tokio_rt(|| {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            runtime.enable_all().start_paused(true).build().expect("a runtime for the test")
        });
        let mut runtime: Option<LocalRuntime> = None;
        let ended = system.block_on(async {
            world.begin_life();
            let life = async {
                let started = builder.start_local().await;
                let started = started.unwrap_or_else(|error| panic!("no runtime: {error}"));
                let handle = started.handle();
                runtime = Some(started);
                let ended = tokio::time::timeout(LIFE_MAX, story(handle)).await;
                ended.unwrap_or_else(|_| panic!("nothing more happens: {}", open_tasks(&world)))
            };
            let ended = tokio::select! {
                biased;
                () = world.crashed() => None,
                ended = life => Some(ended),
            };
            if ended.is_some()
                && let Some(runtime) = runtime.take()
            {
                runtime.stop(Duration::ZERO).await;
            }
            world.end_life();
            ended
        });
        // The thread's tasks end with it, as with a process: one that went on would write to the store
        // of the next life.
        drop(system);
        drop(runtime);
        self.world.store.end_leases();
        ended
    }

    fn builder(&self) -> RuntimeBuilder {
        let store = Arc::new(KitStore(Arc::clone(&self.world)));
        let mut builder =
            Runtime::builder(self.settings.clone()).without_settings_providers().store(store);
        let fakes = Arc::new(self.fakes.clone());
        let mut names = Vec::new();
        for BuiltService { protocol, provider: own } in &self.services {
            names.push(protocol.name.clone());
            let id = protocol.protocol_id().to_string();
            let routed = provider(&self.world, &fakes, &id, Some(own));
            builder = builder.protocol(protocol.clone()).provider(routed);
        }
        let own = self.protocols.iter().cloned();
        names.extend(self.protocols.iter().map(|protocol| protocol.name.clone()));
        for protocol in own.chain(self.made_up(&names)) {
            let id = protocol.protocol_id().to_string();
            let routed = provider(&self.world, &fakes, &id, None);
            builder = builder.protocol(protocol).provider(routed);
        }
        self.configure.iter().fold(builder, |builder, change| change(builder))
    }

    /// The protocols of fakes whose protocol was not added.
    fn made_up(&self, names: &[String]) -> Vec<ProtocolSpec> {
        let mut made: Vec<ProtocolSpec> = Vec::new();
        let mut methods: Vec<&String> = self.fakes.keys().collect();
        methods.sort_unstable();
        for method in methods {
            let (name, method) = method.split_once('/').expect("it was seen when it was added");
            if names.iter().any(|it| it == name) {
                continue;
            }
            let open = MethodSpec { additional_params: true, ..MethodSpec::new(method) };
            if let Some(last) = made.last_mut().filter(|last| last.name == name) {
                last.methods.insert(method.to_owned(), open);
            } else {
                let version = "v1.0".parse().expect("a version");
                made.push(ProtocolSpec::new(name, version).method(open));
            }
        }
        made
    }

    /// A workflow as it is stored now, with its events.
    ///
    /// # Panics
    /// If no workflow has the id.
    #[track_caller]
    pub fn ended(&self, id: &WorkflowId) -> Ended {
        let record = at_once(self.world.store.workflow(id));
        let record = Arc::new(record.unwrap_or_else(|| panic!("no workflow has the id `{id}`")));
        Ended { record, events: at_once(self.world.store.events(id, 0, usize::MAX)) }
    }

    /// The calls of a method, written `protocol/method`, over all lives.
    pub fn calls(&self, method: &str) -> Vec<Call> {
        self.world.calls(method)
    }

    /// Asserts that a method was called `count` times.
    ///
    /// # Panics
    /// If it was called more or less often.
    #[track_caller]
    pub fn assert_calls(&self, method: &str, expected: usize) {
        let calls = self.calls(method).len();
        assert_eq!(calls, expected, "`{method}` was called {calls} times");
    }

    /// Asserts that every planned crash has happened.
    ///
    /// # Panics
    /// If one has not: its event was misspelled, or did not happen.
    #[track_caller]
    pub fn assert_crashed(&self) {
        let planned = self.world.planned();
        assert!(planned.is_empty(), "these crashes did not take place: {planned:?}");
    }

    /// The virtual time of all lives.
    pub fn elapsed(&self) -> Duration {
        self.world.elapsed()
    }

    /// The number of lives so far.
    pub fn lives(&self) -> usize {
        self.lives
    }
}

/// Submits the workflow, or resumes it if an earlier life stored it; waits for the end.
async fn run_here(handle: &Handle, spec: WorkflowSpec, id: &WorkflowId) {
    let stored = handle.workflow(id).await.unwrap_or_else(|error| panic!("{error}"));
    let ended = match stored {
        Some(record) if record.status.is_settled() => return,
        Some(_) => handle.wait(id).await,
        None => handle.run(spec).await,
    };
    if let Err(error) = ended {
        panic!("workflow `{id}` did not run: {error}");
    }
}

async fn happens(world: &World, id: &WorkflowId, pattern: &Pattern) {
    let mut stored = world.stored();
    loop {
        let events = at_once(world.store.events(id, 0, usize::MAX));
        if events.iter().any(|event| pattern.fits(event)) {
            return;
        }
        // The sender lives as long as the world: an error here cannot happen.
        let _ = stored.changed().await;
    }
}

/// The answer of a store in memory, which is ready at the first poll.
fn at_once<T>(answer: impl Future<Output = Result<T, gleitzeit::StoreError>>) -> T {
    let answer = answer.now_or_never().expect("a store in memory answers at once");
    answer.unwrap_or_else(|error| panic!("{error}"))
}

/// The unsettled tasks, for the message of a test that waits without an end.
fn open_tasks(world: &World) -> String {
    let unsettled = at_once(world.store.unsettled());
    let tasks = |record: &WorkflowRecord| {
        let open = record.tasks.iter().filter(|task| !task.status.is_settled());
        let open: Vec<String> =
            open.map(|task| format!("task `{}` is {}", task.id, task.status)).collect();
        format!("in `{}`, {}", record.id, open.join(", "))
    };
    let all: Vec<String> = unsettled.iter().map(tasks).collect();
    if all.is_empty() { "every workflow is settled".to_owned() } else { all.join("; ") }
}
