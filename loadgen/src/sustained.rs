//! A long run through one store, with retention at work: does it keep its pace and its size?

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use gleitzeit::{Handle, Store, telemetry};
use tokio::task::JoinSet;

use crate::{bench_report::Slice, database::BenchDatabase, figures, options::BenchArgs, runner};

/// Paces that the figure of a tenth is the median of.
const PACES: u64 = 10;

/// Between two rounds of pruning.
const ROUND: Duration = Duration::from_millis(250);

/// Workflows deleted in one call.
const BATCH: usize = 5_000;

/// Latencies that are kept: as few, that they are not what grows.
const LATENCIES: u64 = 100_000;

const MIB: f64 = 1024.0 * 1024.0;

/// The figures of a long run.
pub(crate) struct Sustained {
    pub(crate) elapsed: Duration,
    pub(crate) latencies: Vec<Duration>,
    pub(crate) tenths: Vec<Slice>,
    pub(crate) last_to_first: Option<f64>,
}

/// Runs the workflows; those that settled `args.keep` seconds ago are deleted meanwhile.
///
/// # Errors
/// When one of them does not complete.
pub(crate) async fn sustained(
    args: &BenchArgs,
    handle: &Handle,
    database: &BenchDatabase,
    store: Arc<dyn Store>,
) -> anyhow::Result<Sustained> {
    let pruning = tokio::spawn(prune_all(store, Duration::from_secs_f64(args.keep)));
    let done = run(args, handle, database).await;
    pruning.abort();
    done
}

async fn prune_all(store: Arc<dyn Store>, age: Duration) {
    loop {
        let before = gleitzeit::actors::clock::utc_now() - age;
        while let Ok(BATCH) = store.prune(before, BATCH).await {}
        tokio::time::sleep(ROUND).await;
    }
}

async fn run(
    args: &BenchArgs,
    handle: &Handle,
    database: &BenchDatabase,
) -> anyhow::Result<Sustained> {
    let begun = Instant::now();
    let left = Arc::new(AtomicU64::new(args.tasks));
    let (ends, mut ended) = tokio::sync::mpsc::unbounded_channel();
    let effect = args.effect;
    let mut lanes = JoinSet::new();
    for _ in 0..args.in_flight.clamp(1, args.tasks.max(1)) {
        let (handle, left, ends) = (handle.clone(), Arc::clone(&left), ends.clone());
        lanes.spawn(async move {
            let take = |left: u64| left.checked_sub(1);
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
                let begun = Instant::now();
                runner::run(&handle, effect.single()).await?;
                let now = Instant::now();
                let _ = ends.send((now, now - begun));
            }
            anyhow::Ok(())
        });
    }
    drop(ends);
    let stride = args.tasks.div_ceil(LATENCIES);
    let slice_size = (args.tasks / (10 * PACES)).max(1);
    let mut done = Sustained {
        elapsed: Duration::ZERO,
        latencies: Vec::new(),
        tenths: Vec::new(),
        last_to_first: None,
    };
    let (mut count, mut since, mut paces) = (0, begun, Vec::new());
    while let Some((at, latency)) = ended.recv().await {
        count += 1;
        if count % stride == 0 {
            done.latencies.push(latency);
        }
        if count % slice_size == 0 {
            paces.push(figures::rate(slice_size, at.saturating_duration_since(since)));
            since = at;
        }
        if count % (slice_size * PACES) == 0 {
            done.tenths.push(slice(std::mem::take(&mut paces), database));
        }
    }
    done.elapsed = begun.elapsed();
    while let Some(lane) = lanes.join_next().await {
        lane??;
    }
    if let [first, .., last] = done.tenths.as_slice() {
        done.last_to_first = Some(last.per_second / first.per_second);
    }
    Ok(done)
}

#[expect(clippy::cast_precision_loss, reason = "a size for a person")]
fn slice(paces: Vec<f64>, database: &BenchDatabase) -> Slice {
    Slice {
        per_second: figures::median(paces),
        memory_mib: telemetry::process_memory_mib(),
        store_mib: database.bytes().map(|bytes| bytes as f64 / MIB),
    }
}
