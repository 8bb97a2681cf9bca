//! An engine that is cut off from its store: by its own clock it knows when another one may run
//! the same, and begins and runs nothing with an effect from then on.

use std::{sync::Arc, time::Duration};

use gleitzeit_actors::{
    execution_engine::{Apply, EngineSettings},
    memory_store::MemoryStore,
};
use gleitzeit_domain::{
    command::Command,
    event::EventData,
    store::{Store as _, lease::Resolution},
    task::TaskStatus::{Completed, Executing, OutcomeUnknown},
    workflow::{TaskSpec, WorkflowSpec, WorkflowStatus},
};
use serde_json::json;

use crate::support::{
    Ending, Harness, LinkState, RemoteStore, Script, Setup, of, quick, secs, statuses, task, within,
};

const TERM: Duration = secs(15);

fn shared() -> Arc<MemoryStore> {
    Arc::new(MemoryStore::default().with_timed_leases())
}

fn settings(takes_over: bool) -> EngineSettings {
    EngineSettings {
        takes_over,
        lease_term: TERM,
        max_concurrent_tasks: 6,
        ..EngineSettings::default()
    }
}

/// An engine at the end of a remote.
async fn at_the_end_of(remote: &Arc<RemoteStore>, script: &Script) -> Harness {
    let setup = Setup { engine: settings(false), script: script.clone(), ..Setup::default() };
    Setup { store: Arc::<RemoteStore>::clone(remote), ..setup }.open().await
}

/// Another engine, beside the store, that claims free workflows.
async fn beside(memory: &Arc<MemoryStore>, script: &Script) -> Harness {
    let providers = vec![("second", None)];
    let setup =
        Setup { engine: settings(true), script: script.clone(), providers, ..Setup::default() };
    let mut harness =
        Setup { store: Arc::<MemoryStore>::clone(memory), ..setup }.open_again().await;
    harness.recover().await;
    harness
}

/// Many short calls, and one that outlives the lease.
fn wide(long: TaskSpec) -> WorkflowSpec {
    let short = (0..200).map(|n| task(&format!("t{n}"), json!({"sleep": 0.9})));
    short.fold(WorkflowSpec::new("wide").id("wide").task(long), WorkflowSpec::task)
}

/// The case that counts: the other engine begins when the lease has run out, and by then nothing
/// with an effect runs here any more.
#[actix::test]
async fn a_cut_off_engine_and_the_one_that_takes_over_never_call_at_once() {
    let memory = shared();
    let (remote, script) = (RemoteStore::to(&memory), Script::default());
    let mut first = at_the_end_of(&remote, &script).await;
    let second = beside(&memory, &script).await;
    let long = task("long", json!({"sleep": 60})).timeout(secs(300));
    let sent = first.submit(wide(long)).await.unwrap();
    tokio::time::sleep(secs(2)).await;
    remote.set(LinkState::Stalled);
    // Until the other one has run all of it.
    within(async {
        while !memory.workflow(&sent.id).await.unwrap().unwrap().status.is_settled() {
            tokio::time::sleep(secs(1)).await;
        }
    })
    .await;
    let calls = script.calls();
    let (here, there): (Vec<_>, Vec<_>) = calls.iter().partition(|call| call.provider == "main");
    let last = here.iter().map(|call| call.began).max().unwrap();
    assert!(last < TERM * 2 / 3, "a call began {last:?} after the last renewal");
    assert!(last > secs(9), "the gate closed too early: {last:?}");
    let over = here.iter().map(|call| call.ended.unwrap()).max().unwrap();
    let begun = there.iter().map(|call| call.began).min().unwrap();
    assert!(over <= begun, "a call here ended {over:?}, the first one there began {begun:?}");
    let cut: Vec<_> = here.iter().filter(|call| call.ending == Ending::Dropped).collect();
    assert!(matches!(&*cut, [only] if only.task == "long"), "{cut:?}");
    remote.set(LinkState::Whole);
    let record = within(sent.end).await.unwrap().unwrap();
    assert_eq!(record.status, WorkflowStatus::Completed);
    second.finish().await;
    first.actors.stop(secs(0)).await;
}

/// If no other process claimed its work, the engine continues after the next renewal: what was cut off
/// begins again, except what must not run twice. A pure call is never cut off.
#[actix::test]
async fn a_lease_that_is_renewed_late_lets_the_work_go_on() {
    let memory = shared();
    let (remote, script) = (RemoteStore::to(&memory), Script::default());
    let mut harness = at_the_end_of(&remote, &script).await;
    let long = |id: &str, method: &str| {
        TaskSpec::new(id, method).params(json!({"sleep": 20})).timeout(secs(300))
    };
    let spec = WorkflowSpec::new("w")
        .task(long("again", "test/run"))
        .task(long("once", "test/once"))
        .task(long("pure", "test/pure"));
    let sent = harness.submit(spec).await.unwrap();
    harness.until_task("task:started", "once").await;
    remote.set(LinkState::Stalled);
    tokio::time::sleep(secs(25)).await;
    assert_eq!(script.running(), 0);
    remote.set(LinkState::Whole);
    harness.until_task("task:outcome_unknown", "once").await;
    let resolution = Resolution::Completed { result: json!(1) };
    let command = Command::Resolve { task: "once".into(), resolution };
    let apply = Apply { id: sent.id.clone(), command };
    harness.actors.addresses.engine.send(apply).await.unwrap().unwrap();
    let record = sent.end().await;
    assert_eq!(statuses(&record), [Completed, Completed, Completed]);
    assert_eq!((of(&record, "again").attempts, of(&record, "pure").attempts), (2, 1));
    let endings = |task: &str| script.calls_of(task).iter().map(|it| it.ending).collect::<Vec<_>>();
    assert_eq!(endings("again"), [Ending::Dropped, Ending::Done]);
    assert_eq!(endings("once"), [Ending::Dropped]);
    assert_eq!(endings("pure"), [Ending::Done]);
    harness.finish().await;
}

