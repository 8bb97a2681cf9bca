//! The disk is full, or the database is gone: intake is refused with the code of the table, what runs
//! is kept in memory, nothing is told that is not stored, and afterwards everything completes, once.
//!
//! The disks are small file systems in memory, which only root can mount; the server is one that the
//! test starts and kills. Where one of them cannot be had, a test says `SKIPPED: what (why)`.

mod disk;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use gleitzeit::{
    Call, Delivery, Effect, ErrorCode, EventData, EventFilter, Handle, MethodSpec, ParameterSpec,
    ProtocolSpec, ProviderSpec, Runtime, Settings, Subscription, TaskError, TaskSpec, WorkflowId,
    WorkflowSpec, WorkflowStatus, settings::StoreUrl, storage::admin,
};
use serde_json::json;
use tokio::sync::{Semaphore, mpsc};

#[cfg(feature = "postgres")]
use crate::support::own_server::Server;
use crate::support::whole::{check_events, within};
use disk::SmallDisk;

/// Workflows that are under way when the trouble begins.
const HELD: usize = 8;

/// Of each result, so that it needs room that is not there.
const BYTES: usize = 200_000;

/// After the trouble has begun, a submission is refused within this time.
const REFUSED_WITHIN: Duration = Duration::from_secs(10);

/// So long lasts the trouble once intake is refused: several tries to write fall into it.
const LASTS: Duration = Duration::from_secs(3);

/// Text that takes as much room as it is long, however it is stored.
fn noise(seed: usize, bytes: usize) -> String {
    let mut state = seed as u64 + 1;
    let mut text = String::with_capacity(bytes);
    while text.len() < bytes {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.push(char::from(b'A' + u8::try_from((state >> 33) % 26).unwrap()));
    }
    text
}

/// How often each task was called.
type Calls = Arc<Mutex<BTreeMap<String, usize>>>;

/// The provider's other end.
struct Provider {
    calls: Calls,
    started: mpsc::UnboundedReceiver<String>,
    gate: Arc<Semaphore>,
}

/// `disk/v1.0`: `hold` waits for the gate and gives a large result, `pass` a small one at once.
fn provider() -> (ProtocolSpec, ProviderSpec, Provider) {
    let method = |name| MethodSpec { effect: Effect::AtLeastOnce, ..MethodSpec::new(name) };
    let seed = || ParameterSpec::integer().optional();
    let protocol = ProtocolSpec::new("disk", "v1.0".parse().unwrap())
        .method(method("hold").param("seed", seed()))
        .method(method("pass").param("seed", seed()));
    let (calls, gate) = (Calls::default(), Arc::new(Semaphore::new(0)));
    let (sender, started) = mpsc::unbounded_channel();
    let (counted, waits) = (Arc::clone(&calls), Arc::clone(&gate));
    let run = move |call: Call| {
        let name = format!("{}/{}", call.workflow_id, call.task_id);
        *counted.lock().unwrap().entry(name.clone()).or_default() += 1;
        let holds = call.method_name() == "hold";
        let seed = call.param("seed").and_then(serde_json::Value::as_u64).unwrap_or(0);
        let (sender, waits) = (sender.clone(), Arc::clone(&waits));
        async move {
            if !holds {
                return Ok(json!("passed"));
            }
            let _ = sender.send(name);
            waits.acquire().await.unwrap().forget();
            Ok(json!({ "text": noise(usize::try_from(seed).unwrap(), BYTES) }))
        }
    };
    let spec = ProviderSpec::from_fn("disk", "disk/v1.0", run).unwrap();
    (protocol, spec, Provider { calls, started, gate })
}

fn held(number: usize) -> WorkflowSpec {
    let hold = TaskSpec::new("hold", "disk/hold").params(json!({ "seed": number }));
    let pass = TaskSpec::new("pass", "disk/pass").after("hold");
    WorkflowSpec::new("held").id(format!("held{number}")).task(hold).task(pass)
}

fn late(number: usize) -> WorkflowSpec {
    WorkflowSpec::new("late")
        .id(format!("late{number}"))
        .input("all", noise(1_000 + number, 50_000))
        .task(TaskSpec::new("pass", "disk/pass"))
}

/// Submits until it is refused; the ids that were taken, and the code of the refusal.
async fn until_refused(handle: &Handle) -> (BTreeSet<WorkflowId>, ErrorCode) {
    let (begun, mut taken) = (Instant::now(), BTreeSet::new());
    for number in 0.. {
        match within("an answer", handle.submit(late(number))).await {
            Ok(id) => drop(taken.insert(id)),
            Err(error) => {
                let took = begun.elapsed();
                assert!(took < REFUSED_WITHIN, "refused after {took:?} only: {error}");
                return (taken, error.code());
            }
        }
        assert!(begun.elapsed() < REFUSED_WITHIN, "{number} were taken, and none refused");
    }
    unreachable!("numbers do not end")
}

/// What is read, by somebody who asks again where a connection was lost.
async fn read<T>(ask: impl AsyncFn() -> Result<T, TaskError>) -> T {
    for _ in 0..10 {
        match ask().await {
            Err(error) if error.code == ErrorCode::PersistenceConnectionFailed => {}
            answer => return answer.unwrap(),
        }
    }
    panic!("there is no connection");
}

/// The workflows that were said to be settled, each once.
#[derive(Default)]
struct Reported(BTreeSet<WorkflowId>);

