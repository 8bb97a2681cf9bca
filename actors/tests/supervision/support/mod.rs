//! The harness for tests of supervision, balancing and resources: all actors on this thread, and
//! providers that follow the script of a test.

#[path = "../../support/hooked_store.rs"]
pub(crate) mod hooked_store;
pub(crate) mod provider;

use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use actix::prelude::*;
use futures_util::StreamExt as _;
use gleitzeit_actors::{
    addresses::ActorAddresses,
    event_bus::{Delivery, EventFilter, Subscribe, Subscription},
    execution_engine::{Apply, EngineCounts, EngineSettings, GetEngineCounts, Submit, WaitAnswer},
    load_balancer::{
        BalancerSettings, GetProviders, PickProviders, PickRequest, Picked, ProviderTicket,
        RegisterProvider, RestartProvider,
    },
    memory_store::MemoryStore,
    provider_supervisor::ProviderStatus,
    resource_manager::{GetResources, ResourceReport},
    system::{self, Actors, SystemConfig},
};
use gleitzeit_domain::{
    balance::Strategies,
    command::Command,
    event::EventData,
    health::HealthStatus,
    id::{Capability, ProviderId, WorkflowId},
    plan::{Draft, PlanDefaults},
    protocol::{MethodRef, MethodSpec, ProtocolSpec, catalog::ProtocolCatalog},
    provider::ProviderSpec,
    resources::Resources,
    run::{RunKey, TaskKey},
    store::Store,
    task::{Priority, TaskRecord, TaskStatus},
    workflow::{TaskSpec, WorkflowRecord, WorkflowSpec},
};
use tokio::sync::oneshot;

/// The protocol of every test.
pub(crate) const PROTOCOL: &str = "work/v1.0";

/// The parts of a harness.
pub(crate) struct Setup {
    pub(crate) engine: EngineSettings,
    pub(crate) balancer: BalancerSettings,
    pub(crate) strategies: Strategies,
    pub(crate) resources: Resources,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) workers: usize,
    pub(crate) monitor_interval: Duration,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            engine: EngineSettings::default(),
            balancer: BalancerSettings::default(),
            strategies: Strategies::default(),
            resources: Resources::UNLIMITED,
            store: Arc::new(MemoryStore::default()),
            workers: 0,
            monitor_interval: Duration::ZERO,
        }
    }
}

impl Setup {
    pub(crate) fn strategy(mut self, name: &str) -> Self {
        name.clone_into(&mut self.balancer.balance.strategy);
        self
    }
}

fn protocol(name: &str) -> ProtocolSpec {
    let method = |name: &str| MethodSpec {
        name: name.to_owned(),
        additional_params: true,
        ..MethodSpec::default()
    };
    let version = "v1.0".parse().unwrap();
    let short =
        MethodSpec { provider_wait_seconds: Some(Duration::from_secs(5)), ..method("short") };
    ["run", "other"]
        .into_iter()
        .fold(ProtocolSpec::new(name, version), |spec, it| spec.method(method(it)))
        .method(short)
}

fn catalog() -> ProtocolCatalog {
    let mut catalog = ProtocolCatalog::new();
    for name in ["work", "play"] {
        catalog.register(protocol(name)).unwrap();
    }
    catalog
}

/// The running actors.
pub(crate) struct Harness {
    pub(crate) addresses: ActorAddresses,
    pub(crate) actors: Actors,
    pub(crate) store: Arc<dyn Store>,
    methods: HashMap<&'static str, MethodRef>,
    next_task: std::cell::Cell<u32>,
}

