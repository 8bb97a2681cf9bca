//! The harness: all actors, scripted providers, and every event that was published.
//!
//! All of it lives on one thread, so that the paused clock holds for all: time passes only when
//! no actor has anything left to do.

#[path = "../../support/hooked_store.rs"]
mod hooked_store;
mod invariants;
mod remote;
mod script;
mod stores;
mod values;

use std::{collections::HashMap, sync::Arc, time::Duration};

use gleitzeit_actors::{
    dependency_resolver::CountWorkflows,
    event_bus::{Delivery, EventFilter, Subscribe, Subscription},
    execution_engine::{
        Apply, EngineCounts, EngineSettings, GetEngineCounts, GetWorkflow, Recover, Recovered,
        Reopen, Submit, Wait, WaitAnswer,
    },
    load_balancer::{BalancerSettings, RegisterProvider},
    memory_store::MemoryStore,
    resource_manager::{GetResources, ResourceReport},
    system::{self, Actors, SystemConfig},
};
use gleitzeit_domain::{
    balance::{BalanceConfig, Strategies},
    command::Command,
    error::TaskError,
    event::Event,
    id::{ProtocolId, WorkflowId},
    plan::{Draft, PlanDefaults},
    problem::SubmitError,
    protocol::{Effect, MethodSpec, ParameterSpec, ProtocolSpec, catalog::ProtocolCatalog},
    provider::{Placement, ProviderSpec, Supervision},
    resources::Resources,
    store::Store,
    workflow::{WorkflowRecord, WorkflowSpec},
};
use tokio::sync::oneshot;

pub(crate) use hooked_store::{Decision, Hook, HookedStore, Operation};
use invariants::{check_events, check_sequences};
pub(crate) use remote::{LinkState, RemoteStore};
pub(crate) use script::{Ending, Script};
pub(crate) use stores::{FlakyStore, POISON, RefusingStore, StrictStore};
use values::TIMEOUT;
pub(crate) use values::{
    assert_at, code, failing, of, quick, result, retries, secs, statuses, task, within,
};

/// The parts of a harness.
pub(crate) struct Setup {
    pub(crate) engine: EngineSettings,
    pub(crate) provider_wait: Duration,
    pub(crate) resources: Resources,
    pub(crate) env: HashMap<String, Option<String>>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) script: Script,
    pub(crate) catalog: ProtocolCatalog,
    /// So often may each provider break down within a minute.
    pub(crate) restarts_max: u32,
    /// Providers of `test/v1.0`, and how many calls each takes at once.
    pub(crate) providers: Vec<(&'static str, Option<u32>)>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            engine: EngineSettings::default(),
            provider_wait: secs(30),
            resources: Resources::UNLIMITED,
            env: HashMap::new(),
            store: Arc::new(MemoryStore::default()),
            script: Script::default(),
            catalog: catalog(),
            restarts_max: Supervision::default().restarts_max,
            providers: vec![("main", None)],
        }
    }
}

/// The protocols of the harness.
fn catalog() -> ProtocolCatalog {
    let open = |name: &str| MethodSpec { additional_params: true, ..MethodSpec::new(name) };
    let number = ParameterSpec::object([("number", ParameterSpec::integer())]);
    let test = ProtocolSpec::new("test", "v1.0".parse().unwrap())
        .method(open("run"))
        .method(MethodSpec { effect: Effect::AtMostOnce, ..open("once") })
        .method(MethodSpec { effect: Effect::Pure, ..open("pure") })
        .method(open("typed").returns(number))
        .method(MethodSpec::new("strict").param("count", ParameterSpec::integer().minimum(1)));
    let mut catalog = ProtocolCatalog::new();
    catalog.register(test).unwrap();
    for name in ["other", "third"] {
        let spec = ProtocolSpec::new(name, "v1.0".parse().unwrap()).method(open("run"));
        catalog.register(spec).unwrap();
    }
    catalog
}

impl Setup {
    /// Opens the harness on a paused clock.
    pub(crate) async fn open(self) -> Harness {
        tokio::time::pause();
        self.open_again().await
    }

    /// The first harness of a test pauses the clock, a further one finds it paused.
    pub(crate) async fn open_or_again(self, again: bool) -> Harness {
        if again { self.open_again().await } else { self.open().await }
    }

    /// Opens a further harness where the clock is paused already.
    pub(crate) async fn open_again(self) -> Harness {
        let parts = SystemConfig {
            engine: self.engine,
            balancer: BalancerSettings {
                balance: BalanceConfig::default(),
                provider_wait: self.provider_wait,
                ..BalancerSettings::default()
            },
            strategies: Strategies::default(),
            resources: self.resources,
            catalog: self.catalog,
            defaults: PlanDefaults::default(),
            env: self.env,
            monitor_interval: Duration::ZERO,
            memory_mib: || None,
            workers: 0,
        };
        let actors = system::start(parts, Arc::clone(&self.store)).unwrap();
        let subscribe = Subscribe { filter: EventFilter::default(), capacity: usize::MAX };
        let subscription = actors.addresses.bus.send(subscribe).await.unwrap();
        let mut harness = Harness {
            actors,
            store: self.store,
            script: self.script,
            subscription,
            events: Vec::new(),
            waits: Vec::new(),
        };
        for (id, max_concurrent) in self.providers {
            let restarts_max = self.restarts_max;
            let supervision = Supervision { restarts_max, ..Supervision::default() };
            let mut spec = harness.script.provider(id, "test/v1.0").supervision(supervision);
            spec.max_concurrent = max_concurrent;
            harness.register(spec).await;
            harness.until("provider:healthy", |_| true).await;
        }
        harness.events.clear();
        harness.script.restart_clock();
        harness
    }
}

