//! Claims about [`Monitor`]: what it measures, when, and that nothing stops it.

use gleitzeit_domain::restart::RestartPolicy;
use tokio::time::sleep;

use super::*;
use crate::{
    event_bus::{Delivery, EventBus, EventFilter, Subscribe, Subscription},
    supervision::{RestartLimitReached, start_supervised},
};

const INTERVAL: Duration = Duration::from_secs(30);

/// Answers as the engine and the balancer do: ten tasks more each time it is asked, or nothing
/// while it is `mute`.
#[derive(Default)]
struct Sources {
    asked: u64,
    mute: bool,
}

#[derive(Message)]
#[rtype(result = "()")]
struct Mute(bool);

impl Actor for Sources {
    type Context = Context<Self>;
}

impl Handler<Mute> for Sources {
    type Result = ();

    fn handle(&mut self, Mute(mute): Mute, _: &mut Self::Context) {
        self.mute = mute;
    }
}

impl Handler<GetStats> for Sources {
    type Result = ResponseFuture<ExecutionStats>;

    fn handle(&mut self, _: GetStats, _: &mut Self::Context) -> Self::Result {
        self.asked += 1;
        let (mute, tasks_processed) = (self.mute, self.asked * 10);
        Box::pin(async move {
            if mute {
                std::future::pending::<()>().await;
            }
            ExecutionStats {
                tasks_processed,
                tasks_succeeded: tasks_processed - 1,
                tasks_failed: 1,
                tasks_in_flight: 3,
                tasks_queued: 4,
                workflows_active: 2,
                average_task_duration: 0.5,
                ..ExecutionStats::default()
            }
        })
    }
}

impl Handler<GetProviderHealth> for Sources {
    type Result = MessageResult<GetProviderHealth>;

    fn handle(&mut self, _: GetProviderHealth, _: &mut Self::Context) -> Self::Result {
        MessageResult([("python".into(), HealthStatus::Healthy)].into())
    }
}

struct Scene {
    config: MonitorConfig,
    sources: Addr<Sources>,
    events: Subscription,
}

async fn scene(interval: Duration) -> Scene {
    tokio::time::pause();
    let sources = Sources::default().start();
    let bus = EventBus::new().start();
    let subscribe = Subscribe { filter: EventFilter::default(), capacity: 1000 };
    let events = bus.send(subscribe).await.unwrap();
    let config = MonitorConfig {
        interval,
        stats: sources.clone().recipient(),
        health: sources.clone().recipient(),
        events: bus.recipient(),
        memory_mib: || Some(12.5),
    };
    Scene { config, sources, events }
}

async fn next(events: &mut Subscription) -> Metrics {
    match events.next().await {
        Some(Delivery::Event(event)) => match &event.data {
            EventData::MetricsCollected { metrics } => Metrics::clone(metrics),
            other => panic!("{other}"),
        },
        other => panic!("{other:?}"),
    }
}

/// Each interval one event with the figures of the design, and the rate from their differences.
#[actix::test]
async fn metrics_are_collected_at_intervals() {
    let Scene { config, mut events, .. } = scene(INTERVAL).await;
    let before = Instant::now();
    let monitor = Monitor::new(config).start();
    let first = next(&mut events).await;
    assert_eq!(before.elapsed().as_secs(), 30);
    let expected = Metrics {
        active_tasks: 3,
        queued_tasks: 4,
        active_workflows: 2,
        completed_tasks: 9,
        failed_tasks: 1,
        average_execution_time: 0.5,
        throughput_per_minute: first.throughput_per_minute,
        memory_usage_mb: 12.5,
        provider_health: [("python".into(), HealthStatus::Healthy)].into(),
    };
    assert_eq!(first, expected);
    for _ in 0..5 {
        let metrics = next(&mut events).await;
        assert!((metrics.throughput_per_minute - 20.0).abs() < 0.1, "{metrics:?}");
    }
    assert_eq!(before.elapsed().as_secs(), 180);
    assert_eq!(monitor.send(GetMetrics).await.unwrap().map(|it| it.completed_tasks), Some(59));
}

