//! The store in a SQLite file: the rules of every store, and what is its own.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use chrono::DateTime;
use futures_util::{
    StreamExt as _,
    future::{join_all, try_join_all},
};
use gleitzeit::{
    settings::{Durability, StoreUrl},
    storage::{ReadOnlyStore, SqlOptions, SqlStore},
};
use gleitzeit_domain::{
    needs::Offer,
    store::{
        LeaseStore as _, ListFilter, NewWorkflow, Store, StoreError, Submitted, WorkflowChange,
        conformance::{self, sample},
    },
    workflow::WorkflowStatus,
};
use sea_orm::{ConnectionTrait as _, Database, DatabaseConnection};
use serde_json::{Value, json};
use tempfile::TempDir;

const LONG: Duration = Duration::from_secs(30);

fn url(folder: &TempDir, name: &str) -> StoreUrl {
    format!("sqlite:{}/{name}", folder.path().display()).parse().unwrap()
}

async fn open(url: &StoreUrl) -> SqlStore {
    SqlStore::connect(url, SqlOptions::default()).await.unwrap()
}

/// A look at the file past the store.
async fn raw_connection(url: &StoreUrl) -> DatabaseConnection {
    Database::connect(format!("{}?mode=rw", url.expose())).await.unwrap()
}

async fn number(db: &DatabaseConnection, sql: &str) -> i64 {
    let statement = sea_orm::Statement::from_string(sea_orm::DbBackend::Sqlite, sql);
    db.query_one_raw(statement).await.unwrap().unwrap().try_get_by_index(0).unwrap()
}

/// Whatever the engine relies on, it gets from SQLite.
#[tokio::test]
async fn sqlite_does_what_a_store_must() {
    for durability in [Durability::Full, Durability::Normal] {
        let folder = TempDir::new().unwrap();
        let number = AtomicUsize::new(0);
        let broken = conformance::check(|| async {
            let name = format!("{}.db", number.fetch_add(1, Ordering::Relaxed));
            let options = SqlOptions { durability, ..SqlOptions::default() };
            let store = SqlStore::connect(&url(&folder, &name), options).await.unwrap();
            Arc::new(store) as Arc<dyn Store>
        })
        .await;
        assert!(broken.is_empty(), "{durability}: {broken:#?}");
    }
}

/// A first start must need no preparation, and a stop must leave one file that can be copied.
#[tokio::test]
async fn a_file_is_made_with_its_folder_and_left_whole() {
    let folder = TempDir::new().unwrap();
    let url = url(&folder, "deep/er/'odd' name%.db");
    let store = open(&url).await;
    store.submit(vec![sample::workflow("a", 1)]).await.unwrap();
    assert!(folder.path().join("deep/er/'odd' name%.db").exists());
    assert!(folder.path().join("deep/er/'odd' name%.db-wal").exists());
    store.close(LONG).await.unwrap();
    assert!(
        !folder.path().join("deep/er/'odd' name%.db-wal").exists(),
        "a closed store has let go of its file"
    );
}

/// What was acknowledged is there after a restart, and what was queued is not lost by closing.
#[tokio::test]
async fn closing_writes_what_was_asked_before() {
    let folder = TempDir::new().unwrap();
    let url = url(&folder, "a.db");
    let store = open(&url).await;
    let asked =
        (0..100).map(|number| store.submit(vec![sample::workflow(&format!("w{number:02}"), 3)]));
    // The submissions are polled first: all are asked, and none is answered, when closing begins.
    let (answers, closed) = tokio::join!(join_all(asked), store.close(LONG));
    assert_eq!(closed, Ok(()));
    assert!(answers.iter().all(|answer| *answer == Ok(vec![Submitted::Created])), "{answers:?}");
    let again = open(&url).await;
    let found = again.unsettled().await.unwrap();
    assert_eq!(found.len(), 100);
    let first = found.iter().find(|record| record.id.as_str() == "w00").unwrap();
    assert_eq!(*first, sample::workflow("w00", 3).record);
}

