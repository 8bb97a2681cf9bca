//! The end of a runtime: what may end ends, what is cut off is reported, and nobody waits for ever.

use std::{cell::RefCell, time::Duration};

use gleitzeit::{
    Delivery, ErrorCode, EventFilter, Handle, ListFilter, Placement, ProviderSpec, Runtime,
    TaskError, WorkflowId, WorkflowSpec, providers::echo,
};
use tokio::{sync::oneshot, task::JoinSet};

use crate::support::whole::{
    Gate, echo_builder, echo_runtime, echo_task, echo_workflow, gate, gate_protocol, gate_task,
    settings, within,
};

/// A runtime with a gate.
async fn gated(settings: gleitzeit::Settings) -> (Runtime, Gate) {
    let (provider, gate) = gate("gate");
    let builder = echo_builder(settings).protocol(gate_protocol()).provider(provider);
    (builder.start().await.unwrap(), gate)
}

/// What runs may end; what has not begun stays for the next start.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_running_tasks_end_and_begins_no_others() {
    let (runtime, mut gate) = gated(settings("")).await;
    let workflow = WorkflowSpec::new("w").task(gate_task("a")).task(gate_task("b").after("a"));
    let id = runtime.handle().submit(workflow).await.unwrap();
    assert_eq!(gate.entered().await, "a");
    let handle = runtime.handle();
    let mut events = handle.subscribe(EventFilter::workflow(id.clone())).await.unwrap();
    let stopping = tokio::spawn(runtime.stop(Duration::from_mins(10)));
    // Refused from the moment at which the stop has begun.
    within("the stop to begin", async {
        while handle.submit(echo_workflow("late")).await.is_ok() {}
    })
    .await;
    gate.let_through(1);
    let report = within("the stop", stopping).await.unwrap();
    assert_eq!(report.abandoned, []);
    assert!(report.unsettled.contains(&id), "{report:?}");
    assert!(report.stored);
    let mut types = Vec::new();
    while let Some(Delivery::Event(event)) = events.next().await {
        types.push(event.data.event_type());
    }
    assert!(types.contains(&"task:completed"), "{types:?}");
    assert!(gate.started.try_recv().is_err(), "`b` was begun");
}

/// A call that does not end in time is cut off, told, and ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_cuts_off_what_runs_beyond_the_deadline() {
    let (runtime, mut gate) = gated(settings("")).await;
    let workflow = WorkflowSpec::new("w").task(gate_task("a"));
    let id = runtime.handle().submit(workflow).await.unwrap();
    assert_eq!(gate.entered().await, "a");
    let report = within("the stop", runtime.stop(Duration::from_millis(1))).await;
    assert_eq!(report.abandoned, [(id.clone(), "a".into())]);
    assert_eq!(report.unsettled, [id]);
    assert_eq!(gate.cut_off().await, "a");
}

/// What a stop cut off is run at the next start; what had ended is not run again.
#[cfg(feature = "sqlite")]
#[tokio::test(flavor = "multi_thread")]
async fn tasks_cut_off_by_a_stop_continue_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let settings = || crate::support::whole::sqlite_settings(&folder.path().join("g.db"), "");
    let (runtime, mut gate) = gated(settings()).await;
    let workflow = WorkflowSpec::new("w")
        .task(gate_task("a"))
        .task(gate_task("b").after("a"))
        .task(gate_task("c").after("b"));
    let id = runtime.handle().submit(workflow).await.unwrap();
    assert_eq!(gate.entered().await, "a");
    gate.let_through(1);
    assert_eq!(gate.entered().await, "b");
    let report = within("the stop", runtime.stop(Duration::ZERO)).await;
    assert_eq!(report.abandoned, [(id.clone(), "b".into())]);

    let (runtime, mut gate) = gated(settings()).await;
    assert_eq!((runtime.recovered().workflows, runtime.recovered().tasks), (1, 2));
    gate.let_through(2);
    assert_eq!(gate.entered().await, "b");
    assert_eq!(gate.entered().await, "c");
    let ended = within("the workflow", runtime.handle().wait(&id)).await.unwrap();
    assert!(ended.error.is_none(), "{:?}", ended.error);
    let events = runtime.handle().events(&id, 0, 1000).await.unwrap();
    crate::support::whole::check_events(&events);
    runtime.stop(Duration::from_secs(10)).await;
}

