//! Claims about [`EventBus`]: the events that a listener gets, their order, and the cost of a slow one.

use chrono::DateTime;
use futures_util::StreamExt as _;
use gleitzeit_domain::event::EventData;

use super::*;

/// Event number `sequence` of a workflow, or of none.
fn event(workflow: Option<&str>, sequence: u64) -> Event {
    let data = EventData::TaskUpstreamFailed { task_id: "a".into(), failed_task_id: "b".into() };
    Event { timestamp: DateTime::UNIX_EPOCH, workflow_id: workflow.map(Into::into), sequence, data }
}

fn started(workflow: &str) -> Event {
    Event { data: EventData::WorkflowStarted {}, ..event(Some(workflow), 1) }
}

async fn subscribe(bus: &Addr<EventBus>, filter: EventFilter, capacity: usize) -> Subscription {
    bus.send(Subscribe { filter, capacity }).await.unwrap()
}

async fn publish(bus: &Addr<EventBus>, events: Vec<Event>) {
    bus.send(Publish { events }).await.unwrap();
}

/// The waiting deliveries: sequences, and missed counts as negative numbers.
fn waiting(subscription: &mut Subscription) -> Vec<i64> {
    let number = |delivery| match delivery {
        Delivery::Event(event) => event.sequence.cast_signed(),
        Delivery::Lagged { missed } => -missed.cast_signed(),
    };
    std::iter::from_fn(|| subscription.try_next()).map(number).collect()
}

/// A listener gets what it asked for and nothing else, in order.
#[actix::test]
async fn filters_are_kept() {
    let bus = EventBus::new().start();
    let mut all = subscribe(&bus, EventFilter::default(), 100).await;
    let mut of_a = subscribe(&bus, EventFilter::workflow("a".into()), 100).await;
    let types = |types: &[&str]| types.iter().map(ToString::to_string).collect();
    let tasks = EventFilter { workflow_id: None, types: types(&["task:*"]) };
    let mut tasks = subscribe(&bus, tasks, 100).await;
    let exact = EventFilter { workflow_id: Some("b".into()), types: types(&["workflow:started"]) };
    let mut exact = subscribe(&bus, exact, 100).await;
    let events = vec![started("a"), event(Some("b"), 2), event(None, 3), event(Some("a"), 4)];
    publish(&bus, events).await;
    publish(&bus, vec![started("b")]).await;
    assert_eq!(waiting(&mut all), [1, 2, 3, 4, 1]);
    assert_eq!(waiting(&mut of_a), [1, 4]);
    assert_eq!(waiting(&mut tasks), [2, 3, 4]);
    assert_eq!(waiting(&mut exact), [1]);
}

/// No one can subscribe before the engine has started: a late subscriber gets that event, too.
#[actix::test]
async fn the_start_of_the_engine_is_sent_to_late_subscribers() {
    let bus = EventBus::new().start();
    let start =
        Event { data: EventData::EngineStarted { max_concurrent_tasks: 7 }, ..event(None, 9) };
    publish(&bus, vec![start]).await;
    let of = |types: &[&str]| EventFilter {
        workflow_id: None,
        types: types.iter().map(ToString::to_string).collect(),
    };
    let mut exact = subscribe(&bus, of(&["engine:started"]), 100).await;
    let mut kind = subscribe(&bus, of(&["engine:*", "task:*"]), 100).await;
    let mut other = subscribe(&bus, of(&["task:*"]), 100).await;
    let mut all = subscribe(&bus, EventFilter::default(), 100).await;
    publish(&bus, vec![event(None, 10)]).await;
    assert_eq!(waiting(&mut exact), [9]);
    assert_eq!(waiting(&mut kind), [9, 10]);
    assert_eq!(waiting(&mut other), [10]);
    assert_eq!(waiting(&mut all), [10], "its own beginning is where it begins");
}

