//! The figures of the monitor, and the figures of each method.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    health::HealthStatus,
    id::{Capability, ProviderId},
};

/// One timed measurement of the runtime.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Metrics {
    /// Tasks executing now.
    pub active_tasks: u64,
    /// Tasks ready and waiting for their turn.
    pub queued_tasks: u64,
    /// Workflows that are not settled.
    pub active_workflows: u64,
    /// Tasks completed since the start.
    pub completed_tasks: u64,
    /// Tasks failed since the start.
    pub failed_tasks: u64,
    /// Mean seconds of a call.
    pub average_execution_time: f64,
    /// Tasks settled in the last minute.
    pub throughput_per_minute: f64,
    /// Memory of the process in MiB; 0 if unknown.
    pub memory_usage_mb: f64,
    /// Each provider's health.
    pub provider_health: BTreeMap<ProviderId, HealthStatus>,
}

/// Counts of the engine since its start.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct ExecutionStats {
    /// Tasks settled by running: completed or failed.
    pub tasks_processed: u64,
    /// Tasks completed.
    pub tasks_succeeded: u64,
    /// Tasks failed.
    pub tasks_failed: u64,
    /// Tasks cancelled.
    pub tasks_cancelled: u64,
    /// Tasks left out by a condition.
    pub tasks_skipped: u64,
    /// Tasks that never ran, because one that they need did not complete.
    #[serde(default)]
    pub tasks_upstream_failed: u64,
    /// Attempts repeated.
    pub tasks_retried: u64,
    /// Mean seconds of a call.
    pub average_task_duration: f64,
    /// Workflows accepted.
    pub workflows_submitted: u64,
    /// Workflows completed.
    pub workflows_completed: u64,
    /// Workflows that failed or timed out.
    pub workflows_failed: u64,
    /// Workflows cancelled.
    pub workflows_cancelled: u64,
    /// Workflows not settled now.
    pub workflows_active: u64,
    /// Tasks ready and waiting for their turn now.
    pub tasks_queued: u64,
    /// Tasks dispatched and not yet answered now.
    pub tasks_in_flight: u64,
    /// Leases that another process ended: this one was taken for dead.
    pub leases_lost: u64,
    /// Changes of workflows that the store refused, because another process runs them by now.
    pub fenced_writes: u64,
}

/// The measurements of one call.
#[derive(Debug, Clone)]
pub struct CallSample {
    /// The method that was called.
    pub capability: Arc<Capability>,
    /// From its start to its answer, in seconds.
    pub seconds: f64,
    /// Peak memory in bytes; `None` if the provider does not measure it.
    pub memory_bytes: Option<u64>,
    /// By how much its memory grew, in bytes; `None` if the provider does not measure it.
    pub memory_delta_bytes: Option<u64>,
}

/// The figures of one method; times in seconds, memory in bytes.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct MethodSummary {
    /// Calls measured.
    pub total_executions: u64,
    /// Mean time.
    pub avg_execution_time: f64,
    /// Shortest time.
    pub min_execution_time: f64,
    /// Median time, within 4 %.
    pub p50_execution_time: f64,
    /// Time that 99 of 100 calls stay under, within 4 %.
    pub p99_execution_time: f64,
    /// Longest time.
    pub max_execution_time: f64,
    /// Mean memory; `None` if the provider does not report it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub avg_memory: Option<f64>,
    /// Least memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_memory: Option<u64>,
    /// Most memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_memory: Option<u64>,
    /// Mean growth of memory during a call; `None` if the provider does not report it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub avg_memory_delta: Option<f64>,
    /// Least growth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_memory_delta: Option<u64>,
    /// Most growth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_memory_delta: Option<u64>,
}

/// Time histogram of one method: counts in buckets that grow by a twelfth of a doubling, so that
/// a percentile is within 4 % and the size is fixed however many calls there are.
#[derive(Debug, Clone)]
pub struct MethodProfile {
    buckets: Vec<u64>,
    count: u64,
    sum: f64,
    min: f64,
    max: f64,
    memory: Option<MemoryProfile>,
    memory_delta: Option<MemoryProfile>,
}

