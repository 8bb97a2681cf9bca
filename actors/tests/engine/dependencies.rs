//! Order: tasks run after what they depend on, and as soon as they may.

use gleitzeit_domain::{
    error::ErrorCode::{self, TaskDependencyFailed},
    task::{
        OnDependencyFailure::{self, Fail, Run, Skip},
        TaskStatus::{self, Cancelled, Completed, Failed, UpstreamFailed},
    },
    workflow::{TaskSpec, WorkflowSpec, WorkflowStatus},
};
use serde_json::json;

use crate::support::{Harness, code, failing, of, quick, result, secs, statuses, task};

fn chain(length: u32) -> WorkflowSpec {
    let link = |n: u32| match n {
        0 => task("t0", json!({"value": 0})),
        n => task(&format!("t{n}"), json!({"value": format!("${{t{}}}", n - 1)}))
            .after(format!("t{}", n - 1)),
    };
    (0..length).map(link).fold(WorkflowSpec::new("chain"), WorkflowSpec::task)
}

/// Each link sees the result of the one before it; none runs early or twice.
#[actix::test]
async fn a_chain_runs_in_order() {
    let mut harness = Harness::open().await;
    let record = harness.run(chain(50)).await;
    assert_eq!(record.status, WorkflowStatus::Completed);
    let expected: Vec<String> = (0..50).map(|n| format!("t{n}")).collect();
    assert_eq!(harness.script.order(), expected);
    assert_eq!(result(&record, "t49"), &json!(0));
    harness.finish().await;
}

/// The join of a diamond waits for both sides, and its sides wait for the top only.
#[actix::test]
async fn a_diamond_joins_after_both_sides() {
    let mut harness = Harness::open().await;
    let spec = WorkflowSpec::new("diamond")
        .task(task("top", json!({"value": 2})))
        .task(task("left", json!({"sleep": 5, "value": "${top}"})))
        .task(task("right", json!({"sleep": 9, "value": "${top}"})))
        .task(task("join", json!({"value": ["${left}", "${right}"]})));
    let record = harness.run(spec).await;
    assert_eq!(result(&record, "join"), &json!([2, 2]));
    let began = |id: &str| harness.script.calls_of(id)[0].began.as_secs();
    assert_eq!([began("left"), began("right"), began("join")], [0, 0, 9]);
    harness.finish().await;
}

/// A thousand tasks fan out and join without one lost, and the join sees all of their results.
#[actix::test]
async fn a_fan_of_a_thousand_completes() {
    let mut harness = Harness::open().await;
    let mut spec = WorkflowSpec::new("fan").task(task("first", json!({"value": 1})));
    let mut join = quick("last");
    for n in 0..1000 {
        let id = format!("m{n}");
        spec = spec.task(task(&id, json!({"value": ["${first}", n]})));
        join = join.after(id);
    }
    let record = harness.run(spec.task(join.params(json!({"value": "${m999}"})))).await;
    assert_eq!(record.status, WorkflowStatus::Completed);
    assert_eq!(result(&record, "last"), &json!([1, 999]));
    assert_eq!(harness.script.calls().len(), 1002);
    assert_eq!(harness.script.order().last().map(String::as_str), Some("last"));
    harness.finish().await;
}

/// A slow task on one branch holds up no other branch, however deep.
#[actix::test]
async fn there_is_no_barrier_between_levels() {
    let mut harness = Harness::open().await;
    let spec = chain(10).task(task("slow", json!({"sleep": 200})));
    let record = harness.run(spec).await;
    assert_eq!(record.status, WorkflowStatus::Completed);
    let deepest = &harness.script.calls_of("t9")[0];
    assert!(deepest.began < secs(1), "the chain waited for the slow task: {deepest:?}");
    harness.finish().await;
}

