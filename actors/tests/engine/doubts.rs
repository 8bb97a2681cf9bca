//! Submissions of which the store did not say whether they are stored: none of them is left where
//! nobody runs it.

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

use crate::support::{Line, Setup, Stage, State, quick, secs, within};

const TERM: Duration = secs(15);

/// An engine at the end of a line to a shared store, where a test has no clock yet.
async fn open(takes_over: bool) -> (Arc<MemoryStore>, Arc<Line>, Stage) {
    tokio::time::pause();
    open_again(takes_over).await
}

async fn open_again(takes_over: bool) -> (Arc<MemoryStore>, Arc<Line>, Stage) {
    let memory = Arc::new(MemoryStore::default().with_timed_leases());
    let line = Line::over(&memory);
    let engine = EngineSettings { takes_over, lease_term: TERM, ..EngineSettings::default() };
    let store = Arc::<Line>::clone(&line);
    let mut stage = Setup { engine, store, ..Setup::default() }.open_again().await;
    if takes_over {
        stage.recover().await;
    }
    (memory, line, stage)
}

fn one(id: &str) -> WorkflowSpec {
    WorkflowSpec::new("one").id(id).task(quick("a"))
}

/// Ends a stage whose workflow was taken up from the store.
async fn finish(mut stage: Stage, ids: impl IntoIterator<Item = WorkflowId>) {
    for id in ids {
        stage.leave_out(&id);
        if stage.store.workflow(&id).await.unwrap().is_some() {
            stage.check_stored(&id).await;
        }
    }
    stage.finish().await;
}

async fn status(memory: &MemoryStore, id: &str) -> Option<WorkflowStatus> {
    memory.workflow(&id.into()).await.unwrap().map(|record| record.status)
}

/// The answer to the commit is lost and the store is away for longer than anybody waits: who asked
/// hears of the doubt, and the workflow runs when the store is back, whether it was stored before
/// or not.
#[actix::test]
async fn a_doubt_is_settled_when_the_store_is_back() {
    tokio::time::pause();
    for first in [State::Deaf, State::Lost] {
        let (memory, line, mut stage) = open_again(false).await;
        stage.run(one("before")).await;
        line.spoil_submits(vec![first]);
        line.set(State::Refusing);
        let error = stage.submit(one("w")).await.err().unwrap();
        assert!(matches!(error, SubmitError::Store(_)), "{error}");
        assert_eq!(error.code(), ErrorCode::PersistenceTransactionFailed);
        assert!(stage.engine_counts().await.admissions, "the doubt counts");
        tokio::time::sleep(secs(60)).await;
        line.set(State::Whole);
        tokio::time::sleep(secs(5)).await;
        assert_eq!(status(&memory, "w").await, Some(WorkflowStatus::Completed), "{first:?}");
        assert_eq!(stage.board.calls().len(), 2);
        finish(stage, ["w".into()]).await;
    }
}

/// Who submits the same again is told the truth, and its end.
#[actix::test]
async fn the_same_submitted_again_settles_the_doubt() {
    let (memory, line, mut stage) = open(false).await;
    stage.run(one("before")).await;
    line.spoil_submits(vec![State::Deaf]);
    line.set(State::Refusing);
    assert!(stage.submit(one("w")).await.is_err());
    line.set(State::Whole);
    let record = stage.run(one("w")).await;
    assert_eq!(record.status, WorkflowStatus::Completed);
    assert_eq!(status(&memory, "w").await, Some(WorkflowStatus::Completed));
    assert_eq!(stage.board.calls().len(), 2, "it ran once");
    finish(stage, ["w".into()]).await;
}

