//! Watches on workflows that another process runs: how many reads they cost, and when.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures_util::future::join_all;
use gleitzeit_actors::{
    execution_engine::EngineSettings,
    follower::{Change, Follower, Watch},
    memory_store::MemoryStore,
};
use gleitzeit_domain::{
    error::{ErrorCode, TaskError},
    event::{Event, EventData},
    id::WorkflowId,
    store::{Store, StoreError, WorkflowChange, conformance::sample},
    workflow::{WorkflowRecord, WorkflowSpec, WorkflowStatus},
};
use serde_json::json;
use tokio::{task::JoinHandle, time::Instant};

use crate::support::{Decision, Hook, HookedStore, Operation, Setup, secs, task, within};

/// Counts what is read of single workflows, and fails the next reads as scripted.
#[derive(Debug, Default)]
struct Counting {
    states: AtomicUsize,
    events: AtomicUsize,
    errors: Mutex<Vec<StoreError>>,
    notifies: bool,
    has_leases: bool,
}

impl Counting {
    fn reads(&self) -> (usize, usize) {
        (self.states.load(Ordering::SeqCst), self.events.load(Ordering::SeqCst))
    }
}

#[async_trait]
impl Hook for Counting {
    async fn on(&self, operation: Operation<'_>) -> Decision {
        match operation {
            Operation::Workflow => self.states.fetch_add(1, Ordering::SeqCst),
            Operation::Events => self.events.fetch_add(1, Ordering::SeqCst),
            _ => return Decision::Pass,
        };
        let error = self.errors.lock().unwrap().pop();
        error.map_or(Decision::Pass, Decision::Refuse)
    }

    fn has_leases(&self) -> bool {
        self.has_leases
    }

    fn notifies_every_commit(&self) -> bool {
        self.notifies
    }
}

type CountingStore = Arc<HookedStore<Counting>>;

/// A workflow `w` that another process runs, in a store that notifies of every commit if `notifies`
/// is set; and the follower of this process. The clock is paused by the test.
async fn watched(notifies: bool) -> (Arc<MemoryStore>, CountingStore, Follower) {
    let memory = Arc::new(MemoryStore::default());
    memory.submit(vec![sample::workflow("w", 1)]).await.unwrap();
    let counting = Counting { notifies, has_leases: true, ..Counting::default() };
    let store = HookedStore::over(Arc::clone(&memory), counting);
    let follower = Follower::new(Arc::<HookedStore<Counting>>::clone(&store));
    (memory, store, follower)
}

/// As the other process stores one more event.
async fn change(memory: &MemoryStore) {
    let last = memory.workflow(&"w".into()).await.unwrap().unwrap().last_sequence;
    let events = sample::events(&"w".into(), last + 1, 1);
    let change = WorkflowChange { events, ..sample::change(&"w".into(), last + 1) };
    memory.record(vec![change]).await.unwrap();
}

/// As the other process stores the end.
async fn end(memory: &MemoryStore) {
    let id: WorkflowId = "w".into();
    let last = memory.workflow(&id).await.unwrap().unwrap().last_sequence;
    let data = EventData::WorkflowCancelled { reason: "enough".into(), duration: 1.0 };
    let event =
        Event { timestamp: sample::at(9), workflow_id: Some(id.clone()), sequence: last + 1, data };
    let change = WorkflowChange {
        workflow: Some(sample::state(WorkflowStatus::Cancelled)),
        events: vec![event],
        ..sample::change(&id, last + 1)
    };
    memory.record(vec![change]).await.unwrap();
}

/// Notifies without anything having happened to the workflow.
fn notify(memory: &MemoryStore) {
    memory.end_leases();
}

/// Lets everybody do what can be done now; the clock stands still.
async fn catch_up() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

type Wait = JoinHandle<Result<Arc<WorkflowRecord>, TaskError>>;

/// A caller that waits for the end of `w`.
fn wait(follower: &Follower) -> Wait {
    let follower = follower.clone();
    actix_rt::spawn(async move { follower.settled(&"w".into(), false).await })
}

/// The sequences of the next events.
async fn next_events(watch: &mut Watch) -> Vec<u64> {
    loop {
        match within(watch.next()).await.unwrap() {
            Change::Events(events) => return events.iter().map(|event| event.sequence).collect(),
            Change::State { .. } => {}
            other => panic!("{other:?} instead of events"),
        }
    }
}

