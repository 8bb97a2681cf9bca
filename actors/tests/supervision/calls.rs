//! The innermost ring: what goes wrong in a call fails that call.

use std::{
    future::{Future, pending},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use gleitzeit_actors::provider_supervisor::ProviderState;
use gleitzeit_domain::{
    error::{ErrorCode, TaskError},
    event::EventData,
    health::HealthReport,
    provider::{Call, Outcome, Provider, ProviderSpec},
    task::TaskStatus,
};
use serde_json::{Value, json};

use crate::support::{
    Harness, Setup, assert_completed, one,
    provider::{Gate, Script, quick},
    task,
};

/// Waits at the gate where its name says so, else panics, at once or after a pause.
fn moody(gate: &Gate) -> Script {
    let gate = gate.clone();
    Script::executing(move |instance, call| {
        let gate = gate.clone();
        async move {
            match call.task_id.as_str() {
                "hold" => gate.pass().await,
                "hold, then panic" => {
                    gate.pass().await;
                    panic!("late");
                }
                "panic" => panic!("at once"),
                "panic later" => {
                    tokio::task::yield_now().await;
                    panic!("later");
                }
                _ => {}
            }
            Ok(json!({ "instance": instance }))
        }
    })
}

fn instance_of(record: &gleitzeit_domain::task::TaskRecord) -> u64 {
    record.result.as_ref().expect("it completed")["instance"].as_u64().unwrap()
}

async fn panic_beside_others(panicking: &str) {
    tokio::time::pause();
    let harness = Harness::new(Setup::default());
    let gate = Gate::default();
    let script = moody(&gate);
    harness.employ(script.spec("p")).await;
    let mut events = harness.events().await;
    let (_, held) = harness.submit(one(task("hold"))).await;
    script.diary.until("call hold", 1).await;

    // Registered only now, so that the calls before are the first one's.
    let bystander = Script::default();
    let failed = harness.run_task(task(panicking)).await;
    harness.employ(bystander.spec_of("q", "play/v1.0")).await;
    assert_eq!(failed.status, TaskStatus::Failed);
    let error = failed.error.unwrap();
    assert_eq!(error.code, ErrorCode::ProviderUnhealthy);
    assert!(error.message.contains("provider `p` panicked during work/v1.0:run"), "{error}");
    assert!(events.restarted("p").await.contains("panicked"));

    // A new instance serves while the old one still has a call.
    let next = harness.run_task(task("next")).await;
    assert_eq!(instance_of(&next), 2);
    assert_eq!(script.diary.count("shut down 1"), 0, "{:?}", script.diary.entries());
    gate.open(1);
    let held = held.await;
    assert_completed(Arc::clone(&held));
    assert_eq!(instance_of(&held.tasks[0]), 1);
    script.diary.until("dropped 1", 1).await;
    assert_eq!(script.diary.count("shut down 1"), 1);

    let status = harness.status("p").await;
    assert_eq!((status.generation, status.restarts, status.in_flight), (2, 1, 0));
    assert_eq!((status.calls_total, status.calls_failed), (3, 1));
    let other = harness.status("q").await;
    assert_eq!((other.generation, other.restarts, other.state), (1, 0, ProviderState::Serving));
    harness.assert_nothing_left().await;
}

/// All other calls of the provider continue; the instance is shut down after its last call.
#[actix::test]
async fn a_panic_at_the_first_step_fails_that_call_only() {
    panic_beside_others("panic").await;
}

/// So is one in a call that runs in its own task.
#[actix::test]
async fn a_panic_at_a_later_step_fails_that_call_only() {
    panic_beside_others("panic later").await;
}

/// The new instance has done nothing wrong.
#[actix::test]
async fn a_panic_in_a_call_of_an_old_instance_changes_nothing() {
    tokio::time::pause();
    let harness = Harness::new(Setup::default());
    let gate = Gate::default();
    let script = moody(&gate);
    harness.employ(script.spec("p")).await;
    let mut events = harness.events().await;
    let (_, late) = harness.submit(one(task("hold, then panic"))).await;
    script.diary.until("call hold", 1).await;
    harness.run_task(task("panic")).await;
    events.restarted("p").await;
    script.diary.until("answer 2", 1).await;
    harness.settle().await;
    events.so_far();

    gate.open(1);
    let late = late.await;
    assert_eq!(late.tasks[0].error.as_ref().unwrap().code, ErrorCode::ProviderUnhealthy);
    script.diary.until("dropped 1", 1).await;
    let status = harness.status("p").await;
    assert_eq!((status.generation, status.restarts), (2, 1));
    let restarts = events.so_far().into_iter();
    assert_eq!(restarts.filter(|it| matches!(it, EventData::ProviderRestarted { .. })).count(), 0);
    assert_eq!(instance_of(&harness.run_task(task("next")).await), 2);
}

struct OnDrop(Arc<AtomicU32>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A provider that ends calls at their limit itself gets the time to say so, and no more.
#[actix::test]
async fn a_call_is_dropped_only_after_the_grace_of_its_provider() {
    tokio::time::pause();
    let harness = Harness::new(Setup::default());
    let script = Script::executing(|_, call| async move {
        if call.task_id.as_str() == "hang" {
            pending::<()>().await;
        }
        tokio::time::sleep(call.timeout + Duration::from_secs(2)).await;
        Err(TaskError::new(ErrorCode::TaskTimeout, "stopped with its output kept"))
    });
    let script = Script { grace: Duration::from_secs(3), ..script };
    harness.employ(script.spec("p")).await;
    let limit = Duration::from_secs(7);
    let published = harness.run_task(task("late").timeout(limit)).await.error.unwrap();
    assert_eq!(published.code, ErrorCode::TaskTimeout);
    assert!(published.message.contains("output kept"), "{published}");

    let begun = tokio::time::Instant::now();
    let hung = harness.run_task(task("hang").timeout(limit)).await.error.unwrap();
    assert_eq!(hung.code, ErrorCode::TaskTimeout);
    assert!(hung.message.contains("within 7s"), "{hung}");
    assert_eq!(begun.elapsed().as_secs(), 10);
    harness.assert_nothing_left().await;
}

/// A hang costs the caller its timeout, and the provider nothing.
#[actix::test]
async fn a_call_that_hangs_is_dropped_when_its_time_is_up() {
    tokio::time::pause();
    let harness = Harness::new(Setup::default());
    let dropped = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&dropped);
    let script = Script::executing(move |_, call| {
        let held = OnDrop(Arc::clone(&count));
        async move {
            let _held = held;
            if call.task_id.as_str() == "hang" {
                pending::<()>().await;
            }
            Ok(Value::Null)
        }
    });
    harness.employ(script.spec("p")).await;
    let begun = tokio::time::Instant::now();
    let hung = harness.run_task(task("hang").timeout(Duration::from_secs(7))).await;
    assert_eq!(begun.elapsed().as_secs(), 7);
    assert_eq!(hung.error.unwrap().code, ErrorCode::TaskTimeout);
    assert_eq!(dropped.load(Ordering::SeqCst), 1);
    assert_completed(harness.run(one(task("next"))).await);
    let status = harness.status("p").await;
    assert_eq!((status.generation, status.restarts), (1, 0));
    assert_eq!((status.in_flight, status.calls_failed), (0, 1));
    harness.assert_nothing_left().await;
}

/// The provider's counts are right although the call never said that it ended.
#[actix::test]
async fn a_cancelled_call_leaves_nothing_behind() {
    tokio::time::pause();
    let harness = Harness::new(Setup::default());
    let gate = Gate::default();
    let script = moody(&gate);
    harness.employ(script.spec("p").max_concurrent(1)).await;
    let (id, held) = harness.submit(one(task("hold"))).await;
    script.diary.until("call hold", 1).await;
    assert_eq!(harness.status("p").await.in_flight, 1);
    harness.cancel(id).await;
    assert_eq!(held.await.tasks[0].status, TaskStatus::Cancelled);
    assert_completed(harness.run(one(task("next"))).await);
    let status = harness.status("p").await;
    assert_eq!((status.in_flight, status.calls_failed), (0, 0));
    harness.assert_nothing_left().await;
}

/// The answer was there before the destructor of its instance panicked.
#[actix::test]
async fn a_panic_in_drop_takes_no_answer_away() {
    tokio::time::pause();
    let harness = Harness::new(Setup::default());
    let gate = Gate::default();
    let script = Script { on_drop: Arc::new(|_| panic!("in drop")), ..moody(&gate) };
    harness.employ(script.spec("p")).await;
    let (_, held) = harness.submit(one(task("hold"))).await;
    script.diary.until("call hold", 1).await;
    harness.restart("p").await;
    script.diary.until("ready 2", 1).await;
    gate.open(1);
    assert_completed(held.await);
    script.diary.until("dropped 1", 1).await;
    let status = harness.status("p").await;
    assert_eq!((status.generation, status.in_flight, status.calls_failed), (2, 0, 0));
    assert_completed(harness.run(one(task("next"))).await);
    harness.assert_nothing_left().await;
}

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// Written without the macro, it can panic before there is a future.
struct Hasty {
    initialize: bool,
    health_check: bool,
}

impl Provider for Hasty {
    fn initialize<'a: 'f, 'f>(&'a self) -> Boxed<'f, Result<(), TaskError>>
    where
        Self: 'f,
    {
        assert!(!self.initialize, "no future of initialize");
        Box::pin(async { Ok(()) })
    }

    fn execute<'a: 'f, 'f>(&'a self, _: Call) -> Boxed<'f, Result<Outcome, TaskError>>
    where
        Self: 'f,
    {
        panic!("no future of execute");
    }

    fn health_check<'a: 'f, 'f>(&'a self) -> Boxed<'f, HealthReport>
    where
        Self: 'f,
    {
        assert!(!self.health_check, "no future of health_check");
        Box::pin(async { HealthReport::healthy() })
    }

    fn shutdown<'a: 'f, 'f>(&'a self) -> Boxed<'f, ()>
    where
        Self: 'f,
    {
        panic!("no future of shutdown");
    }
}

