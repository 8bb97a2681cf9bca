//! Several processes on one database: who runs what, and how they hear of each other.
//!
//! Each store stands for a process of its own: it has its own connections, locks and leases. Where
//! it matters how a process ends, there is one.

#[cfg(feature = "postgres")]
mod partition;
#[cfg(feature = "postgres")]
mod postgres;
mod services;
#[cfg(feature = "postgres")]
mod silence;
#[cfg(feature = "sqlite")]
mod sqlite;
mod successors;

use std::{collections::BTreeSet, io::Read as _, time::Duration};

use chrono::Utc;
use futures_util::{StreamExt as _, stream::BoxStream};
use gleitzeit::{
    Runtime, Settings,
    settings::StoreUrl,
    storage::{SqlOptions, SqlStore},
};
use gleitzeit_domain::{
    needs::Offer,
    store::{
        Epoch, LeaseStore as _, NewWorkflow, Store as _, StoreError, Submitted, WorkflowChange,
        conformance::sample,
        lease::{Claimed, ClaimedOne, Command, Request},
    },
    workflow::{WorkflowRecord, WorkflowStatus},
};
use serde_json::json;

use crate::support::child;

/// Longer than anything takes here.
const LONG: Duration = Duration::from_mins(1);

/// A term that does not run out in a test.
const TERM: Duration = Duration::from_mins(10);

async fn open(url: &StoreUrl) -> SqlStore {
    SqlStore::connect(url, SqlOptions::default()).await.unwrap()
}

async fn lease(store: &SqlStore) -> Epoch {
    store.open_lease("test", TERM).await.unwrap().epoch
}

fn owned(id: &str, epoch: Epoch) -> NewWorkflow {
    NewWorkflow { epoch: Some(epoch), ..sample::workflow(id, 2) }
}

/// The end of a workflow's first task.
fn outcome(record: &WorkflowRecord, epoch: Epoch) -> WorkflowChange {
    WorkflowChange {
        tasks: vec![sample::completed(&record.tasks[0], json!(epoch.0))],
        events: sample::events(&record.id, record.last_sequence + 1, 1),
        epoch: Some(epoch),
        ..sample::change(&record.id, record.last_sequence + 1)
    }
}

fn ids(claimed: &Claimed) -> Vec<String> {
    claimed.workflows.iter().map(|it| it.record.id.to_string()).collect()
}

async fn notified(notifications: &mut BoxStream<'static, ()>) {
    let ring = tokio::time::timeout(LONG, notifications.next()).await;
    assert_eq!(ring, Ok(Some(())), "no ring");
}

/// Takes the first rings of a listener, which say that it listens.
async fn is_listening(store: &SqlStore) -> BoxStream<'static, ()> {
    let mut notifications = store.notifications();
    notified(&mut notifications).await;
    notifications
}

/// A fencing token of one database means nothing in another, which may have taken its place.
async fn epochs_of_two_databases_differ(one: &StoreUrl, other: &StoreUrl) {
    let (one, other) = (open(one).await, open(other).await);
    let (ours, theirs) = (lease(&one).await, lease(&other).await);
    assert!(ours.0.abs_diff(theirs.0) > 1_000, "{ours} and {theirs}");
    assert!(ours.0 < 1 << 53 && theirs.0 < 1 << 53, "exact in JSON");
    let new = owned("a", ours);
    assert_eq!(
        other.submit(vec![new]).await,
        Err(StoreError::LeaseLost { epoch: ours }),
        "a lease of the database that was there before"
    );
    assert_eq!(lease(&one).await.0, ours.0 + 1, "they go on by one");
}

