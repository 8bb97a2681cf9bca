//! `gleitzeit bench`: drives the real engine and prints what it measured.
//!
//! The same runtime, actors, store and providers as any other command; only the workload is made
//! up. `executed` counts what the provider was really asked, not what was reported.

use std::{
    num::NonZeroU64,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::bail;
use clap::{Args, ValueEnum};
use gleitzeit::{
    Handle, Runtime, TaskSpec, WorkflowSpec, WorkflowStatus, domain::plan::Draft, providers::echo,
    settings::Durability,
};
use serde::Serialize;
use serde_json::json;
use tokio::task::JoinSet;

use super::{
    Outcome,
    output::{self, Exit, Failure},
    session::Session,
};

/// What to drive the engine with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Workload {
    /// One workflow of N independent tasks.
    BurnDown,
    /// N workflows of one task.
    Workflows,
    /// One workflow of N tasks, each behind the one before.
    Chain,
    /// One task, then N, then one that waits for all of them.
    FanOut,
    /// N workflows of one task, one at a time.
    Latency,
    /// N workflows of one Python task, one at a time.
    Python,
}

/// Options of `gleitzeit bench`.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// What to drive the engine with.
    #[arg(long, value_enum, default_value = "burn-down")]
    workload: Workload,
    /// Tasks, N.
    #[arg(long, default_value_t = 100_000)]
    tasks: u64,
    /// Workflows of `workflows` that are under way at once.
    #[arg(long, default_value_t = 512)]
    in_flight: u64,
    /// What a commit survives: the loss of power, or of the process.
    #[arg(long, default_value = "full", value_parser = ["full", "normal"])]
    durability: String,
    /// Tasks executing at once.
    #[arg(long, default_value = "1024")]
    max_concurrent_tasks: NonZeroU64,
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Report {
    workload: Workload,
    tasks: u64,
    seconds: f64,
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    durability: String,
    executed: u64,
}

/// Runs the workload and prints the figures.
///
/// # Errors
/// When the runtime cannot start, or a workflow does not complete.
pub(crate) async fn bench(session: Session, args: BenchArgs) -> Outcome {
    let json = session.json;
    let failed = |error: anyhow::Error| Failure::infrastructure(format!("{error:#}"));
    let report = measure(args, session).await.map_err(failed)?;
    if json {
        output::document(&report);
    } else {
        output::text(&report);
    }
    Ok(Exit::Success)
}

impl std::fmt::Display for Report {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { tasks, seconds, per_second, p50_ms, p99_ms, durability, executed, .. } = self;
        write!(
            out,
            "{tasks} tasks in {seconds:.3} s: {per_second:.0}/s, p50 {p50_ms:.3} ms, p99 \
             {p99_ms:.3} ms, durability {durability}, {executed} calls executed"
        )
    }
}

async fn measure(args: BenchArgs, mut session: Session) -> anyhow::Result<Report> {
    let settings = &mut session.settings;
    let is_memory = settings.storage.url.is_memory();
    settings.storage.durability = match args.durability.as_str() {
        "normal" => Durability::Normal,
        _ => Durability::Full,
    };
    settings.engine.max_concurrent_tasks = args.max_concurrent_tasks;
    let (runtime, executed) = start(&args, &session).await?;
    let handle = runtime.handle();
    // What is measured is a provider that serves, not its start.
    if args.workload == Workload::Python {
        run(&handle, python()).await?;
    }
    let before = calls(&handle).await?;
    let driven = drive(&args, &handle).await;
    let executed = match executed {
        Some(executed) => executed.load(Ordering::Relaxed),
        None => calls(&handle).await? - before,
    };
    runtime.stop(Duration::from_secs(10)).await;
    let (elapsed, mut latencies) = driven?;
    let seconds = elapsed.as_secs_f64();
    latencies.sort_unstable();
    let tasks = match args.workload {
        Workload::FanOut => args.tasks + 2,
        _ => args.tasks,
    };
    #[expect(clippy::cast_precision_loss, reason = "a rate of counts")]
    let per_second = tasks as f64 / seconds;
    Ok(Report {
        workload: args.workload,
        tasks,
        seconds,
        per_second,
        p50_ms: percentile(&latencies, 50),
        p99_ms: percentile(&latencies, 99),
        durability: if is_memory { "none".to_owned() } else { args.durability },
        executed,
    })
}

/// Calls that providers have begun.
async fn calls(handle: &Handle) -> anyhow::Result<u64> {
    Ok(handle.providers().await?.iter().map(|provider| provider.calls_total).sum())
}

