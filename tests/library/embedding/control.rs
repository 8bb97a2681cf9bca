//! Workflows in the hands of their owner: submitted, looked at, cancelled, run again.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use gleitzeit::{
    ErrorCode, Handle, ListFilter, ProviderSpec, Runtime, SubmitError, SubmitFileError, TaskError,
    TaskSpec, TaskStatus, WorkflowSpec, WorkflowStatus, domain::task::TaskRecord,
};
use serde_json::json;

use crate::support::whole::{
    Gate, check_events, echo_builder, echo_runtime, echo_task, echo_workflow, event_types, gate,
    gate_protocol, gate_task, settings, within,
};

async fn gated() -> (Runtime, Gate) {
    let (provider, gate) = gate("gate");
    let builder = echo_builder(settings("")).protocol(gate_protocol()).provider(provider);
    (builder.start().await.unwrap(), gate)
}

fn statuses(tasks: &[TaskRecord]) -> Vec<TaskStatus> {
    tasks.iter().map(|task| task.status).collect()
}

async fn history(handle: &Handle, id: &gleitzeit::WorkflowId) -> Vec<&'static str> {
    let events = handle.events(id, 0, 1_000).await.unwrap();
    check_events(&events);
    event_types(&events)
}

/// What is told of a workflow is what is stored of it, at any time of its life.
#[tokio::test(flavor = "multi_thread")]
async fn a_workflow_can_be_inspected_while_it_runs() {
    let (runtime, mut gate) = gated().await;
    let handle = runtime.handle();
    assert_eq!(handle.workflow(&"w".into()).await.unwrap(), None);
    let workflow =
        WorkflowSpec::new("w").id("w").task(gate_task("a")).task(echo_task("b").after("a"));
    let id = handle.submit(workflow).await.unwrap();
    assert_eq!(gate.entered().await, "a");
    let record = handle.workflow(&id).await.unwrap().unwrap();
    assert_eq!(record.status, WorkflowStatus::Running);
    assert_eq!(statuses(&record.tasks), [TaskStatus::Executing, TaskStatus::Pending]);
    assert_eq!(record.tasks[0].provider_id, Some("gate".into()));
    gate.let_through(1);
    let ended = within("the workflow", handle.wait(&id)).await.unwrap();
    assert_eq!(handle.workflow(&id).await.unwrap(), Some(ended));
    runtime.stop(Duration::ZERO).await;
}

/// A client that did not hear the answer asks again, and nothing runs twice.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_id_submitted_again_is_the_same_workflow() {
    let (runtime, mut gate) = gated().await;
    let handle = runtime.handle();
    let workflow = || WorkflowSpec::new("w").id("order-7").task(gate_task("a"));
    let (first, second) = tokio::join!(handle.submit(workflow()), handle.submit(workflow()));
    assert_eq!((first.unwrap(), second.unwrap()), ("order-7".into(), "order-7".into()));
    assert_eq!(gate.entered().await, "a");
    let joined = tokio::spawn({
        let handle = handle.clone();
        async move { handle.run(workflow()).await }
    });
    gate.let_through(1);
    let ended = within("the end", joined).await.unwrap().unwrap();
    // Also when it has settled.
    assert_eq!(handle.run(workflow()).await.unwrap(), ended);
    assert!(gate.started.try_recv().is_err(), "it ran twice");
    assert_eq!(handle.stats().await.unwrap().workflows_submitted, 1);
    runtime.stop(Duration::ZERO).await;
}

/// A failure is an end like any other: it is in the record.
#[tokio::test]
async fn a_failed_workflow_is_recorded_with_its_error() {
    let runtime = echo_runtime().await;
    let fail = TaskSpec::new("f", "echo/fail").params(json!({ "message": "out of milk" }));
    let workflow = WorkflowSpec::new("w").task(fail).task(echo_task("b").after("f"));
    let ended = runtime.handle().run(workflow).await.unwrap();
    assert_eq!(ended.status, WorkflowStatus::Failed);
    let error = ended.error.as_deref().unwrap();
    assert_eq!(error.code, ErrorCode::WorkflowExecutionFailed);
    assert!(error.message.contains("out of milk"), "{error}");
    assert_eq!(statuses(&ended.tasks), [TaskStatus::Failed, TaskStatus::UpstreamFailed]);
    runtime.stop(Duration::ZERO).await;
}

