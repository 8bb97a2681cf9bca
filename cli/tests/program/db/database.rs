//! Databases to look into: filled, copied, and broken past the store.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use gleitzeit::{
    WorkflowStatus,
    settings::StoreUrl,
    storage::{
        SqlOptions, SqlStore,
        admin::{self, Checked, Finding},
    },
};
use gleitzeit_domain::store::{NewWorkflow, Store, WorkflowChange, conformance::sample};
use sea_orm::{ConnectOptions, ConnectionTrait as _, Database, DatabaseConnection, Statement};
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) const LONG: Duration = Duration::from_secs(30);

/// Where databases are made.
pub(crate) enum TestDatabase {
    Folder(TempDir, AtomicUsize),
    #[cfg(feature = "postgres")]
    Server(crate::support::postgres::Server),
}

impl TestDatabase {
    pub(crate) fn folder() -> Self {
        Self::Folder(TempDir::new().unwrap(), AtomicUsize::new(0))
    }

    /// The grounds that there are.
    pub(crate) async fn all(test: &'static str) -> Vec<Self> {
        let mut all = vec![Self::folder()];
        #[cfg(feature = "postgres")]
        all.extend(crate::support::postgres::Server::reach(test).await.map(Self::Server));
        #[cfg(not(feature = "postgres"))]
        let _ = test;
        all
    }

    fn path(folder: &TempDir, number: &AtomicUsize) -> PathBuf {
        folder.path().join(format!("{}.db", number.fetch_add(1, Ordering::Relaxed)))
    }

    /// A place for a database with nothing in it.
    pub(crate) async fn empty(&self) -> StoreUrl {
        match self {
            Self::Folder(folder, number) => of_path(&Self::path(folder, number)),
            #[cfg(feature = "postgres")]
            Self::Server(server) => server.database().await,
        }
    }

    /// A database of its own with all that is in another one, to which nobody is connected.
    pub(crate) async fn copy_of(&self, url: &StoreUrl) -> StoreUrl {
        match self {
            Self::Folder(folder, number) => {
                let path = Self::path(folder, number);
                std::fs::copy(url.sqlite_path().unwrap(), &path).unwrap();
                of_path(&path)
            }
            #[cfg(feature = "postgres")]
            Self::Server(server) => server.copy_of(url).await,
        }
    }

    pub(crate) async fn leave(self) {
        match self {
            Self::Folder(..) => {}
            #[cfg(feature = "postgres")]
            Self::Server(server) => server.drop_all().await,
        }
    }
}

fn of_path(path: &std::path::Path) -> StoreUrl {
    format!("sqlite:{}", path.display()).parse().unwrap()
}

pub(crate) async fn open(url: &StoreUrl) -> SqlStore {
    SqlStore::connect(url, SqlOptions::default()).await.unwrap()
}

/// One connection past the store, which lets through what breaks a database.
pub(crate) async fn past(url: &StoreUrl) -> DatabaseConnection {
    let text = match url.sqlite_path() {
        Some(path) => format!("sqlite:{}?mode=rw", path.display()),
        None => url.expose().to_owned(),
    };
    let mut options = ConnectOptions::new(text);
    options.max_connections(1).sqlx_logging(false);
    let db = Database::connect(options).await.unwrap();
    if url.sqlite_path().is_some() {
        db.execute_unprepared("PRAGMA foreign_keys = OFF").await.unwrap();
    }
    db
}

/// Runs statements past the store.
pub(crate) async fn alter(url: &StoreUrl, statements: &[&str]) {
    let db = past(url).await;
    for sql in statements {
        let changed = db.execute_unprepared(sql).await.unwrap();
        let is_data = !sql.starts_with("DROP");
        assert!(!is_data || changed.rows_affected() > 0, "nothing is altered by {sql}");
    }
    db.close().await.unwrap();
}

pub(crate) async fn number(url: &StoreUrl, sql: &str) -> i64 {
    let db = past(url).await;
    let statement = Statement::from_string(db.get_database_backend(), sql);
    let number = db.query_one_raw(statement).await.unwrap().unwrap().try_get_by_index(0).unwrap();
    db.close().await.unwrap();
    number
}

/// Longer than what is kept in its row.
pub(crate) fn large(mark: &str) -> Value {
    json!({ "mark": mark, "text": "x".repeat(100_000) })
}

/// What completes a workflow: every task with a result, the second one's large, and four events.
pub(crate) fn completing(new: &NewWorkflow) -> WorkflowChange {
    let results = [json!({"n": 0.1, "text": "a\u{0}b\\"}), large("result"), Value::Null];
    let tasks = new.record.tasks.iter().zip(results);
    WorkflowChange {
        tasks: tasks.map(|(task, result)| sample::completed(task, result)).collect(),
        events: sample::events(&new.record.id, 2, 4),
        last_sequence: 5,
        ..sample::settles(new, WorkflowStatus::Completed, sample::at(7))
    }
}

/// A workflow of each kind: `done` and settled, `open` with a retry to come, `large` with a spec
/// that has no room in its row, and `between` two writes: all of its tasks are settled.
pub(crate) async fn fill(url: &StoreUrl) {
    let store = open(url).await;
    let (done, open) = (sample::workflow("done", 3), sample::workflow("open", 2));
    let between = sample::workflow("between", 3);
    let mut spec = (*sample::workflow("large", 1).record.spec).clone();
    spec.inputs.insert("all".into(), large("spec"));
    let large = sample::of_spec("large", spec);
    let all = vec![done.clone(), open.clone(), large, between.clone()];
    store.submit(all).await.unwrap();
    store.record(vec![completing(&done)]).await.unwrap();
    let retry = WorkflowChange {
        workflow: Some(sample::state(WorkflowStatus::Running)),
        tasks: vec![sample::retry_pending(&open.record.tasks[0])],
        events: sample::events(&open.record.id, 2, 2),
        ..sample::change(&open.record.id, 3)
    };
    let ended = WorkflowChange {
        workflow: Some(sample::state(WorkflowStatus::Running)),
        ..completing(&between)
    };
    store.record(vec![retry, ended]).await.unwrap();
    store.close(LONG).await.unwrap();
}

/// What is found wrong.
pub(crate) async fn findings(url: &StoreUrl) -> (Checked, Vec<Finding>) {
    let mut found = Vec::new();
    let checked = admin::check(url, &mut |finding| found.push(finding)).await.unwrap();
    assert_eq!(checked.findings.values().sum::<u64>(), found.len() as u64);
    (checked, found)
}
