//! From one database to another, by a stream of lines.

use std::time::Duration;

use gleitzeit::{
    Runtime, Settings, TaskSpec, TaskStatus, WorkflowRecord, WorkflowSpec, WorkflowStatus,
    providers::echo,
    settings::StoreUrl,
    storage::{
        SqlOptions,
        admin::{self, Exported, ImportError, Imported},
    },
};
use gleitzeit_domain::store::{LeaseStore as _, Store as _, WorkflowChange, conformance::sample};
use serde_json::json;

use super::database::{LONG, TestDatabase, alter, fill, findings, open};

async fn export(url: &StoreUrl) -> String {
    let mut lines = Vec::new();
    let exported = admin::export(url, &mut lines, &mut |it| panic!("{it}")).await.unwrap();
    let text = String::from_utf8(lines).unwrap();
    assert_eq!(text.lines().count() as u64, exported.workflows + 2);
    text
}

/// What was taken in, and what was there already.
async fn import(url: &StoreUrl, text: &str) -> (Result<Imported, ImportError>, Vec<String>) {
    let mut skipped = Vec::new();
    let options = SqlOptions::default();
    let mut skip = |id: &gleitzeit::WorkflowId| skipped.push(id.to_string());
    let imported = admin::import(url, options, &mut text.as_bytes(), &mut skip).await;
    (imported, skipped)
}

fn rest(text: &str) -> &str {
    text.split_once('\n').unwrap().1
}

async fn record(url: &StoreUrl, id: &str) -> WorkflowRecord {
    let store = open(url).await;
    let record = store.workflow(&id.into()).await.unwrap().unwrap();
    store.close(LONG).await.unwrap();
    record
}

/// Nothing is lost, nothing is rounded, and large payloads lie where they belong.
#[tokio::test]
async fn what_is_exported_and_imported_is_the_same() {
    let grounds = TestDatabase::all("same").await;
    let first = grounds[0].empty().await;
    fill(&first).await;
    let original = export(&first).await;
    // To a file and, where there is one, to a server; and from there to a file again.
    for database in &grounds {
        let there = database.empty().await;
        let (imported, skipped) = import(&there, &original).await;
        assert_eq!(imported.unwrap(), Imported { workflows: 4, existed: 0 });
        assert!(skipped.is_empty());
        let again = export(&there).await;
        assert_eq!(rest(&again), rest(&original));
        let back = grounds[0].empty().await;
        import(&back, &again).await.0.unwrap();
        for id in ["done", "open", "large", "between"] {
            assert_eq!(record(&back, id).await, record(&first, id).await, "{id}");
        }
        let (checked, found) = findings(&back).await;
        assert_eq!((found, checked.blobs), (vec![], 2));
    }
    for database in grounds {
        database.leave().await;
    }
}

/// Whoever repeats an import does no harm to what went on meanwhile.
#[tokio::test]
async fn what_is_there_already_stays_as_it_is() {
    for database in TestDatabase::all("stays").await {
        let (from, to) = (database.empty().await, database.empty().await);
        fill(&from).await;
        let text = export(&from).await;
        let store = open(&to).await;
        let other = sample::workflow("open", 1);
        store.submit(vec![other.clone()]).await.unwrap();
        store.close(LONG).await.unwrap();
        let (imported, skipped) = import(&to, &text).await;
        assert_eq!(imported.unwrap(), Imported { workflows: 3, existed: 1 });
        assert_eq!(skipped, ["open"]);
        assert_eq!(record(&to, "open").await, other.record);
        let (imported, skipped) = import(&to, &text).await;
        assert_eq!(imported.unwrap(), Imported { workflows: 0, existed: 4 });
        assert_eq!(skipped.len(), 4);
        database.leave().await;
    }
}