/// A runtime with the provider of the workload and nothing else.
async fn start(
    args: &BenchArgs,
    session: &Session,
) -> anyhow::Result<(Runtime, Option<Arc<AtomicU64>>)> {
    if args.workload == Workload::Python {
        let runtime = session.start_for([&python()]).await;
        return Ok((runtime.map_err(|failure| failure.error)?, None));
    }
    let (spec, executed) = echo::spec_counted("echo");
    let builder = Runtime::builder(session.settings.clone()).without_recovery();
    let runtime = builder.without_settings_providers().provider(spec).start().await?;
    Ok((runtime, Some(executed)))
}

/// Milliseconds that `share` percent stay under.
fn percentile(sorted: &[Duration], share: usize) -> f64 {
    let at = (sorted.len() * share).div_ceil(100).saturating_sub(1);
    sorted.get(at).map_or(0.0, |span| span.as_secs_f64() * 1e3)
}

/// How long all of it took, and how long each workflow.
type Times = (Duration, Vec<Duration>);

/// Runs the workload. The clock runs from the first submission, with its spec made, to the last
/// answer.
async fn drive(args: &BenchArgs, handle: &Handle) -> anyhow::Result<Times> {
    match args.workload {
        Workload::BurnDown => one(handle, burn_down(args.tasks)).await,
        Workload::Chain => one(handle, chain(args.tasks)).await,
        Workload::FanOut => one(handle, fan_out(args.tasks)).await,
        Workload::Workflows => many(handle, args.tasks, args.in_flight, single).await,
        Workload::Latency => many(handle, args.tasks, 1, single).await,
        Workload::Python => many(handle, args.tasks, 1, python).await,
    }
}

async fn one(handle: &Handle, spec: WorkflowSpec) -> anyhow::Result<Times> {
    let begun = Instant::now();
    run(handle, spec).await?;
    let elapsed = begun.elapsed();
    Ok((elapsed, vec![elapsed]))
}

async fn run(handle: &Handle, spec: WorkflowSpec) -> anyhow::Result<()> {
    let ended = handle.run_draft(Draft::new(spec)?).await?;
    if ended.status != WorkflowStatus::Completed {
        let why = ended.error.as_ref().map(ToString::to_string).unwrap_or_default();
        bail!("workflow {} is {}: {why}", ended.id, ended.status);
    }
    Ok(())
}

/// `count` workflows, at most `in_flight` at once.
async fn many(
    handle: &Handle,
    count: u64,
    in_flight: u64,
    spec: fn() -> WorkflowSpec,
) -> anyhow::Result<Times> {
    let begun = Instant::now();
    let left = Arc::new(AtomicU64::new(count));
    let mut lanes = JoinSet::new();
    for _ in 0..in_flight.clamp(1, count.max(1)) {
        let (handle, left) = (handle.clone(), Arc::clone(&left));
        lanes.spawn(async move {
            let mut latencies = Vec::new();
            let take = |left: u64| left.checked_sub(1);
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
                let begun = Instant::now();
                run(&handle, spec()).await?;
                latencies.push(begun.elapsed());
            }
            anyhow::Ok(latencies)
        });
    }
    let mut latencies = Vec::new();
    while let Some(lane) = lanes.join_next().await {
        latencies.extend(lane??);
    }
    Ok((begun.elapsed(), latencies))
}

fn echo_task(id: impl Into<String>) -> TaskSpec {
    TaskSpec::new(id, "echo/echo").params(json!({ "n": 1 }))
}

fn single() -> WorkflowSpec {
    WorkflowSpec::new("single").task(echo_task("only"))
}

fn python() -> WorkflowSpec {
    let task = TaskSpec::new("only", "python/execute").params(json!({ "code": "result = 1" }));
    WorkflowSpec::new("python").task(task)
}

fn burn_down(tasks: u64) -> WorkflowSpec {
    (0..tasks).fold(WorkflowSpec::new("burn-down"), |spec, n| spec.task(echo_task(format!("t{n}"))))
}

fn chain(tasks: u64) -> WorkflowSpec {
    (0..tasks).fold(WorkflowSpec::new("chain"), |spec, n| {
        let task = echo_task(format!("t{n}"));
        spec.task(if n == 0 { task } else { task.after(format!("t{}", n - 1)) })
    })
}

fn fan_out(tasks: u64) -> WorkflowSpec {
    let spread = (0..tasks)
        .fold(WorkflowSpec::new("fan-out").task(echo_task("first")), |spec, n| {
            spec.task(echo_task(format!("t{n}")).after("first"))
        });
    let last = (0..tasks).fold(echo_task("last"), |last, n| last.after(format!("t{n}")));
    spread.task(last)
}
