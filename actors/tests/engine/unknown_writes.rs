//! Submissions of which the store did not say whether they are stored: none of them is left where
//! no process runs it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use gleitzeit_actors::{execution_engine::EngineSettings, memory_store::MemoryStore};
use gleitzeit_domain::{
    error::ErrorCode,
    id::WorkflowId,
    problem::SubmitError,
    store::{Epoch, LeaseStore as _, ListFilter, Store as _},
    workflow::{WorkflowSpec, WorkflowStatus},
};
use proptest::prelude::*;

use crate::support::{Harness, LinkState, RemoteStore, Setup, quick, secs, within};

const TERM: Duration = secs(15);

/// An engine at the end of a remote to a shared store, where a test has no clock yet.
async fn open(takes_over: bool) -> (Arc<MemoryStore>, Arc<RemoteStore>, Harness) {
    tokio::time::pause();
    open_again(takes_over).await
}

async fn open_again(takes_over: bool) -> (Arc<MemoryStore>, Arc<RemoteStore>, Harness) {
    let memory = Arc::new(MemoryStore::default().with_timed_leases());
    let remote = RemoteStore::to(&memory);
    let engine = EngineSettings { takes_over, lease_term: TERM, ..EngineSettings::default() };
    let store = Arc::<RemoteStore>::clone(&remote);
    let mut harness = Setup { engine, store, ..Setup::default() }.open_again().await;
    if takes_over {
        harness.recover().await;
    }
    (memory, remote, harness)
}

fn one(id: &str) -> WorkflowSpec {
    WorkflowSpec::new("one").id(id).task(quick("a"))
}

/// Ends a harness whose workflow was claimed from the store.
async fn finish(mut harness: Harness, ids: impl IntoIterator<Item = WorkflowId>) {
    for id in ids {
        harness.leave_out(&id);
        if harness.store.workflow(&id).await.unwrap().is_some() {
            harness.check_stored(&id).await;
        }
    }
    harness.finish().await;
}

async fn status(memory: &MemoryStore, id: &str) -> Option<WorkflowStatus> {
    memory.workflow(&id.into()).await.unwrap().map(|record| record.status)
}

/// The answer to the commit is lost and the store is away for longer than anybody waits: who asked
/// hears of the doubt, and the workflow runs when the store is back, whether it was stored before
/// or not.
#[actix::test]
async fn an_unknown_write_is_settled_when_the_store_is_back() {
    tokio::time::pause();
    for first in [LinkState::AnswerLost, LinkState::Lost] {
        let (memory, remote, mut harness) = open_again(false).await;
        harness.run(one("before")).await;
        remote.spoil_submits(vec![first]);
        remote.set(LinkState::Refusing);
        let error = harness.submit(one("w")).await.err().unwrap();
        assert!(matches!(error, SubmitError::Store(_)), "{error}");
        assert_eq!(error.code(), ErrorCode::PersistenceTransactionFailed);
        assert!(harness.engine_counts().await.admissions, "the doubt counts");
        tokio::time::sleep(secs(60)).await;
        remote.set(LinkState::Whole);
        tokio::time::sleep(secs(5)).await;
        assert_eq!(status(&memory, "w").await, Some(WorkflowStatus::Completed), "{first:?}");
        assert_eq!(harness.script.calls().len(), 2);
        finish(harness, ["w".into()]).await;
    }
}

/// A caller that submits the same again gets the right answer, and the end.
#[actix::test]
async fn the_same_submission_again_settles_an_unknown_write() {
    let (memory, remote, mut harness) = open(false).await;
    harness.run(one("before")).await;
    remote.spoil_submits(vec![LinkState::AnswerLost]);
    remote.set(LinkState::Refusing);
    assert!(harness.submit(one("w")).await.is_err());
    remote.set(LinkState::Whole);
    let record = harness.run(one("w")).await;
    assert_eq!(record.status, WorkflowStatus::Completed);
    assert_eq!(status(&memory, "w").await, Some(WorkflowStatus::Completed));
    assert_eq!(harness.script.calls().len(), 2, "it ran once");
    finish(harness, ["w".into()]).await;
}

/// The read that would find the owner fails: the write stays unknown.
#[actix::test]
async fn an_unknown_write_without_a_readable_owner_is_settled_later() {
    let (memory, remote, mut harness) = open(false).await;
    harness.run(one("before")).await;
    // The second write finds it there, and the remote breaks before it can be read.
    remote.spoil_submits(vec![LinkState::AnswerLost, LinkState::Whole]);
    remote.set(LinkState::Refusing);
    assert!(harness.submit(one("w")).await.is_err());
    remote.set(LinkState::Whole);
    tokio::time::sleep(secs(5)).await;
    assert_eq!(status(&memory, "w").await, Some(WorkflowStatus::Completed));
    finish(harness, ["w".into()]).await;
}