/// The supervisor is not affected.
#[actix::test]
async fn a_panic_before_there_is_a_future_is_caught_everywhere() {
    tokio::time::pause();
    let harness = Harness::new(Setup::default());
    let built = AtomicU32::new(0);
    let spec = ProviderSpec::new("p", crate::support::PROTOCOL, move || {
        let built = built.fetch_add(1, Ordering::SeqCst);
        Ok(Hasty { initialize: built == 0, health_check: built == 1 })
    });
    let mut events = harness.events().await;
    let spec = spec.unwrap();
    harness
        .register(
            spec.supervision(gleitzeit_domain::provider::Supervision {
                restart_after: 1,
                ..quick()
            }),
        )
        .await;
    assert!(events.restarted("p").await.contains("no future of initialize"));
    assert!(events.restarted("p").await.contains("no future of health_check"));
    events.health(&"p".into(), gleitzeit_domain::health::HealthStatus::Healthy).await;
    let failed = harness.run_task(task("any")).await;
    assert!(failed.error.unwrap().message.contains("no future of execute"));
    assert!(events.restarted("p").await.contains("no future of execute"));
    events.health(&"p".into(), gleitzeit_domain::health::HealthStatus::Healthy).await;
    assert_eq!(harness.status("p").await.generation, 4);
}
