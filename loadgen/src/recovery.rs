//! How fast a process recovers the workflows of one that was killed.
//!
//! This program runs once more, as a process that submits and then holds every task; it is killed
//! with SIGKILL. The clock measures a start like any other: the store is opened, with a log that
//! nobody closed, and all workflows in it are recovered.

use std::{
    io::Read as _,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use gleitzeit::{
    Call, Handle, MethodSpec, ProtocolSpec, ProviderSpec, Runtime, Settings, TaskSpec, WorkflowSpec,
};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    sync::watch,
};

use crate::{
    bench_report::{Recovery, Report},
    commit_cost::CommitCosts,
    database::BenchDatabase,
    figures::{Spread, median, ms, rate},
    options::{BenchArgs, Workload},
    output,
};

/// The line by which the process to be killed reports that it is ready.
const READY: &str = "ready";

/// Between two questions about the progress.
const POLL: Duration = Duration::from_millis(1);

/// Submissions that the process to be killed has under way at once.
const IN_FLIGHT: u64 = 1024;

/// The times of one start, since its beginning.
pub(crate) struct Recovered {
    pub(crate) opened: Duration,
    pub(crate) first_call: Duration,
    pub(crate) all_ready: Duration,
    pub(crate) completed: Duration,
    pub(crate) workflows: u64,
    pub(crate) executed: u64,
}

/// A provider that answers no call until its gate is opened, and counts the calls.
fn held() -> anyhow::Result<(ProtocolSpec, ProviderSpec, Arc<AtomicU64>, watch::Sender<bool>)> {
    let calls = Arc::new(AtomicU64::new(0));
    let (gate, opens) = watch::channel(false);
    let counter = Arc::clone(&calls);
    let provider = ProviderSpec::from_fn("bench", "bench/v1.0", move |_: Call| {
        counter.fetch_add(1, Ordering::Relaxed);
        let mut opens = opens.clone();
        async move {
            // A gate that is gone holds for ever: its process is about to be killed.
            if opens.wait_for(|open| *open).await.is_err() {
                std::future::pending::<()>().await;
            }
            Ok(json!(1))
        }
    })?;
    let protocol = ProtocolSpec::new("bench", "v1.0".parse()?).method(MethodSpec::new("hold"));
    Ok((protocol, provider, calls, gate))
}

fn workflow(tasks: u64) -> WorkflowSpec {
    (0..tasks).fold(WorkflowSpec::new("held"), |spec, n| {
        spec.task(TaskSpec::new(format!("t{n}"), "bench/hold"))
    })
}

/// The life of the process that is to be killed.
///
/// # Errors
/// When a submission is refused.
pub(crate) async fn hold(args: &BenchArgs, settings: Settings) -> anyhow::Result<()> {
    let (protocol, provider, calls, gate) = held()?;
    let builder = Runtime::builder(settings).without_recovery().without_settings_providers();
    let runtime = builder.protocol(protocol).provider(provider).start().await?;
    if args.workload == Workload::RecoveryOne {
        runtime.handle().submit(workflow(args.tasks)).await?;
    } else {
        submit(&runtime.handle(), args.tasks).await?;
    }
    let executing = args.tasks.min(args.max_concurrent_tasks.get());
    while calls.load(Ordering::Relaxed) < executing {
        tokio::time::sleep(POLL).await;
    }
    output::text(READY);
    // Until the kill, or until the process that would kill it has ended.
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    drop(gate);
    Ok(())
}

