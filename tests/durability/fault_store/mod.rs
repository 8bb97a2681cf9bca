//! Random workflows over a store of which every call may fail, and engines that crash in between:
//! the invariants hold after every step, and each workflow ends as its tasks say.
#![expect(
    clippy::print_stdout,
    reason = "how much was gone through is what a reader wants to know"
)]

mod audit;
mod faulty;
mod scenario;

use std::{
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use gleitzeit::{
    Handle, MemoryStore, Runtime, RuntimeBuilder, Settings, Store, SubmitError, WorkflowId,
    domain::{resources::Resources, store::lease::Resolution},
    storage::{SqlOptions, SqlStore},
};
use proptest::{
    strategy::{Strategy as _, ValueTree as _},
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use serde_json::json;
use tokio::sync::mpsc;

use crate::support::fewer_if_quick;
use audit::{Audit, CALLS_MAX, INTAKE_MAX, MEMORY_MIB, Unconfirmed};
use faulty::Faulty;
use scenario::{Scenario, protocol, provider, scenarios};

/// Nothing takes this long, on the slowest machine.
const TIMEOUT: Duration = Duration::from_mins(4);
/// Engines of a case: all but the last one crash.
const LIVES: u64 = 3;
/// Cases go on until so many calls have failed.
const FAULTS_MIN: usize = 20;

/// Where the workflows of a case are kept over the lives of its engines.
enum Location {
    Memory(Arc<MemoryStore>),
    File(PathBuf),
}

impl Location {
    /// The store of one life.
    async fn open(&self) -> Arc<dyn Store> {
        match self {
            Self::Memory(store) => Arc::clone(store) as Arc<dyn Store>,
            Self::File(path) => {
                let url = format!("sqlite:{}", path.display()).parse().expect("an address");
                Arc::new(SqlStore::connect(&url, SqlOptions::default()).await.expect("a file"))
            }
        }
    }

    /// Lets go of the store of one life, as the end of its process does.
    async fn let_go(&self, store: &dyn Store, faulty: &Faulty) {
        match self {
            Self::Memory(_) => faulty.end_leases().await,
            // With it go the locks that hold its leases.
            Self::File(_) => store.close(TIMEOUT).await.expect("it closes"),
        }
    }
}

fn builder(audit: &Arc<Audit>, store: &Arc<dyn Store>, faulty: &Arc<Faulty>) -> RuntimeBuilder {
    let text = format!(
        "engine.max_concurrent_tasks = {CALLS_MAX}\nengine.max_queued_tasks = {INTAKE_MAX}\n\
         resources.memory_mb = {MEMORY_MIB}"
    );
    Runtime::builder(Settings::from_toml(&text).expect("sound settings"))
        .without_settings_providers()
        .protocol(protocol())
        .provider(provider(Arc::clone(audit), Arc::clone(store)))
        .store(Arc::clone(faulty) as Arc<dyn Store>)
}

/// What a workflow is called, over all lives, from the first time that it is acknowledged.
type Name = Arc<OnceLock<WorkflowId>>;

/// Submits until it is acknowledged, and waits for the end. The same id again is the same workflow.
async fn drive(handle: Handle, audit: Arc<Audit>, number: usize, scenario: Scenario, name: Name) {
    let id = loop {
        let spec = match name.get() {
            Some(id) => scenario.spec(number).id(id.as_str()),
            None => scenario.spec(number),
        };
        match handle.submit(spec).await {
            Ok(id) => {
                audit.acknowledged(&id);
                break name.get_or_init(|| id).clone();
            }
            Err(SubmitError::Stopped) => return,
            // The store may be better in a moment, or there may be room.
            Err(SubmitError::Store(_) | SubmitError::QueueFull { .. }) => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Err(error) => panic!("{number}: {error}"),
        }
    };
    // What a store could not read is asked again; what has stopped, another life looks at.
    while handle.wait(&id).await.is_err() && handle.stats().await.is_ok() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Says of every call whose outcome is unknown that it went well.
async fn person(handle: Handle, unconfirmed: &mut mpsc::UnboundedReceiver<Unconfirmed>) {
    while let Some((id, task)) = unconfirmed.recv().await {
        let verdict = Resolution::Completed { result: json!({ "index": 0 }) };
        while let Err(error) = handle.resolve(&id, &task, verdict.clone()).await {
            if error.code == gleitzeit::ErrorCode::WorkflowInvalidState {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// What one case went through.
#[derive(Debug, Default)]
struct Passed {
    workflows: usize,
    steps: usize,
    early: usize,
    faults: [usize; 3],
    cuts: usize,
}

impl Passed {
    fn add(&mut self, faulty: &Faulty) {
        for (sum, met) in self.faults.iter_mut().zip(faulty.met()) {
            *sum += met;
        }
    }
}

/// After so many writes a life is cut short.
fn writes_of(seed: u64, life: u64) -> usize {
    let spread = (seed * 7 + life * 3) % 20;
    3 + usize::try_from(spread).expect("a small number")
}

/// Runs the workflows through several lives of an engine, and looks at how they ended.
async fn go_through(location: Location, cases: Vec<Scenario>, percent: u64, seed: u64) -> Passed {
    let (audit, mut unconfirmed) = Audit::new();
    let audit = Arc::new(audit);
    let mut passed = Passed { workflows: cases.len(), ..Passed::default() };
    let mut seeds = (0..).map(|at| seed * 1_000 + at);
    let names: Vec<Name> = cases.iter().map(|_| Name::default()).collect();
    for life in 0..LIVES {
        let is_last = life + 1 == LIVES;
        let writes = if is_last { usize::MAX } else { writes_of(seed, life) };
        let (store, faulty, runtime) = loop {
            let store = location.open().await;
            // What an earlier life left in doubt is told again.
            let open = store.unsettled().await.expect("it works");
            audit.inspect(&*store, open.into_iter().map(|record| record.id).collect()).await;
            let seed = seeds.next().expect("there is no end of them");
            let faulty =
                Faulty::over(Arc::clone(&store), Arc::clone(&audit), percent, seed, writes);
            match builder(&audit, &store, &faulty).start().await {
                Ok(runtime) => break (store, faulty, runtime),
                Err(error) => assert!(percent > 0, "{error}"),
            }
            // A process that cannot start ends, and is started again.
            passed.add(&faulty);
            location.let_go(&*store, &faulty).await;
            audit.crashed();
        };
        let all = cases.iter().cloned().enumerate().zip(names.iter().cloned());
        let all = all.map(|((number, scenario), name)| {
            tokio::spawn(drive(runtime.handle(), Arc::clone(&audit), number, scenario, name))
        });
        let all: Vec<_> = all.collect();
        let ended = futures_util::future::join_all(all);
        tokio::select! {
            ended = ended => ended.into_iter().for_each(|it| it.expect("it does not panic")),
            () = person(runtime.handle(), &mut unconfirmed) => unreachable!("the audit lives"),
            () = faulty.cut() => passed.cuts += 1,
            () = tokio::time::sleep(TIMEOUT) => panic!("stuck: {:?}", runtime.handle().engine_counts().await),
        }
        if is_last {
            let resources = runtime.handle().resources().await.expect("it runs");
            assert_eq!(resources.taken, Resources::default(), "3: leases are left");
        }
        runtime.stop(Duration::ZERO).await;
        passed.add(&faulty);
        if is_last {
            check_ends(&*store, &cases, &names).await;
        }
        location.let_go(&*store, &faulty).await;
        audit.crashed();
    }
    (passed.steps, passed.early) = audit.verdict();
    passed
}

async fn check_ends(store: &dyn Store, cases: &[Scenario], names: &[Name]) {
    for (scenario, name) in cases.iter().zip(names) {
        let id = name.get().expect("it was acknowledged");
        let record = store.workflow(id).await.expect("it works").expect("it was acknowledged");
        let ends: Vec<_> = record.tasks.iter().map(|task| task.status).collect();
        assert_eq!(ends, scenario.ends(), "{id}: {record:?}");
        assert!(record.status.is_settled(), "{id}: {}", record.status);
    }
}

fn seed_bytes(seed: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes
}

/// Goes through so many random cases at each rate of faults; how many tasks were called before their
/// workflow was stored.
async fn go_through_all(name: &str, cases: usize, location: impl Fn(u64) -> Location) -> usize {
    let cases = fewer_if_quick(cases) as u64;
    let mut early = 0;
    for percent in [1, 5, 20] {
        let mut all = Passed::default();
        let mut case = 0;
        while case < cases || all.faults.iter().sum::<usize>() < FAULTS_MIN {
            let seed = percent * 1_000 + case;
            let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed_bytes(seed));
            let mut runner = TestRunner::new_with_rng(Config::default(), rng);
            let scenarios = scenarios().new_tree(&mut runner).expect("a case").current();
            let passed = go_through(location(seed), scenarios, percent, seed).await;
            case += 1;
            all.workflows += passed.workflows;
            all.steps += passed.steps;
            all.early += passed.early;
            all.cuts += passed.cuts;
            for (sum, met) in all.faults.iter_mut().zip(passed.faults) {
                *sum += met;
            }
        }
        let [unavailable, timed_out, done] = all.faults;
        println!(
            "{name}, {percent} % faults: {} workflows, {} writes looked at, {} crashes, \
             {unavailable} calls refused, {timed_out} timed out, {done} done but reported failed, \
             {} tasks called before their workflow was stored",
            all.workflows, all.steps, all.cuts, all.early,
        );
        assert!(all.steps > 0 && all.cuts > 0, "{all:?}");
        early += all.early;
    }
    early
}

/// Engines over a store in memory, which sees to leases as a server does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invariants_hold_over_a_faulty_store_in_memory() {
    let location = |_| Location::Memory(Arc::new(MemoryStore::default().with_timed_leases()));
    go_through_all("memory", 8, location).await;
}

/// Engines over a file, whose leases end with their process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invariants_hold_over_a_faulty_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let location = |seed| Location::File(folder.path().join(format!("{seed}.db")));
    assert!(go_through_all("SQLite", 6, location).await > 0, "no task was called early");
}
