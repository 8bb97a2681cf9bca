//! Every code of the table: which ones arise in the engine, each of them reached here, and who
//! raises the others.

use std::{collections::BTreeSet, sync::Arc};

use gleitzeit_actors::{
    execution_engine::{Recover, Shutdown},
    load_balancer::RestartProvider,
    memory_store::MemoryStore,
};
use gleitzeit_domain::{
    error::{ErrorCode, TaskError},
    problem::SubmitError,
    protocol::catalog::ProtocolCatalog,
    resources::{ResourceRequirements, Resources},
    retry::Backoff::Fixed,
    store::StoreError,
    workflow::{TaskSpec, WorkflowRecord, WorkflowSpec},
};
use serde_json::json;

use crate::support::{FlakyStore, Harness, Setup, code, failing, quick, retries, secs, task};

/// Codes that arise in actors and domain while workflows are submitted and run.
const ENGINE: &[ErrorCode] = &[
    ErrorCode::TaskConditionError,
    ErrorCode::TaskSkipped,
    ErrorCode::MethodNotFound,
    ErrorCode::InvalidParams,
    ErrorCode::SystemShutdown,
    ErrorCode::ConfigurationError,
    ErrorCode::ResourceExhausted,
    ErrorCode::ProtocolNotFound,
    ErrorCode::ProviderNotFound,
    ErrorCode::ProviderNotAvailable,
    ErrorCode::ProviderUnhealthy,
    ErrorCode::MethodNotSupported,
    ErrorCode::ProtocolVersionMismatch,
    ErrorCode::TaskExecutionFailed,
    ErrorCode::TaskTimeout,
    ErrorCode::TaskCancelled,
    ErrorCode::TaskDependencyFailed,
    ErrorCode::TaskParameterError,
    ErrorCode::TaskResultInvalid,
    ErrorCode::TaskRetryExhausted,
    ErrorCode::TaskNotFound,
    ErrorCode::WorkflowValidationFailed,
    ErrorCode::WorkflowNotFound,
    ErrorCode::WorkflowExecutionFailed,
    ErrorCode::WorkflowTimeout,
    ErrorCode::WorkflowCancelled,
    ErrorCode::WorkflowCircularDependency,
    ErrorCode::WorkflowInvalidState,
    ErrorCode::QueueFull,
    ErrorCode::PersistenceConnectionFailed,
    ErrorCode::PersistenceWriteFailed,
    ErrorCode::PersistenceReadFailed,
    ErrorCode::PersistenceTransactionFailed,
    ErrorCode::PersistenceIntegrityError,
];

/// The others, and who raises them. What a provider raises arrives as it was, see
/// [`what_a_provider_raises_arrives_as_it_was`].
const ELSEWHERE: &[(ErrorCode, &str)] = &[
    (ErrorCode::ParseError, "whoever reads a file or a request"),
    (ErrorCode::InvalidRequest, "whoever reads a request"),
    (ErrorCode::InternalError, "an actor that panicked; nothing a workflow can do leads there"),
    (ErrorCode::SystemNotInitialized, "a host that asks before the start is done"),
    (ErrorCode::RateLimitExceeded, "a provider's peer"),
    (ErrorCode::ProviderInitializationFailed, "a provider"),
    (ErrorCode::ProviderTimeout, "a provider's peer"),
    (ErrorCode::ProviderOverloaded, "a provider's peer"),
    (ErrorCode::TaskValidationFailed, "a provider that refuses by a policy"),
    (ErrorCode::NetworkUnreachable, "a provider's peer"),
    (ErrorCode::ConnectionRefused, "a provider's peer"),
    (ErrorCode::ConnectionTimeout, "a provider's peer"),
    (ErrorCode::ConnectionLost, "a provider's peer"),
    (ErrorCode::AuthenticationFailed, "a provider's peer"),
    (ErrorCode::AuthorizationFailed, "a provider's peer"),
];

/// Codes that were seen.
#[derive(Debug, Default)]
struct Seen(BTreeSet<ErrorCode>);

