//! Submissions: what is refused, with everything that is wrong, and what the same id means.

use gleitzeit_domain::{
    error::ErrorCode,
    plan::Draft,
    problem::SubmitError,
    workflow::{TaskSpec, WorkflowSpec, WorkflowStatus},
};
use serde_json::json;

use crate::support::{Harness, quick, task, within};

/// A submission of the same id, while it is on its way, runs, or is long over: one run, and one answer for
/// all who ask.
#[actix::test]
async fn the_same_id_runs_once() {
    let mut harness = Harness::open().await;
    let spec = || WorkflowSpec::new("same").id("same").task(task("t", json!({"gate": "g"})));
    let together: Vec<_> = (0..20).map(|_| harness.send(spec())).collect();
    harness.until_task("task:started", "t").await;
    let running = harness.submit(spec()).await.unwrap();
    harness.script.open("g");
    let first = running.end().await;
    for sent in together {
        assert_eq!(within(sent.taken).await.unwrap(), Ok("same".into()));
        assert_eq!(within(sent.end).await.unwrap().unwrap(), first);
    }
    let later = harness.submit(spec()).await.unwrap().end().await;
    assert_eq!((&later.status, &later.tasks), (&first.status, &first.tasks));
    assert_eq!(harness.script.calls().len(), 1);
    assert_eq!(harness.wait(&"same".into()).await.unwrap().status, WorkflowStatus::Completed);
    harness.finish().await;
}

/// A different workflow of an id that is taken is refused, with what differs, and the first one stays.
#[actix::test]
async fn a_different_workflow_of_the_same_id_is_refused() {
    let mut harness = Harness::open().await;
    let first = harness.run(WorkflowSpec::new("first").id("w").task(quick("a"))).await;
    let second = WorkflowSpec::new("second").id("w").task(quick("b")).task(quick("c"));
    let refused = harness.submit(second).await.map(|sent| sent.id).unwrap_err();
    assert_eq!(refused.code(), ErrorCode::WorkflowInvalidState);
    let published = refused.to_string();
    assert!(published.contains("`w` was submitted before and differs"), "{published}");
    assert!(published.contains("name") && published.contains("task"), "{published}");
    assert_eq!(harness.wait(&"w".into()).await.unwrap().name, first.name);
    assert_eq!(harness.script.order(), ["a"]);
    harness.finish().await;
}

/// Waiting for what is not there is answered, not waited for.
#[actix::test]
async fn an_unknown_workflow_cannot_be_waited_for() {
    let harness = Harness::open().await;
    let error = harness.wait(&"nobody".into()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::WorkflowNotFound);
    harness.finish().await;
}

/// All problems of methods and parameters are returned at once, and no task runs.
#[actix::test]
async fn a_wrong_workflow_is_refused_with_all_that_is_wrong() {
    let mut harness = Harness::open().await;
    let spec = WorkflowSpec::new("wrong")
        .id("wrong")
        .task(quick("fine"))
        .task(TaskSpec::new("no-protocol", "nobody/run"))
        .task(TaskSpec::new("no-method", "test/walk"))
        .task(TaskSpec::new("no-version", "test/v9.0:run"))
        .task(TaskSpec::new("params", "test/strict").params(json!({"count": 0, "more": 1})))
        .task(TaskSpec::new("typed", "test/typed"))
        .task(TaskSpec::new("path", "test/run").params(json!({"x": "${typed.number.deep}"})));
    let sent = harness.send(spec);
    let error = sent.refusal().await;
    assert_eq!(error.code, ErrorCode::WorkflowValidationFailed);
    let problems = error.data.as_ref().unwrap()["problems"].clone();
    let found: Vec<(i64, &str)> = problems
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["code"].as_i64().unwrap(), it["pointer"].as_str().unwrap()))
        .collect();
    let expected = [
        (ErrorCode::ProtocolNotFound, "/tasks/1/method"),
        (ErrorCode::MethodNotFound, "/tasks/2/method"),
        (ErrorCode::ProtocolVersionMismatch, "/tasks/3/method"),
        (ErrorCode::InvalidParams, "/tasks/4/parameters/count"),
        (ErrorCode::InvalidParams, "/tasks/4/parameters/more"),
        (ErrorCode::TaskParameterError, "/tasks/6/parameters/x"),
    ];
    let expected = expected.map(|(code, pointer)| (i64::from(code.number()), pointer));
    assert_eq!(found, expected);
    assert!(harness.script.calls().is_empty());
    assert!(harness.store.workflow(&"wrong".into()).await.unwrap().is_none());
    // Its id is free again.
    let right = WorkflowSpec::new("right").id("wrong").task(quick("t"));
    assert_eq!(harness.run(right).await.status, WorkflowStatus::Completed);
    harness.finish().await;
}

/// A circle is refused with the way around it.
#[actix::test]
async fn a_circle_is_refused() {
    let mut harness = Harness::open().await;
    let spec = WorkflowSpec::new("circle")
        .task(quick("a").after("c"))
        .task(task("b", json!({"value": "${a}"})))
        .task(quick("c").after("b"))
        .task(quick("outside"));
    let refused = harness.submit(spec).await.err().unwrap();
    assert_eq!(refused.code(), ErrorCode::WorkflowCircularDependency);
    let text = refused.to_string();
    assert!(["a", "b", "c"].iter().all(|id| text.contains(id)), "{text}");
    assert!(!text.contains("outside"), "{text}");
    harness.finish().await;
}

/// A problem that needs no protocol to be found is returned before any message is sent.
#[test]
fn a_wrong_shape_is_refused_at_once() {
    let refused = |spec: WorkflowSpec| Draft::new(spec).unwrap_err();
    let codes = |error: SubmitError| match error {
        SubmitError::Invalid(problems) => problems.iter().map(|it| it.code).collect::<Vec<_>>(),
        other => panic!("{other}"),
    };
    let empty = WorkflowSpec::new(" ").timeout(std::time::Duration::ZERO);
    assert_eq!(codes(refused(empty)), [ErrorCode::WorkflowValidationFailed; 3]);
    let unknown = WorkflowSpec::new("w")
        .task(quick("a").after("nobody"))
        .task(task("b", json!({"x": "${nobody.x}", "y": "${a."})));
    let expected = [ErrorCode::WorkflowValidationFailed, ErrorCode::TaskParameterError];
    assert_eq!(codes(refused(unknown)), expected);
    let missing = WorkflowSpec::new("w").task(task("b", json!({"x": "${nobody.x}"})));
    assert_eq!(codes(refused(missing)), [ErrorCode::TaskNotFound]);
}
