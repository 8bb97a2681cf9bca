//! Submits workflows to a runtime and waits for their ends, by the clock.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::bail;
use gleitzeit::{Handle, WorkflowRecord, WorkflowSpec, WorkflowStatus, domain::plan::Draft};
use tokio::task::JoinSet;

/// The times of one run.
#[derive(Debug)]
pub(crate) struct Measurement {
    /// From the first submission, with its spec made, to the last answer.
    pub(crate) elapsed: Duration,
    /// From submission to end, of each workflow; of a chain, from the end of one task to that of the
    /// next.
    pub(crate) latencies: Vec<Duration>,
    /// One of the workflows.
    pub(crate) sample: Option<Arc<WorkflowRecord>>,
}

/// Runs one workflow.
///
/// # Errors
/// When it does not complete.
pub(crate) async fn one(handle: &Handle, spec: WorkflowSpec) -> anyhow::Result<Measurement> {
    let begun = Instant::now();
    let sample = run(handle, spec).await?;
    let elapsed = begun.elapsed();
    Ok(Measurement { elapsed, latencies: vec![elapsed], sample: Some(sample) })
}

/// Runs one workflow whose tasks wait for each other.
///
/// # Errors
/// When it does not complete.
pub(crate) async fn chain(handle: &Handle, spec: WorkflowSpec) -> anyhow::Result<Measurement> {
    let mut driven = one(handle, spec).await?;
    if let Some(record) = &driven.sample {
        let ends: Vec<_> = record.tasks.iter().filter_map(|task| task.completed_at).collect();
        let hop = |ends: &[chrono::DateTime<chrono::Utc>]| (ends[1] - ends[0]).to_std();
        driven.latencies = ends.windows(2).filter_map(|ends| hop(ends).ok()).collect();
    }
    Ok(driven)
}

/// Runs one workflow.
///
/// # Errors
/// When it does not complete.
pub(crate) async fn run(
    handle: &Handle,
    spec: WorkflowSpec,
) -> anyhow::Result<Arc<WorkflowRecord>> {
    let ended = handle.run_draft(Draft::new(spec)?).await?;
    if ended.status != WorkflowStatus::Completed {
        let why = ended.error.as_ref().map(ToString::to_string).unwrap_or_default();
        bail!("workflow {} is {}: {why}", ended.id, ended.status);
    }
    Ok(ended)
}

/// Runs `count` workflows, at most `in_flight` at once.
///
/// # Errors
/// When one of them does not complete.
pub(crate) async fn many(
    handle: &Handle,
    count: u64,
    in_flight: u64,
    spec: impl Fn() -> WorkflowSpec + Clone + Send + 'static,
) -> anyhow::Result<Measurement> {
    let begun = Instant::now();
    let left = Arc::new(AtomicU64::new(count));
    let mut lanes = JoinSet::new();
    for _ in 0..in_flight.clamp(1, count.max(1)) {
        let (handle, left, spec) = (handle.clone(), Arc::clone(&left), spec.clone());
        lanes.spawn(async move {
            let mut latencies = Vec::new();
            let mut sample = None;
            let take = |left: u64| left.checked_sub(1);
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
                let begun = Instant::now();
                sample = Some(run(&handle, spec()).await?);
                latencies.push(begun.elapsed());
            }
            anyhow::Ok((latencies, sample))
        });
    }
    let mut driven = Measurement { elapsed: Duration::ZERO, latencies: Vec::new(), sample: None };
    while let Some(lane) = lanes.join_next().await {
        let (latencies, sample) = lane??;
        driven.latencies.extend(latencies);
        driven.sample = sample.or(driven.sample);
    }
    driven.elapsed = begun.elapsed();
    Ok(driven)
}
