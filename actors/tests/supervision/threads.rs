//! Providers that block their thread for real. The clock is the real one, and the tests wait for
//! events only.

use std::{
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use gleitzeit_actors::{load_balancer::BalancerSettings, provider_supervisor::ProviderState};
use gleitzeit_domain::{
    error::ErrorCode,
    health::HealthStatus,
    provider::{Placement, ProviderSpec, Supervision},
    retry::RetryPolicy,
    task::TaskStatus,
};

use crate::support::{
    Harness, Setup, assert_completed, one,
    provider::{Script, quick},
    task,
};

const HOUR: Duration = Duration::from_hours(1);

fn watchful(workers: usize) -> Setup {
    Setup {
        balancer: BalancerSettings {
            watch_interval: Duration::from_millis(250),
            ..BalancerSettings::default()
        },
        workers,
        ..Setup::default()
    }
}

/// Blocks its thread in calls named `block` until the test says so; dropping the sender says so to
/// all.
fn blocking() -> (Script, mpsc::Sender<()>) {
    let (unblock, blocked) = mpsc::channel();
    let blocked = Arc::new(Mutex::new(blocked));
    let script = Script::executing(move |instance, call| {
        let blocked = Arc::clone(&blocked);
        async move {
            if call.task_id.as_str() == "block" && (call.attempt == 1 || instance < 3) {
                // Poisoned or closed is as good as a word.
                let _ = blocked.lock().map(|it| it.recv());
            }
            Ok(instance.into())
        }
    });
    (script, unblock)
}

fn on(placement: Placement, spec: ProviderSpec) -> ProviderSpec {
    spec.placement(placement).supervision(Supervision {
        health_interval: HOUR,
        health_timeout: Duration::from_millis(1500),
        restarts_max: 1,
        ..quick()
    })
}

/// No one waits for a blocked thread: its calls fail, and every provider that shared it
/// moves to a new one.
#[actix::test]
async fn providers_of_a_blocked_thread_restart_on_new_ones() {
    let harness = Harness::new(watchful(2));
    let (script, unblock) = blocking();
    let (far, neighbour) = (Script::default(), Script::default());
    // Dealt in turn: the first and the third share a thread.
    harness.employ(on(Placement::Worker, script.spec("blocker"))).await;
    harness.employ(on(Placement::Worker, far.spec_of("far", "play/v1.0"))).await;
    let mut events = harness.events().await;
    let (_, blocked) = harness.submit(one(task("block").timeout(HOUR))).await;
    script.diary.until("call block", 1).await;
    // Registered on the blocked thread: it waits there with the other one.
    harness.register(on(Placement::Worker, neighbour.spec_of("neighbour", "play/v1.0"))).await;

    let record = blocked.await;
    let error = record.tasks[0].error.as_ref().unwrap();
    assert_eq!(error.code, ErrorCode::ProviderUnhealthy);
    assert!(error.message.contains("its thread is blocked"), "{error}");
    events.health(&"neighbour".into(), HealthStatus::Healthy).await;
    let answer = harness.run_task(task("next")).await;
    assert_eq!(**answer.result.as_ref().unwrap(), 2);
    let status = harness.status("blocker").await;
    assert_eq!((status.state, status.generation), (ProviderState::Serving, 2));
    assert_eq!(status.restarts, 1);
    let far_status = harness.status("far").await;
    assert_eq!((far_status.generation, far_status.restarts), (1, 0));

    // The old thread wakes up: what lived there finds that it has been given up, and says nothing.
    events.so_far();
    drop(unblock);
    script.diary.until("dropped 1", 1).await;
    assert_eq!(script.diary.count("shut down 1"), 1);
    let after = harness.status("blocker").await;
    assert_eq!((after.state, after.generation, after.restarts), (ProviderState::Serving, 2, 1));
    assert_completed(harness.run(one(task("last"))).await);
    assert!(events.so_far().iter().all(|it| !it.event_type().starts_with("provider:")));
    harness.assert_nothing_left().await;
}

/// A thread is a price to pay a few times, not for ever; a person can say that it is worth it.
#[actix::test]
async fn one_that_blocks_again_and_again_has_failed() {
    let harness = Harness::new(watchful(0));
    let (script, unblock) = blocking();
    harness.employ(on(Placement::Dedicated, script.spec("p"))).await;
    let mut events = harness.events().await;
    let retry = RetryPolicy { max_attempts: 3, jitter: false, ..RetryPolicy::default() };
    let block = task("block").timeout(HOUR).retry(retry);
    let (_, blocked) = harness.submit(one(block)).await;
    assert!(events.restarted("p").await.contains("its thread is blocked"));
    assert!(events.failed("p").await.contains("blocks its thread again and again"));
    let status = harness.status("p").await;
    assert_eq!((status.state, status.generation), (ProviderState::Failed, 2));
    assert!(status.detail.contains("blocks its thread"), "{}", status.detail);
    harness.restart("p").await;
    let record = blocked.await;
    assert_eq!(record.tasks[0].status, TaskStatus::Completed, "{:?}", record.tasks[0].error);
    assert_eq!(**record.tasks[0].result.as_ref().unwrap(), 3);
    assert_eq!(harness.status("p").await.state, ProviderState::Serving);
    drop(unblock);
    harness.assert_nothing_left().await;
}

/// Stopping does not wait for a thread that is blocked.
#[actix::test]
async fn a_blocked_thread_does_not_hold_up_the_end() {
    let harness = Harness::new(watchful(1));
    let (script, unblock) = blocking();
    harness.employ(on(Placement::Worker, script.spec("p"))).await;
    let (id, _ending) = harness.submit(one(task("block").timeout(HOUR))).await;
    script.diary.until("call block", 1).await;
    let stopped = harness.actors.stop(Duration::ZERO);
    let report = tokio::time::timeout(Duration::from_mins(1), stopped).await.unwrap();
    assert_eq!(report.abandoned, [(id, "block".into())]);
    drop(unblock);
}