/// The gain of group commit, without which every task would cost a flush.
#[tokio::test]
async fn calls_at_once_share_a_commit_and_a_lone_one_waits_for_nobody() {
    let folder = TempDir::new().unwrap();
    let store = open(&url(&folder, "a.db")).await;
    let before = store.commits();
    let calls =
        (0..500).map(|number| store.submit(vec![sample::workflow(&format!("w{number}"), 1)]));
    try_join_all(calls).await.unwrap();
    let commits = store.commits() - before;
    assert!(commits <= 20, "500 calls at once took {commits} commits");
    let before = store.commits();
    for number in 0..10 {
        store.record(vec![sample::change(&format!("w{number}").into(), 2)]).await.unwrap();
    }
    assert_eq!(store.commits() - before, 10, "one at a time");
}

/// One submission that the database refuses must not take its neighbours down.
#[tokio::test]
async fn only_the_call_that_is_refused_fails() {
    let folder = TempDir::new().unwrap();
    let url = url(&folder, "a.db");
    let store = open(&url).await;
    let db = raw_connection(&url).await;
    let trigger = "CREATE TRIGGER refuse BEFORE INSERT ON gleitzeit_workflows
        WHEN NEW.id = 'bad' BEGIN SELECT RAISE(ABORT, 'not this one'); END";
    db.execute_unprepared(trigger).await.unwrap();
    let ids = ["a", "b", "bad", "c", "d"];
    let answers = join_all(ids.map(|id| store.submit(vec![sample::workflow(id, 1)]))).await;
    for (id, answer) in ids.iter().zip(&answers) {
        match answer {
            Ok(created) => assert_eq!((*created).as_slice(), [Submitted::Created], "{id}"),
            Err(StoreError::Refused { detail }) => {
                assert!(*id == "bad" && detail.contains("not this one"), "{id}: {detail}");
            }
            other => panic!("{id}: {other:?}"),
        }
    }
    assert!(answers[2].is_err());
    assert_eq!(store.unsettled().await.unwrap().len(), 4);
}

/// Stored, it could never be read again, and would keep the runtime from starting.
#[tokio::test]
async fn what_could_not_be_read_back_is_refused() {
    let folder = TempDir::new().unwrap();
    let store = open(&url(&folder, "a.db")).await;
    let (good, bad) = (sample::workflow("good", 1), sample::workflow("bad", 1));
    store.submit(vec![good.clone(), bad.clone()]).await.unwrap();
    let deep = (0..200).fold(json!(0), |inner, _| json!([inner]));
    let outcome = |new: &gleitzeit_domain::store::NewWorkflow, result| WorkflowChange {
        tasks: vec![sample::completed(&new.record.tasks[0], result)],
        ..sample::change(&new.record.id, 1)
    };
    let (refused, written) = tokio::join!(
        store.record(vec![outcome(&bad, deep)]),
        store.record(vec![outcome(&good, json!(1))])
    );
    assert!(matches!(refused, Err(StoreError::Integrity { .. })), "{refused:?}");
    assert_eq!(written, Ok(()));
    assert_eq!(store.workflow(&"bad".into()).await.unwrap(), Some(bad.record));
}

/// Two programs that start at the same moment find an empty folder.
#[tokio::test(flavor = "multi_thread")]
async fn stores_opened_at_once_bring_up_the_schema_once() {
    for _ in 0..5 {
        let folder = TempDir::new().unwrap();
        let url = url(&folder, "a.db");
        let opened: Vec<_> = (0..8)
            .map(|number| {
                let url = url.clone();
                tokio::spawn(async move {
                    let store = open(&url).await;
                    let new = sample::workflow(&format!("w{number}"), 1);
                    let same = sample::workflow("same", 1);
                    store.submit(vec![new, same]).await.unwrap()
                })
            })
            .collect();
        let answers: Vec<_> =
            join_all(opened).await.into_iter().map(|answer| answer.unwrap()).collect();
        assert!(answers.iter().all(|answer| answer[0] == Submitted::Created));
        let same = answers.iter().filter(|answer| answer[1] == Submitted::Created).count();
        assert_eq!(same, 1, "those that created the workflow that all submitted");
        assert_eq!(open(&url).await.unsettled().await.unwrap().len(), 9);
    }
}

