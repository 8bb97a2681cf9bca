//! A runtime without work does nothing: no processor time, no question to its store, no statement to
//! its database.
//!
//! Measured from outside, in a process of its own, where nothing else runs.

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

use crate::support::child::{Process, arguments, say};
use crate::support::whole::echo_workflow;

/// Longer than the longest interval at which anything but health checks wakes up: 5 s.
const IDLE: Duration = Duration::from_millis(5_500);
/// Of the scheduler, of which there are 100 a second: 0.5 % of one core.
const TICKS_MAX: u64 = 3;
/// Between the last work and the span that is measured: after a write, a database file is looked at
/// some more times, ever more seldom, for less than three seconds.
const REST: Duration = Duration::from_secs(4);

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

/// The life of the process that is measured: works, then waits for a line, and says at both ends
/// how often the store was asked, where that is counted.
#[tokio::main]
async fn idle(url: &str) {
    let text = format!(
        "[storage]\nurl = \"{url}\"\nmax_size_mb = 1000\n[supervision]\nhealth_interval = 3600"
    );
    let settings = Settings::from_toml(&text).unwrap();
    let here = echo::spec("here");
    let supervision = settings.supervision.over(here.supervision);
    let elsewhere = echo::spec("elsewhere").placement(Placement::Worker).supervision(supervision);
    let mut builder = Runtime::builder(settings)
        .without_settings_providers()
        .provider(here.supervision(supervision))
        .provider(elsewhere);
    let mut counting = None;
    if url == "memory" {
        let store = Arc::new(MemoryStore::default());
        let store = Arc::new(Counting { store, calls: AtomicU64::new(0) });
        counting = Some(Arc::clone(&store));
        builder = builder.store(store);
    }
    let asked = || counting.as_ref().map_or(0, |it| it.calls.load(Ordering::SeqCst));
    let runtime = builder.start().await.unwrap();
    for number in 0..20 {
        runtime.handle().run(echo_workflow(&format!("w{number}"))).await.unwrap();
    }
    // The clean-up after the start is over when the store has nothing more to do.
    runtime.handle().list(ListFilter::default()).await.unwrap();
    say(&format!("idle {}", asked()));
    tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()).unwrap())
        .await
        .unwrap();
    say(&format!("idle {}", asked()));
}

/// Processor time that a process has used, in ticks: `utime` and `stime`, see `proc_pid_stat(5)`.
fn ticks(process: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // The name in parentheses may hold spaces; what follows does not.
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let fields: Vec<&str> = fields.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// What has been done about statements by now, as seen from outside; equal before and after a span
/// in which there was none.
type Trace = Vec<String>;

/// Runs the test `test` as a process, and sees what it does while it has no work.
fn check(test: &str, url: &str, folder: &Path, trace: impl Fn(u32) -> Trace) {
    let mut process = Process::start(test, url, folder);
    let asked = process.says().unwrap();
    thread::sleep(REST);
    let (before, seen) = (ticks(process.id()), trace(process.id()));
    // What is measured is a span of real time in which nothing happens.
    thread::sleep(IDLE);
    let used = ticks(process.id()) - before;
    assert_eq!(trace(process.id()), seen, "statements were run while there was no work");
    process.send("enough");
    assert_eq!(process.says().unwrap(), asked, "the store was asked while there was no work");
    assert!(used <= TICKS_MAX, "{used} ticks in {IDLE:?} without work");
}

/// A service that waits for work must cost nothing on a shared machine.
#[test]
fn an_idle_runtime_uses_no_processor_and_asks_no_store() {
    if let Some((url, _)) = arguments() {
        return idle(&url);
    }
    let folder = tempfile::tempdir().unwrap();
    let test = "idle::an_idle_runtime_uses_no_processor_and_asks_no_store";
    check(test, "memory", folder.path(), |_| Trace::new());
}

/// How often each thread that works for SQLite has gone to sleep: every statement wakes one.
#[cfg(feature = "sqlite")]
fn sleeps_of_sqlite(process: u32) -> Trace {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let status = |thread: std::io::Result<std::fs::DirEntry>| {
        std::fs::read_to_string(thread.unwrap().path().join("status")).unwrap()
    };
    let line = |status: &str, name: &str| {
        status.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned()
    };
    let mut sleeps: Trace = threads
        .map(status)
        .filter(|status| line(status, "Name:").contains("sqlx-sqlite"))
        .map(|status| line(&status, "Pid:") + &line(&status, "voluntary_ctxt_switches:"))
        .collect();
    assert!(!sleeps.is_empty(), "no thread works for SQLite");
    sleeps.sort();
    sleeps
}

/// The same with a database: its thread and its connections rest too.
#[cfg(feature = "sqlite")]
#[test]
fn an_idle_runtime_leaves_its_database_alone() {
    if let Some((url, _)) = arguments() {
        return idle(&url);
    }
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("g.db").display());
    check("idle::an_idle_runtime_leaves_its_database_alone", &url, folder.path(), sleeps_of_sqlite);
}

/// And with a server, which knows when each of its clients said something last.
#[cfg(feature = "postgres")]
#[test]
fn an_idle_runtime_leaves_its_server_alone() {
    use sea_orm::{ConnectionTrait as _, Database, DbBackend, Statement};

    if let Some((url, _)) = arguments() {
        return idle(&url);
    }
    let test = "idle::an_idle_runtime_leaves_its_server_alone";
    let url = std::env::var("GLEITZEIT_TEST_POSTGRES")
        .unwrap_or_else(|_| "postgres://postgres@127.0.0.1:5432/postgres".into());
    let waiter = tokio::runtime::Runtime::new().unwrap();
    let server = match waiter.block_on(Database::connect(&url)) {
        Ok(server) => server,
        Err(error) => return println!("SKIPPED: {test}: no PostgreSQL ({error})"),
    };
    let sql = |sql: String| waiter.block_on(server.execute_unprepared(&sql)).unwrap();
    let database = format!("gleitzeit_idle_{}", std::process::id());
    sql(format!("CREATE DATABASE {database}"));
    let folder = tempfile::tempdir().unwrap();
    let store = format!("{}/{database}", url.rsplit_once('/').unwrap().0);
    check(test, &store, folder.path(), |_| {
        let query = format!(
            "SELECT pid || ' ' || query_start || ' ' || state_change || ' ' || query \
             FROM pg_stat_activity WHERE datname = '{database}' AND backend_type = \
             'client backend' ORDER BY 1"
        );
        let query = Statement::from_string(DbBackend::Postgres, query);
        let rows = waiter.block_on(server.query_all_raw(query)).unwrap();
        assert!(!rows.is_empty(), "no connection to the database");
        rows.iter().map(|row| row.try_get_by_index(0).unwrap()).collect()
    });
    sql(format!("DROP DATABASE {database} WITH (FORCE)"));
}