impl Seen {
    fn record(&mut self, record: &WorkflowRecord) {
        let of_tasks = record.tasks.iter().filter_map(|task| task.error.as_ref());
        self.0.extend(of_tasks.chain(&record.error).map(|error| error.code));
    }

    fn refusal<T>(&mut self, answer: Result<T, SubmitError>) {
        match answer.err().expect("it is refused") {
            SubmitError::Invalid(problems) => self.0.extend(problems.iter().map(|it| it.code)),
            other => {
                self.0.insert(other.code());
            }
        }
    }

    fn error<T>(&mut self, answer: Result<T, TaskError>) {
        self.0.insert(answer.err().expect("it is refused").code);
    }
}

async fn submissions(seen: &mut Seen, harness: &mut Harness) {
    let one = |task| WorkflowSpec::new("w").task(task);
    for wrong in ["nobody/run", "test/walk", "test/v9.0:run", "test/strict"] {
        seen.refusal(harness.submit(one(TaskSpec::new("t", wrong))).await);
    }
    let circle = one(quick("a").after("b")).task(quick("b").after("a"));
    seen.refusal(harness.submit(circle).await);
    for wrong in [one(quick("a").after("nobody")), one(task("a", json!({"x": "${nobody}"})))] {
        seen.refusal(gleitzeit_domain::plan::Draft::new(wrong));
    }
    let many = |count: usize| {
        let tasks = (0..count).map(|n| task(&format!("t{n}"), json!({"gate": "full"})));
        tasks.fold(WorkflowSpec::new("w"), WorkflowSpec::task)
    };
    let taken = harness.submit(many(10)).await.unwrap();
    seen.refusal(harness.submit(many(10)).await);
    harness.script.open("full");
    taken.end().await;
}

async fn failures(seen: &mut Seen, harness: &mut Harness) {
    let too_much = ResourceRequirements { memory_mb: Some(11), ..Default::default() };
    let never = |id: &str| task(id, json!({"gate": "never"}));
    harness.register(harness.script.broken_provider("down", "other/v1.0")).await;
    let spec = WorkflowSpec::new("fails")
        .task(failing("fails"))
        .task(quick("behind").after("fails"))
        .task(quick("large").resources(too_much))
        .task(TaskSpec::new("nobody", "other/run"))
        .task(task("panics", json!({"panic": "later", "sleep": 1})))
        .task(never("late").timeout(secs(1)))
        .task(task("missing", json!({"x": "${made.nothing}"})))
        .task(quick("made"))
        .task(quick("left-out").when("1 > 2"))
        .task(TaskSpec::value("undecided", "made.nothing"))
        .task(TaskSpec::new("odd", "test/typed").params(json!({"value": 1})))
        .task(task("tries", json!({"fail": "CONNECTION_LOST"})).retry(retries(2, Fixed, secs(1))));
    seen.record(&*harness.run(spec).await);
    let unsupported = WorkflowSpec::new("w").task(TaskSpec::new("t", "third/run"));
    seen.record(&*harness.run(unsupported).await);
    let timed = WorkflowSpec::new("w").timeout(secs(1)).task(never("t"));
    seen.record(&*harness.run(timed).await);
    let sent = harness.submit(WorkflowSpec::new("w").task(never("t"))).await.unwrap();
    seen.error(harness.cancel_task(&sent.id, "nobody").await);
    harness.cancel(&sent.id).await.unwrap();
    let id = sent.id.clone();
    seen.record(&*sent.end().await);
    seen.error(harness.cancel(&id).await);
    seen.error(harness.wait(&"nobody".into()).await);
    let restart = RestartProvider("nobody".into());
    seen.error(harness.actors.addresses.balancer.send(restart).await.unwrap());
    let good = harness.run(WorkflowSpec::new("w").task(quick("t"))).await;
    seen.error(harness.reopen(&good.id).await);
}

