//! Health checks: each change is reported once, checks never overlap, and none is final.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use gleitzeit_actors::{load_balancer::BalancerSettings, provider_supervisor::ProviderState};
use gleitzeit_domain::{
    event::EventData,
    health::{HealthReport, HealthStatus},
    provider::Supervision,
};

use crate::support::{
    Events, Harness, Setup, assert_completed, one,
    provider::{Script, quick, step},
    task,
};

/// The findings of the checks, in order; the last one is repeated.
fn finding(script: Script, found: &'static [HealthStatus]) -> Script {
    let next = Arc::new(AtomicUsize::new(0));
    let health = step(move |_| {
        let at = next.fetch_add(1, Ordering::SeqCst).min(found.len() - 1);
        async move {
            match found[at] {
                HealthStatus::Degraded => HealthReport::degraded("slow"),
                HealthStatus::Unhealthy => HealthReport::unhealthy("dead"),
                _ => HealthReport::healthy(),
            }
        }
    });
    Script { health, ..script }
}

fn published(events: &mut Events) -> Vec<HealthStatus> {
    let health = |event| match event {
        EventData::ProviderHealth { health, .. } => Some(health),
        _ => None,
    };
    events.so_far().into_iter().filter_map(health).collect()
}

/// A listener gets each change once, and no event without a change.
#[actix::test]
async fn a_flapping_provider_is_reported_once_for_each_change() {
    use HealthStatus::{Degraded, Healthy, Unhealthy};
    tokio::time::pause();
    let harness = Harness::new(Setup::default());
    let found = &[
        Healthy, Healthy, Degraded, Degraded, Unhealthy, Unhealthy, Unhealthy, Unhealthy, Healthy,
        Unhealthy, Healthy, Healthy,
    ];
    let script = finding(Script::default(), found);
    let mut events = harness.events().await;
    harness.register(script.spec("p")).await;
    script.diary.until("answer", 14).await;
    harness.settle().await;
    let changes = published(&mut events);
    assert_eq!(changes, [Healthy, Degraded, Unhealthy, Healthy, Degraded, Healthy]);
    let status = harness.status("p").await;
    assert_eq!((status.generation, status.restarts), (1, 0));
}

/// An unhealthy provider gets no calls, is still checked, and serves again after one good check.
#[actix::test]
async fn an_unhealthy_provider_recovers_by_itself() {
    use HealthStatus::{Healthy, Unhealthy};
    tokio::time::pause();
    let wait =
        BalancerSettings { provider_wait: Duration::from_hours(1), ..BalancerSettings::default() };
    let harness = Harness::new(Setup { balancer: wait, ..Setup::default() });
    let found = &[Unhealthy, Unhealthy, Unhealthy, Unhealthy, Healthy];
    let script = finding(Script::default(), found);
    let mut events = harness.events().await;
    harness.register(script.spec("p")).await;
    events.health(&"p".into(), Unhealthy).await;
    let (_, waiting) = harness.submit(one(task("waits"))).await;
    harness.settle().await;
    assert_eq!(script.diary.count("call"), 0);
    events.health(&"p".into(), Healthy).await;
    assert_completed(waiting.await);
    assert_eq!(script.diary.count("check"), 5);
    assert_eq!(harness.status("p").await.generation, 1);
}

/// The next check begins one interval after the end of the last, however long that took.
#[actix::test]
async fn checks_never_overlap_and_go_on_after_a_slow_one() {
    use HealthStatus::{Degraded, Healthy};
    tokio::time::pause();
    let harness = Harness::new(Setup::default());
    let count = AtomicUsize::new(0);
    let health = step(move |_| {
        let number = count.fetch_add(1, Ordering::SeqCst);
        async move {
            match number {
                1 => tokio::time::sleep(Duration::from_secs(9)).await,
                2 => pending::<()>().await,
                3 => panic!("in a check"),
                _ => {}
            }
            HealthReport::healthy()
        }
    });
    let script = Script { health, ..Script::default() };
    let mut events = harness.events().await;
    harness.register(script.spec("p")).await;
    script.diary.until("check", 6).await;
    harness.settle().await;
    let gaps: Vec<u64> = script.diary.gaps("check").iter().map(Duration::as_secs).collect();
    assert_eq!(gaps, [30, 39, 40, 30, 30]);
    assert_eq!(published(&mut events), [Healthy, Degraded, Healthy]);
    assert_eq!(harness.status("p").await.generation, 1);
}

