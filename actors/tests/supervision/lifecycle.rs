//! The middle ring: a provider that breaks is restarted, within its budget.

use std::{future::pending, sync::Arc, time::Duration};

use gleitzeit_actors::{
    load_balancer::{BalancerSettings, RemoveProvider},
    provider_supervisor::ProviderState,
};
use gleitzeit_domain::{
    error::{ErrorCode, TaskError},
    event::EventData,
    health::{HealthReport, HealthStatus},
    provider::Supervision,
    task::TaskStatus,
};
use tokio::time::Instant;

use crate::support::{
    Harness, Setup, assert_completed, one,
    provider::{Gate, Script, quick, step},
    task,
};

fn patient() -> Setup {
    Setup {
        balancer: BalancerSettings {
            provider_wait: Duration::from_hours(24),
            ..BalancerSettings::default()
        },
        ..Setup::default()
    }
}

/// The first instance fails as `script` says; the second one serves.
async fn recovers(script: Script, reason: &str) {
    tokio::time::pause();
    let harness = Harness::new(patient());
    let mut events = harness.events().await;
    harness.register(script.spec("p")).await;
    let (_, waiting) = harness.submit(one(task("waits"))).await;
    let published = events.restarted("p").await;
    assert!(published.contains(reason), "{published}");
    assert_completed(waiting.await);
    let status = harness.status("p").await;
    assert_eq!((status.state, status.generation), (ProviderState::Serving, 2));
    assert_eq!((status.restarts, status.detail.as_str()), (1, ""));
    harness.assert_nothing_left().await;
}

/// A factory is a stranger's code on the supervisor's thread.
#[actix::test]
async fn a_panic_while_it_is_built_is_tried_again() {
    let build = Arc::new(|instance| {
        assert!(instance > 1, "no such model");
        Ok(())
    });
    recovers(Script { build, ..Script::default() }, "panicked while it was built: no such model")
        .await;
}

/// Down at the start is nothing final.
#[actix::test]
async fn an_error_while_it_is_built_is_tried_again() {
    let build = Arc::new(|instance| match instance {
        1 => Err(TaskError::new(ErrorCode::ConnectionRefused, "nobody listens")),
        _ => Ok(()),
    });
    recovers(Script { build, ..Script::default() }, "nobody listens").await;
}

/// Nor is a panic there.
#[actix::test]
async fn a_panic_while_it_is_made_ready_is_tried_again() {
    let initialize = step(|instance| async move {
        tokio::task::yield_now().await;
        assert!(instance > 1, "no connection");
        Ok(())
    });
    recovers(Script { initialize, ..Script::default() }, "no connection").await;
}

/// A peer that never answers holds up a start for the limit at the most.
#[actix::test]
async fn a_hang_while_it_is_made_ready_is_tried_again() {
    let initialize = step(|instance| async move {
        if instance == 1 {
            pending::<()>().await;
        }
        Ok(())
    });
    recovers(Script { initialize, ..Script::default() }, "no answer within 20s").await;
}

/// Neither costs the next instance anything, and a removal ends all the same.
async fn is_let_go(script: Script) {
    tokio::time::pause();
    let harness = Harness::new(Setup::default());
    harness.employ(script.spec("p")).await;
    harness.restart("p").await;
    script.diary.until("ready 2", 1).await;
    harness.settle().await;
    assert_completed(harness.run(one(task("next"))).await);
    script.diary.until("dropped 1", 1).await;
    assert_eq!(harness.status("p").await.state, ProviderState::Serving);
    let begun = Instant::now();
    let remove = RemoveProvider { id: "p".into(), deadline: Duration::ZERO };
    harness.addresses.balancer.send(remove).await.unwrap().unwrap();
    assert!(begun.elapsed() <= quick().lifecycle_timeout + Duration::from_secs(2));
    assert_eq!(script.diary.count("dropped 2"), 1, "{:?}", script.diary.entries());
    assert!(harness.statuses().await.is_empty());
}

/// It is gone anyway.
#[actix::test]
async fn a_panic_in_shutdown_holds_nobody_up() {
    let shutdown = step(|_| async { panic!("in shutdown") });
    is_let_go(Script { shutdown, ..Script::default() }).await;
}

/// A shutdown that hangs is cut off.
#[actix::test]
async fn a_hang_in_shutdown_is_cut_off() {
    is_let_go(Script { shutdown: step(|_| pending()), ..Script::default() }).await;
}

/// So is a destructor that panics.
#[actix::test]
async fn a_panic_in_drop_holds_nobody_up() {
    is_let_go(Script { on_drop: Arc::new(|_| panic!("in drop")), ..Script::default() }).await;
}