/// A hundred callers of one workflow must not read it a hundred times.
#[actix::test]
async fn many_watchers_cost_one_read_for_each_change() {
    tokio::time::pause();
    let (memory, store, follower) = watched(true).await;
    let waits: Vec<Wait> = (0..100).map(|_| wait(&follower)).collect();
    let mut listeners: Vec<Watch> = (0..100).map(|_| follower.watch(&"w".into(), false)).collect();
    catch_up().await;
    let (states, events) = store.reads();
    assert!(states <= 4, "{states} reads for those who begin together");
    change(&memory).await;
    notify(&memory);
    for listener in &mut listeners {
        assert_eq!(next_events(listener).await, [2]);
    }
    assert_eq!(store.reads(), (states, events + 1));
    end(&memory).await;
    notify(&memory);
    for ended in within(join_all(waits)).await {
        assert_eq!(ended.unwrap().unwrap().status, WorkflowStatus::Cancelled);
    }
    assert_eq!(store.reads(), (states + 1, events + 2), "the event of the end, and the state");
}

/// A change is seen at once, not at the next poll.
#[actix::test]
async fn a_notification_is_followed_by_a_read() {
    tokio::time::pause();
    let (memory, _store, follower) = watched(true).await;
    let mut listener = follower.watch(&"w".into(), false);
    tokio::time::sleep(secs(1)).await;
    change(&memory).await;
    let changed = Instant::now();
    notify(&memory);
    assert_eq!(next_events(&mut listener).await, [2]);
    assert!(changed.elapsed() < Duration::from_millis(10), "{:?}", changed.elapsed());
}

/// A notification may be lost, and many stores do not notify of every commit.
#[actix::test]
async fn a_change_without_a_notification_is_found_by_polling() {
    tokio::time::pause();
    for (notifies, limit) in [(true, secs(2)), (false, Duration::from_millis(100))] {
        let (memory, _store, follower) = watched(notifies).await;
        let mut listener = follower.watch(&"w".into(), false);
        catch_up().await;
        change(&memory).await;
        let changed = Instant::now();
        assert_eq!(next_events(&mut listener).await, [2]);
        let slack = Duration::from_millis(10);
        assert!(changed.elapsed() <= limit + slack, "{:?}", changed.elapsed());
        assert!(changed.elapsed() + slack >= limit, "polled too often: {:?}", changed.elapsed());
    }
}