impl Harness {
    pub(crate) fn new(setup: Setup) -> Self {
        let catalog = catalog();
        let method = |name: &'static str| {
            let capability: Capability = name.parse().unwrap();
            (name, catalog.method(&capability).unwrap())
        };
        let methods = ["work/v1.0:run", "work/v1.0:other", "play/v1.0:run"].map(method).into();
        let parts = SystemConfig {
            engine: setup.engine,
            balancer: setup.balancer,
            strategies: setup.strategies,
            resources: setup.resources,
            catalog,
            defaults: PlanDefaults::default(),
            env: HashMap::new(),
            monitor_interval: setup.monitor_interval,
            memory_mib: || None,
            workers: setup.workers,
        };
        let store = Arc::clone(&setup.store);
        let actors = system::start(parts, setup.store).unwrap();
        Self {
            addresses: actors.addresses.clone(),
            actors,
            store,
            methods,
            next_task: std::cell::Cell::new(0),
        }
    }

    pub(crate) fn method(&self, name: &'static str) -> MethodRef {
        Arc::clone(&self.methods[name])
    }

    // ---- providers ----

    /// Registers a provider of both methods of its protocol and waits for nothing.
    pub(crate) async fn register(&self, spec: ProviderSpec) {
        let protocol = spec.protocols[0].to_string();
        let capabilities =
            ["run", "other", "short"].map(|it| format!("{protocol}:{it}").parse().unwrap());
        let message = RegisterProvider { spec, capabilities: capabilities.to_vec() };
        self.addresses.balancer.send(message).await.unwrap().unwrap();
    }

    /// Registers a provider and waits until it serves and is healthy.
    pub(crate) async fn employ(&self, spec: ProviderSpec) {
        let mut events = self.events().await;
        let id = spec.id.clone();
        self.register(spec).await;
        events.health(&id, HealthStatus::Healthy).await;
        self.settle().await;
    }

    pub(crate) async fn statuses(&self) -> Vec<ProviderStatus> {
        self.addresses.balancer.send(GetProviders).await.unwrap()
    }

    pub(crate) async fn status(&self, id: &str) -> ProviderStatus {
        let all = self.statuses().await;
        all.into_iter().find(|it| it.provider_id.as_str() == id).expect("the provider is told of")
    }

    pub(crate) async fn restart(&self, id: &str) {
        self.addresses.balancer.send(RestartProvider(id.into())).await.unwrap().unwrap();
    }

    // ---- picks ----

    pub(crate) fn task_key(&self) -> TaskKey {
        self.next_task.set(self.next_task.get() + 1);
        TaskKey { run: RunKey(u64::MAX), index: self.next_task.get() }
    }

    pub(crate) fn request(&self, method: &'static str) -> PickRequest {
        PickRequest {
            task: self.task_key(),
            method: self.method(method),
            priority: Priority::Normal,
            avoid: None,
        }
    }

    pub(crate) async fn pick_as(&self, request: PickRequest) -> Picked {
        self.addresses.balancer.send(PickProviders(vec![request])).await.unwrap().remove(0)
    }

    pub(crate) async fn pick(&self, method: &'static str) -> ProviderTicket {
        match self.pick_as(self.request(method)).await {
            Picked::Now(ticket) => ticket,
            other => panic!("no provider at once: {other:?}"),
        }
    }

    /// Picks and releases `count` times; returns how often each provider was chosen.
    pub(crate) async fn shares(&self, method: &'static str, count: u32) -> HashMap<String, u32> {
        let mut shares = HashMap::new();
        for _ in 0..count {
            let ticket = self.pick(method).await;
            *shares.entry(ticket.provider_id().to_string()).or_default() += 1;
        }
        shares
    }

    // ---- workflows ----

    /// Submits, and returns once the workflow is accepted; the channel gets the end.
    pub(crate) async fn submit(&self, spec: WorkflowSpec) -> (WorkflowId, Ending) {
        let (accepted, is_accepted) = oneshot::channel();
        let (settled, ending) = oneshot::channel();
        let draft = Draft::new(spec).unwrap();
        let submit = Submit { draft, accepted: Some(accepted), settled: Some(settled), span: None };
        self.addresses.engine.do_send(submit);
        (is_accepted.await.unwrap().unwrap(), Ending(ending))
    }

    pub(crate) async fn run(&self, spec: WorkflowSpec) -> Arc<WorkflowRecord> {
        self.submit(spec).await.1.await
    }

    /// Runs a workflow of one task; the task.
    pub(crate) async fn run_task(&self, task: TaskSpec) -> TaskRecord {
        self.run(WorkflowSpec::new("one").task(task)).await.tasks[0].clone()
    }

    pub(crate) async fn cancel(&self, id: WorkflowId) {
        let command = Command::Cancel { reason: "by the test".into() };
        self.addresses.engine.send(Apply { id, command }).await.unwrap().unwrap();
    }

    pub(crate) async fn resources(&self) -> ResourceReport {
        self.addresses.resources.send(GetResources).await.unwrap()
    }

    /// Nothing is left in any queue, ledger or map once all that was asked for is done.
    pub(crate) async fn assert_nothing_left(&self) {
        self.settle().await;
        let left = self.addresses.engine.send(GetEngineCounts).await.unwrap();
        assert_eq!(left, EngineCounts::default());
        let resources = self.resources().await;
        assert_eq!(resources.taken, Resources::default());
        assert_eq!(resources.waiting, 0);
    }

    // ---- events ----

    pub(crate) async fn events(&self) -> Events {
        let subscribe = Subscribe { filter: EventFilter::default(), capacity: 100_000 };
        Events(self.addresses.bus.send(subscribe).await.unwrap())
    }

    /// Lets all that is under way on this thread end, without time passing.
    pub(crate) async fn settle(&self) {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }
}

