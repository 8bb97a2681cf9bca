//! A crash takes place where it is planned, and nothing of the dead runtime is seen again.

use gleitzeit::{
    Effect, MethodSpec, ProtocolSpec, RetryPolicy, TaskSpec, TaskStatus, WorkflowSpec,
    WorkflowStatus, domain::store::lease::Resolution,
};
use gleitzeit_testkit::{Crash, TestKit};
use serde_json::json;

fn bank(effect: Effect) -> ProtocolSpec {
    let charge = MethodSpec { effect, ..MethodSpec::new("charge") };
    ProtocolSpec::new("bank", "v1.0".parse().unwrap()).method(charge)
}

fn kit(effect: Effect) -> TestKit {
    let mut kit = TestKit::new();
    kit.protocol(bank(effect));
    kit.fake("bank/charge", |call| Ok(json!(call.number)));
    kit.fake("post/ship", |_| Ok(json!("on its way")));
    kit
}

fn order() -> WorkflowSpec {
    WorkflowSpec::new("order")
        .task(TaskSpec::new("charge", "bank/charge"))
        .task(TaskSpec::new("ship", "post/ship").after("charge"))
}

/// The line between once and twice is the commit of the outcome.
#[test]
fn a_call_is_repeated_only_if_its_outcome_was_not_stored() {
    for (crash, calls) in [
        (Crash::after("task:completed charge"), 1),
        (Crash::before("task:completed charge"), 2),
        (Crash::during("charge"), 2),
    ] {
        let mut kit = kit(Effect::Idempotent);
        kit.crash(crash.clone());
        let ended = kit.run(order());
        assert_eq!(ended.status, WorkflowStatus::Completed, "{crash:?}: {:?}", ended.error);
        kit.assert_crashed();
        assert_eq!(kit.calls("bank/charge").len(), calls, "{crash:?}");
        assert_eq!(ended.task("charge").unwrap().result::<usize>().unwrap(), calls, "{crash:?}");
        kit.assert_calls("post/ship", 1);
        assert_eq!((kit.lives(), ended.count("workflow:recovered")), (2, 1), "{crash:?}");
        // Both attempts bear one key, by which the bank knows them.
        let keys: Vec<_> =
            kit.calls("bank/charge").iter().map(gleitzeit::Call::idempotency_key).collect();
        assert!(keys.iter().all(|key| key == "workflow-1/charge"), "{keys:?}");
    }
}

/// Each place in the life of a workflow, one after the other, in one test.
#[test]
fn it_completes_through_a_crash_at_every_event() {
    let mut events = kit(Effect::Idempotent).run(order()).lines();
    events.dedup();
    let ends = ["workflow:completed", "task:completed charge", "task:completed ship"];
    assert!(ends.iter().all(|end| events.iter().any(|event| event == end)), "{events:?}");
    for event in &events {
        for crash in [Crash::before(event), Crash::after(event)] {
            let mut kit = kit(Effect::Idempotent);
            kit.crash(crash.clone());
            let ended = kit.run(order());
            assert_eq!(ended.status, WorkflowStatus::Completed, "{crash:?}");
            kit.assert_crashed();
            let numbers: Vec<u64> = ended.events.iter().map(|event| event.sequence).collect();
            assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>(), "{crash:?}");
        }
    }
}

/// A crash in the recovery from a crash, and the third of the same kind.
#[test]
fn crashes_follow_each_other() {
    let mut kit = kit(Effect::Idempotent);
    kit.crash(Crash::during("charge")).crash(Crash::during("charge"));
    kit.crash(Crash::after("workflow:recovered").the(2));
    let policy = RetryPolicy { max_attempts: 9, ..RetryPolicy::default() };
    let charge = TaskSpec::new("charge", "bank/charge").retry(policy);
    let ended = kit.run(WorkflowSpec::new("order").task(charge));
    assert_eq!(ended.status, WorkflowStatus::Completed, "{:?}", ended.lines());
    kit.assert_crashed();
    assert_eq!(kit.lives(), 4);
    kit.assert_calls("bank/charge", 3);
}

/// What must not run twice waits for a person, whom the test plays.
#[test]
fn an_unknown_outcome_is_settled_by_the_test() {
    let mut kit = kit(Effect::AtMostOnce);
    kit.crash(Crash::during("charge"));
    let unknown = kit.run_until(order(), "task:outcome_unknown charge");
    assert_eq!(unknown.task("charge").unwrap().status, TaskStatus::OutcomeUnknown);
    kit.assert_calls("bank/charge", 1);
    kit.assert_calls("post/ship", 0);
    let id = unknown.id.clone();
    kit.live(async |handle| {
        let resolution = Resolution::Completed { result: json!("the bank says so") };
        handle.resolve(&id, &"charge".into(), resolution).await.unwrap();
        handle.wait(&id).await.unwrap();
    })
    .unwrap();
    let ended = kit.ended(&unknown.id);
    assert_eq!(ended.status, WorkflowStatus::Completed);
    kit.assert_calls("bank/charge", 1);
    kit.assert_calls("post/ship", 1);
    ended.assert_never("workflow:failed");
}

/// A misspelled event would make a test pass that tests nothing.
#[test]
#[should_panic(expected = "did not take place")]
fn a_crash_that_does_not_happen_is_reported() {
    let mut kit = kit(Effect::Pure);
    kit.crash(Crash::after("task:complete charge"));
    kit.run(order());
    kit.assert_crashed();
}

/// The text of a failed assertion is what a person needs to see.
#[test]
#[should_panic(expected = "no `task:failed ship` in its place among the events of `workflow-1`")]
fn a_missing_event_is_reported_with_all_others() {
    kit(Effect::Pure).run(order()).assert_order(&["task:completed charge", "task:failed ship"]);
}