/// A shutdown has all the time that the provider was promised.
#[actix::test]
async fn a_slow_shutdown_is_waited_for() {
    tokio::time::pause();
    let harness = Harness::new(Setup::default());
    let shutdown = step(|_| tokio::time::sleep(Duration::from_secs(15)));
    let script = Script { shutdown, ..Script::default() };
    harness.employ(script.spec("p")).await;
    let begun = Instant::now();
    let remove = RemoveProvider { id: "p".into(), deadline: Duration::ZERO };
    harness.addresses.balancer.send(remove).await.unwrap().unwrap();
    assert_eq!(begun.elapsed().as_secs(), 15);
    assert_eq!(script.diary.count("dropped 1"), 1);
}

fn seconds(gaps: &[Duration]) -> Vec<u64> {
    gaps.iter().map(Duration::as_secs).collect()
}

/// Panics in the calls of its first instances.
fn panics_before(instance: u64) -> Script {
    Script::executing(move |this, call| async move {
        assert!(this >= instance || call.task_id.as_str() != "panic", "on purpose");
        Ok(serde_json::Value::Null)
    })
}

/// One that draws others into its panics is given up where that is visible; a person's word gives it
/// a whole budget again.
#[actix::test]
async fn panics_in_calls_spend_the_budget() {
    tokio::time::pause();
    let harness = Harness::new(Setup::default());
    let script = panics_before(7);
    harness.employ(script.spec("p")).await;
    let mut events = harness.events().await;
    for _ in 0..6 {
        harness.run_task(task("panic")).await;
    }
    let reason = events.failed("p").await;
    assert!(reason.contains("on purpose"), "{reason}");
    // Each waits twice as long as the one before.
    assert_eq!(seconds(&script.diary.gaps("built")), [1, 2, 4, 4, 4]);
    let status = harness.status("p").await;
    assert_eq!((status.state, status.generation), (ProviderState::Failed, 6));
    assert_eq!((status.restarts, status.health), (5, HealthStatus::Unknown));
    assert!(status.detail.contains("on purpose"), "{}", status.detail);

    // Nothing happens any more, and who needs it learns why.
    let begun = Instant::now();
    let refused = harness.run_task(task("waits")).await.error.unwrap();
    assert_eq!(begun.elapsed().as_secs(), 30);
    assert_eq!(refused.code, ErrorCode::ProviderNotAvailable);
    assert!(refused.message.contains("provider `p` has failed"), "{refused}");
    assert!(refused.message.contains("on purpose"), "{refused}");
    assert_eq!(script.diary.count("built"), 6);
    let published = events.so_far().into_iter();
    assert!(!published.into_iter().any(|it| matches!(
        it,
        EventData::ProviderFailed { .. } | EventData::ProviderRestarted { .. }
    )));

    harness.restart("p").await;
    events.health(&"p".into(), HealthStatus::Healthy).await;
    assert_completed(harness.run(one(task("panic"))).await);
    let status = harness.status("p").await;
    assert_eq!((status.state, status.generation), (ProviderState::Serving, 7));
    harness.assert_nothing_left().await;
}

/// A peer that served and is away for longer than any budget: its provider serves again by itself,
/// however each try fails.
#[actix::test]
async fn an_outage_never_ends_in_failed() {
    tokio::time::pause();
    for how in ["an error", "a panic", "a hang", "an error while it is built"] {
        let harness = Harness::new(patient());
        let initialize = step(move |instance| async move {
            match how {
                "an error" if (2..60).contains(&instance) => Err(TaskError::failed("still away")),
                "a panic" => {
                    assert!(!(2..60).contains(&instance), "still away");
                    Ok(())
                }
                "a hang" if (2..60).contains(&instance) => pending().await,
                _ => Ok(()),
            }
        });
        let build = Arc::new(move |instance| match how {
            "an error while it is built" if (2..60).contains(&instance) => {
                Err(TaskError::failed("still away"))
            }
            _ => Ok(()),
        });
        let health = step(|instance| async move {
            if instance == 1 { HealthReport::unhealthy("gone") } else { HealthReport::healthy() }
        });
        let script = Script { build, initialize, health, ..Script::default() };
        let mut events = harness.events().await;
        harness.register(script.spec("p")).await;
        script.diary.until("built 2", 1).await;
        let (_, waiting) = harness.submit(one(task("waits"))).await;
        assert_completed(waiting.await);
        let status = harness.status("p").await;
        assert_eq!((status.state, status.generation), (ProviderState::Serving, 60), "{how}");
        let published = events.so_far();
        assert!(
            !published.iter().any(|it| matches!(it, EventData::ProviderFailed { .. })),
            "{how}"
        );
    }
}

/// Checks that fail for ever replace the instance for ever: one that is made ready each time and
/// never well is no more given up than one that cannot be made ready.
#[actix::test]
async fn checks_that_fail_do_not_spend_the_budget() {
    tokio::time::pause();
    let harness = Harness::new(patient());
    let health = step(|instance| async move {
        if instance < 30 { HealthReport::unhealthy("sick") } else { HealthReport::healthy() }
    });
    let script = Script { health, ..Script::default() };
    let mut events = harness.events().await;
    harness.register(script.spec("p")).await;
    events.health(&"p".into(), HealthStatus::Healthy).await;
    let status = harness.status("p").await;
    assert_eq!((status.state, status.generation), (ProviderState::Serving, 30));
}

