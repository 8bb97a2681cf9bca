//! Conditions, switches and values: decided without a call, in the turn of what they wait for.

use std::{collections::BTreeMap, sync::Arc};

use gleitzeit_actors::memory_store::MemoryStore;
use gleitzeit_domain::{
    error::ErrorCode,
    task::TaskStatus::{self, Completed, Failed, Skipped, UpstreamFailed},
    workflow::{Branch, TaskSpec, WorkflowSpec, WorkflowStatus},
};
use proptest::prelude::*;
use serde_json::json;

use crate::{
    recovery::{crash, first, second},
    support::{Harness, code, failing, of, quick, result, statuses, task},
};

/// A skipped task is no failure; what needs its result is skipped with it, and names the condition.
#[actix::test]
async fn a_condition_leaves_a_task_out() {
    let mut harness = Harness::open().await;
    let spec = WorkflowSpec::new("w")
        .input("limit", 3)
        .task(quick("left").when("inputs.limit > 5"))
        .task(task("needs", json!({"x": "${left.x}"})))
        .task(quick("after").after("left"))
        .task(task("fallback", json!({"x": "${left.x:-none}"})))
        .task(quick("asks").when("skipped(left) && !failed(left)"))
        .task(quick("runs").when("inputs.limit == 3"));
    let record = harness.run(spec).await;
    assert_eq!(record.status, WorkflowStatus::Completed);
    let expected = [Skipped, Skipped, Completed, Completed, Completed, Completed];
    assert_eq!(statuses(&record), expected);
    let error = of(&record, "needs").error.clone().unwrap();
    assert_eq!(error.code, ErrorCode::TaskSkipped);
    assert!(error.message.contains("`left`, which was skipped: `inputs.limit > 5`"), "{error}");
    let mut called = harness.script.order();
    called.sort();
    assert_eq!(called, ["after", "asks", "fallback", "runs"]);
    harness.finish().await;
}

/// How a task ended can be asked whatever its end, and needs no policy.
#[actix::test]
async fn a_failure_can_be_handled() {
    let mut harness = Harness::open().await;
    let spec = WorkflowSpec::new("w")
        .task(failing("bad"))
        .task(quick("alarm").when("failed(bad) && error(bad).name == 'TASK_EXECUTION_FAILED'"))
        .task(quick("calm").when("completed(bad)"))
        .task(quick("behind").after("bad"));
    let record = harness.run(spec).await;
    assert_eq!(statuses(&record), [Failed, Completed, Skipped, UpstreamFailed]);
    assert_eq!(record.status, WorkflowStatus::Failed);
    harness.finish().await;
}

/// The first branch that holds is chosen, and the others are left out.
#[actix::test]
async fn a_switch_chooses_one_branch() {
    let mut harness = Harness::open().await;
    for (kind, chosen) in [("image", "look"), ("text", "read")] {
        let branches = [Branch::new("image", "inputs.kind == 'image'"), Branch::otherwise("text")];
        let spec = WorkflowSpec::new("w")
            .input("kind", kind)
            .task(TaskSpec::switch("route", branches))
            .task(task("look", json!({"value": {"was": "look"}})).in_branch("route.image"))
            .task(task("read", json!({"value": {"was": "read"}})).in_branch("route.text"))
            .task(TaskSpec::value("join", "coalesce(look.was, read.was)"));
        let record = harness.run(spec).await;
        assert_eq!(record.status, WorkflowStatus::Completed, "{record:?}");
        assert_eq!(result(&record, "route"), &json!({"to": kind}));
        assert_eq!(result(&record, "join"), &json!(chosen));
        assert_eq!(harness.script.order().last().map(String::as_str), Some(chosen));
    }
    assert_eq!(harness.script.order(), ["look", "read"]);
    harness.finish().await;
}

/// A workflow of values alone ends with its submission; a long chain needs no stack.
#[actix::test]
async fn values_need_no_provider() {
    let mut harness = Harness::open().await;
    let first = TaskSpec::value("t0", "inputs.start");
    let spec = WorkflowSpec::new("w").input("start", 1).task(first);
    let spec = (1..900).fold(spec, |spec, at| {
        spec.task(TaskSpec::value(format!("t{at}"), format!("t{} + 1", at - 1)))
    });
    let record = harness.run(spec).await;
    assert_eq!(record.status, WorkflowStatus::Completed);
    assert_eq!(result(&record, "t899"), &json!(900));
    assert!(harness.script.order().is_empty());
    harness.finish().await;
}

/// What cannot be decided is a failure, and never taken for false.
#[actix::test]
async fn an_undecidable_condition_fails_its_task() {
    let mut harness = Harness::open().await;
    let spec = WorkflowSpec::new("w")
        .task(quick("made"))
        .task(quick("odd").when("made.nothing > 1"))
        .task(quick("behind").after("odd"));
    let record = harness.run(spec).await;
    assert_eq!(statuses(&record), [Completed, Failed, UpstreamFailed]);
    assert_eq!(code(&record, "odd"), Some(ErrorCode::TaskConditionError));
    assert_eq!(harness.script.order(), ["made"]);
    harness.finish().await;
}

