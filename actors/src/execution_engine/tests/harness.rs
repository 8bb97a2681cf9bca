//! All actors on one thread and a paused clock, over a store that can be held up and made to fail.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use gleitzeit_domain::{
    balance::Strategies,
    error::TaskError,
    event::Event,
    id::{ProtocolId, WorkflowId},
    plan::{Draft, PlanDefaults},
    problem::SubmitError,
    protocol::{Effect, MethodSpec, ProtocolSpec, catalog::ProtocolCatalog},
    provider::{Call, Placement, ProviderSpec},
    resources::Resources,
    store::{ListFilter, NewWorkflow, Store, StoreError, Submitted, WorkflowChange},
    task::TaskStatus,
    workflow::{TaskSpec, WorkflowRecord, WorkflowSpec, WorkflowSummary},
};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, oneshot};

use crate::{
    execution_engine::{EngineCounts, EngineSettings, GetEngineCounts, Submit, WaitAnswer},
    load_balancer::{BalancerSettings, RegisterProvider},
    memory_store::MemoryStore,
    system::{self, Actors, SystemConfig},
};

/// What a [`HeldStore`] does with a write.
#[derive(Debug, Clone)]
pub(super) enum Fault {
    /// Refuses it.
    Refused(StoreError),
    /// Does it, and says that it does not know.
    DoneButUnknown,
}

/// Lets writes through one by one, and spoils those that it is told to.
#[derive(Debug)]
pub(super) struct HeldStore {
    inner: MemoryStore,
    gate: Semaphore,
    reads: Semaphore,
    submit_faults: Mutex<VecDeque<Fault>>,
    record_faults: Mutex<VecDeque<Fault>>,
    /// Refuses every write that names this workflow.
    poison: Mutex<Option<WorkflowId>>,
}

const OPEN: usize = Semaphore::MAX_PERMITS / 2;

impl HeldStore {
    pub(super) fn open() -> Arc<Self> {
        Arc::new(Self {
            inner: MemoryStore::default(),
            gate: Semaphore::new(OPEN),
            reads: Semaphore::new(OPEN),
            submit_faults: Mutex::default(),
            record_faults: Mutex::default(),
            poison: Mutex::default(),
        })
    }

    /// No write gets through until the gate has permits again.
    pub(super) fn hold(&self) {
        self.gate.forget_permits(usize::MAX);
    }

    /// Lets `count` writes through.
    pub(super) fn let_through(&self, count: usize) {
        self.gate.add_permits(count);
    }

    pub(super) fn release(&self) {
        self.gate.add_permits(OPEN / 4);
    }

    /// Answers nothing that was read until [`release_reads`](Self::release_reads).
    pub(super) fn hold_reads(&self) {
        self.reads.forget_permits(usize::MAX);
    }

    pub(super) fn release_reads(&self) {
        self.reads.add_permits(OPEN / 4);
    }

    pub(super) fn spoil_submit(&self, fault: Fault) {
        self.submit_faults.lock().unwrap().push_back(fault);
    }

    pub(super) fn spoil_record(&self, fault: Fault) {
        self.record_faults.lock().unwrap().push_back(fault);
    }

    pub(super) fn poison(&self, id: &str) {
        *self.poison.lock().unwrap() = Some(id.into());
    }

    async fn pass<'a>(
        &self,
        faults: &Mutex<VecDeque<Fault>>,
        mut ids: impl Iterator<Item = &'a WorkflowId>,
    ) -> Option<Fault> {
        self.gate.acquire().await.unwrap().forget();
        let poison = self.poison.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if poison.is_some_and(|poison| ids.any(|id| *id == poison)) {
            let detail = "it cannot be stored".to_owned();
            return Some(Fault::Refused(StoreError::Integrity { detail }));
        }
        faults.lock().unwrap().pop_front()
    }
}

fn unknown() -> StoreError {
    StoreError::Unknown { detail: "the line was cut".to_owned() }
}

#[async_trait]
impl Store for HeldStore {
    fn describe(&self) -> String {
        "held".into()
    }

    async fn submit(&self, new: Vec<NewWorkflow>) -> Result<Vec<Submitted>, StoreError> {
        let ids = new.iter().map(|new| &new.record.id);
        match self.pass(&self.submit_faults, ids).await {
            Some(Fault::Refused(error)) => Err(error),
            Some(Fault::DoneButUnknown) => {
                self.inner.submit(new).await?;
                Err(unknown())
            }
            None => self.inner.submit(new).await,
        }
    }

    async fn record(&self, changes: Vec<WorkflowChange>) -> Result<(), StoreError> {
        let ids = changes.iter().map(|change| &change.id);
        match self.pass(&self.record_faults, ids).await {
            Some(Fault::Refused(error)) => Err(error),
            Some(Fault::DoneButUnknown) => {
                self.inner.record(changes).await?;
                Err(unknown())
            }
            None => self.inner.record(changes).await,
        }
    }

    async fn unsettled(&self) -> Result<Vec<WorkflowRecord>, StoreError> {
        let found = self.inner.unsettled().await;
        self.reads.acquire().await.unwrap().forget();
        found
    }

    async fn workflow(&self, id: &WorkflowId) -> Result<Option<WorkflowRecord>, StoreError> {
        self.inner.workflow(id).await
    }

    async fn list(&self, filter: ListFilter) -> Result<Vec<WorkflowSummary>, StoreError> {
        self.inner.list(filter).await
    }