/// An instance that fails its checks for too long is replaced, and the new one is checked.
#[actix::test]
async fn a_row_of_failed_checks_replaces_the_instance() {
    tokio::time::pause();
    let harness = Harness::new(Setup::default());
    let health = step(|instance| async move {
        if instance == 1 { HealthReport::unhealthy("stuck") } else { HealthReport::healthy() }
    });
    let script = Script { health, ..Script::default() };
    let mut events = harness.events().await;
    harness.register(script.spec("p")).await;
    let reason = events.restarted("p").await;
    assert!(reason.contains("failed 6 health checks in a row: stuck"), "{reason}");
    events.health(&"p".into(), HealthStatus::Healthy).await;
    assert_eq!(script.diary.count("check 1"), 6);
    assert_eq!(script.diary.count("shut down 1"), 1);
    let status = harness.status("p").await;
    assert_eq!((status.state, status.generation), (ProviderState::Serving, 2));
    assert_completed(harness.run(one(task("next"))).await);
}

/// A check that is still under way when its instance is replaced ends with it.
#[actix::test]
async fn a_check_ends_with_its_instance() {
    tokio::time::pause();
    let harness = Harness::new(Setup::default());
    let health = step(|instance| async move {
        if instance == 1 {
            pending::<()>().await;
        }
        HealthReport::healthy()
    });
    let script = Script { health, ..Script::default() };
    let mut events = harness.events().await;
    harness.register(script.spec("p")).await;
    script.diary.until("check 1", 1).await;
    harness.restart("p").await;
    events.health(&"p".into(), HealthStatus::Healthy).await;
    script.diary.until("dropped 1", 1).await;
    let entries = script.diary.entries();
    assert!(!entries.contains(&"answer 1".to_owned()), "{entries:?}");
    assert_eq!(harness.status("p").await.health, HealthStatus::Healthy);
}

/// How the runtime's settings have providers watched holds for one that is registered from Rust and
/// does not say it itself; a longer check of its kind stays.
#[actix::test]
async fn the_settings_watch_providers_that_say_nothing_of_it() {
    tokio::time::pause();
    let general = Supervision {
        health_interval: Duration::from_secs(7),
        health_timeout: Duration::from_secs(2),
        ..quick()
    };
    let balancer = BalancerSettings { supervision: Some(general), ..BalancerSettings::default() };
    let harness = Harness::new(Setup { balancer, ..Setup::default() });
    let [silent, chosen] = [Script::default(), Script::default()];
    let mut spec = silent.spec("silent");
    spec.supervision = Supervision { health_timeout: Duration::from_secs(20), ..quick() };
    spec.supervision_chosen = false;
    harness.register(spec).await;
    harness.register(chosen.spec("chosen")).await;
    chosen.diary.until("check", 3).await;
    let gaps = |script: &Script| script.diary.gaps("check").iter().map(Duration::as_secs).max();
    assert_eq!((gaps(&silent), gaps(&chosen)), (Some(7), Some(30)));
    let mut spec = silent.spec("third");
    spec.supervision = Supervision { health_timeout: Duration::from_secs(20), ..quick() };
    spec.supervision_chosen = false;
    spec.supervise_by_default(general);
    assert_eq!(spec.supervision.health_timeout, Duration::from_secs(20));
    assert_eq!(spec.supervision.health_interval, Duration::from_secs(7));
}
