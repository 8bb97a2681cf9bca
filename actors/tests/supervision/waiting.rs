//! Calls that wait for a provider with room: their order, and the end of their wait.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::FutureExt as _;
use gleitzeit_actors::load_balancer::{
    CancelTasks, PickRequest, Picked, ProviderTicket, RemoveProvider, Waiting,
};
use gleitzeit_domain::{
    error::ErrorCode,
    health::{HealthReport, HealthStatus},
    task::{Priority, TaskStatus},
};
use tokio::time::Instant;

use crate::support::{
    Harness, Setup, assert_completed, many, one,
    provider::{Gate, Script, step},
    task,
};

pub(crate) const RUN: &str = "work/v1.0:run";
const OTHER: &str = "work/v1.0:other";

pub(crate) async fn wait(harness: &Harness, request: PickRequest) -> Waiting {
    match harness.pick_as(request).await {
        Picked::Waiting(ticket) => ticket,
        other => panic!("does not wait: {other:?}"),
    }
}

fn urgent(harness: &Harness, method: &'static str, priority: Priority) -> PickRequest {
    PickRequest { priority, ..harness.request(method) }
}

/// The one that was served last, of those that wait; its ticket.
async fn served(harness: &Harness, waiting: &mut Vec<(&'static str, Waiting)>) -> &'static str {
    harness.settle().await;
    let mut found = None;
    for (at, (_, ticket)) in waiting.iter_mut().enumerate() {
        if let Some(answer) = ticket.now_or_never() {
            assert!(found.is_none(), "two were served at once");
            found = Some((at, answer.unwrap().unwrap()));
        }
    }
    let (at, ticket) = found.expect("one was served");
    drop(ticket);
    waiting.remove(at).0
}

async fn full(setup: Setup) -> (Harness, ProviderTicket) {
    tokio::time::pause();
    let harness = Harness::new(setup);
    harness.employ(Script::default().spec("p").max_concurrent(1)).await;
    let held = harness.pick(RUN).await;
    (harness, held)
}

async fn remove(harness: &Harness, id: &str) {
    let remove = RemoveProvider { id: id.into(), deadline: Duration::ZERO };
    harness.addresses.balancer.send(remove).await.unwrap().unwrap();
}

/// As many calls as it may have, and under load never fewer.
#[actix::test]
async fn max_concurrent_is_exact_under_load() {
    tokio::time::pause();
    let mut setup = Setup::default();
    setup.engine.max_concurrent_tasks = 50;
    let harness = Harness::new(setup);
    let busy = Arc::new(Mutex::new((0_u32, Vec::new())));
    let count = Arc::clone(&busy);
    let script = Script::executing(move |_, call| {
        let count = Arc::clone(&count);
        async move {
            let now = {
                let mut busy = count.lock().unwrap();
                busy.0 += 1;
                busy.0
            };
            count.lock().unwrap().1.push(now);
            // Of different length, so that they end one by one.
            let millis = 10 + 7 * call.task_id.as_str().len() as u64;
            tokio::time::sleep(Duration::from_millis(millis)).await;
            count.lock().unwrap().0 -= 1;
            Ok(true.into())
        }
    });
    harness.employ(script.spec("p").max_concurrent(3)).await;
    let (_, ending) = harness.submit(many(200, |at| task(&"t".repeat(1 + at)))).await;
    assert_completed(ending.await);
    let peaks = busy.lock().unwrap().1.clone();
    assert_eq!(peaks.len(), 200);
    assert_eq!(peaks.iter().max(), Some(&3));
    // But for the first two calls there were always two others.
    assert!(peaks[2..].iter().all(|now| *now == 3), "{peaks:?}");
    harness.assert_nothing_left().await;
}

/// The most urgent first, then the oldest; one in eight is the oldest, whatever its priority.
#[actix::test]
async fn the_queue_is_ordered_by_priority_then_age() {
    use Priority::{High, Low, Normal, Urgent};
    let (harness, held) = full(Setup::default()).await;
    let mut waiting = Vec::new();
    let asked = [
        ("low", Low),
        ("normal 1", Normal),
        ("urgent 1", Urgent),
        ("high", High),
        ("normal 2", Normal),
        ("urgent 2", Urgent),
        ("normal 3", Normal),
        ("normal 4", Normal),
        ("normal 5", Normal),
    ];
    for (name, priority) in asked {
        waiting.push((name, wait(&harness, urgent(&harness, RUN, priority)).await));
    }
    drop(held);
    let mut order = Vec::new();
    for _ in 0..asked.len() {
        order.push(served(&harness, &mut waiting).await);
    }
    let expected = [
        "urgent 1", "urgent 2", "high", "normal 1", "normal 2", "normal 3", "normal 4", "low",
        "normal 5",
    ];
    assert_eq!(order, expected);
}

/// A provider's methods share its room: none of them starves another one.
#[actix::test]
async fn queues_of_several_methods_are_served_as_one() {
    use Priority::{Normal, Urgent};
    let (harness, held) = full(Setup::default()).await;
    let mut waiting = Vec::new();
    for (name, method, priority) in [
        ("other 1", OTHER, Normal),
        ("run 1", RUN, Normal),
        ("other 2", OTHER, Normal),
        ("run 2", RUN, Urgent),
        ("other 3", OTHER, Urgent),
    ] {
        waiting.push((name, wait(&harness, urgent(&harness, method, priority)).await));
    }
    drop(held);
    let mut order = Vec::new();
    for _ in 0..5 {
        order.push(served(&harness, &mut waiting).await);
    }
    assert_eq!(order, ["run 2", "other 3", "other 1", "run 1", "other 2"]);
}

/// A waiter that avoids the free provider holds up no other one.
#[actix::test]
async fn a_waiter_that_avoids_the_free_provider_holds_up_none() {
    tokio::time::pause();
    let harness = Harness::new(Setup::default());
    for id in ["p", "q"] {
        harness.employ(Script::default().spec(id).max_concurrent(1)).await;
    }
    let (p, q) = (harness.pick(RUN).await, harness.pick(RUN).await);
    let choosy = PickRequest { avoid: Some("p".into()), ..harness.request(RUN) };
    let mut choosy = wait(&harness, choosy).await;
    let easy = wait(&harness, harness.request(RUN)).await;
    drop(p);
    let easy = easy.await.unwrap().unwrap();
    assert_eq!(easy.provider_id().as_str(), "p");
    assert!((&mut choosy).now_or_never().is_none(), "q has no room");
    // Also one that arrives while the other one waits.
    drop(easy);
    harness.settle().await;
    let Picked::Waiting(late) = harness.pick_as(harness.request(RUN)).await else {
        panic!("there is a line")
    };
    assert_eq!(late.await.unwrap().unwrap().provider_id().as_str(), "p");
    drop(q);
    assert_eq!(choosy.await.unwrap().unwrap().provider_id().as_str(), "q");
}

/// A cancelled wait ends at once, and its turn goes to the next one.
#[actix::test]
async fn a_cancelled_wait_leaves_the_queue() {
    let (harness, held) = full(Setup::default()).await;
    let cancelled = harness.request(RUN);
    let key = cancelled.task;
    let cancelled = wait(&harness, cancelled).await;
    let next = wait(&harness, harness.request(RUN)).await;
    harness.addresses.balancer.send(CancelTasks(Arc::new(vec![key]))).await.unwrap();
    assert!(cancelled.await.is_err(), "the channel closes");
    drop(held);
    assert!(next.await.unwrap().is_ok());
}

/// From outside, a workflow is cancelled while its task waits for a provider.
#[actix::test]
async fn a_workflow_cancelled_in_a_queue_ends_and_others_are_served() {
    tokio::time::pause();
    let harness = Harness::new(Setup::default());
    let gate = Gate::default();
    let held_at = gate.clone();
    let script = Script::executing(move |_, _| {
        let gate = held_at.clone();
        async move {
            gate.pass().await;
            Ok(true.into())
        }
    });
    harness.employ(script.spec("p").max_concurrent(1)).await;
    let (_, first) = harness.submit(one(task("first"))).await;
    script.diary.until("call first", 1).await;
    let (id, cancelled) = harness.submit(one(task("cancelled"))).await;
    let (_, last) = harness.submit(one(task("last"))).await;
    harness.settle().await;
    harness.cancel(id).await;
    assert_eq!(cancelled.await.tasks[0].status, TaskStatus::Cancelled);
    gate.open(2);
    assert_completed(first.await);
    assert_completed(last.await);
    assert_eq!(script.diary.count("call cancelled"), 0);
    harness.assert_nothing_left().await;
}

/// A queue of a provider that is removed is served by the one that is left.
#[actix::test]
async fn a_queue_is_served_by_the_provider_that_is_left() {
    let (harness, _held) = full(Setup::default()).await;
    let health = step(|_| async { HealthReport::degraded("slow") });
    let script = Script { health, ..Script::default() };
    let mut events = harness.events().await;
    harness.register(script.spec("weak")).await;
    events.health(&"weak".into(), HealthStatus::Degraded).await;
    let waiting = wait(&harness, harness.request(RUN)).await;
    harness.settle().await;
    remove(&harness, "p").await;
    let begun = Instant::now();
    let ticket = waiting.await.unwrap().unwrap();
    assert_eq!(ticket.provider_id().as_str(), "weak");
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

/// The last provider of a method is removed: waiting calls are refused in time.
#[actix::test]
async fn a_queue_without_a_provider_ends() {
    let (harness, _held) = full(Setup::default()).await;
    let waiting = wait(&harness, harness.request(RUN)).await;
    tokio::time::sleep(Duration::from_secs(100)).await;
    remove(&harness, "p").await;
    let begun = Instant::now();
    let error = waiting.await.unwrap().unwrap_err();
    assert_eq!(begun.elapsed().as_secs(), 30);
    assert_eq!(error.code, ErrorCode::MethodNotSupported);
    assert!(error.message.contains("no provider serves work/v1.0:run"), "{error}");
}

/// A provider that is added while calls wait serves them.
#[actix::test]
async fn a_queue_without_a_provider_is_served_by_one_that_is_added() {
    tokio::time::pause();
    let harness = Harness::new(Setup::default());
    let waiting = wait(&harness, harness.request(RUN)).await;
    tokio::time::sleep(Duration::from_secs(29)).await;
    harness.register(Script::default().spec("p")).await;
    assert_eq!(waiting.await.unwrap().unwrap().provider_id().as_str(), "p");
}

/// Busy is not down: a call waits for room as long as it takes.
#[actix::test]
async fn a_busy_provider_is_waited_for_without_limit() {
    let (harness, held) = full(Setup::default()).await;
    let mut waiting = wait(&harness, harness.request(RUN)).await;
    tokio::time::sleep(Duration::from_hours(2)).await;
    assert!((&mut waiting).now_or_never().is_none());
    drop(held);
    assert!(waiting.await.unwrap().is_ok());
}

/// A waiter that is gone does not keep the provider.
#[actix::test]
async fn a_waiter_that_has_gone_keeps_no_provider() {
    let (harness, held) = full(Setup::default()).await;
    drop(wait(&harness, harness.request(RUN)).await);
    let next = wait(&harness, harness.request(RUN)).await;
    drop(held);
    assert!(next.await.unwrap().is_ok());
}

/// Tasks of every priority get their turn while urgent ones keep coming.
#[actix::test]
async fn a_low_task_is_not_starved_by_urgent_ones() {
    tokio::time::pause();
    let mut setup = Setup::default();
    setup.engine.max_concurrent_tasks = 1_000;
    let harness = Harness::new(setup);
    let script = Script::executing(|_, _| async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        Ok(true.into())
    });
    harness.employ(script.spec("p").max_concurrent(1)).await;
    let urgent = |count| many(count, |at| task(&format!("u{at}")).priority(Priority::Urgent));
    let (_, older) = harness.submit(urgent(20)).await;
    script.diary.until("call", 1).await;
    let (_, low) = harness.submit(one(task("low").priority(Priority::Low))).await;
    let (_, younger) = harness.submit(urgent(400)).await;
    assert_completed(low.await);
    // One turn in eight is the oldest one's, and twenty are older.
    let before = script.diary.count("call u");
    assert!(before <= 8 * 21, "it came behind {before} urgent ones");
    assert_completed(older.await);
    assert_completed(younger.await);
    harness.assert_nothing_left().await;
}