/// A cancellation ends the running call, and tells everyone.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_workflow_ends_with_its_running_calls() {
    let (runtime, mut gate) = gated().await;
    let handle = runtime.handle();
    let workflow = WorkflowSpec::new("w").task(gate_task("a")).task(echo_task("b").after("a"));
    let id = handle.submit(workflow).await.unwrap();
    assert_eq!(gate.entered().await, "a");
    handle.cancel(&id, "no longer needed").await.unwrap();
    assert_eq!(gate.cut_off().await, "a");
    let ended = within("the end", handle.wait(&id)).await.unwrap();
    assert_eq!(ended.status, WorkflowStatus::Cancelled);
    assert_eq!(ended.error.as_deref().unwrap().message, "no longer needed");
    assert_eq!(statuses(&ended.tasks), [TaskStatus::Cancelled; 2]);
    assert_eq!(history(&handle, &id).await.last(), Some(&"workflow:cancelled"));

    let again = handle.cancel(&id, "really").await.unwrap_err();
    assert_eq!(again.code, ErrorCode::WorkflowInvalidState, "{again}");
    let unknown = handle.cancel(&"nobody".into(), "really").await.unwrap_err();
    assert_eq!(unknown.code, ErrorCode::WorkflowNotFound, "{unknown}");
    runtime.stop(Duration::ZERO).await;
}

/// One branch ends, the others go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_task_takes_its_branch_along_and_no_other() {
    let (runtime, mut gate) = gated().await;
    let handle = runtime.handle();
    let workflow = WorkflowSpec::new("w")
        .task(gate_task("a"))
        .task(echo_task("b").after("a"))
        .task(echo_task("c"));
    let id = handle.submit(workflow).await.unwrap();
    assert_eq!(gate.entered().await, "a");
    let unknown = handle.cancel_task(&id, &"z".into(), "typo").await.unwrap_err();
    assert_eq!(unknown.code, ErrorCode::TaskNotFound, "{unknown}");
    handle.cancel_task(&id, &"a".into(), "too slow").await.unwrap();
    assert_eq!(gate.cut_off().await, "a");
    let ended = within("the end", handle.wait(&id)).await.unwrap();
    let expected = [TaskStatus::Cancelled, TaskStatus::UpstreamFailed, TaskStatus::Completed];
    assert_eq!(statuses(&ended.tasks), expected);
    assert_eq!(ended.status, WorkflowStatus::Failed);
    let settled = handle.cancel_task(&id, &"c".into(), "late").await.unwrap_err();
    assert_eq!(settled.code, ErrorCode::WorkflowInvalidState, "{settled}");
    runtime.stop(Duration::ZERO).await;
}

/// What failed runs again by a person's word; what completed does not.
#[tokio::test]
async fn a_retry_runs_what_did_not_complete() {
    let works = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&works);
    let provider = ProviderSpec::from_fn("switch", "gate/v1.0", move |_| {
        let works = switch.load(Ordering::SeqCst);
        async move { if works { Ok(json!(true)) } else { Err(TaskError::failed("not yet")) } }
    });
    let builder = echo_builder(settings("")).protocol(gate_protocol()).provider(provider.unwrap());
    let runtime = builder.start().await.unwrap();
    let handle = runtime.handle();
    let workflow = WorkflowSpec::new("w")
        .task(echo_task("a"))
        .task(gate_task("b").after("a"))
        .task(echo_task("c").after("b"));
    let ended = handle.run(workflow).await.unwrap();
    assert_eq!(ended.status, WorkflowStatus::Failed);
    let before = ended.tasks[0].clone();

    works.store(true, Ordering::SeqCst);
    let recovered = handle.retry(&ended.id).await.unwrap();
    assert_eq!((recovered.workflows, recovered.tasks), (1, 2));
    let ended = within("the end", handle.wait(&ended.id)).await.unwrap();
    assert_eq!(ended.status, WorkflowStatus::Completed, "{:?}", ended.error);
    assert_eq!(ended.tasks[0], before, "a completed task was touched");
    assert_eq!(statuses(&ended.tasks), [TaskStatus::Completed; 3]);
    history(&handle, &ended.id).await;

    let whole = handle.retry(&ended.id).await.unwrap_err();
    assert_eq!(whole.code, ErrorCode::WorkflowInvalidState, "{whole}");
    let unknown = handle.retry(&"nobody".into()).await.unwrap_err();
    assert_eq!(unknown.code, ErrorCode::WorkflowNotFound, "{unknown}");
    runtime.stop(Duration::ZERO).await;
}

