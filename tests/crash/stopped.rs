//! A process that is stopped, as by SIGSTOP or a suspended container, beside others on a SQLite file:
//! it holds them up only where it is within a transaction, and then they say who it is.

use std::{thread, time::Duration};

use gleitzeit::{
    Store as _, StoreError,
    settings::StoreUrl,
    storage::{SqlOptions, SqlStore},
};
use gleitzeit_domain::store::{Submitted, conformance::sample};
use nix::sys::signal::Signal;

use crate::{
    database::{Kind, TestDatabase},
    process::{Orders, Process, Role},
};

/// Where a process waits for another thread, or hands something over: the file is free.
const BETWEEN: [&str; 8] = [
    "engine.submit.storing",
    "engine.write.before",
    "store.write.taken",
    "store.begin.before",
    "store.claim.looked",
    "store.claim.read",
    "store.commit.after",
    "store.answer.before",
];

/// Stops of one process at a failpoint of the engine's thread, until the store's thread is not within a
/// transaction of an earlier write by chance.
const TRIES: usize = 5;

/// Within a transaction.
const WITHIN: [&str; 3] = ["store.begin.after", "store.write.rows", "store.commit.before"];

fn stop_at(test: &str, failpoint: &str) -> (TestDatabase, Process, u32) {
    let database = TestDatabase::new(Kind::Sqlite, "stopped").unwrap();
    // Something to claim.
    wait_for(submit(&database, "free")).unwrap();
    let orders = Orders {
        store: database.url.clone(),
        folder: database.folder(),
        name: "stopped".into(),
        role: Role::Helper,
        shares: vec!["stopped".into()],
        neighbour: None,
    };
    let mut process = Process::start(test, &orders, Some(&format!("{failpoint}:1:stop")));
    process.stops().unwrap_or_else(|why| panic!("{failpoint}: {why}"));
    let id = process.id();
    (database, process, id)
}

async fn submit(database: &TestDatabase, id: &str) -> Result<Vec<Submitted>, StoreError> {
    let url: StoreUrl = database.url.parse().unwrap();
    let store = SqlStore::connect(&url, SqlOptions::default()).await?;
    let answer = store.submit(vec![sample::workflow(id, 1)]).await;
    store.close(Duration::from_secs(30)).await.unwrap();
    answer
}

fn wait_for<T>(it: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(it)
}

#[test]
fn a_stopped_process_holds_nobody_up_between_transactions() {
    if let Some(orders) = Orders::from_env() {
        return crate::program::live(orders);
    }
    let test = "stopped::a_stopped_process_holds_nobody_up_between_transactions";
    thread::scope(|scope| {
        for failpoint in BETWEEN {
            scope.spawn(move || {
                let tries = if failpoint.starts_with("engine.") { TRIES } else { 1 };
                let mut answer = Err(StoreError::Closed);
                for _ in 0..tries {
                    let (database, _process, _) = stop_at(test, failpoint);
                    answer = wait_for(submit(&database, "other"));
                    if answer.is_ok() {
                        break;
                    }
                }
                assert_eq!(answer, Ok(vec![Submitted::Created]), "{failpoint}");
            });
        }
    });
}

#[test]
fn a_process_that_is_stopped_within_a_transaction_is_named() {
    if let Some(orders) = Orders::from_env() {
        return crate::program::live(orders);
    }
    let test = "stopped::a_process_that_is_stopped_within_a_transaction_is_named";
    thread::scope(|scope| {
        for failpoint in WITHIN {
            scope.spawn(move || {
                let (database, process, id) = stop_at(test, failpoint);
                let refused = wait_for(submit(&database, "early")).unwrap_err();
                let named = format!("the process {id}, which is stopped, is writing to it");
                assert!(refused.to_string().contains(&named), "{failpoint}: {refused}");
                process.signal(Signal::SIGKILL);
                let mut answer = wait_for(submit(&database, "late"));
                while let Err(StoreError::Unavailable { .. }) = answer {
                    // Its end takes a moment.
                    answer = wait_for(submit(&database, "late"));
                }
                assert_eq!(answer, Ok(vec![Submitted::Created]), "{failpoint}");
            });
        }
    });
}