/// All actors, and what was seen of them.
pub(crate) struct Harness {
    pub(crate) actors: Actors,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) script: Script,
    subscription: Subscription,
    /// Every event that was published since the harness opened.
    pub(crate) events: Vec<Arc<Event>>,
    /// The submitted workflows.
    waits: Vec<WorkflowId>,
}

impl Harness {
    pub(crate) async fn open() -> Self {
        Setup::default().open().await
    }

    /// Adds a scripted provider of all methods of `protocol`.
    pub(crate) async fn add_provider(&self, id: &str, protocol: &str, limit: Option<u32>) {
        let mut spec = self.script.provider(id, protocol);
        spec.max_concurrent = limit;
        self.register(spec).await;
    }

    pub(crate) async fn register(&self, spec: ProviderSpec) {
        let protocol: ProtocolId = spec.protocols[0].clone();
        let capabilities = catalog().capabilities(&protocol);
        let spec = spec.placement(Placement::Control);
        self.actors
            .addresses
            .balancer
            .send(RegisterProvider { spec, capabilities })
            .await
            .unwrap()
            .unwrap();
    }

    /// Submits without waiting for anything.
    pub(crate) fn send(&mut self, spec: WorkflowSpec) -> Sent {
        let draft = Draft::new(spec).unwrap();
        let id = draft.id.clone();
        self.waits.push(id.clone());
        let (accepted, taken) = oneshot::channel();
        let (settled, end) = oneshot::channel();
        let submit = Submit { draft, accepted: Some(accepted), settled: Some(settled), span: None };
        self.actors.addresses.engine.do_send(submit);
        Sent { id, taken, end }
    }

    /// Submits, and returns once the workflow is stored.
    pub(crate) async fn submit(&mut self, spec: WorkflowSpec) -> Result<Sent, SubmitError> {
        let mut sent = self.send(spec);
        within(&mut sent.taken).await.unwrap().map(|_| sent)
    }

    /// Submits a workflow and waits for its end.
    pub(crate) async fn run(&mut self, spec: WorkflowSpec) -> Arc<WorkflowRecord> {
        self.send(spec).end().await
    }

    pub(crate) async fn cancel(&self, id: &WorkflowId) -> Result<(), TaskError> {
        let command = Command::Cancel { reason: "enough".into() };
        let cancel = Apply { id: id.clone(), command };
        within(self.actors.addresses.engine.send(cancel)).await.unwrap()
    }

    pub(crate) async fn cancel_task(&self, id: &WorkflowId, task: &str) -> Result<(), TaskError> {
        let command = Command::CancelTask { task: task.into(), reason: "enough".into() };
        let cancel = Apply { id: id.clone(), command };
        within(self.actors.addresses.engine.send(cancel)).await.unwrap()
    }

    pub(crate) async fn wait(&self, id: &WorkflowId) -> WaitAnswer {
        within(self.send_wait(id)).await.unwrap()
    }

    /// Asks for the end; the channel gets the answer.
    pub(crate) fn send_wait(&self, id: &WorkflowId) -> oneshot::Receiver<WaitAnswer> {
        let (answer, answered) = oneshot::channel();
        self.actors.addresses.engine.do_send(Wait { id: id.clone(), answer, outline: false });
        answered
    }

    /// The state of a workflow that runs here.
    pub(crate) async fn state(&self, id: &WorkflowId) -> Option<Arc<WorkflowRecord>> {
        let (answer, answered) = oneshot::channel();
        self.actors.addresses.engine.do_send(GetWorkflow { id: id.clone(), answer });
        within(answered).await.unwrap()
    }

    pub(crate) async fn recover(&mut self) -> Recovered {
        let recover = Recover { id: None, hold: false };
        within(self.actors.addresses.engine.send(recover)).await.unwrap().unwrap()
    }

    /// Excludes a workflow from the comparison of published and stored events: some may not have been
    /// published.
    pub(crate) fn leave_out(&mut self, id: &WorkflowId) {
        self.waits.retain(|known| known != id);
    }

    /// Opens a workflow again. Further events follow its end: the test itself has to check
    /// them.
    pub(crate) async fn reopen(&mut self, id: &WorkflowId) -> Result<Recovered, TaskError> {
        self.leave_out(id);
        within(self.actors.addresses.engine.send(Reopen(id.clone()))).await.unwrap()
    }