/// A person need not guess why: a workflow that runs cannot be run again.
#[tokio::test(flavor = "multi_thread")]
async fn a_running_workflow_is_not_retried_and_not_resumed_twice() {
    let (runtime, mut gate) = gated().await;
    let handle = runtime.handle();
    let id = handle.submit(WorkflowSpec::new("w").task(gate_task("a"))).await.unwrap();
    assert_eq!(gate.entered().await, "a");
    let retried = handle.retry(&id).await.unwrap_err();
    assert_eq!(retried.code, ErrorCode::WorkflowInvalidState, "{retried}");
    // It runs already: nothing is taken up a second time.
    assert_eq!(handle.resume(Some(&id)).await.unwrap().workflows, 0);
    gate.let_through(1);
    within("the end", handle.wait(&id)).await.unwrap();
    assert!(gate.started.try_recv().is_err(), "it ran twice");
    let settled = handle.resume(Some(&id)).await.unwrap_err();
    assert_eq!(settled.code, ErrorCode::WorkflowInvalidState, "{settled}");
    let unknown = handle.resume(Some(&"nobody".into())).await.unwrap_err();
    assert_eq!(unknown.code, ErrorCode::WorkflowNotFound, "{unknown}");
    runtime.stop(Duration::ZERO).await;
}

/// A host may look before it goes on with what an earlier process left.
#[cfg(feature = "sqlite")]
#[tokio::test(flavor = "multi_thread")]
async fn stored_workflows_are_resumed_on_request() {
    let folder = tempfile::tempdir().unwrap();
    let settings = || crate::support::whole::sqlite_settings(&folder.path().join("g.db"), "");
    let gated = |settings| {
        let (provider, gate) = gate("gate");
        (echo_builder(settings).protocol(gate_protocol()).provider(provider), gate)
    };
    let (builder, mut at_gate) = gated(settings());
    let runtime = builder.start().await.unwrap();
    for id in ["one", "two", "three"] {
        let workflow = WorkflowSpec::new(id).id(id).task(gate_task(id));
        runtime.handle().submit(workflow).await.unwrap();
        at_gate.entered().await;
    }
    runtime.stop(Duration::ZERO).await;

    let (builder, mut at_gate) = gated(settings());
    let runtime = builder.without_recovery().start().await.unwrap();
    let handle = runtime.handle();
    assert_eq!(runtime.recovered().workflows, 0);
    let held = handle.wait(&"one".into()).await.unwrap_err();
    assert_eq!(held.code, ErrorCode::WorkflowInvalidState, "{held}");
    assert_eq!(handle.resume(Some(&"two".into())).await.unwrap().workflows, 1);
    assert_eq!(at_gate.entered().await, "two");
    // One that does not run here can be cancelled all the same.
    handle.cancel(&"three".into(), "forget it").await.unwrap();
    assert_eq!(handle.resume(None).await.unwrap().workflows, 1);
    assert_eq!(at_gate.entered().await, "one");
    at_gate.let_through(2);
    for (id, end) in [
        ("one", WorkflowStatus::Completed),
        ("two", WorkflowStatus::Completed),
        ("three", WorkflowStatus::Cancelled),
    ] {
        let ended = within(id, handle.wait(&id.into())).await.unwrap();
        assert_eq!(ended.status, end, "{id}");
        history(&handle, &id.into()).await;
    }
    assert!(at_gate.started.try_recv().is_err(), "`three` was run");
    runtime.stop(Duration::ZERO).await;
}

