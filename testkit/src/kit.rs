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

/// A life that takes longer waits for something that never comes.
const LIFE_MAX: Duration = Duration::from_hours(24 * 60);
/// Crashes of one workflow beyond this are a circle.
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

    /// The same with settings, as in `gleitzeit.toml`; those of the store are not used.
    ///
    /// # Panics
    /// If the settings are wrong.
    pub fn with_settings(text: &str) -> Self {
        let mut settings =
            Settings::from_toml(text).unwrap_or_else(|error| panic!("settings: {error}"));
        // What wakes up by itself would be most of what happens on a clock that jumps.
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
    /// If the service is wrong.
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

    /// Puts `fake` in the place of the handler of `method`, written `protocol/method`. A protocol
    /// that nobody has added takes any parameters and gives any result.
    pub fn fake(
        &mut self,
        method: &str,
        fake: impl Fn(FakeCall) -> Result<Value, HandlerError> + Send + Sync + 'static,
    ) -> &mut Self {
        self.fake_async(method, move |call| std::future::ready(fake(call)))
    }

    /// The same for a fake that awaits: `tokio::time::sleep` takes virtual time.
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

    /// Changes the builder of each life's runtime: other providers, strategies.
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
    /// If the workflow is refused, or does not settle; a task whose outcome is unknown waits for a
    /// person, whom [`live`](Self::live) lets a test play.
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

    /// One life: a runtime starts on the store, `story` talks to it, and it stops in order. `None`
    /// where it crashed before the end of the story.
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
                let told = tokio::time::timeout(LIFE_MAX, story(handle)).await;
                told.unwrap_or_else(|_| panic!("nothing more happens: {}", open_tasks(&world)))
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
        // What still runs is gone with the thread's tasks, as with a process.
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

    /// Protocols of fakes that belong to no other.
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
    /// If there is none of this id.
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

    /// A method was called so many times.
    ///
    /// # Panics
    /// If it was not.
    #[track_caller]
    pub fn assert_calls(&self, method: &str, expected: usize) {
        let calls = self.calls(method).len();
        assert_eq!(calls, expected, "`{method}` was called {calls} times");
    }

    /// Every planned crash has taken place.
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

    /// How many runtimes there were.
    pub fn lives(&self) -> usize {
        self.lives
    }
}

/// Submits, or goes on with what an earlier life stored; waits for the end.
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
        // The sender is as old as the world.
        let _ = stored.changed().await;
    }
}

/// What a store in memory answers.
fn at_once<T>(answer: impl Future<Output = Result<T, gleitzeit::StoreError>>) -> T {
    let answer = answer.now_or_never().expect("a store in memory answers at once");
    answer.unwrap_or_else(|error| panic!("{error}"))
}

/// For a person who looks for what a test waits for.
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