/// Running on, an older program would break what it does not know.
#[tokio::test]
async fn a_database_of_a_newer_program_is_refused() {
    let folder = TempDir::new().unwrap();
    let url = url(&folder, "a.db");
    open(&url).await.close(LONG).await.unwrap();
    let db = raw_connection(&url).await;
    let newer = "INSERT INTO gleitzeit_migrations VALUES ('m29990101_000001_future', 0)";
    db.execute_unprepared(newer).await.unwrap();
    match SqlStore::connect(&url, SqlOptions::default()).await {
        Err(error @ StoreError::Open { .. }) => {
            assert!(!error.is_transient());
            assert!(error.to_string().contains("m29990101_000001_future"), "{error}");
        }
        other => panic!("{other:?}"),
    }
}

/// The message is all that a person has to go by.
#[tokio::test]
async fn a_file_that_cannot_be_opened_is_named() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("text.db"), "this is no database, ".repeat(100)).unwrap();
    std::fs::create_dir(folder.path().join("folder.db")).unwrap();
    for name in ["text.db", "folder.db", "text.db/below.db"] {
        let error =
            SqlStore::connect(&url(&folder, name), SqlOptions::default()).await.unwrap_err();
        let parent = name.rsplit_once('/').map_or(name, |(parent, _)| parent);
        assert!(error.to_string().contains(parent), "{error}");
    }
}

/// While another program holds the file, writes are refused and reads go on; nothing is lost.
#[tokio::test]
async fn a_locked_file_refuses_writes_until_it_is_free() {
    let folder = TempDir::new().unwrap();
    let url = url(&folder, "a.db");
    let store = open(&url).await;
    store.submit(vec![sample::workflow("before", 1)]).await.unwrap();
    let db = raw_connection(&url).await;
    db.execute_unprepared("BEGIN IMMEDIATE").await.unwrap();
    let refused = store.submit(vec![sample::workflow("meanwhile", 1)]).await;
    match refused {
        Err(error @ StoreError::Unavailable { .. }) => assert!(error.is_transient()),
        other => panic!("{other:?}"),
    }
    assert!(store.workflow(&"before".into()).await.unwrap().is_some(), "reads go on");
    db.execute_unprepared("ROLLBACK").await.unwrap();
    let again = store.submit(vec![sample::workflow("meanwhile", 1)]).await;
    assert_eq!(again, Ok(vec![Submitted::Created]));
    assert_eq!(store.unsettled().await.unwrap().len(), 2);
}

/// A table that only grows ends a service that runs for months.
#[tokio::test]
async fn pruning_leaves_no_rows_behind() {
    let folder = TempDir::new().unwrap();
    let url = url(&folder, "a.db");
    let store = open(&url).await;
    let large = json!("x".repeat(100_000));
    // More than one batch of workflows, and one workflow with more tasks than a batch.
    let mut workflows: Vec<_> =
        (0..300).map(|number| sample::workflow(&format!("w{number}"), 1)).collect();
    workflows.push(sample::workflow("wide", 6_000));
    store.submit(workflows.clone()).await.unwrap();
    let changes = workflows.iter().map(|new| WorkflowChange {
        tasks: new.record.tasks.iter().map(|task| sample::completed(task, large.clone())).collect(),
        events: sample::events(&new.record.id, 2, 1),
        last_sequence: 2,
        ..sample::settles(new, WorkflowStatus::Completed, sample::at(5))
    });
    store.record(changes.collect()).await.unwrap();
    let db = raw_connection(&url).await;
    // The large spec, and the result that all tasks share.
    assert_eq!(number(&db, "SELECT COUNT(*) FROM gleitzeit_blobs").await, 2);
    assert_eq!(number(&db, "SELECT COUNT(*) FROM gleitzeit_tasks").await, 6_300);
    assert_eq!(store.prune(sample::at(6), usize::MAX).await, Ok(301));
    for table in ["workflows", "tasks", "events", "blobs"] {
        let left = number(&db, &format!("SELECT COUNT(*) FROM gleitzeit_{table}")).await;
        assert_eq!(left, 0, "rows left in {table}");
    }
}