async fn submit(handle: &Handle, count: u64) -> anyhow::Result<()> {
    let mut lanes = tokio::task::JoinSet::new();
    let left = Arc::new(AtomicU64::new(count));
    for _ in 0..IN_FLIGHT.min(count) {
        let (handle, left) = (handle.clone(), Arc::clone(&left));
        lanes.spawn(async move {
            let take = |left: u64| left.checked_sub(1);
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
                handle.submit(workflow(1)).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(lane) = lanes.join_next().await {
        lane??;
    }
    Ok(())
}

/// Has processes killed, round by round, and measures how the next one recovers.
///
/// # Errors
/// As [`recovery`]; that a store in memory does not survive a kill.
pub(crate) async fn recoveries(args: BenchArgs, settings: &Settings) -> anyhow::Result<Report> {
    if settings.storage.url.is_memory() {
        bail!("a store in memory does not survive a kill; name another by `--store`");
    }
    let mut report = Report::blank(&args, false);
    let mut database = BenchDatabase::new(settings);
    let mut costs = CommitCosts::default();
    let mut rounds = Vec::new();
    for _ in 0..args.rounds.get() {
        let recovered = recovery(&args, settings, &mut database).await?;
        report.executed += recovered.executed;
        rounds.push(recovered);
        costs.add(Box::pin(database.costs()).await?);
    }
    let of = |span: fn(&Recovered) -> Duration| {
        median(rounds.iter().map(|round| span(round).as_secs_f64()))
    };
    let taken_up = Spread::of(rounds.iter().map(|round| round.all_ready.as_secs_f64()));
    let paces = Spread::of(rounds.iter().map(|round| rate(report.tasks, round.all_ready)));
    if let (Some(taken_up), Some(paces)) = (taken_up, paces) {
        report.seconds = taken_up.median;
        report.per_second = paces.median;
        report.per_second_range = [paces.least, paces.greatest];
        report.recovery = Some(Recovery {
            workflows: rounds.iter().map(|round| round.workflows).sum::<u64>()
                / u64::from(args.rounds.get()),
            opened: of(|round| round.opened),
            first_call: of(|round| round.first_call),
            taken_up,
            completed: of(|round| round.completed),
        });
    }
    report.p50_ms = median(rounds.iter().map(|round| ms(round.all_ready)));
    report.p99_ms = report.p50_ms;
    report.price = costs.medians();
    Ok(report)
}

/// Has a process submit `args.tasks` tasks, kills it, and recovers them here.
///
/// # Errors
/// When one of the two does not start, or a task is lost or executed twice here.
async fn recovery(
    args: &BenchArgs,
    settings: &Settings,
    database: &mut BenchDatabase,
) -> anyhow::Result<Recovered> {
    let mut victim = start_victim().context("cannot start this program once more")?;
    let output = victim.stdout.take().context("its output is a pipe")?;
    let mut lines = BufReader::new(output).lines();
    match lines.next_line().await? {
        Some(line) if line == READY => {}
        other => bail!(
            "the process to be killed printed {other:?} instead of `{READY}`; its errors are above"
        ),
    }
    victim.kill().await?;

    let (protocol, provider, calls, gate) = held()?;
    let begun = Instant::now();
    let store = database.open(settings).await?;
    let opened = begun.elapsed();
    let builder = Runtime::builder(settings.clone()).without_settings_providers().store(store);
    let runtime = builder.protocol(protocol).provider(provider).start().await?;
    let handle = runtime.handle();
    let executing = args.tasks.min(args.max_concurrent_tasks.get());
    let mut first_call = None;
    let all_ready = loop {
        if calls.load(Ordering::Relaxed) > 0 {
            first_call.get_or_insert_with(|| begun.elapsed());
        }
        let stats = handle.stats().await?;
        if stats.tasks_queued + stats.tasks_in_flight >= args.tasks
            && calls.load(Ordering::Relaxed) >= executing
        {
            break begun.elapsed();
        }
        tokio::time::sleep(POLL).await;
    };
    let recovered = runtime.recovered();
    if recovered.tasks != args.tasks {
        bail!("{} tasks were submitted, and {recovered:?} recovered", args.tasks);
    }
    gate.send_replace(true);
    while handle.stats().await?.workflows_active > 0 {
        tokio::time::sleep(POLL).await;
    }
    let completed = begun.elapsed();
    let stats = handle.stats().await?;
    let executed = calls.load(Ordering::Relaxed);
    runtime.stop(Duration::from_secs(10)).await;
    if (stats.tasks_succeeded, executed) != (args.tasks, args.tasks) {
        bail!("of {} tasks {} completed, by {executed} calls", args.tasks, stats.tasks_succeeded);
    }
    let first_call = first_call.unwrap_or(all_ready);
    let workflows = recovered.workflows;
    Ok(Recovered { opened, first_call, all_ready, completed, workflows, executed })
}

/// This program with the same arguments, as the process that is to be killed.
fn start_victim() -> std::io::Result<Child> {
    Command::new(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .arg("--hold")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
}
