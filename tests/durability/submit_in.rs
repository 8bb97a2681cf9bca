//! Workflows that are submitted within a transaction of the host: there with what the host wrote,
//! or not at all, and taken up at once. On SQLite, and on PostgreSQL where a server answers.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use gleitzeit::{
    ErrorCode, Handle, Runtime, Settings, SubmitError, TaskSpec, WorkflowId, WorkflowSpec,
    WorkflowStatus,
    providers::echo,
    sea_orm::{
        ConnectionTrait as _, Database, DatabaseConnection, DatabaseTransaction,
        SqliteTransactionMode, Statement, TransactionOptions, TransactionTrait as _,
    },
};
use serde_json::json;

#[cfg(feature = "postgres")]
use crate::support::postgres;
use crate::support::whole::{self, check_events, echo_workflow, within};

/// Less than the five minutes after which an engine looks by itself, by far.
const AT_ONCE: Duration = Duration::from_secs(30);

/// A host with a table of its own, and a runtime over the same database.
struct Host {
    db: DatabaseConnection,
    url: String,
    runtime: Runtime,
    calls: Arc<AtomicU64>,
}

async fn runtime(url: &str) -> (Runtime, Arc<AtomicU64>) {
    let settings = Settings::from_toml(&format!("storage.url = \"{url}\"")).unwrap();
    let (echo, calls) = echo::spec_counted("echo");
    let runtime = Runtime::builder(settings).without_settings_providers().provider(echo);
    (runtime.start().await.unwrap(), calls)
}

impl Host {
    async fn over(url: &str) -> Self {
        let (runtime, calls) = runtime(url).await;
        let db = Database::connect(url).await.unwrap();
        db.execute_unprepared("CREATE TABLE orders (id TEXT PRIMARY KEY)").await.unwrap();
        Self { db, url: url.to_owned(), runtime, calls }
    }

    fn handle(&self) -> Handle {
        self.runtime.handle()
    }

    async fn begin(&self) -> DatabaseTransaction {
        let options = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        };
        self.db.begin_with_options(options).await.unwrap()
    }

    /// An order in the host's own table.
    async fn order(transaction: &DatabaseTransaction, id: &str) {
        let insert = format!("INSERT INTO orders VALUES ('{id}')");
        transaction.execute_unprepared(&insert).await.unwrap();
    }

    async fn orders(&self) -> i64 {
        let count =
            Statement::from_string(self.db.get_database_backend(), "SELECT COUNT(*) FROM orders");
        self.db.query_one_raw(count).await.unwrap().unwrap().try_get_by_index(0).unwrap()
    }

    /// Waits for the end of a workflow that is about to be taken up, by whichever engine; how it
    /// ended.
    async fn ended(&self, id: &WorkflowId) -> WorkflowStatus {
        let handle = self.handle();
        let ended = async {
            loop {
                match handle.workflow(id).await.unwrap() {
                    Some(record) if record.status.is_settled() => return record.status,
                    // Nothing is told of what runs in another process.
                    _ => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        };
        let ended = tokio::time::timeout(AT_ONCE, ended).await;
        let status = ended.expect("it is taken up before an engine looks by itself");
        check_events(&handle.events(id, 0, 100).await.unwrap());
        status
    }

    async fn stop(self) {
        self.db.close().await.unwrap();
        self.runtime.stop(Duration::from_secs(10)).await;
    }
}

fn named(id: &str) -> WorkflowSpec {
    echo_workflow("within").id(id)
}

/// Runs a check on both databases, each empty.
async fn on_both<F: Future<Output = ()>>(name: &'static str, check: impl Fn(Host) -> F) {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("a.db").display());
    let host = Host::over(&url).await;
    within("the check on SQLite", Box::pin(check(host))).await;
    #[cfg(feature = "postgres")]
    if let Some(server) = postgres::Server::reach(name).await {
        let url = server.database().await;
        let host = Host::over(url.expose()).await;
        within("the check on PostgreSQL", Box::pin(check(host))).await;
        server.drop_all().await;
    }
    let _ = name;
}

/// A host may run it on any of its threads.
fn may_move<F: Future + Send>(future: F) -> F {
    future
}

/// The promise: an order without its workflow, or a workflow without its order, is never seen.
#[tokio::test(flavor = "multi_thread")]
async fn it_is_there_with_the_commit_and_taken_up_at_once() {
    on_both("with_the_commit", |host| async move {
        let handle = host.handle();
        let transaction = host.begin().await;
        Host::order(&transaction, "1").await;
        let submitted = may_move(handle.submit_in(&transaction, named("1")));
        let id = submitted.await.unwrap();
        assert!(handle.workflow(&id).await.unwrap().is_none(), "seen before its commit");
        transaction.commit().await.unwrap();
        assert_eq!(host.ended(&id).await, WorkflowStatus::Completed);
        assert_eq!((host.orders().await, host.calls.load(Ordering::SeqCst)), (1, 1));
        host.stop().await;
    })
    .await;
}

/// Nothing is left of what was rolled back, also where the host just drops its transaction.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_rolled_back_was_never_there() {
    on_both("rolled_back", |host| {
        Box::pin(async move {
            let handle = host.handle();
            for id in ["1", "2"] {
                let transaction = host.begin().await;
                Host::order(&transaction, id).await;
                handle.submit_in(&transaction, named(id)).await.unwrap();
                if id == "1" {
                    transaction.rollback().await.unwrap();
                }
            }
            // One that is committed later, and has the same id, is the first one.
            let transaction = host.begin().await;
            let id = handle.submit_in(&transaction, named("1")).await.unwrap();
            transaction.commit().await.unwrap();
            assert_eq!(host.ended(&id).await, WorkflowStatus::Completed);
            assert!(handle.workflow(&"2".into()).await.unwrap().is_none());
            assert_eq!((host.orders().await, host.calls.load(Ordering::SeqCst)), (0, 1));
            host.stop().await;
        })
    })
    .await;
}