/// A value that no store could read back fails its task before anything else is decided by it.
#[actix::test]
async fn a_value_that_is_no_result_fails_for_all() {
    let mut harness = Harness::open().await;
    let deep = (0..99).fold(json!(1), |inner, _| json!([inner]));
    let spec = WorkflowSpec::new("w")
        .task(task("a", json!({ "value": deep })))
        .task(TaskSpec::value("v", "[[a]]"))
        .task(TaskSpec::value("seen", "status(v)"))
        .task(quick("behind").after("v"));
    let record = harness.run(spec).await;
    assert_eq!(statuses(&record), [Completed, Failed, Completed, UpstreamFailed]);
    assert_eq!(code(&record, "v"), Some(ErrorCode::TaskResultInvalid));
    assert_eq!(result(&record, "seen"), &json!("failed"));
    assert_eq!(harness.script.order(), ["a"]);
    harness.finish().await;
}

/// A process that dies after a decision is followed by one that decides the same.
#[actix::test]
async fn decisions_outlive_a_crash() {
    let memory = Arc::new(MemoryStore::default());
    let (mut harness, store) = first(&memory).await;
    let spec = || {
        WorkflowSpec::new("w")
            .id("w")
            .input("n", 7)
            .task(TaskSpec::value("double", "inputs.n * 2"))
            .task(quick("left").when("double > 20"))
            .task(task("slow", json!({"gate": "open"})).when("double == 14"))
            .task(task("end", json!({"x": "${left.x:-none}"})).after("slow"))
    };
    harness.submit(spec()).await.unwrap();
    harness.until_task("task:started", "slow").await;
    harness.catch_up().await;
    let stored = harness.stored(&"w".into()).await;
    assert_eq!(statuses(&stored)[..2], [Completed, Skipped]);
    let last = stored.last_sequence;
    crash(harness, &store).await;
    let mut again = second(&memory).await;
    assert_eq!(again.recover().await.workflows, 1);
    again.script.open("open");
    let record = again.wait(&"w".into()).await.unwrap();
    assert_eq!(statuses(&record), [Completed, Skipped, Completed, Completed]);
    assert!(record.last_sequence > last);
    again.finish().await;
}

/// A random workflow: each task fails or not, has a condition or none, and asks the ones before it.
#[derive(Debug, Clone)]
struct Shape {
    fails: bool,
    condition: Option<bool>,
    asks: Vec<(usize, u8)>,
}

fn shapes() -> impl Strategy<Value = Vec<Shape>> {
    let shape = (
        any::<bool>(),
        prop::option::of(any::<bool>()),
        prop::collection::vec((0..8_usize, 0..3_u8), 0..3),
    );
    prop::collection::vec(shape, 1..8).prop_map(|all| {
        all.into_iter()
            .enumerate()
            .map(|(at, (fails, condition, asks))| {
                let asks = asks.into_iter().filter(|(on, _)| *on < at).collect();
                Shape { fails, condition, asks }
            })
            .collect()
    })
}

fn spec_of(shapes: &[Shape]) -> WorkflowSpec {
    shapes.iter().enumerate().fold(WorkflowSpec::new("w"), |spec, (at, shape)| {
        let id = format!("t{at}");
        let mut spec_of = if shape.fails { failing(&id) } else { quick(&id) };
        let mut condition = vec![shape.condition.unwrap_or(true).to_string()];
        for (on, kind) in &shape.asks {
            match kind {
                0 => spec_of = spec_of.after(format!("t{on}")),
                1 => condition.push(format!("(completed(t{on}) || !completed(t{on}))")),
                _ => condition.push(format!("(t{on} == 0 || t{on} != 0)")),
            }
        }
        spec.task(spec_of.when(condition.join(" && ")))
    })
}

/// The table of the format, from the first task to the last.
fn expected(shapes: &[Shape]) -> Vec<TaskStatus> {
    let mut ends: Vec<TaskStatus> = Vec::new();
    for shape in shapes {
        let mut strongest: BTreeMap<usize, u8> = BTreeMap::new();
        for (on, kind) in &shape.asks {
            // value (2) before order (0) before end (1)
            let rank = [1, 0, 2][usize::from(*kind)];
            let known = strongest.entry(*on).or_insert(rank);
            *known = (*known).max(rank);
        }
        let meets = |end: TaskStatus, least: u8| {
            strongest.iter().any(|(on, rank)| ends[*on] == end && *rank >= least)
        };
        let failed = meets(Failed, 1) || meets(UpstreamFailed, 1);
        let skipped = meets(Skipped, 2);
        let end = match (failed, skipped) {
            (true, false) => UpstreamFailed,
            (false, true) => Skipped,
            (true, true) => TaskStatus::Pending,
            _ if shape.condition == Some(false) => Skipped,
            _ if shape.fails => Failed,
            _ => Completed,
        };
        ends.push(end);
    }
    ends
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever fails and is skipped, the workflow settles, and each task ends as the table says.
    /// A task that meets a failure and a skip at once ends as the first of them; its followers too.
    #[test]
    fn every_task_ends_as_the_table_says(shapes in shapes()) {
        let expected = expected(&shapes);
        prop_assume!(!expected.contains(&TaskStatus::Pending));
        let record = actix::System::new().block_on(async {
            let mut harness = Harness::open().await;
            let record = harness.run(spec_of(&shapes)).await;
            harness.finish().await;
            record
        });
        prop_assert_eq!(statuses(&record), expected);
        prop_assert!(record.status.is_settled());
    }
}