/// A broken line says which it is and what is wrong with it; what stood before it is there.
#[tokio::test]
async fn a_broken_line_is_named_and_what_was_before_it_stays() {
    for database in TestDatabase::all("line").await {
        let from = database.empty().await;
        fill(&from).await;
        let text = export(&from).await;
        let lines: Vec<&str> = text.lines().collect();
        let with = |number: usize, line: &str| {
            let mut lines = lines.clone();
            lines[number - 1] = line;
            lines.join("\n")
        };
        let cut = &lines[2][..lines[2].len() / 2];
        let unsound = lines[1].replacen("\"status\":\"completed\"", "\"status\":\"failed\"", 1);
        let gap = lines[2].replacen("\"last_sequence\":3", "\"last_sequence\":9", 1);
        assert!(unsound != lines[1] && gap != lines[2]);
        let cases = [
            (with(3, cut), 3, ": EOF while parsing", 1),
            (with(3, "{\"workflow\": null}"), 3, "expected `workflow` with `events`, or `end`", 1),
            (with(3, "{\"workfow\": {}}"), 3, "unknown field `workfow`", 1),
            (with(2, &unsound), 2, "workflow `done`: it is failed, and all of its tasks", 0),
            (with(3, &gap), 3, "its last event is 9, and it has 3 events", 1),
            (
                with(
                    1,
                    "{\"gleitzeit_export\":3,\"program\":\"9.0\",\"exported_at\":\"2026-01-01T00:00:00Z\"}",
                ),
                1,
                "is of format 3 (gleitzeit 9.0), and this program reads formats up to 2",
                0,
            ),
            (with(1, lines[1]), 1, "missing field `gleitzeit_export`", 0),
            (lines[..4].join("\n"), 5, "is missing: the export was cut off", 3),
            (
                with(6, "{\"end\":{\"workflows\":7}}"),
                6,
                "says that 7 workflows stand before it, and 4 do",
                4,
            ),
            (String::new(), 0, "the input is empty", 0),
            (format!("{text}{{}}\n"), 7, "follows the last line", 4),
        ];
        for (text, number, message, taken_in) in cases {
            let to = database.empty().await;
            match import(&to, &text).await.0 {
                Err(ImportError::Line { line, what, before }) => {
                    assert_eq!((line, before.workflows), (number, taken_in), "{what}");
                    assert!(what.contains(message), "{what}, and not {message}");
                }
                other => panic!("{message}: {other:?}"),
            }
            if taken_in > 0 {
                assert_eq!(findings(&to).await.0.workflows, taken_in);
            } else if let Some(path) = to.sqlite_path() {
                // A file is made for an export only, not for anything else.
                assert_eq!(path.exists(), number > 1, "{message}");
            }
        }
        database.leave().await;
    }
}

/// One workflow that cannot be read must not keep the others from being saved.
#[tokio::test]
async fn what_cannot_be_read_is_left_out_and_named() {
    for database in TestDatabase::all("left_out").await {
        let url = database.empty().await;
        fill(&url).await;
        alter(&url, &["UPDATE gleitzeit_workflows SET spec = '[' WHERE id = 'open'"]).await;
        alter(
            &url,
            &["DELETE FROM gleitzeit_events WHERE workflow_key = 1 AND first_sequence = 1"],
        )
        .await;
        let (mut lines, mut skipped) = (Vec::new(), Vec::new());
        let exported = admin::export(&url, &mut lines, &mut |it| skipped.push(it)).await.unwrap();
        assert_eq!(exported, Exported { workflows: 2, skipped: 2 });
        let skipped: Vec<_> = skipped.iter().filter_map(|it| it.workflow.as_deref()).collect();
        assert_eq!(skipped, ["done", "open"]);
        let to = database.empty().await;
        let text = String::from_utf8(lines).unwrap();
        assert_eq!(import(&to, &text).await.0.unwrap().workflows, 2);
        database.leave().await;
    }
}

/// What a process was running in one database goes on in the other: what completed is not run
/// again, and what was executing is.
#[tokio::test]
async fn an_imported_workflow_continues_where_it_stood() {
    for database in TestDatabase::all("goes_on").await {
        let (from, to) = (database.empty().await, database.empty().await);
        let store = open(&from).await;
        let lease = store.open_lease("it", Duration::from_mins(1)).await.unwrap();
        let task = |id: &str| TaskSpec::new(id, "echo/echo").params(json!({"text": id}));
        let spec = WorkflowSpec::new("w").id("w").task(task("a")).task(task("b").after("a"));
        let mut new = sample::of_spec("w", spec.task(task("c").after("b")));
        new.epoch = Some(lease.epoch);
        store.submit(vec![new.clone()]).await.unwrap();
        let mut executing = new.record.tasks[1].clone();
        (executing.status, executing.attempts) = (TaskStatus::Executing, 1);
        executing.started_at = Some(sample::at(4));
        let change = WorkflowChange {
            workflow: Some(sample::state(WorkflowStatus::Running)),
            tasks: vec![sample::completed(&new.record.tasks[0], json!("before")), executing],
            events: sample::events(&new.record.id, 2, 3),
            epoch: Some(lease.epoch),
            ..sample::change(&new.record.id, 4)
        };
        store.record(vec![change]).await.unwrap();
        let text = export(&from).await;
        store.close(LONG).await.unwrap();

        import(&to, &text).await.0.unwrap();
        let settings = Settings::from_toml(&format!("storage.url = \"{}\"", to.expose())).unwrap();
        let (echo, calls) = echo::spec_counted("echo");
        let runtime = Runtime::builder(settings).without_settings_providers().provider(echo);
        let runtime = runtime.start().await.unwrap();
        assert_eq!(runtime.recovered().workflows, 1);
        let ended = runtime.handle().wait(&"w".into()).await.unwrap();
        assert_eq!(ended.status, WorkflowStatus::Completed);
        assert_eq!(ended.tasks[0].result.as_deref(), Some(&json!("before")));
        assert_eq!(calls.load(std::sync::atomic::Ordering::SeqCst), 2);
        runtime.stop(LONG).await;
        assert_eq!(findings(&to).await.1, []);
        database.leave().await;
    }
}
