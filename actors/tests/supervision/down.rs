//! Calls whose providers are all down: how long they wait, and what they learn.

use std::time::Duration;

use gleitzeit_actors::load_balancer::{BalancerSettings, Picked, WaitPolicy};
use gleitzeit_domain::{
    error::{ErrorCode, TaskError},
    event::EventData,
    health::HealthStatus,
    retry::RetryPolicy,
    task::TaskStatus,
    workflow::TaskSpec,
};
use tokio::time::Instant;

use crate::support::{
    Harness, Setup, assert_completed, many, one,
    provider::{Script, step},
    task,
};
use crate::waiting::{RUN, wait};

/// A method whose calls wait 5 s for a provider.
const SHORT: &str = "work/v1.0:short";

/// Each call waits its limit, from its arrival or from the end of the last provider.
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
    // It serves, and is down again.
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

/// An operator sees what such a task waits for, and sees it no more when the wait is over.
#[actix::test]
async fn a_wait_for_a_provider_that_is_down_is_written_down() {
    tokio::time::pause();
    let harness = Harness::new(waiting_by(WaitPolicy::Unlimited));
    let script = down_before(10);
    harness.register(script.spec("p")).await;
    let mut events = harness.events().await;
    let (id, ending) = harness.submit(one(task("t"))).await;
    let published = events.until(|it| matches!(it, EventData::TaskWaiting { .. })).await;
    let EventData::TaskWaiting { reason, .. } = published else { unreachable!() };
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

/// If the settings allow no wait, the answer is immediate.
#[actix::test]
async fn without_a_wait_the_refusal_is_immediate() {
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
