//! A task that waits for its next attempt when its process is killed: the attempt comes when it is
//! due, once.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use gleitzeit::{
    EventData, Store as _,
    storage::{SqlOptions, SqlStore},
};
use nix::sys::signal::Signal;

use crate::{
    database::{Kind, TestDatabase},
    journal::{self, Line},
    process::{Orders, Process, Role},
    verdict::judge,
    workload,
};

/// Far beyond what the slowest machine needs; what it took is printed.
const LATE: Duration = Duration::from_secs(10);

fn retries(test: &str, kind: Kind) {
    if let Some(orders) = Orders::from_env() {
        return crate::program::live(orders);
    }
    let database = match TestDatabase::new(kind, "timers") {
        Ok(database) => database,
        Err(why) => return println!("SKIPPED: {test}: {why}"),
    };
    let start = |name: &str, role| {
        let orders = Orders {
            store: database.url.clone(),
            folder: database.folder(),
            name: name.into(),
            role,
            shares: Vec::new(),
            neighbour: None,
        };
        Process::start(test, &orders, None)
    };
    let mut killed = start("killed", Role::Retries);
    killed.says("ready").unwrap();
    killed.signal(Signal::SIGKILL);
    killed.dies().unwrap();
    start("next", Role::Last).ends().unwrap();
    judge(&database.url, &database.folder(), &BTreeSet::from(["killed".to_owned()])).unwrap();

    let due = due_times(&database);
    let mut late = Vec::new();
    for line in journal::read(&database.folder()) {
        let Line::Begins { process, task, attempt, at_us, .. } = line else { continue };
        assert_eq!(process, if attempt == 1 { "killed" } else { "next" }, "{task}");
        if attempt == 2 {
            late.push(at_us - due[&task]);
        }
    }
    late.sort_unstable();
    assert_eq!(late.len(), due.len());
    println!(
        "{kind:?}: {} attempts after they were due: least {} µs, median {} µs, greatest {} µs",
        late.len(),
        late[0],
        late[late.len() / 2],
        late[late.len() - 1]
    );
    // Timers of the runtime go by whole milliseconds.
    assert!(late[0] >= -1_000, "{} µs too early", -late[0]);
    assert!(Duration::from_micros(late[late.len() - 1].try_into().unwrap()) < LATE);
}

/// When each task was due, in microseconds, as its only retry event says.
fn due_times(database: &TestDatabase) -> BTreeMap<String, i64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let url = database.url.parse().unwrap();
        let store = SqlStore::connect(&url, SqlOptions::default()).await.unwrap();
        let mut due = BTreeMap::new();
        for spec in workload::retrying() {
            let id = spec.id.unwrap();
            for event in store.events(&id, 0, 1_000).await.unwrap() {
                if let EventData::TaskRetryScheduled { task_id, due_at, .. } = event.data {
                    let before = due.insert(format!("{id}/{task_id}"), due_at.timestamp_micros());
                    assert_eq!(before, None, "{id}");
                }
            }
        }
        store.close(LATE).await.unwrap();
        due
    })
}

/// Retry times are rows: they survive a kill.
#[test]
fn sqlite_retries_when_due() {
    retries("timers::sqlite_retries_when_due", Kind::Sqlite);
}

/// The same on a server.
#[cfg(feature = "postgres")]
#[test]
fn postgres_retries_when_due() {
    retries("timers::postgres_retries_when_due", Kind::Postgres);
}