/// A task that waits is what its workflow says: it needs no row of its own until it has an outcome.
#[tokio::test]
async fn a_task_is_written_once() {
    let folder = TempDir::new().unwrap();
    let url = url(&folder, "a.db");
    let store = open(&url).await;
    let new = sample::workflow("a", 1_000);
    store.submit(vec![new.clone()]).await.unwrap();
    let db = raw_connection(&url).await;
    assert_eq!(number(&db, "SELECT COUNT(*) FROM gleitzeit_tasks").await, 0);
    let outcome = WorkflowChange {
        tasks: vec![sample::completed(&new.record.tasks[500], Value::Null)],
        ..sample::change(&new.record.id, 1)
    };
    store.record(vec![outcome]).await.unwrap();
    assert_eq!(number(&db, "SELECT COUNT(*) FROM gleitzeit_tasks").await, 1);
}

/// What the runtime does when its system stops: a runtime dropped there would panic.
#[test]
fn a_store_is_used_closed_and_dropped_inside_an_actix_system() {
    let folder = TempDir::new().unwrap();
    let url = url(&folder, "a.db");
    actix::System::new().block_on(async {
        let dropped = open(&url).await;
        dropped.submit(vec![sample::workflow("a", 1)]).await.unwrap();
        drop(dropped);
        let closed = open(&url).await;
        assert_eq!(closed.unsettled().await.unwrap().len(), 1);
        closed.close(LONG).await.unwrap();
        drop(closed);
        // A call that nobody waits for any more is done all the same.
        let store = Arc::new(open(&url).await);
        let asking = Arc::clone(&store);
        let call = actix::spawn(async move { asking.submit(vec![sample::workflow("b", 1)]).await });
        tokio::task::yield_now().await;
        call.abort();
        store.close(LONG).await.unwrap();
        assert_eq!(open(&url).await.unsettled().await.unwrap().len(), 2);
    });
}

/// Recovery must not hand out a record that is half of one moment and half of another.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_sees_one_moment() {
    let folder = TempDir::new().unwrap();
    let store = Arc::new(open(&url(&folder, "a.db")).await);
    let new = sample::workflow("a", 300);
    let id = new.record.id.clone();
    let tasks = new.record.tasks.clone();
    store.submit(vec![new]).await.unwrap();
    let writer = Arc::clone(&store);
    let writing = tokio::spawn(async move {
        for task in &tasks {
            let sequence = u64::from(task.index) + 2;
            let step = WorkflowChange {
                tasks: vec![sample::completed(task, json!(task.index))],
                events: sample::events(&"a".into(), sequence, 1),
                ..sample::change(&"a".into(), sequence)
            };
            writer.record(vec![step]).await.unwrap();
        }
    });
    let mut last = 1;
    while last < 301 {
        let record = store.workflow(&id).await.unwrap().unwrap();
        let done = record.tasks.iter().filter(|task| task.status.is_settled()).count() as u64;
        assert_eq!(record.last_sequence, done + 1, "tasks and events of different moments");
        assert!(record.last_sequence >= last, "time runs backwards");
        last = record.last_sequence;
    }
    writing.await.unwrap();
}

/// Times finer than a microsecond are cut, not rounded into the future.
#[tokio::test]
async fn times_are_kept_to_the_microsecond() {
    let folder = TempDir::new().unwrap();
    let store = open(&url(&folder, "a.db")).await;
    let mut new = sample::workflow("a", 1);
    new.record.created_at = DateTime::from_timestamp_nanos(1_767_225_600_123_456_789);
    store.submit(vec![new]).await.unwrap();
    let listed = store.list(ListFilter::default()).await.unwrap();
    let expected = DateTime::from_timestamp_nanos(1_767_225_600_123_456_000);
    assert_eq!(listed[0].created_at, expected);
}

/// Prompts, inputs and results are in them, and whoever may open one may also lock it and hold up
/// those who write.
#[cfg(unix)]
#[tokio::test]
async fn the_files_of_a_database_are_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = TempDir::new().unwrap();
    let store = open(&url(&folder, "a.db")).await;
    store.open_lease("me", LONG).await.unwrap();
    store.submit(vec![sample::workflow("a", 1)]).await.unwrap();
    let mut names = Vec::new();
    for entry in folder.path().read_dir().unwrap() {
        let entry = entry.unwrap();
        names.push(entry.file_name().into_string().unwrap());
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{names:?}");
    }
    names.sort();
    assert_eq!(names, ["a.db", "a.db-leases", "a.db-shm", "a.db-wal"]);
}