/// A database that is busy with other workflows notifies all the time.
#[actix::test]
async fn a_busy_store_is_read_ten_times_a_second_at_most() {
    tokio::time::pause();
    let (memory, store, follower) = watched(true).await;
    let _listener = follower.watch(&"w".into(), false);
    catch_up().await;
    let begun = Instant::now();
    while begun.elapsed() < secs(1) {
        notify(&memory);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (_, events) = store.reads();
    assert!((5..=11).contains(&events), "{events} reads in a second");
}

/// Without a watcher nothing is read, and no task runs.
#[actix::test]
async fn the_last_watcher_ends_the_reads() {
    tokio::time::pause();
    let (memory, store, follower) = watched(false).await;
    let (first, second) = (follower.watch(&"w".into(), false), wait(&follower));
    tokio::time::sleep(secs(10)).await;
    drop(first);
    let before = store.reads();
    tokio::time::sleep(secs(10)).await;
    assert!(store.reads() > before, "a caller still waits");
    second.abort();
    catch_up().await;
    assert_eq!(follower.watched(), 0);
    let rested = store.reads();
    notify(&memory);
    tokio::time::sleep(secs(3_600)).await;
    assert_eq!(store.reads(), rested);
    // The next watch starts the reads again.
    change(&memory).await;
    let mut third = follower.watch(&"w".into(), false);
    let first = within(third.next()).await;
    let Some(Change::State { record: Some(record), .. }) = first else { panic!("{first:?}") };
    assert_eq!(record.last_sequence, 2);
    change(&memory).await;
    assert_eq!(next_events(&mut third).await, [3]);
}

/// A store that is away for a moment is asked again; one that is closed is not.
#[actix::test]
async fn only_a_final_error_ends_a_wait() {
    tokio::time::pause();
    let (memory, store, follower) = watched(false).await;
    let away = || StoreError::Unavailable { detail: "away".into() };
    *store.errors.lock().unwrap() = vec![away(), away(), away()];
    let first = wait(&follower);
    tokio::time::sleep(secs(1)).await;
    assert!(store.errors.lock().unwrap().is_empty(), "it was not asked again");
    store.errors.lock().unwrap().push(away());
    end(&memory).await;
    assert!(within(first).await.unwrap().is_ok());
    store.errors.lock().unwrap().push(StoreError::Closed);
    let error = within(wait(&follower)).await.unwrap().unwrap_err();
    assert_eq!(error.code, TaskError::from(StoreError::Closed).code);
}

/// A workflow that is not there, or no longer, has no end to wait for.
#[actix::test]
async fn a_wait_for_a_workflow_that_is_gone_ends() {
    tokio::time::pause();
    let (memory, _store, follower) = watched(true).await;
    let nobody = within(follower.settled(&"nobody".into(), false)).await.unwrap_err();
    assert_eq!(nobody.code, ErrorCode::WorkflowNotFound);
    let waiting = wait(&follower);
    catch_up().await;
    // Settled and removed between two reads.
    end(&memory).await;
    assert_eq!(memory.prune(sample::at(100), 10).await.unwrap(), 1);
    let gone = within(waiting).await.unwrap().unwrap_err();
    assert_eq!(gone.code, ErrorCode::WorkflowNotFound);
}

/// A watcher that is far too slow is not sent everything, and knows it.
#[actix::test]
async fn a_slow_watcher_knows_that_changes_are_missing() {
    tokio::time::pause();
    let (memory, _store, follower) = watched(false).await;
    let mut slow = follower.watch(&"w".into(), false);
    for _ in 0..100 {
        change(&memory).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let mut missed = false;
    let mut last = 0;
    while last < 101 {
        match within(slow.next()).await.unwrap() {
            Change::Missed => missed = true,
            Change::Events(events) => last = events[events.len() - 1].sequence,
            Change::State { .. } => {}
            Change::Failed(error) => panic!("{error}"),
        }
    }
    assert!(missed);
}

/// Callers of one process wait for what another one runs: all are answered, and cost one watch.
#[actix::test]
async fn callers_wait_for_a_workflow_of_another_process() {
    let memory = Arc::new(MemoryStore::default().with_timed_leases());
    let on = |store: Arc<dyn Store>, takes_over| {
        let engine = EngineSettings { takes_over, ..EngineSettings::default() };
        Setup { engine, store, ..Setup::default() }
    };
    let mut runs = on(Arc::<MemoryStore>::clone(&memory), false).open().await;
    let counting = Counting { has_leases: true, ..Counting::default() };
    let store = HookedStore::over(Arc::clone(&memory), counting);
    let waits = on(Arc::<HookedStore<Counting>>::clone(&store), true).open_again().await;
    let spec = WorkflowSpec::new("w").id("w").task(task("a", json!({"gate": "g"})));
    runs.submit(spec).await.unwrap();
    runs.until_task("task:started", "a").await;
    let callers: Vec<_> = (0..30).map(|_| waits.send_wait(&"w".into())).collect();
    tokio::time::sleep(secs(10)).await;
    assert_eq!(waits.actors.follower.watched(), 1);
    let (states, events) = store.reads();
    assert!(events <= 100 && states <= 12, "{states} states and {events} polls in 10 s");
    runs.script.open("g");
    for answer in within(join_all(callers)).await {
        assert_eq!(answer.unwrap().unwrap().status, WorkflowStatus::Completed);
    }
    catch_up().await;
    assert_eq!(waits.actors.follower.watched(), 0);
    // A caller that goes before the end leaves no watch either.
    runs.submit(WorkflowSpec::new("v").id("v").task(task("b", json!({"gate": "h"}))))
        .await
        .unwrap();
    let caller = waits.send_wait(&"v".into());
    tokio::time::sleep(secs(1)).await;
    assert_eq!(waits.actors.follower.watched(), 1);
    drop(caller);
    catch_up().await;
    assert_eq!(waits.actors.follower.watched(), 0);
    runs.script.open("h");
    runs.finish().await;
    waits.finish().await;
}
