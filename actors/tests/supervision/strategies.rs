//! The choice of providers: fractions and preferences, through the real balancer.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use gleitzeit_actors::{
    load_balancer::{BalancerSettings, LoadBalancer, Picked},
    provider_supervisor::ProviderState,
};
use gleitzeit_domain::{
    balance::{BalanceConfig, Candidate, LoadBalancingStrategy, PickContext, Strategies},
    error::{ErrorCode, TaskError},
    health::{HealthReport, HealthStatus},
    provider::Supervision,
};

use crate::support::{
    Harness, Setup, assert_completed, many,
    provider::{Script, quick, step},
    task,
};

const RUN: &str = "work/v1.0:run";
const OTHER: &str = "work/v1.0:other";
const PLAY: &str = "play/v1.0:run";

fn shares(of: &[(&str, u32)]) -> HashMap<String, u32> {
    of.iter().map(|(id, count)| ((*id).to_owned(), *count)).collect()
}

async fn with_providers(setup: Setup, ids: &[&str]) -> Harness {
    tokio::time::pause();
    let harness = Harness::new(setup);
    for id in ids {
        harness.employ(Script::default().spec(id)).await;
    }
    harness
}

/// In turn, to the call, and for each method by itself.
#[actix::test]
async fn round_robin_is_exact_for_each_method() {
    let harness = with_providers(Setup::default(), &["p", "q", "r"]).await;
    let mut first = Vec::new();
    for _ in 0..4 {
        first.push(harness.pick(RUN).await.provider_id().to_string());
    }
    assert_eq!(first, ["p", "q", "r", "p"]);
    assert_eq!(harness.shares(RUN, 299).await, shares(&[("p", 99), ("q", 100), ("r", 100)]));
    assert_eq!(harness.pick(OTHER).await.provider_id().as_str(), "p");
    assert_eq!(harness.shares(RUN, 3).await, shares(&[("p", 1), ("q", 1), ("r", 1)]));
}

/// Tasks get the same as picks do: nothing on the way chooses twice.
#[actix::test]
async fn round_robin_is_exact_for_tasks_too() {
    let harness = with_providers(Setup::default(), &["p", "q", "r"]).await;
    let record = harness.run(many(300, |at| task(&format!("t{at}")))).await;
    assert_completed(Arc::clone(&record));
    let mut served = HashMap::new();
    for task in &record.tasks {
        *served.entry(task.provider_id.as_ref().unwrap().to_string()).or_default() += 1;
    }
    assert_eq!(served, shares(&[("p", 100), ("q", 100), ("r", 100)]));
}

/// Three standard deviations around what the weights say; nothing at all for a weight of 0.
#[actix::test]
async fn weighted_random_follows_the_weights() {
    tokio::time::pause();
    let mut setup = Setup::default().strategy("weighted_random");
    setup.balancer.balance.seed = 7;
    let harness = Harness::new(setup);
    for (id, weight) in [("one", 1.0), ("two", 2.0), ("three", 3.0), ("none", 0.0)] {
        harness.employ(Script::default().spec(id).weight(weight)).await;
    }
    let count = 6_000;
    let served = harness.shares(RUN, count).await;
    assert_eq!(served.get("none"), None);
    for (id, share) in [("one", 1.0 / 6.0), ("two", 2.0 / 6.0), ("three", 3.0 / 6.0)] {
        let (got, count) = (f64::from(served[id]), f64::from(count));
        let bound = 3.0 * (count * share * (1.0 - share)).sqrt();
        assert!((got - count * share).abs() < bound, "{id}: {got} of {count}");
    }
}

/// A provider of weight 0 is better than none.
#[actix::test]
async fn zero_weights_serve_where_nobody_else_has_room() {
    tokio::time::pause();
    let harness = Harness::new(Setup::default().strategy("weighted_random"));
    harness.employ(Script::default().spec("one").max_concurrent(1)).await;
    harness.employ(Script::default().spec("none").weight(0.0)).await;
    let held = harness.pick(RUN).await;
    assert_eq!(held.provider_id().as_str(), "one");
    assert_eq!(harness.shares(RUN, 10).await, shares(&[("none", 10)]));
    drop(held);
    harness.settle().await;
    assert_eq!(harness.shares(RUN, 10).await, shares(&[("one", 10)]));
}