/// What is written to a file that nobody finds any more is lost: it must not be acknowledged.
#[cfg(unix)]
#[tokio::test]
async fn a_database_that_is_gone_takes_nothing_more() {
    use std::fs::{copy, hard_link, remove_file, rename};

    type Change = fn(&std::path::Path);
    let changes: [(&str, Change); 5] = [
        ("removed", |path| remove_file(path).unwrap()),
        ("renamed", |path| rename(path, path.with_extension("old")).unwrap()),
        ("replaced", |path| {
            copy(path, path.with_extension("new")).unwrap();
            rename(path.with_extension("new"), path).unwrap();
        }),
        ("hard link", |path| hard_link(path, path.with_extension("2")).unwrap()),
        ("a.db-leases", |path| remove_file(path.with_extension("db-leases")).unwrap()),
    ];
    for (what, change) in changes {
        let folder = TempDir::new().unwrap();
        let store = open(&url(&folder, "a.db")).await;
        let epoch = store.open_lease("me", LONG).await.unwrap().epoch;
        let new = |id| NewWorkflow { epoch: Some(epoch), ..sample::workflow(id, 1) };
        store.submit(vec![new("before")]).await.unwrap();
        change(&folder.path().join("a.db"));
        let refused = store.submit(vec![new("after")]).await.unwrap_err();
        assert!(matches!(refused, StoreError::Gone { .. }), "{what}: {refused:?}");
        assert!(refused.to_string().contains(what), "{what}: {refused}");
        assert!(!refused.is_transient(), "to try again is of no use");
        let lost_error = tokio::time::timeout(LONG, store.lost()).await.unwrap();
        assert_eq!(lost_error, refused, "a runtime hears of it");
        assert_eq!(store.record(vec![sample::change(&"before".into(), 2)]).await, Err(refused));
        store.close(LONG).await.unwrap();
    }
}

/// An engine without work writes nothing, and must not wait for ever for what is written elsewhere.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn who_only_listens_notices_that_the_database_is_gone() {
    let folder = TempDir::new().unwrap();
    let store = open(&url(&folder, "a.db")).await;
    let mut notifications = store.notifications();
    notifications.next().await.unwrap();
    std::fs::rename(folder.path().join("a.db"), folder.path().join("b.db")).unwrap();
    let lost_error = tokio::time::timeout(LONG, store.lost()).await.unwrap();
    assert!(matches!(lost_error, StoreError::Gone { .. }), "{lost_error:?}");
}

/// Two names have two logs, and destroy what they name.
#[cfg(unix)]
#[tokio::test]
async fn a_database_of_two_names_is_refused() {
    let folder = TempDir::new().unwrap();
    open(&url(&folder, "a.db")).await.close(LONG).await.unwrap();
    std::fs::hard_link(folder.path().join("a.db"), folder.path().join("b.db")).unwrap();
    for name in ["a.db", "b.db"] {
        let error =
            SqlStore::connect(&url(&folder, name), SqlOptions::default()).await.unwrap_err();
        assert!(matches!(error, StoreError::Open { .. }), "{error:?}");
        assert!(error.to_string().contains("2 names"), "{error}");
    }
}