/// A listener that does not read holds its capacity and no more; it learns how many are missing
/// and where, and goes on.
#[actix::test]
async fn a_slow_listener_gets_the_count_of_missed_events() {
    let bus = EventBus::new().start();
    let mut slow = subscribe(&bus, EventFilter::default(), 3).await;
    let mut quick = subscribe(&bus, EventFilter::default(), 100).await;
    publish(&bus, (1..=8).map(|n| event(Some("a"), n)).collect()).await;
    assert_eq!(slow.try_next().map(|it| matches!(it, Delivery::Event(_))), Some(true));
    publish(&bus, vec![event(Some("a"), 9), event(Some("a"), 10)]).await;
    assert_eq!(waiting(&mut slow), [2, 3, -5, 9, -1]);
    publish(&bus, vec![event(Some("a"), 11)]).await;
    assert_eq!(waiting(&mut slow), [11]);
    assert_eq!(waiting(&mut quick), (1..=11).collect::<Vec<_>>());
}

/// A listener that missed the last event there will ever be does not wait for ever for a word.
#[actix::test]
async fn the_count_is_delivered_without_a_further_event() {
    let bus = EventBus::new().start();
    let mut slow = subscribe(&bus, EventFilter::default(), 1).await;
    publish(&bus, vec![event(None, 1), event(None, 2)]).await;
    assert!(matches!(slow.next().await, Some(Delivery::Event(_))));
    assert_eq!(slow.next().await, Some(Delivery::Lagged { missed: 1 }));
}

/// A waiting listener on another thread is woken by an event, and ended by the bus's end.
#[actix::test]
async fn a_listener_on_another_thread_is_woken_and_ended() {
    let bus = EventBus::new().start();
    let subscription = subscribe(&bus, EventFilter::default(), 8).await;
    let (to_ready, ready) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        to_ready.send(()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(subscription.collect::<Vec<_>>())
    });
    ready.recv().unwrap();
    publish(&bus, vec![event(None, 1)]).await;
    drop(bus);
    // The actor ends when its last address is gone, after the queue.
    let (to_done, done) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || to_done.send(reader.join().unwrap()));
    assert_eq!(done.await.unwrap().len(), 1);
}

/// A listener that is gone is removed, and a publisher sees at once that none is left.
#[actix::test]
async fn dropped_listeners_leave_nothing_behind() {
    let bus = EventBus::new();
    let subscribers = bus.subscribers();
    let bus = bus.start();
    assert!(subscribers.is_empty());
    let mut listeners = Vec::new();
    for n in 0..10 {
        let id = WorkflowId::from(format!("w{}", n % 5));
        listeners.push(subscribe(&bus, EventFilter::workflow(id), 4).await);
    }
    listeners.push(subscribe(&bus, EventFilter::default(), 4).await);
    assert_eq!(subscribers.len(), 11);
    listeners.drain(..9);
    // Answered after the notices of the dropped ones, which were queued before.
    publish(&bus, vec![event(Some("w4"), 7)]).await;
    assert_eq!(subscribers.len(), 2);
    assert_eq!(waiting(&mut listeners[0]), [7]);
    drop(listeners);
    publish(&bus, vec![event(Some("w4"), 8)]).await;
    assert!(subscribers.is_empty());
}

/// Of ten thousand who follow a workflow each, an event concerns the one of its own.
#[actix::test]
async fn listeners_of_other_workflows_are_not_compared() {
    let nobody = EventBus::new().start().downgrade();
    let mut bus = EventBus::new();
    let mut subscriptions = Vec::new();
    for number in 0..10_000 {
        let id = WorkflowId::from(format!("w{number}"));
        let leave = Unsubscribe { number, workflow_id: Some(id.clone()) };
        let filter = EventFilter::workflow(id.clone());
        let (sink, subscription) = subscription::pair(number, filter, 4, (nobody.clone(), leave));
        bus.by_workflow.entry(id).or_default().push(sink);
        subscriptions.push(subscription);
    }
    let event = event(Some("w77"), 5);
    assert_eq!(bus.concerned(&event).map(Sink::number).collect::<Vec<_>>(), [77]);
    bus.publish(event);
    assert_eq!(waiting(&mut subscriptions[77]), [5]);
}