/// Lists are for people: the newest first, in parts, by what they ask for.
#[tokio::test]
async fn lists_show_the_newest_first_by_status_and_name() {
    let runtime = echo_runtime().await;
    let handle = runtime.handle();
    for number in 0..5 {
        handle.run(echo_workflow("fine").id(format!("f{number}"))).await.unwrap();
    }
    let fail = TaskSpec::new("f", "echo/fail").params(json!({ "message": "no" }));
    handle.run(WorkflowSpec::new("broken").id("b").task(fail)).await.unwrap();
    let list = |filter: ListFilter| async {
        let found = handle.list(filter).await.unwrap();
        found.iter().map(|it| it.id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(list(ListFilter::default()).await, ["b", "f4", "f3", "f2", "f1", "f0"]);
    let failed = ListFilter { status: Some(WorkflowStatus::Failed), ..ListFilter::default() };
    assert_eq!(list(failed).await, ["b"]);
    let fine = ListFilter { name: Some("fine".into()), ..ListFilter::default() };
    assert_eq!(list(ListFilter { limit: 2, offset: 1, ..fine }).await, ["f3", "f2"]);
    runtime.stop(Duration::ZERO).await;
}

/// Everything wrong is reported before anything runs.
#[tokio::test]
async fn a_check_reports_everything_wrong_and_runs_nothing() {
    let runtime = echo_runtime().await;
    let handle = runtime.handle();
    let wrong = WorkflowSpec::new("w")
        .task(TaskSpec::new("a", "echo/ehco"))
        .task(TaskSpec::new("b", "nowhere/at-all"))
        .task(echo_task("c").after("nobody"));
    let Err(SubmitError::Invalid(problems)) = handle.check(wrong).await else { panic!("sound?") };
    let mut pointers: Vec<&str> = problems.iter().map(|problem| &*problem.pointer).collect();
    pointers.sort_unstable();
    let wrong = ["/tasks/0/method", "/tasks/1/method", "/tasks/2/dependencies/0"];
    assert_eq!(pointers, wrong, "{problems:#?}");
    let valid = WorkflowSpec::new("w")
        .task(echo_task("a"))
        .task(TaskSpec::new("b", "echo/echo").params(json!({ "text": "${a.text}" })))
        .task(echo_task("c").after("a").after("b"));
    let checked = handle.check(valid).await.unwrap();
    assert_eq!(checked.levels, [vec![0], vec![1], vec![2]]);
    assert_eq!(checked.edges(), [(1, 0), (2, 0), (2, 1)]);
    assert_eq!(handle.stats().await.unwrap().workflows_submitted, 0);
    runtime.stop(Duration::ZERO).await;
}

/// The bound of intake is reported with its figures, and is no end for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_intake_refuses_and_takes_in_again() {
    let (provider, mut gate) = gate("gate");
    let settings = settings("[engine]\nmax_queued_tasks = 3");
    let builder = echo_builder(settings).protocol(gate_protocol()).provider(provider);
    let runtime = builder.start().await.unwrap();
    let handle = runtime.handle();
    let two = || WorkflowSpec::new("two").task(gate_task("a")).task(gate_task("b"));
    let id = handle.submit(two()).await.unwrap();
    let refused = handle.submit(two()).await.unwrap_err();
    assert_eq!(refused, SubmitError::QueueFull { waiting: 2, limit: 3 });
    assert_eq!(refused.code(), ErrorCode::QueueFull);
    gate.entered().await;
    gate.let_through(2);
    within("the end", handle.wait(&id)).await.unwrap();
    gate.let_through(2);
    let ended = within("the second", handle.run(two())).await.unwrap();
    assert_eq!(ended.status, WorkflowStatus::Completed);
    runtime.stop(Duration::ZERO).await;
}

/// Files are submitted as they are checked: what is wrong is shown in its place.
#[tokio::test]
async fn a_workflow_file_is_submitted_or_refused_with_its_errors() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let runtime = echo_runtime().await;
    let handle = runtime.handle();
    let good = file("good.yaml", "name: w\ntasks:\n- method: echo/echo\n  params: {text: hi}\n");
    let id = handle.submit_file(&good).await.unwrap();
    assert_eq!(handle.wait(&id).await.unwrap().status, WorkflowStatus::Completed);

    let wrong = file("wrong.yaml", "name: w\ntasks:\n- method: echo/ehco\n");
    let error = handle.submit_file(&wrong).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, SubmitFileError::File(_)), "{text}");
    assert_eq!(error.code(), ErrorCode::MethodNotFound, "{text}");
    assert!(text.contains("wrong.yaml:3"), "{text}");

    let missing = handle.submit_file(Path::new("/nowhere/at/all.yaml")).await.unwrap_err();
    assert_eq!(missing.code(), ErrorCode::InvalidRequest);
    assert!(missing.to_string().contains("/nowhere/at/all.yaml"), "{missing}");
    runtime.stop(Duration::ZERO).await;
}
