//! Measures the runtime: figures per method as calls end, and figures of the whole at intervals.
//!
//! The engine reports calls. At intervals the monitor asks the engine for counts and the balancer
//! for the health of providers, and publishes the measurement on the event bus.
//!
//! Invariant: at most one collection is under way, and its end arms the next one.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    future::{Future, ready},
    sync::Arc,
    time::Duration,
};

use actix::prelude::*;
use futures_util::future::join;
use gleitzeit_domain::{
    event::{Event, EventData},
    health::HealthStatus,
    id::{Capability, ProviderId},
    metrics::{ExecutionStats, MethodProfile, MethodSummary, Metrics, Throughput},
};
use tokio::time::{Instant, timeout};

use crate::event_bus::Publish;
pub use gleitzeit_domain::metrics::CallSample;

/// Returns the counts of the engine.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "ExecutionStats")]
pub struct GetStats;

/// Returns the health of each provider.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "BTreeMap<ProviderId, HealthStatus>")]
pub struct GetProviderHealth;

/// Records calls that ended, successful or not.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct RecordCalls {
    /// The calls, in any order.
    pub calls: Vec<CallSample>,
}

/// Returns the figures of every method that was called, by its capability.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "BTreeMap<String, MethodSummary>")]
pub struct GetProfile;

/// Returns the last measurement of the interval. Before the first one, or without an interval, a
/// measurement is made now. `None` if the engine or the balancer does not answer.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Option<Metrics>")]
pub struct GetMetrics;

/// Sent by the monitor to itself, at intervals.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct CollectMetrics {
    life: u64,
}

/// The answers to a collection; `None` from an actor that did not answer.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Collected {
    life: u64,
    stats: Option<ExecutionStats>,
    health: Option<BTreeMap<ProviderId, HealthStatus>>,
}

/// The answers to a request between the intervals.
#[derive(Debug, Message)]
#[rtype(result = "Metrics")]
struct Measure {
    stats: ExecutionStats,
    health: BTreeMap<ProviderId, HealthStatus>,
}

/// The actors that the monitor addresses.
#[derive(Clone)]
pub struct MonitorConfig {
    /// Between the end of one measurement and the start of the next; zero measures nothing.
    pub interval: Duration,
    /// Counts tasks: the engine.
    pub stats: Recipient<GetStats>,
    /// Knows the providers: the balancer.
    pub health: Recipient<GetProviderHealth>,
    /// Gets each measurement: the event bus.
    pub events: Recipient<Publish>,
    /// Returns the memory of the process in MiB, if that can be known. Must not block.
    pub memory_mib: fn() -> Option<f64>,
}

impl fmt::Debug for MonitorConfig {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("MonitorConfig").field("interval", &self.interval).finish_non_exhaustive()
    }
}

type Answers = (Option<ExecutionStats>, Option<BTreeMap<ProviderId, HealthStatus>>);

/// The longest wait for an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// The actor. One per system, on the control arbiter.
#[derive(Debug)]
pub struct Monitor {
    config: MonitorConfig,
    profiles: HashMap<Arc<Capability>, MethodProfile>,
    epoch: Instant,
    throughput: Throughput,
    last: Option<Metrics>,
    /// The number of this life; timers and answers of earlier lives are ignored.
    life: u64,
}

impl Monitor {
    /// A monitor without measurements.
    pub fn new(config: MonitorConfig) -> Self {
        Self {
            config,
            profiles: HashMap::new(),
            epoch: Instant::now(),
            throughput: Throughput::new(Duration::ZERO, 0),
            last: None,
            life: 0,
        }
    }

    fn arm(&self, ctx: &mut Context<Self>) {
        if !self.config.interval.is_zero() {
            ctx.notify_later(CollectMetrics { life: self.life }, self.config.interval);
        }
    }

    /// Asks the engine for its counts, and the balancer for the providers.
    fn ask(&self) -> impl Future<Output = Answers> + use<> {
        let (stats, health) = (self.config.stats.clone(), self.config.health.clone());
        async move {
            // A busy engine may take longer; without the limit no further measurement would be made.
            let stats = timeout(ANSWER_LIMIT, stats.send(GetStats));
            let health = timeout(ANSWER_LIMIT, health.send(GetProviderHealth));
            let (stats, health) = join(stats, health).await;
            (stats.ok().and_then(Result::ok), health.ok().and_then(Result::ok))
        }
    }

