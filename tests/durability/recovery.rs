//! A process that is killed in the middle of its work: the next one goes on, loses nothing that was
//! accepted, and runs nothing again that had completed.
//!
//! What was run is not reported by gleitzeit itself, but by a file to which each call appends a line.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use gleitzeit::{
    Call, Effect, Handle, MethodSpec, ProtocolSpec, ProviderSpec, Runtime, RuntimeBuilder,
    Settings, Store as _, TaskSpec, TaskStatus, WorkflowSpec, WorkflowStatus,
    settings::StoreUrl,
    storage::{SqlOptions, SqlStore},
};
use serde_json::json;

use crate::support::child::{Process, arguments, say};
use crate::support::whole::{check_events, event_types, within};

const WORKFLOWS: usize = 6;
/// Between the first and the last task of each workflow.
const WIDTH: usize = 10;

/// `journal/v1.0`: each method appends a line, and differs in what a second run would mean. `hold`
/// waits for ever in a process that is to be killed.
fn protocol() -> ProtocolSpec {
    let method = |name: &str, effect| MethodSpec { effect, ..MethodSpec::new(name) };
    ProtocolSpec::new("journal", "v1.0".parse().unwrap())
        .method(method("append", Effect::AtLeastOnce))
        .method(method("hold", Effect::AtLeastOnce))
        .method(method("hold_once", Effect::AtMostOnce))
}

/// Whether this process is the one to be killed.
#[derive(Clone, Copy, PartialEq)]
enum Life {
    Doomed,
    Last,
}

fn provider(file: PathBuf, life: Life) -> ProviderSpec {
    let run = move |call: Call| {
        let name = format!("{}/{}", call.workflow_id, call.task_id);
        // The line is in the file, whatever becomes of the process.
        let mut journal = OpenOptions::new().create(true).append(true).open(&file).unwrap();
        journal.write_all(format!("{name}\n").as_bytes()).unwrap();
        journal.sync_all().unwrap();
        if life == Life::Doomed {
            say(&format!("runs {name}"));
        }
        let holds = life == Life::Doomed && call.method_name() != "append";
        async move {
            if holds {
                std::future::pending::<()>().await;
            }
            Ok(json!({ "wrote": name }))
        }
    };
    ProviderSpec::from_fn("journal", "journal/v1.0", run).unwrap()
}

fn builder(store: &str, folder: &Path, life: Life) -> RuntimeBuilder {
    let text = format!("storage.url = \"{store}\"\nengine.max_concurrent_tasks = 4");
    Runtime::builder(Settings::from_toml(&text).unwrap())
        .without_settings_providers()
        .protocol(protocol())
        .provider(provider(folder.join("journal"), life))
}

/// How often each task was run, by `workflow/task`.
fn executions(folder: &Path) -> BTreeMap<String, usize> {
    let journal = fs::read_to_string(folder.join("journal")).unwrap_or_default();
    let mut counts = BTreeMap::new();
    for line in journal.lines() {
        *counts.entry(line.to_owned()).or_default() += 1;
    }
    counts
}

/// A first task, [`WIDTH`] that need it, and one that refers to all of them.
fn fan(number: usize) -> WorkflowSpec {
    let first = TaskSpec::new("first", "journal/append");
    let spread =
        (0..WIDTH).map(|n| TaskSpec::new(format!("t{n}"), "journal/append").after("first"));
    let last = TaskSpec::new("last", "journal/append");
    let last = (0..WIDTH).fold(last, |last, n| last.after(format!("t{n}")));
    let spec = WorkflowSpec::new("fan").id(format!("w{number}"));
    std::iter::once(first).chain(spread).chain([last]).fold(spec, WorkflowSpec::task)
}

/// The life of a process that is to be killed: submits everything, and waits for its end.
#[tokio::main]
async fn doomed(store: &str, folder: &Path, workflows: Vec<WorkflowSpec>) {
    let runtime = builder(store, folder, Life::Doomed).start().await.unwrap();
    let mut ids = Vec::new();
    for workflow in workflows {
        // Those that an earlier process submitted are not run again.
        let id = runtime.handle().submit(workflow).await.unwrap();
        say(&format!("accepted {id}"));
        ids.push(id);
    }
    for id in ids {
        runtime.handle().wait(&id).await.unwrap();
    }
    say("ended");
}

/// When a process is killed.
#[derive(Debug, Clone, Copy)]
enum Point {
    /// When it was told that so many workflows were accepted.
    Accepted(usize),
    /// When so many calls have begun.
    Running(usize),
}

/// Runs the test `name` as a process and kills it at `point`; the ids that it got.
fn killed(name: &str, store: &str, folder: &Path, point: Point) -> BTreeSet<String> {
    let mut process = Process::start(name, store, folder);
    let mut accepted = BTreeSet::new();
    let mut running = 0;
    loop {
        let line = process.says().unwrap_or_else(|| panic!("it ended before {point:?}"));
        match line.split_once(' ') {
            Some(("accepted", id)) => drop(accepted.insert(id.to_owned())),
            Some(("runs", _)) => running += 1,
            _ => panic!("`{line}` before {point:?}"),
        }
        let reached = match point {
            Point::Accepted(count) => accepted.len() >= count,
            Point::Running(count) => running >= count,
        };
        if reached {
            process.kill();
            return accepted;
        }
    }
}