/// Nobody waits for the first interval to know how it is.
#[actix::test]
async fn a_question_before_the_first_measurement_is_answered() {
    let Scene { config, mut events, .. } = scene(INTERVAL).await;
    let monitor = Monitor::new(config).start();
    sleep(INTERVAL / 2).await;
    let asked = monitor.send(GetMetrics).await.unwrap().unwrap();
    assert_eq!((asked.completed_tasks, asked.provider_health.len()), (9, 1));
    assert!((asked.throughput_per_minute - 40.0).abs() < 0.1, "{asked:?}");
    assert_eq!(next(&mut events).await.completed_tasks, 19, "the interval is as it was");
}

/// A busy engine that does not answer delays a measurement; it does not end them.
#[actix::test]
async fn an_unanswered_question_does_not_stop_the_measuring() {
    let Scene { config, sources, mut events } = scene(INTERVAL).await;
    let monitor = Monitor::new(config).start();
    sources.send(Mute(true)).await.unwrap();
    sleep(10 * INTERVAL).await;
    assert!(events.try_next().is_none());
    assert_eq!(monitor.send(GetMetrics).await, Ok(None), "nobody knows");
    sources.send(Mute(false)).await.unwrap();
    assert!(next(&mut events).await.completed_tasks > 9);
    assert!(monitor.connected());
}

/// A monitor without an interval still keeps the figures of methods.
#[actix::test]
async fn no_interval_collects_nothing() {
    let Scene { config, mut events, .. } = scene(Duration::ZERO).await;
    let monitor = Monitor::new(config).start();
    sleep(100 * INTERVAL).await;
    assert!(events.try_next().is_none());
    // Each question is measured again.
    for completed in [9, 19] {
        let metrics = monitor.send(GetMetrics).await.unwrap().unwrap();
        assert_eq!(metrics.completed_tasks, completed);
    }
    assert!(events.try_next().is_none(), "a question is no measurement at an interval");
    assert_eq!(monitor.send(GetProfile).await, Ok(BTreeMap::new()));
}

/// Each method has its own figures, under the name that files use.
#[actix::test]
async fn calls_are_profiled_by_method() {
    let Scene { config, .. } = scene(INTERVAL).await;
    let monitor = Monitor::new(config).start();
    let call = |text: &str, seconds, memory_bytes| CallSample {
        capability: Arc::new(text.parse().unwrap()),
        seconds,
        memory_bytes,
        memory_delta_bytes: None,
    };
    let calls = vec![
        call("python/v1:execute", 0.1, Some(1000)),
        call("python/v1.0:execute", 0.3, None),
        call("llm/v1:chat", 2.0, None),
    ];
    monitor.send(RecordCalls { calls }).await.unwrap();
    let profile = monitor.send(GetProfile).await.unwrap();
    assert_eq!(profile.keys().collect::<Vec<_>>(), ["llm/v1.0:chat", "python/v1.0:execute"]);
    let python = &profile["python/v1.0:execute"];
    assert_eq!((python.total_executions, python.max_memory), (2, Some(1000)));
    assert!((python.avg_execution_time - 0.2).abs() < 1e-9, "{python:?}");
}

impl Message for Panic {
    type Result = ();
}

struct Panic;

impl Handler<Panic> for Monitor {
    type Result = ();

    fn handle(&mut self, _: Panic, _: &mut Self::Context) {
        panic!("on purpose");
    }
}

/// Ignores escalations; there is none in these tests.
struct Nobody;

impl Actor for Nobody {
    type Context = Context<Self>;
}

impl Handler<RestartLimitReached> for Nobody {
    type Result = ();

    fn handle(&mut self, _: RestartLimitReached, _: &mut Self::Context) {}
}

/// An answer to a question of the life before must not start a second row of timers.
#[actix::test]
async fn a_restart_keeps_one_measurement_an_interval() {
    let Scene { config, sources, mut events } = scene(INTERVAL).await;
    let to = Nobody.start().recipient();
    let monitor = start_supervised(RestartPolicy::default(), to, |_| Monitor::new(config));
    sources.send(Mute(true)).await.unwrap();
    // In the midst of a question, whose limit passes in the second life.
    sleep(INTERVAL + Duration::from_secs(1)).await;
    assert_eq!(monitor.send(Panic).await, Err(MailboxError::Closed));
    sources.send(Mute(false)).await.unwrap();
    sleep(20 * INTERVAL + Duration::from_secs(1)).await;
    let count = std::iter::from_fn(|| events.try_next()).count();
    assert_eq!(count, 20);
}