/// An acknowledged submission is never lost, however near the stop it came.
#[cfg(feature = "sqlite")]
#[tokio::test(flavor = "multi_thread")]
async fn submissions_that_race_a_stop_are_refused_or_kept() {
    let folder = tempfile::tempdir().unwrap();
    let settings = || crate::support::whole::sqlite_settings(&folder.path().join("g.db"), "");
    let runtime = echo_builder(settings()).start().await.unwrap();
    let mut submissions = JoinSet::new();
    let (first, is_first) = oneshot::channel();
    let mut first = Some(first);
    for number in 0..200 {
        let handle = runtime.handle();
        let first = first.take();
        submissions.spawn(async move {
            let answer = handle.submit(echo_workflow(&format!("w{number}"))).await;
            if let Some(first) = first {
                let _ = first.send(());
            }
            answer
        });
    }
    is_first.await.unwrap();
    within("the stop", runtime.stop(Duration::from_mins(1))).await;
    let mut accepted = Vec::new();
    while let Some(answer) = within("an answer", submissions.join_next()).await {
        match answer.unwrap() {
            Ok(id) => accepted.push(id),
            Err(error) => assert_eq!(error.code(), ErrorCode::SystemShutdown, "{error}"),
        }
    }
    assert!(!accepted.is_empty());

    let runtime = echo_builder(settings()).start().await.unwrap();
    for id in &accepted {
        let ended = within("a workflow", runtime.handle().wait(id)).await.unwrap();
        assert!(ended.error.is_none(), "{:?}", ended.error);
    }
    runtime.stop(Duration::from_secs(10)).await;
}

fn refusal<T>(answer: Result<T, TaskError>) -> Option<ErrorCode> {
    answer.err().map(|error| error.code)
}

/// The answer of every question that a handle can ask.
async fn ask_everything(handle: &Handle) -> Vec<(&'static str, Option<ErrorCode>)> {
    let id: WorkflowId = "w".into();
    let spec = || echo_workflow("w");
    let submitted =
        |answer: Result<_, gleitzeit::SubmitError>| refusal(answer.map_err(TaskError::from));
    let protocol = gate_protocol();
    vec![
        ("submit", submitted(handle.submit(spec()).await)),
        ("run", refusal(handle.run(spec()).await)),
        ("check", refusal(handle.check(spec()).await.map_err(TaskError::from))),
        ("wait", refusal(handle.wait(&id).await)),
        ("workflow", refusal(handle.workflow(&id).await)),
        ("list", refusal(handle.list(ListFilter::default()).await)),
        ("events", refusal(handle.events(&id, 0, 10).await)),
        ("follow", refusal(handle.follow(&id, 0).await)),
        ("subscribe", refusal(handle.subscribe(EventFilter::default()).await)),
        ("cancel", refusal(handle.cancel(&id, "enough").await)),
        ("cancel_task", refusal(handle.cancel_task(&id, &"a".into(), "enough").await)),
        ("resume", refusal(handle.resume(None).await)),
        ("retry", refusal(handle.retry(&id).await)),
        ("protocols", refusal(handle.protocols().await)),
        ("register_protocol", refusal(handle.register_protocol(protocol.clone()).await)),
        ("replace_protocol", refusal(handle.replace_protocol(protocol).await)),
        ("register_provider", refusal(handle.register_provider(echo::spec("e2")).await)),
        ("remove_provider", refusal(handle.remove_provider(&"echo".into(), Duration::ZERO).await)),
        ("restart_provider", refusal(handle.restart_provider(&"echo".into()).await)),
        ("providers", refusal(handle.providers().await)),
        ("stats", refusal(handle.stats().await)),
        ("resources", refusal(handle.resources().await)),
        ("metrics", refusal(handle.metrics().await)),
        ("profile", refusal(handle.profile().await)),
        ("engine_counts", refusal(handle.engine_counts().await)),
    ]
}

