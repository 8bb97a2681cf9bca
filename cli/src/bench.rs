//! `gleitzeit bench`: drives the real engine and prints what it measured.
//!
//! The same runtime, actors, store and providers as any other command; only the workload is made
//! up. `executed` counts what the provider was really asked, not what was reported. Beside the
//! figures stands what disk and database charge, measured in the same run: the price of a flush
//! differs by forty times from disk to disk, and from hour to hour on the same one.

#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod database;
#[cfg(not(any(feature = "sqlite", feature = "postgres")))]
#[path = "bench/no_database.rs"]
mod database;
mod drive;
mod figures;
mod price;
#[cfg(feature = "python")]
mod python;
#[cfg(not(feature = "python"))]
#[path = "bench/no_python.rs"]
mod python;
mod recovery;
mod replay;
mod report;
mod sustained;
mod work;

use std::{
    num::{NonZeroU32, NonZeroU64},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::bail;
use clap::{Args, ValueEnum};
use gleitzeit::{Handle, Runtime, Store, providers::echo, settings::Durability};
use serde::Serialize;

use self::{
    database::BenchDatabase,
    drive::Measurement,
    figures::{Spread, each, median, ms, percentile, rate},
    price::Prices,
    replay::Shape,
    report::{Ratios, Recovery, Report},
};
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
    /// N workflows of one task, left behind by a process that is killed, and gone on with.
    Recovery,
    /// The same with one workflow of N tasks.
    RecoveryOne,
    /// N workflows of one task; by tenths, while settled ones are forgotten.
    Sustained,
}

/// Options of `gleitzeit bench`.
#[derive(Debug, Clone, Args)]
pub(crate) struct BenchArgs {
    /// What to drive the engine with.
    #[arg(long, value_enum, default_value = "burn-down")]
    workload: Workload,
    /// Tasks, N.
    #[arg(long, default_value_t = 100_000)]
    tasks: u64,
    /// How often; the figures are medians.
    #[arg(long, default_value = "1")]
    rounds: NonZeroU32,
    /// Workflows of `workflows` and `sustained` that are under way at once.
    #[arg(long, default_value_t = 1024)]
    in_flight: u64,
    /// Seconds after which `sustained` forgets a settled workflow.
    #[arg(long, default_value_t = 1.0)]
    keep: f64,
    /// What the calls of tasks do outside.
    #[arg(long, value_enum, default_value = "pure")]
    effect: work::CallEffect,
    /// What a commit survives: the loss of power, or of the process.
    #[arg(long, default_value = "full", value_parser = ["full", "normal"])]
    durability: String,
    /// Tasks executing at once.
    #[arg(long, default_value = "1024")]
    max_concurrent_tasks: NonZeroU64,
    /// The level that the tasks of `python` run at; as the settings say where absent.
    #[arg(long, value_parser = ["process", "docker"])]
    sandbox: Option<String>,
    /// With `--sandbox docker`: the image, in place of that of the settings.
    #[arg(long)]
    docker_image: Option<String>,
    /// Submits, and waits to be killed.
    #[arg(long, hide = true)]
    hold: bool,
}

/// Runs the workload and prints the figures.
///
/// # Errors
/// When the runtime cannot start, or a workflow does not complete.
pub(crate) async fn bench(mut session: Session, args: BenchArgs) -> Outcome {
    let json = session.json;
    let failed = |error: anyhow::Error| Failure::infrastructure(format!("{error:#}"));
    let settings = &mut session.settings;
    settings.storage.durability = match args.durability.as_str() {
        "normal" => Durability::Normal,
        _ => Durability::Full,
    };
    settings.engine.max_concurrent_tasks = args.max_concurrent_tasks;
    python::set(&args, &mut session).map_err(failed)?;
    if args.hold {
        recovery::hold(&args, session.settings).await.map_err(failed)?;
        return Ok(Exit::Success);
    }
    let report = match args.workload {
        Workload::Recovery | Workload::RecoveryOne => Box::pin(continued(args, &session)).await,
        _ => Box::pin(measure(args, &session)).await,
    };
    let report = report.map_err(failed)?;
    if json {
        output::document(&report);
    } else {
        output::text(&report);
    }
    Ok(Exit::Success)
}

/// What was seen of one round.
struct Round {
    driven: Measurement,
    commits: Option<u64>,
    /// What the database charged before and behind it.
    prices: Prices,
    /// A plain loop over the same rows.
    plain: Option<Duration>,
}