/// Two processes must share the work, not do it twice.
async fn two_stores_share_what_is_free(url: &StoreUrl) {
    let (left, right) = (open(url).await, open(url).await);
    let all: Vec<_> =
        (0..300).map(|number| sample::workflow(&format!("w{number:03}"), 1)).collect();
    left.submit(all).await.unwrap();
    let drain = |store: SqlStore| async move {
        let epoch = lease(&store).await;
        let mut taken = Vec::new();
        loop {
            let claimed = store.claim(epoch, 7, &Offer::everything()).await.unwrap();
            let is_last = !claimed.more && claimed.workflows.is_empty();
            taken.extend(ids(&claimed));
            if is_last {
                return (store, taken);
            }
        }
    };
    let (left, right) = tokio::join!(tokio::spawn(drain(left)), tokio::spawn(drain(right)));
    let ((_left, ours), (_right, theirs)) = (left.unwrap(), right.unwrap());
    assert_eq!(ours.len() + theirs.len(), 300, "each once");
    let each: BTreeSet<&String> = ours.iter().chain(&theirs).collect();
    assert_eq!(each.len(), 300);
}

/// An orderly stop must not make others wait.
async fn a_closed_store_hands_over_at_once(url: &StoreUrl) {
    let (gone, successor) = (open(url).await, open(url).await);
    let (before, epoch) = (lease(&gone).await, lease(&successor).await);
    let mut notifications = is_listening(&successor).await;
    gone.submit(vec![owned("a", before)]).await.unwrap();
    assert_eq!(successor.claim(epoch, 10, &Offer::everything()).await.unwrap().workflows, []);
    gone.close(LONG).await.unwrap();
    let mut taken = Vec::new();
    while taken.is_empty() {
        notified(&mut notifications).await;
        taken = ids(&successor.claim(epoch, 10, &Offer::everything()).await.unwrap());
    }
    assert_eq!(taken, ["a"]);
    let alone = successor.claim(epoch, 10, &Offer::everything()).await.unwrap();
    assert_eq!(alone.ask_again_in, None, "nobody else is there");
}

/// What another process forgot must not come back in parts.
async fn a_late_write_about_a_pruned_workflow_leaves_nothing(url: &StoreUrl) {
    let (ours, theirs) = (open(url).await, open(url).await);
    let new = sample::workflow("a", 2);
    let end = sample::settles(&new, WorkflowStatus::Completed, sample::at(5));
    let late = |sequence: u64| WorkflowChange {
        tasks: vec![sample::completed(&new.record.tasks[0], json!("late"))],
        events: sample::events(&new.record.id, sequence, 1),
        ..sample::change(&new.record.id, sequence)
    };
    ours.submit(vec![new.clone()]).await.unwrap();
    ours.record(vec![end]).await.unwrap();
    // Written while it is there: our store has looked it up.
    ours.record(vec![late(2)]).await.unwrap();
    assert_eq!(theirs.prune(sample::at(6), 10).await, Ok(1));
    ours.record(vec![late(3)]).await.unwrap();
    assert_eq!(ours.workflow(&"a".into()).await.unwrap(), None);
    let again = ours.submit(vec![new.clone()]).await.unwrap();
    assert_eq!(again, [Submitted::Created]);
    assert_eq!(ours.workflow(&"a".into()).await.unwrap(), Some(new.record));
}

