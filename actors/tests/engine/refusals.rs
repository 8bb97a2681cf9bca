//! A store that refuses the result of a task: the task fails, its workflow continues, and no one else
//! notices.

use std::sync::Arc;

use gleitzeit_actors::execution_engine::EngineCounts;
use gleitzeit_domain::{
    error::ErrorCode,
    retry::Backoff,
    store::StoreError,
    task::{
        OnDependencyFailure,
        TaskStatus::{Completed, Failed, UpstreamFailed},
    },
    workflow::{TaskSpec, WorkflowSpec, WorkflowStatus},
};
use serde_json::json;

use crate::support::{
    FlakyStore, Harness, POISON, Setup, StrictStore, code, of, quick, result, retries, secs,
    statuses, task,
};

async fn over(store: &Arc<StrictStore>) -> Harness {
    Setup { store: Arc::<StrictStore>::clone(store), ..Setup::default() }.open().await
}

fn bad(id: &str) -> TaskSpec {
    task(id, json!({"value": POISON}))
}

/// The case that counts: one of several tasks that end together is refused, its dependents follow
/// their policies, and those who do not need it complete. No call is repeated.
#[actix::test]
async fn a_refused_result_fails_its_own_task() {
    let mut harness = over(&StrictStore::new()).await;
    let after = |id: &str, how| quick(id).after("bad").on_dependency_failure(how);
    let spec = WorkflowSpec::new("w")
        .task(quick("good"))
        .task(bad("bad"))
        .task(quick("fine"))
        .task(after("skips", OnDependencyFailure::Skip))
        .task(after("fails", OnDependencyFailure::Fail))
        .task(
            task("runs", json!({"value": "${bad.$.status}"}))
                .after("bad")
                .on_dependency_failure(OnDependencyFailure::Run),
        )
        .task(quick("behind").after("skips"))
        .task(task("uses", json!({"value": "${good.value:-none}"})).after("fine"));
    let record = harness.run(spec).await;
    assert_eq!(record.status, WorkflowStatus::Failed);
    assert_eq!(
        statuses(&record),
        [
            Completed,
            Failed,
            Completed,
            UpstreamFailed,
            Failed,
            Completed,
            UpstreamFailed,
            Completed
        ]
    );
    assert_eq!(code(&record, "bad"), Some(ErrorCode::TaskResultInvalid));
    let error = of(&record, "bad").error.clone().unwrap();
    assert!(error.message.contains("cannot be stored: a value is not allowed"), "{error}");
    assert_eq!(result(&record, "runs"), &json!("failed"));
    assert_eq!(code(&record, "fails"), Some(ErrorCode::TaskDependencyFailed));
    assert_eq!(harness.script.calls().len(), 5, "nothing ran twice");
    assert_eq!(*record, harness.stored(&record.id).await);
    harness.finish().await;
}

/// A task that must not run twice has run, and its outcome is known: it failed.
#[actix::test]
async fn a_refused_result_of_a_call_that_must_not_repeat_is_a_failure() {
    let mut harness = over(&StrictStore::new()).await;
    let once = TaskSpec::new("once", "test/once").params(json!({"value": POISON}));
    let policy = retries(3, Backoff::Fixed, secs(1));
    let record = harness.run(WorkflowSpec::new("w").task(once.retry(policy))).await;
    assert_eq!((record.status, &*statuses(&record)), (WorkflowStatus::Failed, &[Failed][..]));
    assert_eq!(harness.script.calls().len(), 1);
    harness.finish().await;
}

/// The workflow's end is written with its last task: when that is refused, the end is another one.
#[actix::test]
async fn a_refused_last_result_ends_the_workflow_as_failed() {
    let mut harness = over(&StrictStore::new()).await;
    let record =
        harness.run(WorkflowSpec::new("w").task(quick("a")).task(bad("b").after("a"))).await;
    assert_eq!(
        (record.status, &*statuses(&record)),
        (WorkflowStatus::Failed, &[Completed, Failed][..])
    );
    let published = harness.published(&record.id);
    assert_eq!(
        published.iter().filter(|it| it.starts_with("workflow:")).count(),
        3,
        "{published:?}"
    );
    assert_eq!(published.last().map(String::as_str), Some("workflow:failed"));
    harness.finish().await;
}