async fn measure(args: BenchArgs, session: &Session) -> anyhow::Result<Report> {
    let load = price::load();
    let mut ground = BenchDatabase::new(&session.settings);
    let store = ground.open(&session.settings).await?;
    let (runtime, executed) = start(&args, session, Arc::clone(&store)).await?;
    let handle = runtime.handle();
    // What is measured is a provider that serves, not its start.
    if args.workload == Workload::Python {
        drive::run(&handle, work::python()).await?;
    }
    let beside = match args.workload {
        Workload::Python => Some(python::Reference::find(session).await?),
        _ => None,
    };
    let before = calls(&handle).await?;
    let mut rounds = Vec::new();
    let mut report = blank(&args, session, load);
    let measured = async {
        for _ in 0..args.rounds.get() {
            let mut prices = Box::pin(ground.prices()).await?;
            let before = ground.commits();
            let driven = if let Some(beside) = &beside {
                let (driven, figures) = beside.drive(&args, &handle).await?;
                report.python = Some(figures);
                driven
            } else if args.workload == Workload::Sustained {
                let run = sustained::sustained(&args, &handle, &ground, Arc::clone(&store)).await?;
                (report.tenths, report.ratios.last_to_first) = (run.tenths, run.last_to_first);
                Measurement { elapsed: run.elapsed, latencies: run.latencies, sample: None }
            } else {
                drive(&args, &handle).await?
            };
            let commits = ground.commits().zip(before).map(|(after, before)| after - before);
            prices.add(Box::pin(ground.prices()).await?);
            let plain = Box::pin(plain(&args, &handle, &ground, &driven)).await?;
            rounds.push(Round { driven, commits, prices, plain });
        }
        anyhow::Ok(())
    };
    let measured = Box::pin(measured).await;
    report.executed = match executed {
        Some(executed) => executed.load(Ordering::Relaxed),
        None => calls(&handle).await? - before,
    };
    runtime.stop(Duration::from_secs(10)).await;
    measured?;
    fill(&mut report, &args, rounds);
    Ok(report)
}

/// A report without figures.
fn blank(args: &BenchArgs, session: &Session, load: Option<f64>) -> Report {
    let is_memory = session.settings.storage.url.is_memory();
    Report {
        workload: args.workload,
        tasks: match args.workload {
            Workload::FanOut => args.tasks + 2,
            _ => args.tasks,
        },
        rounds: args.rounds.get(),
        seconds: 0.0,
        per_second: 0.0,
        per_second_range: [0.0; 2],
        p50_ms: 0.0,
        p99_ms: 0.0,
        durability: if is_memory { "none".to_owned() } else { args.durability.clone() },
        effect: match args.workload {
            Workload::Python | Workload::Recovery | Workload::RecoveryOne => None,
            _ => Some(args.effect),
        },
        executed: 0,
        load,
        price: None,
        commits: None,
        ratios: Ratios::default(),
        recovery: None,
        python: None,
        tenths: Vec::new(),
    }
}

/// Fills in what rounds tell.
fn fill(report: &mut Report, args: &BenchArgs, mut rounds: Vec<Round>) {
    let tasks = report.tasks;
    for round in &mut rounds {
        round.driven.latencies.sort_unstable();
    }
    let of_rounds =
        |figure: &dyn Fn(&Round) -> Option<f64>| Spread::of(rounds.iter().filter_map(figure));
    let pace = |round: &Round| rate(tasks, round.driven.elapsed);
    let p50 = |round: &Round| percentile(&round.driven.latencies, 50);
    let bare = |round: &Round| round.prices.medians().map(|price| price.bare_commit_ms);
    if let Some(paces) = of_rounds(&|round| Some(pace(round))) {
        report.per_second = paces.median;
        report.per_second_range = [paces.least, paces.greatest];
    }
    report.seconds = median(rounds.iter().map(|round| round.driven.elapsed.as_secs_f64()));
    report.p50_ms = median(rounds.iter().map(p50));
    report.p99_ms = median(rounds.iter().map(|it| percentile(&it.driven.latencies, 99)));
    report.commits = of_rounds(&|round| Some(each(round.commits?, 1))).map(|it| it.median);
    let ratios = &mut report.ratios;
    match args.workload {
        Workload::Chain => {
            ratios.flushes_per_hop = of_rounds(&|round| Some(each(round.commits?, tasks)));
            ratios.hop_in_bare_commits = of_rounds(&|round| Some(p50(round) / bare(round)?));
        }
        Workload::Latency => {
            ratios.p50_in_bare_commits = of_rounds(&|round| Some(p50(round) / bare(round)?));
        }
        _ => {
            let plain = |round: &Round| Some(rate(tasks, round.plain?));
            ratios.plain_per_second = of_rounds(&plain);
            ratios.share_of_plain = of_rounds(&|round| Some(pace(round) / plain(round)?));
        }
    }
    let mut prices = Prices::default();
    for round in rounds {
        prices.add(round.prices);
    }
    report.price = prices.medians();
}