async fn storage(seen: &mut Seen) {
    let detail = || "as the test says".to_owned();
    let unknown = (0..6).map(|_| StoreError::Unknown { detail: detail() });
    let errors = [
        StoreError::Open { detail: detail() },
        StoreError::Unavailable { detail: detail() },
        StoreError::Write { detail: detail() },
        StoreError::Integrity { detail: detail() },
    ];
    let refusals = errors.len() + 1;
    let store = FlakyStore::flaky(errors.into_iter().chain(unknown).collect(), Vec::new());
    let setup = Setup { store: Arc::<FlakyStore>::clone(&store), ..Setup::default() };
    let mut harness = setup.open_again().await;
    for _ in 0..refusals {
        seen.refusal(harness.submit(WorkflowSpec::new("w").task(quick("t"))).await);
    }
    store.fail_read(StoreError::Read { detail: detail() });
    seen.error(harness.wait(&"nobody".into()).await);
    harness.actors.addresses.engine.send(Shutdown { deadline: secs(0) }).await.unwrap();
    seen.refusal(harness.submit(WorkflowSpec::new("w").task(quick("t"))).await);
}

/// The table is complete, and the engine returns every code that it can.
#[actix::test]
async fn every_error_code_that_can_occur_is_reached() {
    let mut listed: Vec<ErrorCode> = ENGINE.to_vec();
    listed.extend(ELSEWHERE.iter().map(|(code, _)| *code));
    listed.sort_unstable();
    let mut all = ErrorCode::ALL.to_vec();
    all.sort_unstable();
    assert_eq!(listed, all, "each code is listed once");

    let mut setup = Setup {
        provider_wait: secs(5),
        resources: Resources { memory_mib: 10, ..Resources::UNLIMITED },
        ..Setup::default()
    };
    setup.engine.max_queued_tasks = 15;
    let mut seen = Seen::default();
    let mut harness = setup.open().await;
    submissions(&mut seen, &mut harness).await;
    failures(&mut seen, &mut harness).await;
    harness.finish().await;
    storage(&mut seen).await;
    assert_eq!(seen.0, ENGINE.iter().copied().collect::<BTreeSet<_>>());
}

/// Whatever code a provider raises stands in the record, the event and the workflow's error.
#[actix::test]
async fn what_a_provider_raises_arrives_as_it_was() {
    let mut harness = Harness::open().await;
    let raising = |code: &ErrorCode| task(code.name(), json!({"fail": code.name()}));
    let spec =
        ErrorCode::ALL.iter().map(raising).fold(WorkflowSpec::new("all"), WorkflowSpec::task);
    let record = harness.run(spec).await;
    for expected in ErrorCode::ALL {
        assert_eq!(code(&record, expected.name()), Some(*expected));
    }
    let error = record.error.as_ref().unwrap();
    assert_eq!(error.code, ErrorCode::WorkflowExecutionFailed);
    harness.finish().await;
}

/// A stored workflow whose method is gone since is left as it was, for a process that knows it; who
/// resumes it by name gets the reason.
#[actix::test]
async fn a_workflow_whose_method_is_gone_is_left_as_it_was() {
    let memory = Arc::new(MemoryStore::default());
    let setup = |memory: &Arc<MemoryStore>| Setup {
        store: Arc::<MemoryStore>::clone(memory),
        ..Setup::default()
    };
    let mut harness = setup(&memory).open().await;
    let spec = WorkflowSpec::new("gone").id("gone").task(task("t", json!({"gate": "never"})));
    harness.submit(spec).await.unwrap();
    harness.until_task("task:started", "t").await;
    harness.actors.addresses.engine.send(Shutdown { deadline: secs(0) }).await.unwrap();

    let without = Setup { catalog: ProtocolCatalog::new(), ..setup(&memory) };
    let mut harness = without.open_again().await;
    let recovered = harness.recover().await;
    assert_eq!((recovered.workflows, recovered.unfit), (0, 0), "it is not even taken");
    let named = Recover { id: Some("gone".into()), hold: false };
    let refused = harness.actors.addresses.engine.send(named).await.unwrap().unwrap_err();
    assert_eq!(refused.code, ErrorCode::ProtocolNotFound);
    assert!(!harness.stored(&"gone".into()).await.status.is_settled());
    harness.finish().await;
}