/// Many workflows in one write, some with several that are refused: each has what is its own.
#[actix::test]
async fn refusals_hold_up_nobody() {
    let store = StrictStore::new();
    // Between two parts of a change the store is away for a while.
    store.become_unavailable(6);
    let mut harness = over(&store).await;
    let sent: Vec<_> = (0..20)
        .map(|n| {
            let mut spec = WorkflowSpec::new("w");
            for at in 0..10 {
                let id = format!("t{at}");
                spec = spec.task(if n % 2 == 0 && at % 3 == 1 { bad(&id) } else { quick(&id) });
            }
            harness.send(spec.task(quick("end").after("t0").after("t9")))
        })
        .collect();
    for (n, sent) in sent.into_iter().enumerate() {
        let record = sent.end().await;
        let failed = statuses(&record).iter().filter(|it| **it == Failed).count();
        assert_eq!(failed, if n % 2 == 0 { 3 } else { 0 });
        assert_eq!(of(&record, "end").status, Completed);
    }
    assert_eq!(harness.script.calls().len(), 20 * 11, "nothing ran twice");
    harness.finish().await;
}

/// An error may be what the store refuses, too: another one says so in its place, and the policy of
/// retries holds as before.
#[actix::test]
async fn a_refused_error_is_replaced() {
    let mut harness = over(&StrictStore::new()).await;
    let fails = |id: &str| task(id, json!({"fail": "CONNECTION_LOST", "text": POISON}));
    let spec = WorkflowSpec::new("w").task(fails("once")).task(fails("twice").retry(retries(
        2,
        Backoff::Fixed,
        secs(1),
    )));
    let record = harness.run(spec).await;
    assert_eq!(statuses(&record), [Failed, Failed]);
    assert_eq!(code(&record, "once"), Some(ErrorCode::ConnectionLost));
    assert_eq!(code(&record, "twice"), Some(ErrorCode::TaskRetryExhausted));
    let error = of(&record, "once").error.clone().unwrap();
    assert!(error.message.contains("cannot be stored: a value is not allowed"), "{error}");
    assert_eq!(harness.script.calls().len(), 3);
    harness.finish().await;
}

/// A first task that ended before its workflow was stored is written behind it when it is refused.
#[actix::test]
async fn a_refused_early_result_fails_its_task_and_not_the_submission() {
    let mut harness = over(&StrictStore::new()).await;
    let pure =
        |id: &str, value: &str| TaskSpec::new(id, "test/pure").params(json!({"value": value}));
    let spec = WorkflowSpec::new("w")
        .task(pure("good", "x"))
        .task(pure("bad", POISON))
        .task(quick("after").after("good"))
        .task(quick("never").after("bad"));
    let record = harness.run(spec).await;
    assert_eq!(statuses(&record), [Completed, Failed, Completed, UpstreamFailed]);
    assert_eq!(*record, harness.stored(&record.id).await);
    harness.finish().await;
}

/// A workflow of which the store takes nothing at all is given up, as before.
#[actix::test]
async fn a_change_that_is_refused_without_its_result_is_abandoned() {
    let refused = StoreError::Refused { detail: "never".into() };
    let store = FlakyStore::flaky(Vec::new(), vec![refused; 2]);
    let setup = Setup { store: Arc::<FlakyStore>::clone(&store), ..Setup::default() };
    let mut harness = setup.open().await;
    let sent = harness.submit(WorkflowSpec::new("w").task(quick("a"))).await.unwrap();
    assert_eq!(sent.refusal().await.code, ErrorCode::PersistenceWriteFailed);
    harness.catch_up().await;
    assert_eq!(harness.engine_counts().await, EngineCounts::default());
    harness.actors.stop(secs(0)).await;
}