    async fn events(
        &self,
        id: &WorkflowId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Event>, StoreError> {
        self.inner.events(id, after, limit).await
    }

    async fn prune(&self, before: DateTime<Utc>, limit: usize) -> Result<usize, StoreError> {
        self.inner.prune(before, limit).await
    }

    async fn close(&self, limit: Duration) -> Result<(), StoreError> {
        self.inner.close(limit).await
    }
}

/// The methods of `test/v1.0`: what the provider does stands in the parameters. `answer` is given
/// back; `fail` is a code; `hang` never ends.
fn catalog() -> ProtocolCatalog {
    let open = |name: &str| MethodSpec { additional_params: true, ..MethodSpec::new(name) };
    let test = ProtocolSpec::new("test", "v1.0".parse().unwrap())
        .method(open("run"))
        .method(MethodSpec { effect: Effect::Pure, ..open("pure") })
        .method(MethodSpec { effect: Effect::AtMostOnce, ..open("once") });
    let mut catalog = ProtocolCatalog::new();
    catalog.register(test).unwrap();
    catalog
}

/// The calls that were made, by task id, in order.
pub(super) type Calls = Arc<Mutex<Vec<String>>>;

async fn serve(calls: Calls, call: Call) -> Result<Value, TaskError> {
    calls.lock().unwrap().push(call.task_id.to_string());
    if call.param("hang").is_some() {
        std::future::pending::<()>().await;
    }
    if let Some(code) = call.param("fail") {
        let code = serde_json::from_value(code.clone()).unwrap();
        return Err(TaskError::new(code, "as told"));
    }
    Ok(call.param("answer").cloned().unwrap_or_default())
}

pub(super) struct Harness {
    pub(super) actors: Actors,
    pub(super) store: Arc<HeldStore>,
    pub(super) calls: Calls,
}

/// A task that calls `test/v1.0:run`.
pub(super) fn task(id: &str, parameters: Value) -> TaskSpec {
    TaskSpec::new(id, "test/run").params(parameters)
}

/// A task that must not run twice.
pub(super) fn once(id: &str, parameters: Value) -> TaskSpec {
    TaskSpec::new(id, "test/once").params(parameters)
}

/// A task without an effect outside.
pub(super) fn pure(id: &str, parameters: Value) -> TaskSpec {
    TaskSpec::new(id, "test/pure").params(parameters)
}

pub(super) fn workflow(id: &str, tasks: impl IntoIterator<Item = TaskSpec>) -> WorkflowSpec {
    tasks.into_iter().fold(WorkflowSpec::new(id).id(id), WorkflowSpec::task)
}

pub(super) fn hang() -> Value {
    json!({"hang": true})
}

impl Harness {
    pub(super) async fn open(engine: EngineSettings, store: Arc<HeldStore>) -> Self {
        let parts = SystemConfig {
            engine,
            balancer: BalancerSettings::default(),
            strategies: Strategies::default(),
            resources: Resources::UNLIMITED,
            catalog: catalog(),
            defaults: PlanDefaults::default(),
            env: HashMap::new(),
            monitor_interval: Duration::ZERO,
            memory_mib: || None,
            workers: 0,
        };
        let actors = system::start(parts, Arc::clone(&store) as Arc<dyn Store>).unwrap();
        let calls = Calls::default();
        let made = Arc::clone(&calls);
        let spec = ProviderSpec::from_fn("p", "test/v1.0", move |call| serve(made.clone(), call));
        let spec = spec.unwrap().placement(Placement::Control);
        let protocol: ProtocolId = "test/v1.0".parse().unwrap();
        let capabilities = catalog().capabilities(&protocol);
        let register = RegisterProvider { spec, capabilities };
        actors.addresses.balancer.send(register).await.unwrap().unwrap();
        Self { actors, store, calls }
    }

    /// The usual one, on a paused clock.
    pub(super) async fn new() -> Self {
        tokio::time::pause();
        Self::open(EngineSettings::default(), HeldStore::open()).await
    }

    /// Submits without waiting; the answers come through the receivers.
    pub(super) fn send(
        &self,
        spec: WorkflowSpec,
    ) -> (oneshot::Receiver<Result<WorkflowId, SubmitError>>, oneshot::Receiver<WaitAnswer>) {
        self.send_draft(Draft::new(spec).unwrap())
    }

    pub(super) fn send_draft(
        &self,
        draft: Draft,
    ) -> (oneshot::Receiver<Result<WorkflowId, SubmitError>>, oneshot::Receiver<WaitAnswer>) {
        let (accepted, is_accepted) = oneshot::channel();
        let (settled, is_settled) = oneshot::channel();
        let submit = Submit { draft, accepted: Some(accepted), settled: Some(settled), span: None };
        self.actors.addresses.engine.do_send(submit);
        (is_accepted, is_settled)
    }

    /// Submits; it is stored when this returns.
    pub(super) async fn submit(&self, spec: WorkflowSpec) -> oneshot::Receiver<WaitAnswer> {
        let (accepted, settled) = self.send(spec);
        accepted.await.unwrap().unwrap();
        settled
    }

    pub(super) fn made(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    pub(super) async fn engine_counts(&self) -> EngineCounts {
        self.actors.addresses.engine.send(GetEngineCounts).await.unwrap()
    }

    pub(super) async fn stored(&self, id: &str) -> WorkflowRecord {
        self.store.workflow(&id.into()).await.unwrap().unwrap()
    }
}

/// Everything that can happen without time passing has happened after this.
pub(super) async fn run_until_idle() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}

pub(super) fn statuses(record: &WorkflowRecord) -> Vec<TaskStatus> {
    record.tasks.iter().map(|task| task.status).collect()
}