#[derive(Debug, Clone, Copy)]
struct MemoryProfile {
    count: u64,
    sum: f64,
    min: u64,
    max: u64,
}

impl MemoryProfile {
    #[expect(clippy::cast_precision_loss, reason = "a mean of byte counts")]
    fn record(profile: &mut Option<Self>, bytes: u64) {
        let profile = profile.get_or_insert(Self { count: 0, sum: 0.0, min: bytes, max: bytes });
        profile.count += 1;
        profile.sum += bytes as f64;
        profile.min = profile.min.min(bytes);
        profile.max = profile.max.max(bytes);
    }

    #[expect(clippy::cast_precision_loss, reason = "a mean of byte counts")]
    fn mean(&self) -> f64 {
        self.sum / self.count as f64
    }
}

/// Buckets of a doubling; 40 doublings from 100 ns reach 30 hours.
const STEPS: usize = 12;
const BUCKETS: usize = 40 * STEPS;
const SHORTEST: f64 = 1e-7;

impl Default for MethodProfile {
    fn default() -> Self {
        Self {
            buckets: vec![0; BUCKETS],
            count: 0,
            sum: 0.0,
            min: f64::INFINITY,
            max: 0.0,
            memory: None,
            memory_delta: None,
        }
    }
}

impl MethodProfile {
    /// Counts a call that took `seconds`, with its memory if known.
    pub fn record(&mut self, seconds: f64, memory_bytes: Option<u64>) {
        self.buckets[bucket_of(seconds)] += 1;
        self.count += 1;
        self.sum += seconds;
        self.min = self.min.min(seconds);
        self.max = self.max.max(seconds);
        if let Some(bytes) = memory_bytes {
            MemoryProfile::record(&mut self.memory, bytes);
        }
    }

    /// Counts the growth of memory of a call, in bytes.
    pub fn record_memory_delta(&mut self, bytes: u64) {
        MemoryProfile::record(&mut self.memory_delta, bytes);
    }

    /// The figures so far.
    #[expect(clippy::cast_precision_loss, reason = "means of counts")]
    pub fn summary(&self) -> MethodSummary {
        if self.count == 0 {
            return MethodSummary::default();
        }
        MethodSummary {
            total_executions: self.count,
            avg_execution_time: self.sum / self.count as f64,
            min_execution_time: self.min,
            p50_execution_time: self.percentile(0.50),
            p99_execution_time: self.percentile(0.99),
            max_execution_time: self.max,
            avg_memory: self.memory.map(|memory| memory.mean()),
            min_memory: self.memory.map(|memory| memory.min),
            max_memory: self.memory.map(|memory| memory.max),
            avg_memory_delta: self.memory_delta.map(|memory| memory.mean()),
            min_memory_delta: self.memory_delta.map(|memory| memory.min),
            max_memory_delta: self.memory_delta.map(|memory| memory.max),
        }
    }

    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank within the count"
    )]
    fn percentile(&self, share: f64) -> f64 {
        let rank = (self.count as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (at, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                let middle = SHORTEST * 2_f64.powf((at as f64 + 0.5) / STEPS as f64);
                return middle.clamp(self.min, self.max);
            }
        }
        self.max
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to the range of buckets"
)]
fn bucket_of(seconds: f64) -> usize {
    let doublings = (seconds / SHORTEST).max(1.0).log2();
    ((doublings * STEPS as f64) as usize).min(BUCKETS - 1)
}

/// How many tasks settle in a minute, from readings of a count that only grows.
#[derive(Debug, Clone)]
pub struct Throughput {
    /// When each reading was taken and what it was: those of the last minute, and one before.
    readings: VecDeque<(Duration, u64)>,
}

const MINUTE: Duration = Duration::from_mins(1);

impl Throughput {
    /// Starts at `now` with a count of `settled`.
    pub fn new(now: Duration, settled: u64) -> Self {
        Self { readings: VecDeque::from([(now, settled)]) }
    }

