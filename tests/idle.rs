//! A runtime without work does nothing: no processor time, no query to its store.
//!
//! Measured from outside, in a process of its own, where nothing else runs.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test's helpers may panic")]

#[path = "support/child.rs"]
mod child;
#[path = "support/whole.rs"]
mod whole;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use chrono::{DateTime, Utc};
use gleitzeit::{
    Event, ListFilter, MemoryStore, Placement, Runtime, Settings, Store, StoreError, WorkflowId,
    WorkflowRecord, WorkflowSummary, async_trait,
    domain::store::{NewWorkflow, Submitted, WorkflowChange},
    providers::echo,
};

use child::{Process, say, told};
use whole::echo_workflow;

/// Longer than the longest interval at which anything but health checks wakes up: 5 s.
const IDLE: Duration = Duration::from_millis(5_500);
/// Of the scheduler, of which there are 100 a second: 0.5 % of one core.
const TICKS_MAX: u64 = 3;

/// Passes every question on, and counts them.
struct Counting {
    store: Arc<dyn Store>,
    calls: AtomicU64,
}

impl Counting {
    fn counted(&self) -> &dyn Store {
        self.calls.fetch_add(1, Ordering::SeqCst);
        &*self.store
    }
}

#[async_trait]
impl Store for Counting {
    fn describe(&self) -> String {
        self.store.describe()
    }

    async fn submit(&self, new: Vec<NewWorkflow>) -> Result<Vec<Submitted>, StoreError> {
        self.counted().submit(new).await
    }

    async fn record(&self, changes: Vec<WorkflowChange>) -> Result<(), StoreError> {
        self.counted().record(changes).await
    }

    async fn unsettled(&self) -> Result<Vec<WorkflowRecord>, StoreError> {
        self.counted().unsettled().await
    }

    async fn workflow(&self, id: &WorkflowId) -> Result<Option<WorkflowRecord>, StoreError> {
        self.counted().workflow(id).await
    }

    async fn list(&self, filter: ListFilter) -> Result<Vec<WorkflowSummary>, StoreError> {
        self.counted().list(filter).await
    }

    async fn events(
        &self,
        id: &WorkflowId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Event>, StoreError> {
        self.counted().events(id, after, limit).await
    }

    async fn prune(&self, before: DateTime<Utc>, limit: usize) -> Result<usize, StoreError> {
        self.counted().prune(before, limit).await
    }

    async fn close(&self, limit: Duration) -> Result<(), StoreError> {
        self.counted().close(limit).await
    }
}

async fn open(url: &str) -> Arc<dyn Store> {
    #[cfg(feature = "sqlite")]
    if url != "memory" {
        use gleitzeit::storage::{SqlOptions, SqlStore};
        let url = url.parse().unwrap();
        return Arc::new(SqlStore::connect(&url, SqlOptions::default()).await.unwrap());
    }
    assert_eq!(url, "memory");
    Arc::new(MemoryStore::default())
}

/// The life of the process that is measured: works, then waits for a line, and says at both ends
/// how often the store was asked.
#[tokio::main]
async fn idle(url: &str) {
    let store = Arc::new(Counting { store: open(url).await, calls: AtomicU64::new(0) });
    let settings = Settings::from_toml("[supervision]\nhealth_interval = 3600").unwrap();
    let here = echo::spec("here");
    let supervision = settings.supervision.over(here.supervision);
    let elsewhere = echo::spec("elsewhere").placement(Placement::Worker).supervision(supervision);
    let runtime = Runtime::builder(settings)
        .without_settings_providers()
        .store(store.clone())
        .provider(here.supervision(supervision))
        .provider(elsewhere)
        .start()
        .await
        .unwrap();
    for number in 0..20 {
        runtime.handle().run(echo_workflow(&format!("w{number}"))).await.unwrap();
    }
    // The clean-up after the start is over when the store has nothing more to do.
    runtime.handle().list(ListFilter::default()).await.unwrap();
    say(&format!("idle {}", store.calls.load(Ordering::SeqCst)));
    tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()).unwrap())
        .await
        .unwrap();
    say(&format!("idle {}", store.calls.load(Ordering::SeqCst)));
}

/// Processor time that a process has used, in ticks: `utime` and `stime`, see `proc_pid_stat(5)`.
fn ticks(process: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // The name in parentheses may hold spaces; what follows does not.
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let fields: Vec<&str> = fields.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

fn check(test: &str, url: &str, folder: &Path) {
    let mut process = Process::start(test, url, folder);
    let asked = process.says().unwrap();
    let before = ticks(process.id());
    // What is measured is a span of real time in which nothing happens.
    thread::sleep(IDLE);
    let used = ticks(process.id()) - before;
    process.tell("enough");
    assert_eq!(process.says().unwrap(), asked, "the store was asked while there was no work");
    assert!(used <= TICKS_MAX, "{used} ticks in {IDLE:?} without work");
}

/// A service that waits for work must cost nothing on a shared machine.
#[test]
fn an_idle_runtime_uses_no_processor_and_asks_no_store() {
    if let Some((url, _)) = told() {
        return idle(&url);
    }
    let folder = tempfile::tempdir().unwrap();
    check("an_idle_runtime_uses_no_processor_and_asks_no_store", "memory", folder.path());
}

/// The same with a database: its thread and its connections rest too.
#[cfg(feature = "sqlite")]
#[test]
fn an_idle_runtime_leaves_its_database_alone() {
    if let Some((url, _)) = told() {
        return idle(&url);
    }
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("g.db").display());
    check("an_idle_runtime_leaves_its_database_alone", &url, folder.path());
}