/// Real calls in flight count, from the pick to the moment the ticket is dropped.
#[actix::test]
async fn least_connections_counts_what_is_in_flight() {
    let setup = Setup::default().strategy("least_connections");
    let harness = with_providers(setup, &["p", "q", "r"]).await;
    let mut held: HashMap<String, Vec<_>> = HashMap::new();
    for _ in 0..9 {
        let ticket = harness.pick(RUN).await;
        held.entry(ticket.provider_id().to_string()).or_default().push(ticket);
    }
    assert!(held.values().all(|tickets| tickets.len() == 3), "{held:?}");
    // Two of one are done, whether they served this method or another one.
    held.get_mut("q").unwrap().drain(..2);
    harness.settle().await;
    let next = [harness.pick(RUN).await, harness.pick(OTHER).await];
    assert!(next.iter().all(|ticket| ticket.provider_id().as_str() == "q"), "{next:?}");
    let even = [harness.pick(RUN).await, harness.pick(RUN).await, harness.pick(RUN).await];
    let mut served: Vec<_> = even.iter().map(|it| it.provider_id().as_str()).collect();
    served.sort_unstable();
    assert_eq!(served, ["p", "q", "r"]);
}

/// The latency that is measured is that of the calls themselves.
#[actix::test]
async fn peak_ewma_prefers_the_fast_one() {
    tokio::time::pause();
    let mut setup = Setup::default().strategy("peak_ewma");
    setup.engine.max_concurrent_tasks = 4;
    let harness = Harness::new(setup);
    for (id, millis) in [("fast", 20), ("slow", 1_000)] {
        let script = Script::executing(move |_, _| async move {
            tokio::time::sleep(Duration::from_millis(millis)).await;
            Ok(id.into())
        });
        harness.employ(script.spec(id)).await;
    }
    let record = harness.run(many(400, |at| task(&format!("t{at}")))).await;
    assert_completed(Arc::clone(&record));
    let by = |id: &str| {
        let of = |task: &&gleitzeit_domain::task::TaskRecord| {
            task.provider_id.as_ref().unwrap().as_str() == id
        };
        record.tasks.iter().filter(of).count()
    };
    assert!(by("fast") > 380, "{} of 400", by("fast"));
    assert!(by("slow") > 0, "nobody is written off without a try");
}

/// How many of 50 tasks, one after the other, go to a provider that fails at once with `code`,
/// beside one that takes its time.
async fn sent_to_failing(code: ErrorCode) -> usize {
    tokio::time::pause();
    let harness = Harness::new(Setup::default().strategy("peak_ewma"));
    let failing = Script::executing(move |_, _| async move { Err(TaskError::new(code, "no")) });
    let working = Script::executing(|_, _| async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        Ok(true.into())
    });
    harness.employ(failing.spec("failing")).await;
    harness.employ(working.spec("working")).await;
    for at in 0..50 {
        harness.run_task(task(&format!("t{at}"))).await;
    }
    failing.diary.count("call")
}

/// Failing fast is not being fast.
#[actix::test]
async fn peak_ewma_avoids_a_provider_that_is_overloaded() {
    let calls = sent_to_failing(ErrorCode::ProviderOverloaded).await;
    assert!(calls < 10, "{calls} of 50");
}

/// A wrong line in a task's code says nothing bad of who ran it.
#[actix::test]
async fn peak_ewma_does_not_blame_a_provider_for_a_task() {
    let calls = sent_to_failing(ErrorCode::TaskExecutionFailed).await;
    assert!(calls > 40, "{calls} of 50");
}

/// Switches between three findings.
fn switched(report: &Arc<Mutex<HealthReport>>) -> Script {
    let report = Arc::clone(report);
    let health = step(move |_| {
        let report = report.lock().unwrap().clone();
        async move { report }
    });
    Script { health, ..Script::default() }
}