/// A peer that is down at the start may be up at any time, however long that takes.
#[actix::test]
async fn what_was_down_since_the_start_is_tried_for_ever() {
    tokio::time::pause();
    let harness = Harness::new(patient());
    let initialize = step(|instance| async move {
        if instance < 40 {
            return Err(TaskError::new(ErrorCode::ConnectionRefused, "not up yet"));
        }
        Ok(())
    });
    let script = Script { initialize, ..Script::default() };
    let mut events = harness.events().await;
    harness.register(script.spec("p")).await;
    let (_, waiting) = harness.submit(one(task("waits"))).await;
    script.diary.until("built", 10).await;
    let status = harness.status("p").await;
    assert_ne!(status.state, ProviderState::Failed);
    assert!(status.detail.contains("not up yet"), "{}", status.detail);
    assert_completed(waiting.await);
    assert_eq!(script.diary.count("built"), 40);
    let longest = script.diary.gaps("built").into_iter().max().unwrap();
    assert_eq!(longest.as_secs(), quick().backoff_max.as_secs());
    assert!(!events.so_far().iter().any(|it| matches!(it, EventData::ProviderFailed { .. })));
}

/// A person who restarts a provider takes no answer away from anyone.
#[actix::test]
async fn a_restart_by_message_leaves_calls_in_flight_alone() {
    tokio::time::pause();
    let harness = Harness::new(Setup::default());
    let gate = Gate::default();
    let held_at = gate.clone();
    let script = Script::executing(move |instance, call| {
        let gate = held_at.clone();
        async move {
            if call.task_id.as_str() == "hold" {
                gate.pass().await;
            }
            Ok(instance.into())
        }
    });
    harness.employ(script.spec("p")).await;
    let mut events = harness.events().await;
    let (_, held) = harness.submit(one(task("hold"))).await;
    script.diary.until("call hold", 1).await;
    harness.restart("p").await;
    assert_eq!(&*events.restarted("p").await, "asked for");
    events.health(&"p".into(), HealthStatus::Healthy).await;
    assert_eq!(**harness.run_task(task("next")).await.result.as_ref().unwrap(), 2);
    assert_eq!(script.diary.count("shut down"), 0);
    gate.open(1);
    assert_eq!(**held.await.tasks[0].result.as_ref().unwrap(), 1);
    script.diary.until("dropped 1", 1).await;
    let status = harness.status("p").await;
    assert_eq!((status.generation, status.restarts, status.calls_failed), (2, 1, 0));
}

/// An answer of the old instance is not taken for one of the new.
#[actix::test]
async fn late_answers_of_an_old_instance_change_nothing() {
    tokio::time::pause();
    let harness = Harness::new(Setup::default());
    let gate = Gate::default();
    let held_at = gate.clone();
    let initialize = step(move |instance| {
        let gate = held_at.clone();
        async move {
            if instance == 1 {
                gate.pass().await;
                return Err(TaskError::failed("too late"));
            }
            Ok(())
        }
    });
    let health = step(|instance| async move {
        if instance == 2 {
            tokio::time::sleep(Duration::from_secs(5)).await;
            return HealthReport::unhealthy("too late");
        }
        HealthReport::healthy()
    });
    let script = Script { initialize, health, ..Script::default() };
    let mut events = harness.events().await;
    harness.register(script.spec("p")).await;
    script.diary.until("built 1", 1).await;
    harness.settle().await;
    harness.restart("p").await;
    script.diary.until("check 2", 1).await;
    gate.open(1);
    harness.restart("p").await;
    events.health(&"p".into(), HealthStatus::Healthy).await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    let status = harness.status("p").await;
    assert_eq!((status.generation, status.restarts), (3, 2));
    assert_eq!((status.state, status.health), (ProviderState::Serving, HealthStatus::Healthy));
    // Neither the late refusal nor the late finding was published.
    let published = events.so_far();
    assert!(
        !published.iter().any(|it| matches!(it, EventData::ProviderHealth { .. })),
        "{published:?}"
    );
}

/// A task that is retried does not care which instance serves it.
#[actix::test]
async fn a_retried_task_is_served_by_the_next_instance() {
    tokio::time::pause();
    let harness = Harness::new(Setup::default());
    let script = Script::executing(|instance, _| async move {
        assert!(instance > 1, "on purpose");
        Ok(instance.into())
    });
    let spec = script.spec("p").supervision(Supervision { restarts_max: 1, ..quick() });
    harness.employ(spec).await;
    let retry = gleitzeit_domain::retry::RetryPolicy::default();
    let done = harness.run_task(task("any").retry(retry)).await;
    assert_eq!((done.status, done.attempts), (TaskStatus::Completed, 2));
    assert_eq!(harness.status("p").await.restarts, 1);
}