/// What becomes of those behind `first`, which ends badly, and `good`, which does not. One that
/// waits at a gate is cancelled there.
async fn behind(
    harness: &mut Harness,
    bad: TaskSpec,
    policy: OnDependencyFailure,
) -> (Vec<TaskStatus>, [Option<ErrorCode>; 2]) {
    let cancelled = bad.parameters.get("gate").is_some();
    let spec = WorkflowSpec::new("policies")
        .task(bad)
        .task(quick("good"))
        .task(quick("direct").after("first").after("good").on_dependency_failure(policy))
        .task(quick("behind").after("direct"))
        .task(quick("other").after("good"));
    let sent = harness.submit(spec).await.unwrap();
    if cancelled {
        harness.cancel_task(&sent.id, "first").await.unwrap();
    }
    let record = sent.end().await;
    assert_eq!(record.status, WorkflowStatus::Failed, "a failed task is never a success");
    (statuses(&record)[2..].to_vec(), [code(&record, "direct"), code(&record, "behind")])
}

/// However a task ends without a result, its dependents follow their own policy, and branches
/// that do not need it go on.
#[actix::test]
async fn dependents_follow_their_policy_whatever_went_wrong() {
    let endings = [
        failing("first"),
        task("first", json!({"gate": "never"})),
        task("first", json!({"sleep": 60})).timeout(secs(1)),
        task("first", json!({"sleep": 60})).total_timeout(secs(1)),
    ];
    let mut harness = Harness::open().await;
    for bad in endings {
        let dependency = Some(TaskDependencyFailed);
        let skipped = behind(&mut harness, bad.clone(), Skip).await;
        assert_eq!(
            skipped,
            (vec![UpstreamFailed, UpstreamFailed, Completed], [dependency; 2]),
            "{bad:?}"
        );
        let failed = behind(&mut harness, bad.clone(), Fail).await;
        assert_eq!(failed, (vec![Failed, UpstreamFailed, Completed], [dependency; 2]), "{bad:?}");
        let ran = behind(&mut harness, bad.clone(), Run).await;
        assert_eq!(ran, (vec![Completed, Completed, Completed], [None; 2]), "{bad:?}");
    }
    harness.finish().await;
}

/// A task that is skipped counts for those behind it as its cause does: each follows its own
/// policy, and each names the task that failed by itself.
#[actix::test]
async fn a_skipped_dependency_follows_the_policy_too() {
    let mut harness = Harness::open().await;
    let spec = WorkflowSpec::new("skipped")
        .task(failing("cause"))
        .task(quick("skipped").after("cause"))
        .task(quick("skip").after("skipped"))
        .task(quick("fail").after("skipped").on_dependency_failure(Fail))
        .task(quick("run").after("skipped").on_dependency_failure(Run));
    let record = harness.run(spec).await;
    assert_eq!(statuses(&record), [Failed, UpstreamFailed, UpstreamFailed, Failed, Completed]);
    for id in ["skipped", "skip", "fail"] {
        let error = of(&record, id).error.as_ref().unwrap();
        assert_eq!(error.code, TaskDependencyFailed);
        assert_eq!(error.data.as_ref().unwrap()["failed_task_id"], "cause", "{id}: {error}");
        assert!(error.message.contains("cause"), "{error}");
    }
    assert_eq!(harness.script.order(), ["cause", "run"], "nothing that was skipped ran");
    harness.finish().await;
}

/// A cancelled task that had not begun decides its dependents as well.
#[actix::test]
async fn a_task_cancelled_before_its_turn_decides_its_dependents() {
    let mut harness = Harness::open().await;
    let spec = WorkflowSpec::new("early")
        .task(task("gate", json!({"gate": "g"})))
        .task(quick("mid").after("gate"))
        .task(quick("end").after("mid"))
        .task(quick("anyway").after("mid").after("gate").on_dependency_failure(Run));
    let sent = harness.submit(spec).await.unwrap();
    harness.until_task("task:started", "gate").await;
    harness.cancel_task(&sent.id, "mid").await.unwrap();
    harness.script.open("g");
    let record = sent.end().await;
    assert_eq!(statuses(&record), [Completed, Cancelled, UpstreamFailed, Completed]);
    assert_eq!(record.status, WorkflowStatus::Failed);
    harness.finish().await;
}