/// A degraded provider serves only where no healthy one is there; an unhealthy one never.
#[actix::test]
async fn healthy_beats_degraded_beats_none() {
    tokio::time::pause();
    let harness = Harness::new(Setup::default());
    let [good, weak] = [(); 2].map(|()| Arc::new(Mutex::new(HealthReport::healthy())));
    let (p, q) = (switched(&good), switched(&weak));
    let patient = Supervision { restart_after: 100, ..quick() };
    harness.employ(p.spec("p").max_concurrent(1).supervision(patient)).await;
    harness.employ(q.spec("q").supervision(patient)).await;
    assert_eq!(harness.shares(RUN, 10).await, shares(&[("p", 5), ("q", 5)]));

    let mut events = harness.events().await;
    *weak.lock().unwrap() = HealthReport::degraded("slow");
    events.health(&"q".into(), HealthStatus::Degraded).await;
    assert_eq!(harness.shares(RUN, 10).await, shares(&[("p", 10)]));
    // A healthy one that is busy is waited for.
    let held = harness.pick(RUN).await;
    assert!(matches!(harness.pick_as(harness.request(RUN)).await, Picked::Waiting(_)));
    drop(held);
    harness.settle().await;

    *good.lock().unwrap() = HealthReport::unhealthy("dead");
    events.health(&"p".into(), HealthStatus::Unhealthy).await;
    assert_eq!(harness.shares(RUN, 10).await, shares(&[("q", 10)]));
    *weak.lock().unwrap() = HealthReport::unhealthy("dead, too");
    events.health(&"q".into(), HealthStatus::Unhealthy).await;
    assert!(matches!(harness.pick_as(harness.request(RUN)).await, Picked::Waiting(_)));
    assert!(harness.statuses().await.iter().all(|it| it.state == ProviderState::Serving));
}

/// The provider of the failed attempt is chosen again only if no other one is well enough.
#[actix::test]
async fn a_provider_to_avoid_is_the_last_choice() {
    let harness = with_providers(Setup::default(), &["p", "q"]).await;
    let mut avoiding = harness.request(RUN);
    avoiding.avoid = Some("p".into());
    for _ in 0..5 {
        let mut again = harness.request(RUN);
        again.avoid.clone_from(&avoiding.avoid);
        let Picked::Now(ticket) = harness.pick_as(again).await else { panic!("q has room") };
        assert_eq!(ticket.provider_id().as_str(), "q");
    }
    let remove = gleitzeit_actors::load_balancer::RemoveProvider {
        id: "q".into(),
        deadline: Duration::ZERO,
    };
    harness.addresses.balancer.send(remove).await.unwrap().unwrap();
    let Picked::Now(ticket) = harness.pick_as(avoiding).await else { panic!("p has room") };
    assert_eq!(ticket.provider_id().as_str(), "p");
}

/// Always the last one; notes that it was asked.
struct Last(Arc<AtomicBool>);

impl LoadBalancingStrategy for Last {
    fn name(&self) -> &'static str {
        "last"
    }

    fn select(&mut self, candidates: &[Candidate<'_>], context: &PickContext<'_>) -> usize {
        assert_eq!(context.capability.protocol.name(), "play");
        self.0.store(true, Ordering::SeqCst);
        candidates.len() - 1
    }
}

/// Settings say which protocol is served how, and a user's strategy is one like any other.
#[actix::test]
async fn each_protocol_has_its_strategy_and_a_user_can_add_one() {
    tokio::time::pause();
    let asked = Arc::new(AtomicBool::new(false));
    let note = Arc::clone(&asked);
    let strategies =
        Strategies::default().with("last", Arc::new(move |_| Box::new(Last(Arc::clone(&note)))));
    let mut setup = Setup { strategies, ..Setup::default() };
    setup.balancer.balance.protocols.insert("play/v1".to_owned(), "last".to_owned());
    let harness = Harness::new(setup);
    for id in ["p", "q"] {
        harness.employ(Script::default().spec(id)).await;
        harness.employ(Script::default().spec_of(&format!("{id}-play"), "play/v1.0")).await;
    }
    assert_eq!(harness.shares(RUN, 10).await, shares(&[("p", 5), ("q", 5)]));
    assert!(!asked.load(Ordering::SeqCst));
    assert_eq!(harness.shares(PLAY, 10).await, shares(&[("q-play", 10)]));
    assert!(asked.load(Ordering::SeqCst));
}

/// A typing error in the settings is found at the start, with what there is.
#[test]
fn an_unknown_strategy_is_refused() {
    actix::System::new().block_on(async {
        let settings = BalancerSettings {
            balance: BalanceConfig { strategy: "robin".to_owned(), ..BalanceConfig::default() },
            ..BalancerSettings::default()
        };
        let bus = actix::Actor::start(gleitzeit_actors::event_bus::EventBus::new()).recipient();
        let clock = gleitzeit_actors::Clock::start();
        let refused =
            LoadBalancer::new(settings, &Strategies::default(), Vec::new(), bus, clock).err();
        let refused = refused.unwrap().to_string();
        assert!(refused.contains("`robin`") && refused.contains("round_robin"), "{refused}");
    });
}
