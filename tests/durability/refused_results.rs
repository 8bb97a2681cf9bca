//! A result that the database refuses for what it is: its task fails with the database's words, its
//! workflow goes on, and so does everybody else. On SQLite, and on PostgreSQL where a server answers.

use std::{sync::Arc, time::Duration};

use gleitzeit::{
    Call, Effect, ErrorCode, MethodSpec, ParameterSpec, ProtocolSpec, ProviderSpec, Runtime,
    RuntimeBuilder, Settings, TaskSpec, TaskStatus, WorkflowRecord, WorkflowSpec, WorkflowStatus,
    settings::StoreUrl,
};
use sea_orm::{ConnectionTrait as _, Database};
use serde_json::{Value, json};

#[cfg(feature = "postgres")]
use crate::support::postgres;
use crate::support::whole::within;

/// Beside `give`, which returns its parameter, `bad` and `bad_pure` return this.
fn runtime(url: &StoreUrl, bad: &'static str) -> RuntimeBuilder {
    let settings = format!("storage.url = {:?}", url.expose());
    let method = |name: &str, effect| MethodSpec { effect, ..MethodSpec::new(name) };
    let protocol = ProtocolSpec::new("test", "v1.0".parse().unwrap())
        .method(method("give", Effect::AtLeastOnce).param("value", ParameterSpec::any()))
        .method(method("bad", Effect::AtLeastOnce))
        .method(method("bad_pure", Effect::Pure));
    let answer = move |call: Call| async move {
        match call.method_name() {
            "give" => Ok(call.param("value").cloned().unwrap_or_default()),
            _ => Ok(json!(bad)),
        }
    };
    let provider = ProviderSpec::from_fn("gives", "test/v1.0", answer).unwrap();
    Runtime::builder(Settings::from_toml(&settings).unwrap())
        .without_settings_providers()
        .protocol(protocol)
        .provider(provider)
}

fn returning(id: &str, value: impl Into<Value>) -> TaskSpec {
    TaskSpec::new(id, "test/give").params(json!({"value": value.into()}))
}

fn statuses(record: &WorkflowRecord) -> Vec<TaskStatus> {
    record.tasks.iter().map(|task| task.status).collect()
}

/// `bad` is in no result that this database takes; `words` are what it says of it.
async fn the_task_fails_alone(url: &StoreUrl, bad: &'static str, words: &str) {
    use TaskStatus::{Completed, Failed, UpstreamFailed};

    let started = runtime(url, bad).start().await.unwrap();
    let handle = started.handle();
    let spec = |method: &str| {
        WorkflowSpec::new("w")
            .task(returning("first", 0))
            .task(TaskSpec::new("bad", method).after("first"))
            .task(returning("after", 1).after("bad"))
            .task(returning("beside", 2).after("first"))
    };
    let ends = [Completed, Failed, UpstreamFailed, Completed];
    let others: Vec<_> = (0..20)
        .map(|_| {
            let handle = handle.clone();
            let spec = WorkflowSpec::new("other")
                .task(returning("a", 1))
                .task(returning("b", 2).after("a"));
            tokio::spawn(async move { handle.run(spec).await.unwrap() })
        })
        .collect();
    for method in ["test/bad", "test/bad_pure"] {
        let record = within("its end", handle.run(spec(method))).await.unwrap();
        assert_eq!((record.status, &*statuses(&record)), (WorkflowStatus::Failed, &ends[..]));
        let error = record.tasks[1].error.as_ref().unwrap();
        assert_eq!(error.code, ErrorCode::TaskResultInvalid);
        assert!(error.message.starts_with("the result cannot be stored: "), "{error}");
        assert!(error.message.contains(words), "{error}");
        let stored = handle.workflow(&record.id).await.unwrap().unwrap();
        assert_eq!(statuses(&stored), ends);
    }
    for other in others {
        assert_eq!(within("another", other).await.unwrap().status, WorkflowStatus::Completed);
    }
    started.stop(Duration::from_secs(5)).await;
    // Nothing of it is left for the next start.
    let again = runtime(url, bad).start().await.unwrap();
    assert_eq!(again.recovered().workflows, 0);
    again.stop(Duration::ZERO).await;
}

/// A first task that has no effect may have ended before its workflow is stored.
async fn an_early_result_fails_its_task(url: &StoreUrl, bad: &'static str) {
    let started = runtime(url, bad).start().await.unwrap();
    let many: Vec<_> = (0..50)
        .map(|_| {
            let handle = started.handle();
            let early = TaskSpec::new("bad", "test/bad_pure");
            let spec = WorkflowSpec::new("early").task(early).task(returning("b", 1).after("bad"));
            tokio::spawn(async move { handle.run(spec).await.unwrap() })
        })
        .collect();
    for one in many {
        let record = within("an end", one).await.unwrap();
        assert_eq!(statuses(&record), [TaskStatus::Failed, TaskStatus::UpstreamFailed]);
    }
    started.stop(Duration::from_secs(5)).await;
}

async fn execute(url: &StoreUrl, statement: &str) {
    let db = Database::connect(url.expose()).await.unwrap();
    db.execute_unprepared(statement).await.unwrap();
    db.close().await.unwrap();
}

/// Makes the tables.
async fn make(url: &StoreUrl) {
    let started = runtime(url, "").start().await.unwrap();
    started.stop(Duration::ZERO).await;
}

/// On a file the operator's own rule stands for what SQLite refuses.
#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let url: StoreUrl = format!("sqlite:{}", folder.path().join("a.db").display()).parse().unwrap();
    make(&url).await;
    for on in ["INSERT", "UPDATE"] {
        let rule = format!(
            "CREATE TRIGGER no_{on} BEFORE {on} ON gleitzeit_tasks WHEN NEW.result LIKE '%bad%' \
             BEGIN SELECT RAISE(ABORT, 'no such words'); END"
        );
        execute(&url, &rule).await;
    }
    the_task_fails_alone(&url, "bad", "no such words").await;
    an_early_result_fails_its_task(&url, "bad").await;
}

/// A database in an older encoding has no letter for much of what a task may give.
#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread")]
async fn on_postgres_in_another_encoding() {
    let Some(server) = postgres::Server::reach("refused").await else { return };
    let url = server
        .database_as("ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
        .await;
    the_task_fails_alone(&url, "☃", "has no equivalent in encoding \"LATIN1\"").await;
    an_early_result_fails_its_task(&url, "☃").await;
    server.drop_all().await;
}

/// NUL and odd numbers are no reason to refuse anything.
#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread")]
async fn postgres_takes_what_json_can_say() {
    let Some(server) = postgres::Server::reach("odd_results").await else { return };
    let url = server.database().await;
    let started = runtime(&url, "").start().await.unwrap();
    let odd = json!({"nul\0": "a\0b\u{feff}", "": 1.797_693_134_862_315_7e308, "max": u64::MAX});
    let record =
        started.handle().run(WorkflowSpec::new("odd").task(returning("a", odd.clone()))).await;
    let stored = started.handle().workflow(&record.unwrap().id).await.unwrap().unwrap();
    assert_eq!(stored.tasks[0].result, Some(Arc::new(odd)));
    started.stop(Duration::ZERO).await;
    server.drop_all().await;
}