    /// Adds a reading and returns the rate over the last minute, or since the first reading if that
    /// is shorter. A count that decreased, as after a restart of its source, starts a new
    /// measurement.
    pub fn read(&mut self, now: Duration, settled: u64) -> f64 {
        if self.readings.back().is_some_and(|(_, last)| settled < *last) {
            self.readings.clear();
        }
        self.readings.push_back((now, settled));
        let old = |at: Duration| now.saturating_sub(at) >= MINUTE;
        while self.readings.get(1).is_some_and(|(at, _)| old(*at)) {
            self.readings.pop_front();
        }
        self.rate(now, settled)
    }

    /// The same for a question in between, however often: at most one reading a second is kept.
    pub fn glance(&mut self, now: Duration, settled: u64) -> f64 {
        const SECOND: Duration = Duration::from_secs(1);
        match self.readings.back() {
            Some((at, last)) if now.saturating_sub(*at) < SECOND && settled >= *last => {
                self.rate(now, settled)
            }
            _ => self.read(now, settled),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a rate of counts")]
    fn rate(&self, now: Duration, settled: u64) -> f64 {
        let (since, before) = self.readings[0];
        let minutes = now.saturating_sub(since).as_secs_f64() / MINUTE.as_secs_f64();
        if minutes > 0.0 { (settled - before) as f64 / minutes } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A thousand questions a second leave one reading, and the rate is the same.
    #[test]
    fn a_glance_keeps_at_most_one_reading_a_second() {
        let mut throughput = Throughput::new(Duration::ZERO, 0);
        for at in 0..10_000_u64 {
            let rate = throughput.glance(Duration::from_millis(at), at);
            assert!(at == 0 || (rate - 60_000.0).abs() < 1e-6, "{rate} at {at}");
        }
        assert_eq!(throughput.readings.len(), 10);
    }

    /// The rate is that of the last minute, also where readings are closer or further apart.
    #[test]
    fn throughput_is_that_of_the_last_minute() {
        let second = Duration::from_secs;
        let mut throughput = Throughput::new(second(0), 0);
        let mut read = |at, settled| throughput.read(second(at), settled);
        // After half a minute of ten a second; after a minute; after a minute of nothing more.
        let rates = [read(0, 0), read(30, 300), read(60, 600), read(90, 600), read(120, 600)];
        for (rate, expected) in rates.into_iter().zip([0.0, 600.0, 600.0, 300.0, 0.0]) {
            assert!((rate - expected).abs() < 1e-9, "{rates:?}");
        }
        // Readings every two minutes, and a count that begins anew.
        assert!((read(240, 840) - 120.0).abs() < 1e-9);
        assert!(read(270, 5).abs() < 1e-9);
        assert!((read(300, 15) - 20.0).abs() < 1e-9);
        assert!(throughput.readings.len() <= 3);
    }

    /// Percentiles are near the truth, and the ends are exact.
    #[test]
    fn percentiles_are_within_four_percent() {
        let mut profile = MethodProfile::default();
        for n in 1..=1000_i32 {
            profile.record(f64::from(n) / 1000.0, Some(n.unsigned_abs().into()));
        }
        let summary = profile.summary();
        assert!((summary.p50_execution_time / 0.5 - 1.0).abs() < 0.04, "{summary:?}");
        assert!((summary.p99_execution_time / 0.99 - 1.0).abs() < 0.04, "{summary:?}");
        assert!((summary.min_execution_time - 0.001).abs() < f64::EPSILON);
        assert!((summary.max_execution_time - 1.0).abs() < f64::EPSILON);
        assert_eq!((summary.min_memory, summary.max_memory), (Some(1), Some(1000)));
        assert_eq!(summary.avg_memory_delta, None, "nobody told it");
        profile.record_memory_delta(2);
        profile.record_memory_delta(6);
        let summary = profile.summary();
        assert_eq!(summary.avg_memory_delta, Some(4.0));
        assert_eq!((summary.min_memory_delta, summary.max_memory_delta), (Some(2), Some(6)));
    }
}