/// The end of a workflow.
#[derive(Debug)]
pub(crate) struct Ending(oneshot::Receiver<WaitAnswer>);

impl Future for Ending {
    type Output = Arc<WorkflowRecord>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|answer| answer.unwrap().unwrap())
    }
}

/// Events of everything, in order.
pub(crate) struct Events(Subscription);

impl Events {
    pub(crate) async fn next(&mut self) -> EventData {
        match self.0.next().await.expect("the bus is there") {
            Delivery::Event(event) => event.data.clone(),
            Delivery::Lagged { missed } => panic!("{missed} events were lost"),
        }
    }

    /// The next event for which `is_it`; those before it are passed over.
    pub(crate) async fn until(&mut self, is_it: impl Fn(&EventData) -> bool) -> EventData {
        loop {
            let event = self.next().await;
            if is_it(&event) {
                return event;
            }
        }
    }

    pub(crate) async fn health(&mut self, id: &ProviderId, expected: HealthStatus) {
        self.until(|event| {
            matches!(event, EventData::ProviderHealth { provider_id, health, .. }
                if provider_id == id && *health == expected)
        })
        .await;
    }

    /// Waits for a restart of the provider; its reason.
    pub(crate) async fn restarted(&mut self, id: &str) -> Arc<str> {
        let event = self
            .until(|event| {
                matches!(event, EventData::ProviderRestarted { provider_id, .. }
                    if provider_id.as_str() == id)
            })
            .await;
        let EventData::ProviderRestarted { reason, .. } = event else { unreachable!() };
        reason
    }

    /// Waits until the provider has failed; the reason.
    pub(crate) async fn failed(&mut self, id: &str) -> Arc<str> {
        let event = self
            .until(|event| {
                matches!(event, EventData::ProviderFailed { provider_id, .. }
                    if provider_id.as_str() == id)
            })
            .await;
        let EventData::ProviderFailed { reason, .. } = event else { unreachable!() };
        reason
    }

    /// The events up to now that were not read.
    pub(crate) fn so_far(&mut self) -> Vec<EventData> {
        let mut context = Context::from_waker(Waker::noop());
        let mut events = Vec::new();
        while let Poll::Ready(Some(Delivery::Event(event))) = self.0.poll_next_unpin(&mut context) {
            events.push(event.data.clone());
        }
        events
    }
}

/// A task that calls `work/v1.0:run`.
pub(crate) fn task(id: &str) -> TaskSpec {
    TaskSpec::new(id, "work/v1.0:run")
}

pub(crate) fn one(task: TaskSpec) -> WorkflowSpec {
    WorkflowSpec::new("one").task(task)
}

/// `count` tasks that depend on nothing.
pub(crate) fn many(count: usize, make: impl Fn(usize) -> TaskSpec) -> WorkflowSpec {
    (0..count).fold(WorkflowSpec::new("many"), |spec, at| spec.task(make(at)))
}

pub(crate) fn assert_completed(record: impl AsRef<WorkflowRecord>) {
    for task in &record.as_ref().tasks {
        assert_eq!(task.status, TaskStatus::Completed, "{}: {:?}", task.id, task.error);
    }
}

struct Poison;

impl Wake for Poison {
    fn wake(self: Arc<Self>) {
        panic!("the answer is poison");
    }
}

/// A waker that panics when it is woken, which happens inside the actor that answers.
pub(crate) fn poison() -> Waker {
    Waker::from(Arc::new(Poison))
}

/// Asks an actor something in such a way that it panics as it answers.
pub(crate) async fn make_panic<A, M>(actor: &Addr<A>, question: M)
where
    A: Actor<Context = actix::Context<A>> + Handler<M>,
    M: Message + Send + Unpin + 'static,
    M::Result: Send,
{
    let mut asked = Box::pin(actor.send(question));
    let waker = poison();
    let polled = asked.as_mut().poll(&mut Context::from_waker(&waker));
    assert!(polled.is_pending(), "an actor answers later");
    // Kept until it has tried to answer.
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}