/// A host repeats what it is not sure of.
#[tokio::test(flavor = "multi_thread")]
async fn an_id_is_submitted_once() {
    on_both("once", |host| async move {
        let handle = host.handle();
        for round in 0..3 {
            let transaction = host.begin().await;
            for _ in 0..2 {
                let id = handle.submit_in(&transaction, named("same")).await.unwrap();
                assert_eq!(id.as_str(), "same");
            }
            transaction.commit().await.unwrap();
            let ended = host.ended(&"same".into()).await;
            assert_eq!(ended, WorkflowStatus::Completed, "round {round}");
            assert_eq!(handle.submit(named("same")).await.unwrap().as_str(), "same");
        }
        assert_eq!(host.calls.load(Ordering::SeqCst), 1);
        host.stop().await;
    })
    .await;
}

/// An id names one workflow, also where the first one is in the same transaction and not committed;
/// the transaction goes on after the refusal.
#[tokio::test(flavor = "multi_thread")]
async fn another_workflow_under_the_same_id_is_refused() {
    on_both("differs", |host| {
        Box::pin(async move {
            let handle = host.handle();
            // The second one has no room in its row.
            for (id, inputs) in [("small", "x".to_owned()), ("large", "x".repeat(100_000))] {
                let of = |mark: &str| named(id).input("all", inputs.clone()).input("mark", mark);
                let transaction = host.begin().await;
                Host::order(&transaction, id).await;
                handle.submit_in(&transaction, of("first")).await.unwrap();
                let other = handle.submit_in(&transaction, of("other")).await;
                let Err(SubmitError::Differs { id: differs, what }) = other else {
                    panic!("{other:?}");
                };
                assert_eq!(differs.as_str(), id);
                assert!(what.contains("mark"), "{what}");
                handle.submit_in(&transaction, of("first")).await.unwrap();
                transaction.commit().await.unwrap();
                assert_eq!(host.ended(&id.into()).await, WorkflowStatus::Completed);
                let transaction = host.begin().await;
                let other = handle.submit_in(&transaction, of("other")).await.unwrap_err();
                assert!(matches!(other, SubmitError::Differs { .. }), "{other}");
                transaction.rollback().await.unwrap();
            }
            assert_eq!((host.orders().await, host.calls.load(Ordering::SeqCst)), (2, 2));
            host.stop().await;
        })
    })
    .await;
}