/// One broken row must not keep all the others from being seen and run.
#[tokio::test]
async fn a_broken_row_is_left_out() {
    let breaks = [
        "UPDATE gleitzeit_workflows SET spec = '{' WHERE id = 'bad'",
        "UPDATE gleitzeit_workflows SET status = 'running', started_at = 9223372036854775807 \
         WHERE id = 'bad'",
        "UPDATE gleitzeit_workflows SET task_count = 4000000000 WHERE id = 'bad'",
        "UPDATE gleitzeit_workflows SET name = CAST(x'ff' AS TEXT) WHERE id = 'bad'",
        "UPDATE gleitzeit_workflows SET last_sequence = 9223372036854775807 WHERE id = 'bad'",
        "UPDATE gleitzeit_events SET event_count = 9223372036854775807, first_sequence = 2 \
         WHERE workflow_key = (SELECT key FROM gleitzeit_workflows WHERE id = 'bad')",
        "UPDATE gleitzeit_tasks SET status = 'odd' WHERE workflow_key = \
         (SELECT key FROM gleitzeit_workflows WHERE id = 'bad')",
        "UPDATE gleitzeit_tasks SET result = CAST(x'ff' AS TEXT) WHERE workflow_key = \
         (SELECT key FROM gleitzeit_workflows WHERE id = 'bad')",
    ];
    for sql in breaks {
        let folder = TempDir::new().unwrap();
        let url = url(&folder, "a.db");
        let store = open(&url).await;
        let (good, bad, last) =
            (sample::workflow("good", 1), sample::workflow("bad", 2), sample::workflow("last", 1));
        store.submit(vec![good.clone(), bad.clone(), last.clone()]).await.unwrap();
        let outcome = WorkflowChange {
            tasks: vec![sample::completed(&bad.record.tasks[0], json!(1))],
            ..sample::change(&bad.record.id, 1)
        };
        store.record(vec![outcome]).await.unwrap();
        raw_connection(&url).await.execute_unprepared(sql).await.unwrap();
        let others = vec![good.record.clone(), last.record.clone()];
        assert_eq!(store.unsettled().await.unwrap(), others, "{sql}");
        let listed = store.list(ListFilter::default()).await.unwrap();
        assert!(listed.iter().any(|it| it.id.as_str() == "good"), "{sql}: {listed:?}");
        let epoch = store.open_lease("me", LONG).await.unwrap().epoch;
        let claimed = store.claim(epoch, 10, &Offer::everything()).await.unwrap();
        let taken: Vec<_> = claimed.workflows.into_iter().map(|it| it.record).collect();
        assert_eq!((taken, claimed.more), (others, false), "{sql}");
        let alone = store.workflow(&"bad".into()).await.unwrap_err();
        assert!(!matches!(alone, StoreError::Unavailable { .. }), "{sql}: {alone:?}");
        let end = WorkflowChange {
            epoch: Some(epoch),
            ..sample::settles(&last, WorkflowStatus::Completed, sample::at(5))
        };
        store.record(vec![end]).await.unwrap();
        let ended = store.workflow(&"last".into()).await.unwrap().unwrap();
        assert_eq!(ended.status, WorkflowStatus::Completed, "{sql}");
    }
}

/// Whoever looks must not change what he looks at, nor wait for whoever writes.
#[tokio::test]
async fn a_read_only_store_makes_nothing_and_waits_for_nobody() {
    let folder = TempDir::new().unwrap();
    let url = url(&folder, "a.db");
    let options = SqlOptions::default();
    assert!(ReadOnlyStore::open(&url, options).await.unwrap().is_none());
    assert_eq!(folder.path().read_dir().unwrap().count(), 0, "nothing was made");
    let store = open(&url).await;
    store.submit(vec![sample::workflow("a", 1)]).await.unwrap();
    let db = raw_connection(&url).await;
    db.execute_unprepared("BEGIN IMMEDIATE").await.unwrap();
    let reader = ReadOnlyStore::open(&url, options).await.unwrap().unwrap();
    assert_eq!(reader.list(ListFilter::default()).await.unwrap().len(), 1);
    assert!(reader.workflow(&"a".into()).await.unwrap().is_some());
    assert_eq!(reader.events(&"a".into(), 0, 10).await.unwrap().len(), 1);
    let refused = reader.submit(vec![sample::workflow("b", 1)]).await;
    assert!(matches!(refused, Err(StoreError::Write { .. })), "{refused:?}");
    reader.close(LONG).await.unwrap();
    db.execute_unprepared("ROLLBACK").await.unwrap();
    let older = "DELETE FROM gleitzeit_migrations WHERE version LIKE '%_epochs'";
    db.execute_unprepared(older).await.unwrap();
    let steps = "SELECT COUNT(*) FROM gleitzeit_migrations";
    let left = number(&db, steps).await;
    let error = ReadOnlyStore::open(&url, options).await.unwrap_err();
    assert!(error.to_string().contains("gleitzeit db migrate"), "{error}");
    assert_eq!(number(&db, steps).await, left, "a look has brought the schema up to date");
    let none = SqlOptions { auto_migrate: false, ..options };
    let error = SqlStore::connect(&url, none).await.unwrap_err();
    assert!(error.to_string().contains("gleitzeit db migrate"), "{error}");
}