/// The tasks whose completion is stored, by `workflow/task`, and how many workflows are not settled.
async fn stored(store: &str) -> (BTreeSet<String>, u64) {
    let url: StoreUrl = store.parse().unwrap();
    let store = SqlStore::connect(&url, SqlOptions::default()).await.unwrap();
    let mut completed = BTreeSet::new();
    for number in 0..WORKFLOWS {
        let Some(record) = store.workflow(&format!("w{number}").into()).await.unwrap() else {
            continue;
        };
        let done = record.tasks.iter().filter(|task| task.status == TaskStatus::Completed);
        completed.extend(done.map(|task| format!("{}/{}", record.id, task.id)));
    }
    let unsettled = store.unsettled().await.unwrap().len() as u64;
    store.close(Duration::from_secs(30)).await.unwrap();
    (completed, unsettled)
}

/// A workflow ended well, and its events are numbered through over all its lives.
async fn check_ended(handle: &Handle, id: &str) {
    let ended = within(id, handle.wait(&id.into())).await.unwrap();
    assert_eq!(ended.status, WorkflowStatus::Completed, "{id}: {:?}", ended.error);
    assert!(ended.tasks.iter().all(|task| task.status == TaskStatus::Completed), "{id}");
    let events = handle.events(&id.into(), 0, 1_000).await.unwrap();
    check_events(&events);
    assert_eq!(events.len() as u64, ended.last_sequence, "{id}");
}

/// Kills a process at each of `points`, one after the other on the same store, then goes on here.
fn survives(name: &str, store: &str, folder: &Path, points: &[Point]) {
    let waiter = tokio::runtime::Runtime::new().unwrap();
    let mut accepted = BTreeSet::new();
    let mut counted = BTreeMap::new();
    for point in points {
        accepted.extend(killed(name, store, folder, *point));
        // What one life found completed, none of the later ones runs.
        let (completed, _) = waiter.block_on(stored(store));
        let now = executions(folder);
        // With at most four calls at once, most of those that began have ended.
        if let Point::Running(calls @ 30..) = point {
            assert!(completed.len() >= calls / 4, "{point:?}: {} completed", completed.len());
        }
        counted.extend(completed.into_iter().map(|task| (task.clone(), now[&task])));
    }
    waiter.block_on(async {
        let (_, unsettled) = stored(store).await;
        let runtime = builder(store, folder, Life::Last).start().await.unwrap();
        assert_eq!(runtime.recovered().workflows, unsettled, "{points:?}");
        for id in &accepted {
            check_ended(&runtime.handle(), id).await;
        }
        runtime.stop(Duration::from_secs(30)).await;
    });
    let runs = executions(folder);
    for (task, count) in counted {
        assert_eq!(runs[&task], count, "{task} had completed before a kill: {points:?}");
    }
    for id in &accepted {
        let tasks: Vec<usize> = runs
            .iter()
            .filter_map(|(task, runs)| {
                task.strip_prefix(id.as_str())?.starts_with('/').then_some(*runs)
            })
            .collect();
        assert_eq!(tasks.len(), WIDTH + 2, "{id}: every task has run: {points:?}");
        // Once in each life at most.
        assert!(tasks.iter().all(|runs| *runs <= points.len() + 1), "{id}: {runs:?}");
    }
}

fn fans() -> Vec<WorkflowSpec> {
    (0..WORKFLOWS).map(fan).collect()
}

/// The points of a single kill: right after the first answer, early, in the middle, near the end.
const POINTS: [Point; 7] = [
    Point::Accepted(1),
    Point::Accepted(WORKFLOWS),
    Point::Running(1),
    Point::Running(10),
    Point::Running(30),
    Point::Running(55),
    Point::Running(WORKFLOWS * (WIDTH + 2) - 1),
];

/// Whatever the moment of the kill, nothing is lost and nothing that completed runs twice.
#[test]
fn a_killed_process_is_continued_by_the_next_one() {
    if let Some((store, folder)) = arguments() {
        return doomed(&store, &folder, fans());
    }
    for point in POINTS {
        let folder = tempfile::tempdir().unwrap();
        let store = format!("sqlite:{}", folder.path().join("g.db").display());
        let name = "recovery::a_killed_process_is_continued_by_the_next_one";
        survives(name, &store, folder.path(), &[point]);
    }
}

/// A machine that goes down again while it recovers loses nothing either.
#[test]
fn a_process_that_is_killed_again_and_again_gets_done() {
    if let Some((store, folder)) = arguments() {
        return doomed(&store, &folder, fans());
    }
    let folder = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", folder.path().join("g.db").display());
    let name = "recovery::a_process_that_is_killed_again_and_again_gets_done";
    // A life that is killed at its second call has completed one or none.
    let points = [Point::Running(8), Point::Running(2), Point::Running(15), Point::Running(2)];
    survives(name, &store, folder.path(), &points);
}