/// What is refused must not cost the host what it wrote before.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_leaves_the_transaction_as_it_was() {
    on_both("refusal", |host| {
        Box::pin(async move {
            let handle = host.handle();
            let transaction = host.begin().await;
            Host::order(&transaction, "1").await;
            let wrong = named("wrong").task(TaskSpec::new("x", "echo/dance").after("nothing"));
            let refused = handle.submit_in(&transaction, wrong).await.unwrap_err();
            assert_eq!(refused.code(), ErrorCode::WorkflowValidationFailed);
            let mut deep = json!(1);
            for _ in 0..200 {
                deep = json!([deep]);
            }
            let refused = handle.submit_in(&transaction, named("deep").input("deep", deep)).await;
            assert_eq!(refused.unwrap_err().code(), ErrorCode::PersistenceIntegrityError);
            // The database itself complains: a table is not there.
            let hide = "ALTER TABLE gleitzeit_events RENAME TO hidden";
            transaction.execute_unprepared(hide).await.unwrap();
            let refused = handle.submit_in(&transaction, named("hidden")).await.unwrap_err();
            assert_eq!(refused.code(), ErrorCode::PersistenceWriteFailed);
            let show = "ALTER TABLE hidden RENAME TO gleitzeit_events";
            transaction.execute_unprepared(show).await.unwrap();
            let id = handle.submit_in(&transaction, named("sound")).await.unwrap();
            transaction.commit().await.unwrap();
            assert_eq!(host.ended(&id).await, WorkflowStatus::Completed);
            for id in ["wrong", "deep", "hidden"] {
                assert!(handle.workflow(&id.into()).await.unwrap().is_none(), "{id}");
            }
            assert_eq!(host.orders().await, 1);
            host.stop().await;
        })
    })
    .await;
}

/// Two services on one database, each with orders of its own: every workflow runs once, wherever.
#[tokio::test(flavor = "multi_thread")]
async fn many_run_once_each_over_two_engines() {
    const ORDERS: usize = 40;
    on_both("two_engines", |host| {
        Box::pin(async move {
            let (other, calls) = runtime(&host.url).await;
            let handles = [host.handle(), other.handle()];
            let mut ids = Vec::new();
            for order in 0..ORDERS {
                let transaction = host.begin().await;
                Host::order(&transaction, &order.to_string()).await;
                // Larger than what is kept in its row.
                let spec = named(&order.to_string()).input("all", "x".repeat(100_000));
                ids.push(handles[order % 2].submit_in(&transaction, spec).await.unwrap());
                transaction.commit().await.unwrap();
            }
            for id in &ids {
                assert_eq!(host.ended(id).await, WorkflowStatus::Completed, "{id}");
            }
            let ran = host.calls.load(Ordering::SeqCst) + calls.load(Ordering::SeqCst);
            assert_eq!(ran, ORDERS as u64);
            other.stop(Duration::from_secs(10)).await;
            host.stop().await;
        })
    })
    .await;
}

/// Where the workflow would land in another database, or in none, nobody would run it.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_elsewhere_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let url = |name: &str| format!("sqlite:{}", folder.path().join(name).display());
    let host = Host::over(&url("a.db")).await;
    let other = Host::over(&url("b.db")).await;
    let in_memory = whole::echo_runtime().await;
    let transaction = other.begin().await;
    for (handle, named_store) in [(host.handle(), "b.db`, and"), (in_memory.handle(), "`memory`")] {
        let refused = handle.submit_in(&transaction, named("1")).await.unwrap_err();
        assert_eq!(refused.code(), ErrorCode::ConfigurationError);
        assert!(refused.to_string().contains(named_store), "{refused}");
    }
    transaction.commit().await.unwrap();
    in_memory.stop(Duration::from_secs(5)).await;
    other.stop().await;
    host.stop().await;
}