/// A start that is being stored when the connection stalls is no call: it waits, and no one has to
/// resolve it.
#[actix::test]
async fn a_call_whose_start_was_stored_too_late_waits_for_the_next_renewal() {
    let memory = shared();
    let (remote, script) = (RemoteStore::to(&memory), Script::default());
    let providers = vec![("main", Some(1))];
    let setup = Setup { engine: settings(false), script: script.clone(), ..Setup::default() };
    let store = Arc::<RemoteStore>::clone(&remote);
    let mut harness = Setup { store, providers, ..setup }.open().await;
    // The second one waits for the provider, and its start for the outcome of the first.
    let first = task("first", json!({"sleep": 4}));
    let once = TaskSpec::new("once", "test/once").params(json!({}));
    let sent = harness.submit(WorkflowSpec::new("w").task(first).task(once)).await.unwrap();
    harness.until_task("task:started", "first").await;
    remote.set(LinkState::Stalled);
    tokio::time::sleep(secs(20)).await;
    assert!(script.calls_of("once").is_empty(), "called before its start was stored");
    remote.set(LinkState::Whole);
    let record = sent.end().await;
    assert_eq!(statuses(&record), [Completed, Completed]);
    assert!(!record.tasks.iter().any(|it| matches!(it.status, OutcomeUnknown | Executing)));
    assert_eq!(script.calls_of("once").len(), 1);
    harness.finish().await;
}

/// One long call for each effect.
fn long_calls() -> WorkflowSpec {
    let long = |id: &str, method: &str| {
        TaskSpec::new(id, method).params(json!({"sleep": 40})).timeout(secs(300))
    };
    WorkflowSpec::new("w")
        .task(long("again", "test/run"))
        .task(long("once", "test/once"))
        .task(long("pure", "test/pure"))
}

/// A renewal is answered late, and the term is not over: nothing is cut off, and what has to begin
/// waits for it.
#[actix::test]
async fn a_renewal_that_is_late_within_the_term_ends_no_call() {
    let memory = shared();
    let (remote, script) = (RemoteStore::to(&memory), Script::default());
    let mut harness = at_the_end_of(&remote, &script).await;
    let spec =
        long_calls().task(task("short", json!({"sleep": 12}))).task(quick("next").after("short"));
    let sent = harness.submit(spec).await.unwrap();
    harness.until_task("task:started", "once").await;
    remote.set(LinkState::Stalled);
    tokio::time::sleep(secs(14)).await;
    assert_eq!(script.running(), 3, "a call was cut off before the term was over");
    assert!(script.calls_of("next").is_empty());
    remote.set(LinkState::Whole);
    let record = sent.end().await;
    assert_eq!(record.status, WorkflowStatus::Completed);
    assert!(record.tasks.iter().all(|task| task.attempts == 1));
    assert!(harness.published(&record.id).iter().all(|it| !it.starts_with("task:interrupted")));
    harness.finish().await;
}

/// A renewal is answered when the term is over, so that the same process calls again what may be
/// called again, and says so; at once, for the answer is old, and the next renewal is asked for.
#[actix::test]
async fn a_renewal_that_is_late_beyond_the_term_lets_calls_begin_again() {
    let memory = shared();
    let (remote, script) = (RemoteStore::to(&memory), Script::default());
    let mut harness = at_the_end_of(&remote, &script).await;
    let sent = harness.submit(long_calls()).await.unwrap();
    harness.until_task("task:started", "once").await;
    remote.set(LinkState::Stalled);
    tokio::time::sleep(secs(16)).await;
    let whole = script.now();
    remote.set(LinkState::Whole);
    harness.until_task("task:outcome_unknown", "once").await;
    tokio::time::sleep(secs(1)).await;
    let again = script.calls_of("again");
    let [first, second] = again.as_slice() else { panic!("{again:?}") };
    assert_eq!((first.ending, first.attempt, second.attempt), (Ending::Dropped, 1, 2));
    assert!(first.ended.unwrap() >= TERM && second.began >= whole, "{again:?}");
    assert!(second.began < whole + secs(1), "it waited for another renewal: {again:?}");
    let resolution = Resolution::Completed { result: json!(1) };
    let command = Command::Resolve { task: "once".into(), resolution };
    let apply = Apply { id: sent.id.clone(), command };
    harness.actors.addresses.engine.send(apply).await.unwrap().unwrap();
    let record = sent.end().await;
    assert_eq!(statuses(&record), [Completed; 3]);
    let attempts = |task: &str| (of(&record, task).attempts, script.calls_of(task).len());
    assert_eq!([attempts("again"), attempts("once"), attempts("pure")], [(2, 2), (1, 1), (1, 1)]);
    let interrupted: Vec<_> = harness
        .events
        .iter()
        .filter_map(|event| match &event.data {
            EventData::TaskInterrupted { task_id, attempt_count, .. } => {
                Some((task_id.to_string(), *attempt_count))
            }
            _ => None,
        })
        .collect();
    assert_eq!(interrupted, [("again".to_owned(), 1)]);
    harness.finish().await;
}
