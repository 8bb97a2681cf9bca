//! Calls that wait for a provider: whose turn it is, and for how long.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::FutureExt as _;
use gleitzeit_actors::load_balancer::{
    BalancerSettings, CancelTasks, PickRequest, Picked, ProviderTicket, RemoveProvider, WaitPolicy,
    Waiting,
};
use gleitzeit_domain::{
    error::{ErrorCode, TaskError},
    event::EventData,
    health::{HealthReport, HealthStatus},
    retry::RetryPolicy,
    task::{Priority, TaskStatus},
    workflow::TaskSpec,
};
use tokio::time::Instant;

use crate::support::{
    Harness, Setup, assert_completed, many, one,
    provider::{Gate, Script, step},
    task,
};

const RUN: &str = "work/v1.0:run";
const OTHER: &str = "work/v1.0:other";
/// Its method says that a call waits 5 s for a provider.
const SHORT: &str = "work/v1.0:short";

async fn wait(harness: &Harness, request: PickRequest) -> Waiting {
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
async fn the_line_goes_by_priority_then_age() {
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
async fn lines_of_several_methods_are_served_as_one() {
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

/// Who waits for another provider than the one that is free stands in nobody's way.
#[actix::test]
async fn who_avoids_the_free_one_holds_up_nobody() {
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
    // Also one that comes while the other one waits.
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
async fn a_cancelled_wait_leaves_the_line() {
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

/// The same from outside: a workflow is cancelled while its task waits for a provider.
#[actix::test]
async fn a_workflow_cancelled_in_line_ends_and_others_are_served() {
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

/// Who was better than another one and is removed leaves its line to that one.
#[actix::test]
async fn a_line_goes_to_who_is_left() {
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

/// The last provider of a method is removed: who waits is told so, in time.
#[actix::test]
async fn a_line_without_any_provider_ends() {
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

/// A provider that comes while they wait serves them.
#[actix::test]
async fn a_line_without_any_provider_is_served_by_one_that_comes() {
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

/// Down is: each call waits its time, from when it came or from when the last one went down.
#[actix::test]
async fn each_wait_for_a_provider_that_is_down_has_its_own_end() {
    tokio::time::pause();
    let harness = Harness::new(Setup::default());
    let initialize = step(|_| async { Err(TaskError::failed("down")) });
    harness.register(Script { initialize, ..Script::default() }.spec("p")).await;
    let begun = Instant::now();
    let (_, first) = harness.submit(one(task("first"))).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let (_, second) = harness.submit(one(task("second"))).await;
    for (ending, after) in [(first, 30), (second, 40)] {
        let record = ending.await;
        assert_eq!(begun.elapsed().as_secs(), after);
        let error = record.tasks[0].error.as_ref().unwrap();
        assert_eq!(error.code, ErrorCode::ProviderNotAvailable);
        assert!(error.is_retryable());
    }
    harness.assert_nothing_left().await;
}

/// Serves from its instance `number` on.
fn down_before(number: u64) -> Script {
    let initialize = step(move |instance| async move {
        if instance < number { Err(TaskError::failed("nobody listens there")) } else { Ok(()) }
    });
    Script { initialize, ..Script::default() }
}

fn waiting_by(wait_policy: WaitPolicy) -> Setup {
    Setup {
        balancer: BalancerSettings { wait_policy, ..BalancerSettings::default() },
        ..Setup::default()
    }
}

/// The refusal says what the provider's supervisor knows: the person who reads it may have no other
/// way to ask.
#[actix::test]
async fn a_refusal_names_the_cause() {
    tokio::time::pause();
    let harness = Harness::new(Setup::default());
    harness.register(down_before(u64::MAX).spec("p")).await;
    harness.register(down_before(u64::MAX).spec("q")).await;
    let error = harness.run_task(task("t")).await.error.unwrap();
    assert_eq!(error.code, ErrorCode::ProviderNotAvailable);
    for part in
        ["work/v1.0:run", "within 30s", "provider `p` is down", "`q`", "nobody listens there"]
    {
        assert!(error.message.contains(part), "{part}: {error}");
    }
}

/// A process that runs one workflow waits once for a provider that has never been there, not once for
/// each attempt; for one that was there each attempt waits.
#[actix::test]
async fn an_absent_provider_is_waited_for_once() {
    tokio::time::pause();
    let harness = Harness::new(waiting_by(WaitPolicy::OnceForAbsent));
    harness.register(down_before(20).spec("p")).await;
    let begun = Instant::now();
    let retry = RetryPolicy { max_attempts: 3, jitter: false, ..RetryPolicy::default() };
    let (_, tried) = harness.submit(one(task("tried").retry(retry))).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let (_, late) = harness.submit(one(task("late"))).await;
    assert_eq!(late.await.tasks[0].status, TaskStatus::Failed);
    assert_eq!(begun.elapsed().as_secs(), 30);
    let tried = tried.await;
    assert_eq!(tried.tasks[0].attempts, 3);
    assert!(begun.elapsed().as_secs() < 40, "{:?}", begun.elapsed());
    // It comes, and goes again.
    let mut events = harness.events().await;
    events.health(&"p".into(), HealthStatus::Healthy).await;
    assert_completed(harness.run(one(task("served"))).await);
    harness.restart("p").await;
    harness.assert_nothing_left().await;
}

/// A process that serves waits as long as the task's own limits allow, but not for a method that none
/// of its providers serves; a method may say how long.
#[actix::test]
async fn a_process_that_serves_waits_without_a_limit_of_its_own() {
    tokio::time::pause();
    let harness = Harness::new(waiting_by(WaitPolicy::Unlimited));
    let begun = Instant::now();
    let unserved = harness.run_task(task("unserved")).await.error.unwrap();
    assert_eq!(unserved.code, ErrorCode::MethodNotSupported);
    assert!(unserved.message.contains("[providers.<id>]"), "{unserved}");
    assert_eq!(begun.elapsed().as_secs(), 30);

    harness.register(down_before(2_000).spec("p")).await;
    let (_, patient) = harness.submit(one(task("patient"))).await;
    let limited = task("limited").total_timeout(Duration::from_mins(10));
    let limited = harness.run_task(limited).await.error.unwrap();
    assert_eq!(limited.code, ErrorCode::TaskTimeout);
    assert!(limited.message.contains("nobody listens there"), "{limited}");
    let short = Instant::now();
    let error = harness.run_task(TaskSpec::new("short", SHORT)).await.error.unwrap();
    assert_eq!((error.code, short.elapsed().as_secs()), (ErrorCode::ProviderNotAvailable, 5));
    assert_completed(patient.await);
    assert!(begun.elapsed() > Duration::from_hours(2), "{:?}", begun.elapsed());
    harness.assert_nothing_left().await;
}

/// Who looks from outside sees what such a task waits for, and no more of it when the wait is over.
#[actix::test]
async fn a_wait_for_a_provider_that_is_down_is_written_down() {
    tokio::time::pause();
    let harness = Harness::new(waiting_by(WaitPolicy::Unlimited));
    let script = down_before(10);
    harness.register(script.spec("p")).await;
    let mut events = harness.events().await;
    let (id, ending) = harness.submit(one(task("t"))).await;
    let told = events.until(|it| matches!(it, EventData::TaskWaiting { .. })).await;
    let EventData::TaskWaiting { reason, .. } = told else { unreachable!() };
    assert!(reason.contains("nobody listens there"), "{reason}");
    harness.settle().await;
    let stored = harness.store.workflow(&id).await.unwrap().unwrap();
    let error = stored.tasks[0].error.as_ref().unwrap();
    assert_eq!(stored.tasks[0].status, TaskStatus::Queued);
    assert!(error.message.starts_with("waits for a provider: "), "{error}");
    assert!(error.message.contains("nobody listens there"), "{error}");
    let record = ending.await;
    assert_completed(&record);
    assert_eq!(record.tasks[0].error, None);
    assert_eq!(record.tasks[0].attempts, 1);
    let count = |events: Vec<EventData>| {
        events.iter().filter(|it| matches!(it, EventData::TaskWaiting { .. })).count()
    };
    assert_eq!(count(events.so_far()), 0, "once a wait");
    harness.assert_nothing_left().await;
}

/// An outage of one provider is nothing to the tasks of all others, however many wait for it.
#[actix::test]
async fn tasks_of_a_provider_that_is_down_hold_up_no_others() {
    tokio::time::pause();
    let mut setup = waiting_by(WaitPolicy::Unlimited);
    setup.engine.max_concurrent_tasks = 2;
    setup.engine.max_parked_tasks = 4;
    let harness = Harness::new(setup);
    harness.register(down_before(100).spec("p")).await;
    harness.employ(Script::default().spec_of("q", "play/v1.0")).await;
    let (_, away) = harness.submit(many(200, |at| task(&format!("t{at}")))).await;
    tokio::time::sleep(Duration::from_mins(2)).await;
    let begun = Instant::now();
    assert_completed(harness.run(one(TaskSpec::new("other", "play/v1.0:run"))).await);
    assert_eq!(begun.elapsed().as_secs(), 0);
    assert_completed(away.await);
    harness.assert_nothing_left().await;
}

/// Where the settings say that nobody waits, the answer is there at once.
#[actix::test]
async fn without_a_wait_the_refusal_comes_at_once() {
    tokio::time::pause();
    let balancer =
        BalancerSettings { provider_wait: Duration::ZERO, ..BalancerSettings::default() };
    let harness = Harness::new(Setup { balancer, ..Setup::default() });
    assert!(matches!(
        harness.pick_as(harness.request(RUN)).await,
        Picked::Refused(error) if error.code == ErrorCode::MethodNotSupported
    ));
    let forever = BalancerSettings { provider_wait: Duration::MAX, ..BalancerSettings::default() };
    let harness = Harness::new(Setup { balancer: forever, ..Setup::default() });
    let waiting = wait(&harness, harness.request(RUN)).await;
    harness.register(Script::default().spec("p")).await;
    assert!(waiting.await.unwrap().is_ok());
}

/// Whoever gave up waiting without a word does not keep the provider.
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
