//! How fast a process goes on with what a killed one left behind.
//!
//! This program runs once more, as a process that submits and then holds every task; it is killed
//! with SIGKILL. What the clock sees is a start like any other: the store is opened, with a log
//! that nobody closed, and everything in it is taken up.

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

use super::{BenchArgs, Workload, database::BenchDatabase};

/// What the process that is to be killed says when it may be.
const READY: &str = "ready";

/// Between two looks at what is reached.
const LOOK: Duration = Duration::from_millis(1);

/// Submissions that the process to be killed has under way at once.
const IN_FLIGHT: u64 = 1024;

/// What was seen of one start; spans since its beginning.
pub(super) struct Continued {
    pub(super) opened: Duration,
    pub(super) first_call: Duration,
    pub(super) taken_up: Duration,
    pub(super) completed: Duration,
    pub(super) workflows: u64,
    pub(super) executed: u64,
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
pub(super) async fn hold(args: &BenchArgs, settings: Settings) -> anyhow::Result<()> {
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
        tokio::time::sleep(LOOK).await;
    }
    super::output::raw(&format!("{READY}\n"));
    // Until the kill; or until whoever was to do it has gone itself.
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

/// Has a process leave `args.tasks` tasks behind, and goes on with them here.
///
/// # Errors
/// When one of the two does not start, or a task is lost or executed twice here.
pub(super) async fn recovery(
    args: &BenchArgs,
    settings: &Settings,
    ground: &mut BenchDatabase,
) -> anyhow::Result<Continued> {
    let mut doomed = doomed().context("cannot start this program once more")?;
    let said = doomed.stdout.take().context("its output is a pipe")?;
    let mut lines = BufReader::new(said).lines();
    match lines.next_line().await? {
        Some(line) if line == READY => {}
        other => bail!("the process to be killed said {other:?}; its errors are above"),
    }
    doomed.kill().await?;

    let (protocol, provider, calls, gate) = held()?;
    let begun = Instant::now();
    let store = ground.open(settings).await?;
    let opened = begun.elapsed();
    let builder = Runtime::builder(settings.clone()).without_settings_providers().store(store);
    let runtime = builder.protocol(protocol).provider(provider).start().await?;
    let handle = runtime.handle();
    let executing = args.tasks.min(args.max_concurrent_tasks.get());
    let mut first_call = None;
    let taken_up = loop {
        if calls.load(Ordering::Relaxed) > 0 {
            first_call.get_or_insert_with(|| begun.elapsed());
        }
        let stats = handle.stats().await?;
        if stats.tasks_queued + stats.tasks_in_flight >= args.tasks
            && calls.load(Ordering::Relaxed) >= executing
        {
            break begun.elapsed();
        }
        tokio::time::sleep(LOOK).await;
    };
    let recovered = runtime.recovered();
    if recovered.tasks != args.tasks {
        bail!("{} tasks were left behind, and {recovered:?} taken up", args.tasks);
    }
    gate.send_replace(true);
    while handle.stats().await?.workflows_active > 0 {
        tokio::time::sleep(LOOK).await;
    }
    let completed = begun.elapsed();
    let stats = handle.stats().await?;
    let executed = calls.load(Ordering::Relaxed);
    runtime.stop(Duration::from_secs(10)).await;
    if (stats.tasks_succeeded, executed) != (args.tasks, args.tasks) {
        bail!("of {} tasks {} completed, by {executed} calls", args.tasks, stats.tasks_succeeded);
    }
    let first_call = first_call.unwrap_or(taken_up);
    let workflows = recovered.workflows;
    Ok(Continued { opened, first_call, taken_up, completed, workflows, executed })
}

/// This program with the same arguments, as the process that is to be killed.
fn doomed() -> std::io::Result<Child> {
    Command::new(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .arg("--hold")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
}