    pub(crate) async fn resources(&self) -> ResourceReport {
        self.actors.addresses.resources.send(GetResources).await.unwrap()
    }

    pub(crate) async fn engine_counts(&self) -> EngineCounts {
        self.actors.addresses.engine.send(GetEngineCounts).await.unwrap()
    }

    fn collect(&mut self) {
        while let Some(delivery) = self.subscription.try_next() {
            match delivery {
                Delivery::Event(event) => self.events.push(event),
                Delivery::Lagged { missed } => panic!("{missed} events were dropped"),
            }
        }
    }

    /// Waits for an event of this type that `is_it` accepts; an earlier one counts.
    pub(crate) async fn until(&mut self, kind: &str, is_it: impl Fn(&Event) -> bool) -> Arc<Event> {
        let mut seen = 0;
        loop {
            self.collect();
            let mut new = self.events[seen..].iter();
            if let Some(found) = new.find(|event| event.data.event_type() == kind && is_it(event)) {
                return Arc::clone(found);
            }
            seen = self.events.len();
            match within(self.subscription.next()).await {
                Some(Delivery::Event(event)) => self.events.push(event),
                other => panic!("{other:?} instead of {kind}"),
            }
        }
    }

    /// Waits until a task has an event of this type.
    pub(crate) async fn until_task(&mut self, kind: &str, task: &str) {
        self.until(kind, |event| event.data.task_id().is_some_and(|id| id.as_str() == task)).await;
    }

    /// Lets everybody do what can be done now; the clock stands still.
    pub(crate) async fn catch_up(&mut self) {
        for _ in 0..200 {
            tokio::task::yield_now().await;
        }
        self.collect();
    }

    /// The published events of a workflow by name: `task:started a`.
    pub(crate) fn published(&mut self, id: &WorkflowId) -> Vec<String> {
        self.collect();
        let of_it = self.events.iter().filter(|event| event.workflow_id.as_ref() == Some(id));
        of_it
            .map(|event| match event.data.task_id() {
                Some(task) => format!("{} {task}", event.data),
                None => event.data.to_string(),
            })
            .collect()
    }

    /// The stored state of a workflow.
    pub(crate) async fn stored(&self, id: &WorkflowId) -> WorkflowRecord {
        self.store.workflow(id).await.unwrap().expect("it was submitted")
    }

    /// Waits until nothing is left to do, and checks everything that must hold then.
    pub(crate) async fn finish(mut self) {
        let idle = async {
            loop {
                let counts = self.engine_counts().await;
                if (EngineCounts { timers: 0, ..counts }) == EngineCounts::default() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let settled = tokio::time::timeout(TIMEOUT, idle).await.is_ok();
        assert!(settled, "still busy: {:?}", self.engine_counts().await);
        self.catch_up().await;
        assert_eq!(self.engine_counts().await, EngineCounts::default());
        let resources = self.resources().await;
        assert_eq!((resources.taken, resources.waiting), (Resources::default(), 0));
        assert_eq!(self.actors.addresses.resolver.send(CountWorkflows).await.unwrap(), 0);
        assert_eq!(self.script.running(), 0, "calls are still running");
        self.check().await;
        self.actors.stop(Duration::ZERO).await;
    }

    /// Checks what is stored of a workflow that this harness did not submit, or opened again.
    pub(crate) async fn check_stored(&self, id: &WorkflowId) {
        let record = self.stored(id).await;
        let events = self.store.events(id, 0, usize::MAX).await.unwrap();
        check_sequences(&record, &events);
    }

    /// Checks the invariants of any time: the published events are the stored ones, in a valid order.
    pub(crate) async fn check(&mut self) {
        self.collect();
        self.script.check();
        for id in &self.waits {
            let Some(record) = self.store.workflow(id).await.unwrap() else { continue };
            let stored = self.store.events(id, 0, usize::MAX).await.unwrap();
            let published: Vec<Event> = self
                .events
                .iter()
                .filter(|event| event.workflow_id.as_ref() == Some(id))
                .map(|event| Event::clone(event))
                .collect();
            // Times are kept to the microsecond.
            let pairs = stored.iter().zip(&published);
            for (stored, published) in pairs {
                assert_eq!((stored.sequence, &stored.data), (published.sequence, &published.data));
            }
            if record.status.is_settled() {
                assert_eq!(stored.len(), published.len(), "{id}: stored and told");
            }
            check_events(&record, &stored);
            self.script.check_attempts(&record);
        }
    }
}

/// A submitted workflow.
pub(crate) struct Sent {
    pub(crate) id: WorkflowId,
    pub(crate) taken: oneshot::Receiver<Result<WorkflowId, SubmitError>>,
    pub(crate) end: oneshot::Receiver<WaitAnswer>,
}

impl Sent {
    /// Waits for the end.
    pub(crate) async fn end(self) -> Arc<WorkflowRecord> {
        within(self.end).await.expect("an answer").expect("an end")
    }

    /// Waits for the answer of a workflow that is not accepted.
    pub(crate) async fn refusal(self) -> TaskError {
        within(self.end).await.expect("an answer").expect_err("it was refused")
    }
}