    fn measure(
        &self,
        stats: &ExecutionStats,
        provider_health: BTreeMap<ProviderId, HealthStatus>,
        throughput_per_minute: f64,
    ) -> Metrics {
        Metrics {
            active_tasks: stats.tasks_in_flight,
            queued_tasks: stats.tasks_queued,
            active_workflows: stats.workflows_active,
            completed_tasks: stats.tasks_succeeded,
            failed_tasks: stats.tasks_failed,
            average_execution_time: stats.average_task_duration,
            throughput_per_minute,
            memory_usage_mb: (self.config.memory_mib)().unwrap_or(0.0),
            provider_health,
        }
    }
}

impl Actor for Monitor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // An answer to the life before would arm a second timer, and each restart one more.
        self.life += 1;
        self.arm(ctx);
    }
}

impl Supervised for Monitor {
    /// Keeps the figures: one call that is counted half is no reason to lose thousands.
    fn restarting(&mut self, _: &mut Self::Context) {}
}

impl Handler<RecordCalls> for Monitor {
    type Result = ();

    fn handle(&mut self, RecordCalls { calls }: RecordCalls, _: &mut Self::Context) {
        // Calls that end together are mostly of one method. One lookup per call would hash its name
        // for each of a million calls.
        for same in calls.chunk_by(|one, next| Arc::ptr_eq(&one.capability, &next.capability)) {
            let profile = self.profiles.entry(Arc::clone(&same[0].capability)).or_default();
            for CallSample { seconds, memory_bytes, memory_delta_bytes, .. } in same {
                profile.record(*seconds, *memory_bytes);
                if let Some(bytes) = *memory_delta_bytes {
                    profile.record_memory_delta(bytes);
                }
            }
        }
    }
}

impl Handler<GetProfile> for Monitor {
    type Result = MessageResult<GetProfile>;

    fn handle(&mut self, _: GetProfile, _: &mut Self::Context) -> Self::Result {
        let summaries = self.profiles.iter();
        let summaries = summaries.map(|(call, profile)| (call.to_string(), profile.summary()));
        MessageResult(summaries.collect())
    }
}

impl Handler<GetMetrics> for Monitor {
    type Result = ResponseFuture<Option<Metrics>>;

    fn handle(&mut self, _: GetMetrics, ctx: &mut Self::Context) -> Self::Result {
        if let Some(last) = &self.last {
            return Box::pin(ready(Some(last.clone())));
        }
        let asked = self.ask();
        let monitor = ctx.address();
        Box::pin(async move {
            let (stats, health) = asked.await;
            monitor.send(Measure { stats: stats?, health: health? }).await.ok()
        })
    }
}

impl Handler<Measure> for Monitor {
    type Result = MessageResult<Measure>;

    fn handle(
        &mut self,
        Measure { stats, health }: Measure,
        _: &mut Self::Context,
    ) -> Self::Result {
        // Without a trace: read here, the rate of the next interval would begin at this request.
        let rate = self.throughput.glance(self.epoch.elapsed(), stats.tasks_processed);
        MessageResult(self.measure(&stats, health, rate))
    }
}

impl Handler<CollectMetrics> for Monitor {
    type Result = ();

    fn handle(&mut self, CollectMetrics { life }: CollectMetrics, ctx: &mut Self::Context) {
        // The timer of a life before: this one has a timer of its own.
        if life != self.life {
            return;
        }
        let asked = self.ask();
        let monitor = ctx.address();
        // Not in the actor: it would take no calls while the engine is busy.
        actix_rt::spawn(async move {
            let (stats, health) = asked.await;
            monitor.do_send(Collected { life, stats, health });
        });
    }
}

impl Handler<Collected> for Monitor {
    type Result = ();

    fn handle(&mut self, collected: Collected, ctx: &mut Self::Context) {
        let Collected { life, stats, health } = collected;
        if life != self.life {
            return;
        }
        // Before the answers are judged: a collection that failed must not be the last one.
        self.arm(ctx);
        let (Some(stats), Some(health)) = (stats, health) else {
            tracing::warn!(stats = stats.is_some(), "metrics collection failed: no answer");
            return;
        };
        let rate = self.throughput.read(self.epoch.elapsed(), stats.tasks_processed);
        let metrics = self.measure(&stats, health, rate);
        self.last = Some(metrics.clone());
        let data = EventData::MetricsCollected { metrics: Box::new(metrics) };
        let event =
            Event { timestamp: crate::clock::utc_now(), workflow_id: None, sequence: 0, data };
        self.config.events.do_send(Publish { events: vec![event] });
    }
}

#[cfg(test)]
mod tests;