/// The same on a server, which sees a connection that is cut.
#[cfg(feature = "postgres")]
#[test]
fn a_killed_process_is_continued_from_a_server() {
    use sea_orm::{ConnectionTrait as _, Database};

    if let Some((store, folder)) = arguments() {
        return doomed(&store, &folder, fans());
    }
    let name = "recovery::a_killed_process_is_continued_from_a_server";
    let url = std::env::var("GLEITZEIT_TEST_POSTGRES")
        .unwrap_or_else(|_| "postgres://postgres@127.0.0.1:5432/postgres".into());
    let waiter = tokio::runtime::Runtime::new().unwrap();
    let server = match waiter.block_on(Database::connect(&url)) {
        Ok(server) => server,
        Err(error) => return println!("SKIPPED: {name}: no PostgreSQL ({error})"),
    };
    let sql = |sql: String| waiter.block_on(server.execute_unprepared(&sql)).unwrap();
    for (number, point) in [POINTS[1], POINTS[3], POINTS[5]].into_iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        let database = format!("gleitzeit_recovery_{}_{number}", std::process::id());
        sql(format!("CREATE DATABASE {database}"));
        let store = format!("{}/{database}", url.rsplit_once('/').unwrap().0);
        survives(name, &store, folder.path(), &[point]);
        sql(format!("DROP DATABASE {database} WITH (FORCE)"));
    }
}

/// A task that was cut short in the middle runs again, unless that must not be: then a person has
/// to say what became of it.
#[test]
fn a_call_that_must_not_run_twice_waits_for_a_person() {
    let workflow = |id: &str, method: &str| {
        WorkflowSpec::new("w")
            .id(id)
            .task(TaskSpec::new("before", "journal/append"))
            .task(TaskSpec::new("middle", method).after("before"))
            .task(TaskSpec::new("after", "journal/append").after("middle"))
    };
    if let Some((store, folder)) = arguments() {
        let both = ["again", "once"].map(|id| {
            workflow(id, if id == "once" { "journal/hold_once" } else { "journal/hold" })
        });
        return doomed(&store, &folder, both.into());
    }
    let folder = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", folder.path().join("g.db").display());
    let name = "recovery::a_call_that_must_not_run_twice_waits_for_a_person";
    // Both workflows have begun their second task: they get no further.
    killed(name, &store, folder.path(), Point::Running(4));
    tokio::runtime::Runtime::new().unwrap().block_on(resolve_by_hand(&store, folder.path()));
}

async fn resolve_by_hand(store: &str, folder: &Path) {
    use TaskStatus::{Cancelled, Completed, OutcomeUnknown, Pending, UpstreamFailed};

    let runtime = builder(store, folder, Life::Last).start().await.unwrap();
    assert_eq!(runtime.recovered().workflows, 2);
    let handle = runtime.handle();
    check_ended(&handle, "again").await;
    let runs = |task: &str| executions(folder).get(task).copied().unwrap_or_default();
    assert_eq!([runs("again/before"), runs("again/middle"), runs("again/after")], [1, 2, 1]);

    let once = "once".into();
    let record = handle.workflow(&once).await.unwrap().unwrap();
    assert_eq!(record.status, WorkflowStatus::Running);
    let statuses: Vec<TaskStatus> = record.tasks.iter().map(|task| task.status).collect();
    assert_eq!(statuses, [Completed, OutcomeUnknown, Pending]);
    assert_eq!(record.tasks[1].attempts, 1);
    assert_eq!([runs("once/before"), runs("once/middle"), runs("once/after")], [1, 1, 0]);
    let listed = handle.list(gleitzeit::ListFilter::default()).await.unwrap();
    let listed = listed.iter().find(|it| it.id == once).unwrap();
    assert_eq!(listed.outcome_unknown_count, 1);

    // The person says that it did not happen and is not wanted any more…
    handle.cancel_task(&once, &"middle".into(), "never arrived").await.unwrap();
    let ended = within("the end", handle.wait(&once)).await.unwrap();
    let statuses: Vec<TaskStatus> = ended.tasks.iter().map(|task| task.status).collect();
    assert_eq!(statuses, [Completed, Cancelled, UpstreamFailed]);
    let events = handle.events(&once, 0, 1_000).await.unwrap();
    check_events(&events);
    assert!(event_types(&events).contains(&"task:outcome_unknown"));
    assert_eq!(runs("once/middle"), 1);

    // … and then has it run after all.
    assert_eq!(handle.retry(&once).await.unwrap().tasks, 2);
    check_ended(&handle, "once").await;
    assert_eq!([runs("once/before"), runs("once/middle"), runs("once/after")], [1, 2, 1]);
    runtime.stop(Duration::from_secs(30)).await;
}