/// The read that would tell whose it is fails: that is a doubt as well.
#[actix::test]
async fn a_doubt_whose_owner_cannot_be_read_is_settled_later() {
    let (memory, line, mut stage) = open(false).await;
    stage.run(one("before")).await;
    // The second write finds it there, and the line breaks before it can be read.
    line.spoil_submits(vec![State::Deaf, State::Whole]);
    line.set(State::Refusing);
    assert!(stage.submit(one("w")).await.is_err());
    line.set(State::Whole);
    tokio::time::sleep(secs(5)).await;
    assert_eq!(status(&memory, "w").await, Some(WorkflowStatus::Completed));
    finish(stage, ["w".into()]).await;
}

/// The lease is lost between the commit and the next write: the workflow bears a lease that is gone,
/// and is claimed by its id.
#[actix::test]
async fn a_doubt_under_a_lease_that_is_gone_is_claimed() {
    let (memory, line, mut stage) = open(false).await;
    stage.run(one("before")).await;
    line.spoil_submits(vec![State::Deaf]);
    let sent = stage.send(one("w"));
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(status(&memory, "w").await, Some(WorkflowStatus::Pending));
    memory.close_lease(Epoch(1)).await.unwrap();
    let record = sent.end().await;
    assert_eq!(record.status, WorkflowStatus::Completed);
    assert_eq!(stage.board.calls().len(), 2);
    finish(stage, ["w".into()]).await;
}

/// What happens to one submission.
#[derive(Debug, Clone)]
struct Step {
    /// What becomes of its writes.
    writes: Vec<State>,
    /// What the line is like from then on, and for how long.
    line: State,
    millis: u64,
    /// Who holds a lease loses it before.
    loses_lease: bool,
    /// The same is submitted twice.
    again: bool,
}

fn state() -> impl Strategy<Value = State> {
    prop::sample::select(vec![
        State::Whole,
        State::Whole,
        State::Deaf,
        State::Lost,
        State::Refusing,
        State::Stalled,
    ])
}

fn step() -> impl Strategy<Value = Step> {
    // A single call cannot be stalled for good, the line can.
    let write = state().prop_map(|it| if it == State::Stalled { State::Deaf } else { it });
    let writes = prop::collection::vec(write, 0..8);
    let lease = prop::bool::weighted(0.15);
    (writes, state(), 0..6_000_u64, lease, prop::bool::weighted(0.3)).prop_map(
        |(writes, line, millis, loses_lease, again)| Step {
            writes,
            line,
            millis,
            loses_lease,
            again,
        },
    )
}

/// Whatever is lost on the line and for how long: once it is whole, everything that is stored has
/// ended, everything that was acknowledged is stored, and nothing completed twice.
async fn nothing_is_left(steps: Vec<Step>, takes_over: bool) {
    let (memory, line, mut stage) = open(takes_over).await;
    stage.run(one("before")).await;
    let mut sent = Vec::new();
    for (number, step) in steps.into_iter().enumerate() {
        if step.loses_lease {
            // As after a takeover; the engine hears of it at its next write.
            memory.close_lease(Epoch(number as u64 + 1)).await.unwrap();
        }
        line.spoil_submits(step.writes);
        line.set(step.line);
        let id = format!("w{number}");
        sent.push(stage.send(one(&id)));
        if step.again {
            tokio::time::sleep(Duration::from_millis(step.millis / 2)).await;
            sent.push(stage.send(one(&id)));
        }
        tokio::time::sleep(Duration::from_millis(step.millis)).await;
    }
    line.spoil_submits(Vec::new());
    line.set(State::Whole);
    let ids: Vec<WorkflowId> = sent.iter().map(|sent| sent.id.clone()).collect();
    let mut acknowledged = BTreeMap::new();
    for sent in sent {
        let is_accepted = within(sent.taken).await.unwrap().is_ok();
        *acknowledged.entry(sent.id).or_insert(false) |= is_accepted;
    }
    // Longer than the next look for what a lost lease left.
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
        let calls = stage.board.calls();
        let done = calls.iter().filter(|it| it.workflow == workflow.id.as_str()).count();
        assert!(done >= 1, "{} has completed without a call", workflow.id);
    }
    finish(stage, ids).await;
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