/// A host that kept a handle is told so, and does not hang.
#[tokio::test]
async fn every_question_after_the_stop_is_answered_with_system_shutdown() {
    let runtime = echo_runtime().await;
    let handle = runtime.handle();
    within("the stop", runtime.stop(Duration::from_secs(10))).await;
    for (question, code) in within("the answers", ask_everything(&handle)).await {
        assert_eq!(code, Some(ErrorCode::SystemShutdown), "{question}");
    }
}

/// The same while the stop is under way, which is when most hosts meet it.
#[tokio::test(flavor = "multi_thread")]
async fn waiters_of_a_workflow_are_notified_that_the_runtime_stopped() {
    let (runtime, mut gate) = gated(settings("")).await;
    let handle = runtime.handle();
    let id = handle.submit(WorkflowSpec::new("w").task(gate_task("a"))).await.unwrap();
    assert_eq!(gate.entered().await, "a");
    let mut follow = handle.follow(&id, 0).await.unwrap();
    let waiting = tokio::spawn(async move { handle.wait(&id).await });
    let following = tokio::spawn(async move {
        loop {
            match follow.next().await {
                Ok(Some(_)) => {}
                end => return end,
            }
        }
    });
    within("the stop", runtime.stop(Duration::ZERO)).await;
    let waited = within("the wait", waiting).await.unwrap();
    assert_eq!(waited.unwrap_err().code, ErrorCode::SystemShutdown);
    let followed = within("the listener", following).await.unwrap();
    assert_eq!(followed.unwrap_err().code, ErrorCode::SystemShutdown);
}

thread_local! {
    /// Dropped when its thread ends.
    static END: RefCell<Option<oneshot::Sender<()>>> = const { RefCell::new(None) };
}

/// A provider of `echo/v1.0` on the runtime's own thread, and what closes when that thread ends.
fn thread_watch() -> (ProviderSpec, oneshot::Receiver<()>) {
    let (end, ended) = oneshot::channel();
    let end = std::sync::Mutex::new(Some(end));
    let spec = ProviderSpec::new("watch", "echo/v1.0", move || {
        let end = end.lock().expect("no panic under it").take();
        END.with(|slot| slot.replace(end));
        Ok(echo::Echo::default())
    });
    (spec.unwrap().placement(Placement::Control), ended)
}

async fn watched() -> (Runtime, oneshot::Receiver<()>) {
    let (spec, ended) = thread_watch();
    let builder = Runtime::builder(settings("")).without_settings_providers().provider(spec);
    let runtime = builder.start().await.unwrap();
    // The provider was built: its thread is the runtime's.
    within("a workflow", runtime.handle().run(echo_workflow("w"))).await.unwrap();
    (runtime, ended)
}

/// A host that forgets to stop leaks no thread, even while it keeps a handle.
#[tokio::test]
async fn dropping_the_runtime_ends_its_thread() {
    let (runtime, mut ended) = watched().await;
    let handle = runtime.handle();
    assert!(ended.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Empty));
    drop(runtime);
    assert!(within("the thread's end", ended).await.is_err());
    let code = refusal(handle.stats().await);
    assert_eq!(code, Some(ErrorCode::SystemShutdown));
}

/// When `stop` returns, the thread is gone: a host may end, or unload what its providers use.
#[tokio::test]
async fn stop_returns_when_the_thread_has_ended() {
    let (runtime, mut ended) = watched().await;
    within("the stop", runtime.stop(Duration::from_secs(10))).await;
    let closed = Err(oneshot::error::TryRecvError::Closed);
    assert_eq!(ended.try_recv(), closed);
}

/// A plain program has the same right.
#[test]
fn dropping_a_blocking_runtime_ends_its_thread() {
    let (spec, ended) = thread_watch();
    let builder = Runtime::builder(settings("")).without_settings_providers().provider(spec);
    let runtime = builder.start_blocking().unwrap();
    let chain = echo_workflow("w").task(echo_task("next").after("only"));
    assert!(runtime.run(chain).unwrap().error.is_none());
    drop(runtime);
    assert!(ended.blocking_recv().is_err());
}