impl Reported {
    /// Listens until all of these have settled.
    async fn hear_of(&mut self, all: &BTreeSet<WorkflowId>, listener: &mut Subscription) {
        while !all.is_subset(&self.0) {
            self.hear(within("the end of a workflow", listener.next()).await);
        }
    }

    fn hear(&mut self, delivery: Option<Delivery>) {
        let Some(Delivery::Event(event)) = delivery else {
            panic!("{delivery:?} in place of an event")
        };
        assert!(matches!(event.data, EventData::WorkflowCompleted { .. }), "{event:?}");
        let id = event.workflow_id.clone().unwrap();
        assert!(self.0.insert(id), "told twice: {event:?}");
    }
}

/// Lives through trouble with the store at `url`, which `begin` brings about and `end` ends.
async fn live_through(
    url: &StoreUrl,
    begin: impl FnOnce(),
    end: impl FnOnce(),
    refusals: &[ErrorCode],
) {
    let settings = Settings::from_toml(&format!("storage.url = \"{}\"", url.expose())).unwrap();
    let (protocol, spec, mut provider) = provider();
    let builder = Runtime::builder(settings).without_settings_providers();
    let runtime = builder.protocol(protocol).provider(spec).start().await.unwrap();
    let handle = runtime.handle();
    let filter = EventFilter { types: vec!["workflow:completed".into()], ..EventFilter::default() };
    let mut listener = handle.subscribe(filter).await.unwrap();
    let mut all: BTreeSet<WorkflowId> = BTreeSet::new();
    for number in 0..HELD {
        all.insert(handle.submit(held(number)).await.unwrap());
    }
    for _ in 0..HELD {
        within("a call", provider.started.recv()).await.unwrap();
    }

    begin();
    provider.gate.add_permits(HELD);
    let (mut taken, code) = until_refused(&handle).await;
    assert!(refusals.contains(&code), "refused with {code}");
    let mut reported = Reported::default();
    let over = tokio::time::sleep(LASTS);
    tokio::pin!(over);
    loop {
        tokio::select! {
            () = &mut over => break,
            delivery = listener.next() => reported.hear(delivery),
        }
    }
    // What was taken in before the refusal may have been stored, and so have its outcome.
    let early: Vec<_> = reported.0.iter().filter(|id| !taken.contains(*id)).collect();
    assert!(early.is_empty(), "told and not stored: {early:?}");
    match within("an answer", handle.workflow(&"held0".into())).await {
        Ok(record) => assert!(!record.unwrap().status.is_settled(), "said and not stored"),
        // What is stored cannot be read either.
        Err(error) => assert_eq!(error.code, ErrorCode::PersistenceConnectionFailed),
    }

    end();
    // The same id again: whatever became of the refused submission, it is there once.
    let again = WorkflowId::from(format!("late{}", taken.len()));
    let taken_again = async {
        while handle.submit(late(taken.len())).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    within("the end of the trouble", taken_again).await;
    taken.insert(again);
    all.extend(taken);
    reported.hear_of(&all, &mut listener).await;
    assert_eq!(reported.0, all);
    for id in &all {
        let record = read(async || handle.workflow(id).await).await.unwrap();
        assert_eq!(record.status, WorkflowStatus::Completed);
        check_events(&read(async || handle.events(id, 0, 1_000).await).await);
    }
    let calls = provider.calls.lock().unwrap().clone();
    assert_eq!(calls.len(), all.len() + HELD);
    assert!(calls.values().all(|count| *count == 1), "{calls:?}");
    let report = runtime.stop(Duration::from_secs(10)).await;
    assert!(report.unsettled.is_empty(), "{report:?}");
    let mut found = Vec::new();
    admin::check(url, &mut |finding| found.push(finding)).await.unwrap();
    assert_eq!(found, []);
}

/// SQLite on a disk without a free page.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_under_a_file() {
    let disk = match SmallDisk::mount(16) {
        Ok(disk) => disk,
        Err(why) => return println!("SKIPPED: a_full_disk_under_a_file ({why})"),
    };
    let url = format!("sqlite:{}", disk.path().join("a.db").display()).parse().unwrap();
    let refusals = [ErrorCode::PersistenceWriteFailed];
    live_through(&url, || disk.fill(), || disk.free(), &refusals).await;
}

/// A PostgreSQL server whose tables have no room left.
#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_under_a_server() {
    let started =
        SmallDisk::mount(64).and_then(|disk| Server::start().map(|server| (disk, server)));
    let (disk, server) = match started {
        Ok(started) => started,
        Err(why) => return println!("SKIPPED: a_full_disk_under_a_server ({why})"),
    };
    let url = server.database_on(disk.path()).await;
    let refusals = [ErrorCode::PersistenceWriteFailed];
    live_through(&url, || disk.fill(), || disk.free(), &refusals).await;
    drop(server);
}

/// A PostgreSQL server that is killed in the middle, and comes back.
#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_and_restarts() {
    let server = match Server::start() {
        Ok(server) => server,
        Err(why) => return println!("SKIPPED: a_server_that_is_killed_and_restarts ({why})"),
    };
    let url = server.database().await;
    // Whether a commit that was under way took place, nobody knows at first.
    let refusals =
        [ErrorCode::PersistenceConnectionFailed, ErrorCode::PersistenceTransactionFailed];
    live_through(&url, || server.kill(), || server.launch(), &refusals).await;
}