/// The life of the process that is killed: it owns two workflows, and has ended a task of one.
async fn own_and_wait(url: &str) {
    let store = open(&url.parse().unwrap()).await;
    let epoch = lease(&store).await;
    let new = owned("w0", epoch);
    let change = outcome(&new.record, epoch);
    store.submit(vec![new, owned("w1", epoch)]).await.unwrap();
    store.record(vec![change]).await.unwrap();
    child::say(&format!("owns {epoch}"));
    // Until it is killed.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

/// What a killed process owned goes on at once, with all that it had written.
async fn a_killed_process_is_taken_over_at_once(test: &str, url: &StoreUrl) {
    let folder = tempfile::TempDir::new().unwrap();
    let mut process = child::Process::start(test, url.expose(), folder.path());
    let line = process.says().unwrap();
    let gone = Epoch(line.strip_prefix("owns ").unwrap().parse().unwrap());
    let store = open(url).await;
    let epoch = lease(&store).await;
    assert!(epoch > gone);
    let while_it_lives = store.claim(epoch, 10, &Offer::everything()).await.unwrap();
    assert_eq!(ids(&while_it_lives), Vec::<String>::new());
    assert!(while_it_lives.ask_again_in.is_some());
    process.kill();
    let claimed = store.claim(epoch, 10, &Offer::everything()).await.unwrap();
    assert_eq!(ids(&claimed), ["w0", "w1"]);
    assert_eq!(claimed.workflows[0].record.tasks[0].result.as_deref(), Some(&json!(gone.0)));
    assert_eq!(claimed.ask_again_in, None);
    store.record(vec![outcome(&claimed.workflows[1].record, epoch)]).await.unwrap();
}

/// A request crosses to the process that runs the workflow, and its answer comes back; both hear.
async fn a_request_crosses_and_is_answered(url: &StoreUrl) {
    let (owner, other) = (open(url).await, open(url).await);
    let epoch = lease(&owner).await;
    owner.submit(vec![owned("a", epoch)]).await.unwrap();
    let (mut at_owner, mut at_other) = (is_listening(&owner).await, is_listening(&other).await);
    let request =
        Request { workflow: "a".into(), command: Command::Cancel { reason: "enough".into() } };
    let key = other.ask(request.clone()).await.unwrap();
    let mut asked = Vec::new();
    while asked.is_empty() {
        notified(&mut at_owner).await;
        asked = owner.requests(epoch).await.unwrap();
    }
    assert_eq!(asked, [(key, request)]);
    owner.answer(key, Ok(())).await.unwrap();
    let mut answer = None;
    while answer.is_none() {
        notified(&mut at_other).await;
        answer = other.take_answer(key).await.unwrap();
    }
    assert_eq!(answer, Some(Ok(())));
}

/// Whoever asked a process that ends before it answers does what it asked for itself.
async fn a_request_to_a_process_that_ends_is_done_by_who_asked(url: &StoreUrl) {
    let owner = open(url).await;
    let epoch = lease(&owner).await;
    owner.submit(vec![owned("a", epoch)]).await.unwrap();
    let settings = Settings::from_toml(&format!("storage.url = \"{}\"", url.expose())).unwrap();
    let builder = Runtime::builder(settings).without_recovery().without_settings_providers();
    let runtime = builder.start().await.unwrap();
    let handle = runtime.handle();
    let id = "a".into();
    let cancelled = handle.cancel(&id, "enough");
    let ends = async {
        let mut notifications = is_listening(&owner).await;
        while owner.requests(epoch).await.unwrap().is_empty() {
            notified(&mut notifications).await;
        }
        owner.close_lease(epoch).await.unwrap();
    };
    let (cancelled, ()) = futures_util::join!(cancelled, ends);
    assert_eq!(cancelled, Ok(()));
    let record = handle.wait(&id).await.unwrap();
    assert_eq!(record.status, WorkflowStatus::Cancelled);
    runtime.stop(LONG).await;
}

/// What another process writes of a workflow comes out here as well, up to its end.
async fn what_another_process_runs_is_followed(url: &StoreUrl) {
    let owner = open(url).await;
    let epoch = lease(&owner).await;
    let new = owned("a", epoch);
    owner.submit(vec![new.clone()]).await.unwrap();
    let settings = Settings::from_toml(&format!("storage.url = \"{}\"", url.expose())).unwrap();
    let builder = Runtime::builder(settings).without_recovery().without_settings_providers();
    let runtime = builder.start().await.unwrap();
    let mut follow = runtime.handle().follow(&"a".into(), 0).await.unwrap();
    let mut sequences = Vec::new();
    while sequences.len() < new.events.len() {
        sequences.push(follow.next().await.unwrap().unwrap().sequence);
    }
    let first = new.record.last_sequence + 1;
    // Settled long ago, it would be deleted by age while it is followed.
    let end = WorkflowChange {
        events: sample::events(&new.record.id, first, 2),
        last_sequence: first + 1,
        epoch: Some(epoch),
        ..sample::settles(&new, WorkflowStatus::Completed, Utc::now())
    };
    let rest = async {
        while let Some(event) = follow.next().await.unwrap() {
            sequences.push(event.sequence);
        }
    };
    let (recorded, ()) = futures_util::join!(owner.record(vec![end]), rest);
    recorded.unwrap();
    assert_eq!(sequences, (1..=first + 1).collect::<Vec<u64>>());
    runtime.stop(LONG).await;
}

/// An id that was forgotten and given again names another workflow: what a store knew of the first
/// one must not lead a write astray.
async fn an_id_that_is_used_again_is_another_workflow(url: &StoreUrl) {
    let (ours, theirs) = (open(url).await, open(url).await);
    let short = ours.open_lease("short", Duration::ZERO).await.unwrap();
    let (gone, epoch) = (short.epoch, lease(&theirs).await);
    ours.submit(vec![owned("a", gone)]).await.unwrap();
    if short.term.is_none() {
        ours.close_lease(gone).await.unwrap();
    }
    // Taken over, ended and forgotten by another process, while we do not write.
    let claimed = theirs.claim(epoch, 10, &Offer::everything()).await.unwrap();
    assert_eq!(ids(&claimed), ["a"]);
    let end = WorkflowChange {
        epoch: Some(epoch),
        ..sample::settles(&owned("a", epoch), WorkflowStatus::Completed, sample::at(5))
    };
    theirs.record(vec![end]).await.unwrap();
    assert_eq!(theirs.prune(sample::at(6), 10).await, Ok(1));
    theirs.submit(vec![sample::workflow("a", 2)]).await.unwrap();
    let again = lease(&ours).await;
    let taken = ours.claim_one(again, &"a".into(), false).await.unwrap();
    let ClaimedOne::Taken(claimed) = taken else { panic!("{taken:?}") };
    ours.record(vec![outcome(&claimed.record, again)]).await.unwrap();
    let stored = theirs.workflow(&"a".into()).await.unwrap().unwrap();
    assert_eq!(stored.tasks[0].result.as_deref(), Some(&json!(again.0)));
}

/// A write whose commit was not confirmed is repeated. Where another process has reopened the
/// workflow meanwhile, the repeat must not end it a second time.
async fn a_repeated_end_leaves_what_was_reopened_alone(url: &StoreUrl) {
    let (ours, theirs) = (open(url).await, open(url).await);
    let (epoch, other) = (lease(&ours).await, lease(&theirs).await);
    let new = owned("a", epoch);
    let first = new.record.last_sequence + 1;
    let end = WorkflowChange {
        tasks: vec![sample::completed(&new.record.tasks[0], json!("ours"))],
        events: sample::events(&new.record.id, first, 1),
        last_sequence: first,
        epoch: Some(epoch),
        ..sample::settles(&new, WorkflowStatus::Failed, sample::at(5))
    };
    ours.submit(vec![new.clone()]).await.unwrap();
    ours.record(vec![end.clone()]).await.unwrap();
    // Claimed to be reopened, but nothing of it written yet.
    let taken = theirs.claim_one(other, &"a".into(), true).await.unwrap();
    assert!(matches!(taken, ClaimedOne::Taken(_)), "{taken:?}");
    ours.record(vec![end.clone()]).await.unwrap();
    let reopened = WorkflowChange {
        tasks: vec![sample::completed(&new.record.tasks[0], json!("theirs"))],
        events: sample::events(&new.record.id, first + 1, 1),
        last_sequence: first + 1,
        epoch: Some(other),
        ..sample::settles(&new, WorkflowStatus::Running, sample::at(6))
    };
    theirs.record(vec![reopened.clone()]).await.unwrap();
    ours.record(vec![end.clone()]).await.unwrap();
    let stored = theirs.workflow(&"a".into()).await.unwrap().unwrap();
    assert_eq!(stored.status, WorkflowStatus::Running, "ended a second time");
    assert_eq!(stored.tasks[0].result.as_deref(), Some(&json!("theirs")));
    // It belongs to who reopened it: that one goes on, and ends it.
    let ended = WorkflowChange {
        events: sample::events(&new.record.id, first + 2, 1),
        last_sequence: first + 2,
        epoch: Some(other),
        ..sample::settles(&new, WorkflowStatus::Completed, sample::at(7))
    };
    theirs.record(vec![ended]).await.unwrap();
    ours.record(vec![end]).await.unwrap();
    let stored = theirs.workflow(&"a".into()).await.unwrap().unwrap();
    assert_eq!((stored.status, stored.last_sequence), (WorkflowStatus::Completed, first + 2));
}
