//! Events: what a listener gets, from the start, from the middle, and after the end.

use std::{sync::Arc, time::Duration};

use futures_util::TryStreamExt as _;
use gleitzeit::{
    Delivery, ErrorCode, Event, EventData, EventFilter, Follow, Handle, Runtime, TaskSpec,
    WorkflowId, WorkflowSpec,
};
use serde_json::json;

use crate::support::whole::{
    Gate, check_events, echo_builder, echo_runtime, echo_task, echo_workflow, event_types, gate,
    gate_protocol, gate_task, next_event, settings, within,
};

async fn gated() -> (Runtime, Gate) {
    let (provider, gate) = gate("gate");
    let builder = echo_builder(settings("")).protocol(gate_protocol()).provider(provider);
    (builder.start().await.unwrap(), gate)
}

async fn all(follow: Follow) -> Vec<Event> {
    within("the workflow's end", follow.into_stream().try_collect()).await.unwrap()
}

async fn stored(handle: &Handle, id: &WorkflowId) -> Vec<Event> {
    handle.events(id, 0, 10_000).await.unwrap()
}

/// A listener sees each step once, in order, as it is stored.
#[tokio::test]
async fn a_subscription_gets_every_event_of_a_workflow_in_order() {
    let runtime = echo_runtime().await;
    let handle = runtime.handle();
    let mut listener = handle.subscribe(EventFilter::workflow("w".into())).await.unwrap();
    let chain = WorkflowSpec::new("chain").task(echo_task("a")).task(echo_task("b").after("a"));
    handle.run(chain.id("w")).await.unwrap();
    let mut events = Vec::new();
    while events.last().is_none_or(|e: &Event| e.data.event_type() != "workflow:completed") {
        events.push(Event::clone(&*next_event(&mut listener).await));
    }
    check_events(&events);
    assert_eq!(
        event_types(&events),
        [
            "workflow:submitted",
            "task:queued",
            "workflow:started",
            "task:started",
            "task:completed",
            "task:queued",
            "task:started",
            "task:completed",
            "workflow:completed",
        ]
    );
    assert_eq!(stored(&handle, &"w".into()).await, events);
    runtime.stop(Duration::ZERO).await;
}

/// A filter by type holds back all the rest, of every workflow.
#[tokio::test]
async fn a_subscription_gets_only_the_types_that_it_asks_for() {
    let runtime = echo_runtime().await;
    let handle = runtime.handle();
    let types = vec!["workflow:*".to_owned(), "task:failed".to_owned()];
    let filter = EventFilter { types, ..EventFilter::default() };
    let mut listener = handle.subscribe(filter).await.unwrap();
    let fail = TaskSpec::new("f", "echo/fail").params(json!({ "message": "no" }));
    handle.run(WorkflowSpec::new("w").task(echo_task("a")).task(fail)).await.unwrap();
    let mut types = Vec::new();
    while types.last() != Some(&"workflow:failed") {
        types.push(next_event(&mut listener).await.data.event_type());
    }
    let expected = ["workflow:submitted", "workflow:started", "task:failed", "workflow:failed"];
    assert_eq!(types, expected);
    runtime.stop(Duration::ZERO).await;
}

/// Who comes in the middle gets the beginning too, and nothing twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_starts_late_misses_nothing() {
    let (runtime, mut gate) = gated().await;
    let handle = runtime.handle();
    let workflow = WorkflowSpec::new("w")
        .task(gate_task("a"))
        .task(gate_task("b").after("a"))
        .task(echo_task("c").after("b"));
    let id = handle.submit(workflow).await.unwrap();
    assert_eq!(gate.entered().await, "a");
    // `a` has started, which is reported before it is stored.
    let early = handle.follow(&id, 0).await.unwrap();
    gate.let_through(1);
    assert_eq!(gate.entered().await, "b");
    let late = handle.follow(&id, 0).await.unwrap();
    let later = handle.follow(&id, 3).await.unwrap();
    gate.let_through(1);
    let events = all(early).await;
    check_events(&events);
    assert_eq!(all(late).await, events);
    assert_eq!(all(later).await, events[3..]);
    assert_eq!(stored(&handle, &id).await, events);
    runtime.stop(Duration::ZERO).await;
}

/// The end is the end: a follower of a settled workflow does not wait.
#[tokio::test]
async fn a_follower_of_a_settled_workflow_gets_all_and_ends() {
    let runtime = echo_runtime().await;
    let handle = runtime.handle();
    let ended = handle.run(echo_workflow("w")).await.unwrap();
    let events = all(handle.follow(&ended.id, 0).await.unwrap()).await;
    check_events(&events);
    assert_eq!(events.len() as u64, ended.last_sequence);
    assert_eq!(all(handle.follow(&ended.id, ended.last_sequence).await.unwrap()).await, []);
    let mut nobody = handle.follow(&"nobody".into(), 0).await.unwrap();
    assert_eq!(nobody.next().await.unwrap_err().code, ErrorCode::WorkflowNotFound);
    runtime.stop(Duration::ZERO).await;
}

/// A listener that is far too slow is told how much it missed; a follower misses nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_falls_behind_reads_the_rest_from_the_store() {
    // More events than a subscription keeps for its reader: three a task.
    const TASKS: usize = 6_000;
    let runtime = echo_runtime().await;
    let handle = runtime.handle();
    let workflow = (0..TASKS)
        .fold(WorkflowSpec::new("many").id("w"), |spec, n| spec.task(echo_task(&format!("t{n}"))));
    let mut listener = handle.subscribe(EventFilter::workflow("w".into())).await.unwrap();
    let follow = handle.follow(&"w".into(), 0).await.unwrap();
    // Neither is read before the end.
    let ended = within("the workflow", handle.run(workflow)).await.unwrap();
    let mut missed = 0;
    let mut got = 0;
    while got + missed < ended.last_sequence {
        match within("the rest", listener.next()).await.unwrap() {
            Delivery::Event(_) => got += 1,
            Delivery::Lagged { missed: count } => missed += count,
        }
    }
    assert!(missed > 0, "it kept up: the test proves nothing");
    assert_eq!(got + missed, ended.last_sequence);
    let events = all(follow).await;
    check_events(&events);
    assert_eq!(events.len() as u64, ended.last_sequence);
    runtime.stop(Duration::ZERO).await;
}

/// A workflow that is opened again has one history, with two ends.
#[tokio::test]
async fn a_follower_continues_when_a_workflow_is_opened_again() {
    let runtime = echo_runtime().await;
    let handle = runtime.handle();
    let fail = TaskSpec::new("f", "echo/fail").params(json!({ "message": "no" }));
    let ended = handle.run(WorkflowSpec::new("w").task(fail)).await.unwrap();
    let first = all(handle.follow(&ended.id, 0).await.unwrap()).await;
    assert_eq!(handle.retry(&ended.id).await.unwrap().workflows, 1);
    let ended: Arc<_> = within("the end", handle.wait(&ended.id)).await.unwrap();
    let both = all(handle.follow(&ended.id, 0).await.unwrap()).await;
    check_events(&both);
    assert_eq!(both[..first.len()], first);
    let ends = both.iter().filter(|e| matches!(e.data, EventData::WorkflowFailed { .. }));
    assert_eq!(ends.count(), 2);
    runtime.stop(Duration::ZERO).await;
}
