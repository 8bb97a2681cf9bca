//! Thousands of workflows at once: all settle, no event is missing, and nothing is left of them in
//! any queue, ledger or map.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use gleitzeit::{
    Delivery, EngineCounts, EventFilter, Handle, ListFilter, MemoryStore, Runtime, Settings, Store,
    WorkflowId, WorkflowSpec, WorkflowStatus,
    actors::{dependency_resolver::CountWorkflows, event_bus::Subscribe},
    domain::resources::Resources,
    providers::echo,
};
use tokio::task::{JoinHandle, JoinSet};

use crate::support::whole::{self, check_events, echo_task, echo_workflow, settings, within};

/// Tasks of the host that submit at the same time.
const SUBMITTERS: usize = 100;

/// Every third one has a second task behind the first.
fn workflow(number: usize) -> WorkflowSpec {
    let spec = echo_workflow(&format!("w{number}"));
    if number.is_multiple_of(3) { spec.task(echo_task("next").after("only")) } else { spec }
}

/// The last sequence of each workflow that was heard of, unless one was missing before.
type Received = HashMap<WorkflowId, u64>;

/// Counts the events of all workflows as they are reported, up to the last workflow's end.
async fn listen(handle: &Handle, workflows: usize) -> JoinHandle<Received> {
    let capacity = workflows * 16;
    let subscribe = Subscribe { filter: EventFilter::default(), capacity };
    let mut listener = handle.addresses().bus.send(subscribe).await.unwrap();
    tokio::spawn(async move {
        let mut received = Received::with_capacity(workflows);
        let mut ended = 0;
        while ended < workflows {
            let delivery = within("an event", listener.next()).await.unwrap();
            let Delivery::Event(event) = delivery else { panic!("{delivery:?}") };
            let Some(id) = event.workflow_id.clone() else { continue };
            let last = received.entry(id).or_default();
            assert_eq!(event.sequence, *last + 1, "{event:?}");
            *last = event.sequence;
            ended += usize::from(event.data.event_type() == "workflow:completed");
        }
        received
    })
}

/// Submits `each` workflows one after the other, then waits for all of them.
async fn submit(handle: Handle, lane: usize, each: usize) -> Vec<WorkflowId> {
    let mut ids = Vec::with_capacity(each);
    for number in lane * each..(lane + 1) * each {
        ids.push(handle.submit(workflow(number)).await.unwrap());
    }
    for id in &ids {
        let ended = within("a workflow", handle.wait(id)).await.unwrap();
        assert_eq!(ended.status, WorkflowStatus::Completed, "{:?}", ended.error);
    }
    ids
}

/// Nothing of settled workflows is left anywhere.
async fn check_nothing_is_left(handle: &Handle) {
    assert_eq!(handle.engine_counts().await.unwrap(), EngineCounts::default());
    let resources = handle.resources().await.unwrap();
    assert_eq!((resources.taken, resources.waiting), (Resources::default(), 0));
    assert_eq!(handle.addresses().resolver.send(CountWorkflows).await.unwrap(), 0);
    for provider in handle.providers().await.unwrap() {
        assert_eq!(provider.in_flight, 0, "{provider:?}");
    }
    let stats = handle.stats().await.unwrap();
    assert_eq!((stats.workflows_active, stats.tasks_queued, stats.tasks_in_flight), (0, 0, 0));
}

/// `workflows` of them, by [`SUBMITTERS`] tasks at once, through everything there is.
async fn burst(settings: Settings, store: Option<Arc<dyn Store>>, workflows: usize) {
    let (provider, calls) = echo::spec_counted("echo");
    let mut builder = Runtime::builder(settings).without_settings_providers().provider(provider);
    if let Some(store) = store {
        builder = builder.store(store);
    }
    let runtime = builder.start().await.unwrap();
    let handle = runtime.handle();
    let listener = listen(&handle, workflows).await;

    let mut lanes = JoinSet::new();
    for lane in 0..SUBMITTERS {
        lanes.spawn(submit(handle.clone(), lane, workflows / SUBMITTERS));
    }
    let mut ids = Vec::with_capacity(workflows);
    while let Some(lane) = lanes.join_next().await {
        ids.extend(lane.unwrap());
    }
    assert_eq!(ids.len(), workflows);
    let received = within("the listener", listener).await.unwrap();

    check_nothing_is_left(&handle).await;
    let tasks = workflows + workflows.div_ceil(3);
    assert_eq!(calls.load(Ordering::SeqCst), tasks as u64, "calls");
    let stats = handle.stats().await.unwrap();
    assert_eq!(stats.workflows_completed, workflows as u64);
    assert_eq!(stats.tasks_succeeded, tasks as u64);

    // What is stored is what was reported, and it is whole.
    assert_eq!(received.len(), workflows);
    for id in &ids {
        let events = handle.events(id, 0, 100).await.unwrap();
        check_events(&events);
        assert_eq!(received[id], events.len() as u64, "{id}");
    }
    let open = |status| ListFilter { status: Some(status), limit: 1, ..ListFilter::default() };
    for status in [WorkflowStatus::Pending, WorkflowStatus::Running] {
        assert_eq!(handle.list(open(status)).await.unwrap(), []);
    }
    let report = within("the stop", runtime.stop(Duration::from_secs(10))).await;
    assert_eq!((report.abandoned, report.unsettled, report.stored), (vec![], vec![], true));
}

/// What a service meets after its clients were cut off for a while.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_workflows_at_once_settle_and_leave_nothing_in_memory() {
    let workflows = 10_000;
    // As many settled workflows are kept as are looked at afterwards.
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(workflows));
    burst(settings(""), Some(store), workflows).await;
}

/// The same with a database behind it, where batches form by themselves while it writes.
#[cfg(feature = "sqlite")]
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_workflows_at_once_settle_and_leave_nothing_in_a_database() {
    let folder = tempfile::tempdir().unwrap();
    let settings = whole::sqlite_settings(&folder.path().join("g.db"), "");
    burst(settings, None, 10_000).await;
}

/// Submissions that are refused for load leave nothing either, and none that was taken in is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_burst_above_the_bound_of_intake_is_refused_in_part_and_leaves_nothing() {
    let settings = settings("[engine]\nmax_queued_tasks = 50");
    let runtime = whole::echo_builder(settings).start().await.unwrap();
    let handle = runtime.handle();
    let mut lanes = JoinSet::new();
    for number in 0..2_000 {
        let handle = handle.clone();
        lanes.spawn(async move { handle.run(workflow(number)).await });
    }
    let (mut completed, mut refused) = (0_u64, 0_u64);
    while let Some(answer) = within("an answer", lanes.join_next()).await {
        match answer.unwrap() {
            Ok(ended) => {
                assert_eq!(ended.status, WorkflowStatus::Completed);
                completed += 1;
            }
            Err(error) => {
                assert_eq!(error.code, gleitzeit::ErrorCode::QueueFull, "{error}");
                refused += 1;
            }
        }
    }
    assert_eq!(completed + refused, 2_000);
    assert!(completed > 0);
    assert_eq!(handle.stats().await.unwrap().workflows_completed, completed);
    check_nothing_is_left(&handle).await;
    runtime.stop(Duration::from_secs(10)).await;
}