/// The figures of recoveries.
async fn continued(args: BenchArgs, session: &Session) -> anyhow::Result<Report> {
    if session.settings.storage.url.is_memory() {
        bail!("a store in memory survives no kill; name another by `--store`");
    }
    let mut report = blank(&args, session, price::load());
    let mut ground = BenchDatabase::new(&session.settings);
    let mut prices = Prices::default();
    let mut rounds = Vec::new();
    for _ in 0..args.rounds.get() {
        let continued = recovery::recovery(&args, &session.settings, &mut ground).await?;
        report.executed += continued.executed;
        rounds.push(continued);
        prices.add(Box::pin(ground.prices()).await?);
    }
    let of = |span: fn(&recovery::Continued) -> Duration| {
        median(rounds.iter().map(|round| span(round).as_secs_f64()))
    };
    let taken_up = Spread::of(rounds.iter().map(|round| round.taken_up.as_secs_f64()));
    let paces = Spread::of(rounds.iter().map(|round| rate(report.tasks, round.taken_up)));
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
    report.p50_ms = median(rounds.iter().map(|round| ms(round.taken_up)));
    report.p99_ms = report.p50_ms;
    report.price = prices.medians();
    Ok(report)
}

/// Calls that providers have begun.
async fn calls(handle: &Handle) -> anyhow::Result<u64> {
    Ok(handle.providers().await?.iter().map(|provider| provider.calls_total).sum())
}

/// A runtime with the provider of the workload and nothing else.
async fn start(
    args: &BenchArgs,
    session: &Session,
    store: Arc<dyn Store>,
) -> anyhow::Result<(Runtime, Option<Arc<AtomicU64>>)> {
    if args.workload == Workload::Python {
        let builder = session.builder_for([&work::python()]).map_err(|failure| failure.error)?;
        return Ok((builder.store(store).start().await?, None));
    }
    let (mut spec, executed) = echo::spec_counted("echo");
    let protocol = work::protocol()?;
    spec.protocols.push(protocol.protocol_id());
    let builder = Runtime::builder(session.settings.clone()).without_recovery().store(store);
    let builder = builder.without_settings_providers().protocol(protocol).provider(spec);
    let runtime = builder.start().await?;
    Ok((runtime, Some(executed)))
}

/// Runs the workload once.
async fn drive(args: &BenchArgs, handle: &Handle) -> anyhow::Result<Measurement> {
    let called = args.effect;
    let in_flight = if args.workload == Workload::Workflows { args.in_flight } else { 1 };
    match args.workload {
        Workload::BurnDown => drive::one(handle, called.burn_down(args.tasks)).await,
        Workload::Chain => drive::chain(handle, called.chain(args.tasks)).await,
        Workload::FanOut => drive::one(handle, called.fan_out(args.tasks)).await,
        _ => drive::many(handle, args.tasks, in_flight, move || called.single()).await,
    }
}

/// The rows of a round in a plain loop, where that is what it is to be held against.
async fn plain(
    args: &BenchArgs,
    handle: &Handle,
    ground: &BenchDatabase,
    driven: &Measurement,
) -> anyhow::Result<Option<Duration>> {
    let shape = match args.workload {
        Workload::Workflows => Shape::Many {
            count: args.tasks,
            group: args.in_flight,
            // As the engine does it, where many are under way.
            at_once: args.effect == work::CallEffect::Pure,
        },
        Workload::BurnDown => {
            let group = usize::try_from(args.max_concurrent_tasks.get()).unwrap_or(usize::MAX);
            Shape::One { group }
        }
        _ => return Ok(None),
    };
    let Some(sample) = &driven.sample else { return Ok(None) };
    let events = handle.events(&sample.id, 0, usize::MAX).await?;
    Box::pin(ground.replay(sample, &events, shape)).await
}