/// The lease is lost between the commit and the next write: the workflow bears a lease that is gone,
/// and is claimed by its id.
#[actix::test]
async fn an_unknown_write_under_an_expired_lease_is_claimed() {
    let (memory, remote, mut harness) = open(false).await;
    harness.run(one("before")).await;
    remote.spoil_submits(vec![LinkState::AnswerLost]);
    let sent = harness.send(one("w"));
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(status(&memory, "w").await, Some(WorkflowStatus::Pending));
    memory.close_lease(Epoch(1)).await.unwrap();
    let record = sent.end().await;
    assert_eq!(record.status, WorkflowStatus::Completed);
    assert_eq!(harness.script.calls().len(), 2);
    finish(harness, ["w".into()]).await;
}

/// The faults of one submission.
#[derive(Debug, Clone)]
struct Step {
    /// The state of the connection at its writes.
    writes: Vec<LinkState>,
    /// The state of the connection from then on, and its duration.
    remote: LinkState,
    millis: u64,
    /// The engine loses its lease before.
    loses_lease: bool,
    /// The workflow is submitted twice.
    again: bool,
}

fn state() -> impl Strategy<Value = LinkState> {
    prop::sample::select(vec![
        LinkState::Whole,
        LinkState::Whole,
        LinkState::AnswerLost,
        LinkState::Lost,
        LinkState::Refusing,
        LinkState::Stalled,
    ])
}

fn step() -> impl Strategy<Value = Step> {
    // A single call cannot be stalled for good, the remote can.
    let write =
        state().prop_map(|it| if it == LinkState::Stalled { LinkState::AnswerLost } else { it });
    let writes = prop::collection::vec(write, 0..8);
    let lease = prop::bool::weighted(0.15);
    (writes, state(), 0..6_000_u64, lease, prop::bool::weighted(0.3)).prop_map(
        |(writes, remote, millis, loses_lease, again)| Step {
            writes,
            remote,
            millis,
            loses_lease,
            again,
        },
    )
}

/// Whatever is lost on the remote and for how long: once it is whole, everything that is stored has
/// ended, everything that was acknowledged is stored, and nothing completed twice.
async fn nothing_is_left(steps: Vec<Step>, takes_over: bool) {
    let (memory, remote, mut harness) = open(takes_over).await;
    harness.run(one("before")).await;
    let mut sent = Vec::new();
    for (number, step) in steps.into_iter().enumerate() {
        if step.loses_lease {
            // As after a takeover; the engine finds out at its next write.
            memory.close_lease(Epoch(number as u64 + 1)).await.unwrap();
        }
        remote.spoil_submits(step.writes);
        remote.set(step.remote);
        let id = format!("w{number}");
        sent.push(harness.send(one(&id)));
        if step.again {
            tokio::time::sleep(Duration::from_millis(step.millis / 2)).await;
            sent.push(harness.send(one(&id)));
        }
        tokio::time::sleep(Duration::from_millis(step.millis)).await;
    }
    remote.spoil_submits(Vec::new());
    remote.set(LinkState::Whole);
    let ids: Vec<WorkflowId> = sent.iter().map(|sent| sent.id.clone()).collect();
    let mut acknowledged = BTreeMap::new();
    for sent in sent {
        let is_accepted = within(sent.taken).await.unwrap().is_ok();
        *acknowledged.entry(sent.id).or_insert(false) |= is_accepted;
    }
    // Longer than the next poll for workflows of a lost lease.
    tokio::time::sleep(4 * TERM).await;
    let filter = ListFilter { limit: usize::MAX, ..ListFilter::default() };
    let stored = memory.list(filter).await.unwrap();
    for workflow in &stored {
        assert_eq!(workflow.status, WorkflowStatus::Completed, "{}", workflow.id);
        acknowledged.remove(&workflow.id);
    }
    let lost: Vec<_> = acknowledged.iter().filter(|(_, is_accepted)| **is_accepted).collect();
    assert!(lost.is_empty(), "acknowledged and not stored: {lost:?}");
    for workflow in &stored {
        let calls = harness.script.calls();
        let done = calls.iter().filter(|it| it.workflow == workflow.id.as_str()).count();
        assert!(done >= 1, "{} has completed without a call", workflow.id);
    }
    finish(harness, ids).await;
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Engines that take over, and such as run only what they are given and keep their lease.
    #[test]
    fn no_submission_is_left_where_nobody_runs_it(
        mut steps in prop::collection::vec(step(), 1..6),
        takes_over in any::<bool>(),
    ) {
        if !takes_over {
            // What such an engine loses is for others to run.
            for step in &mut steps {
                step.loses_lease = false;
            }
        }
        actix::System::new().block_on(nothing_is_left(steps, takes_over));
    }
}
