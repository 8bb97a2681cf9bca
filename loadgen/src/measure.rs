//! Measures a workload: rounds on one runtime, each beside what disk and database charge at that
//! moment and, if there is one, a plain loop over the same rows.
//!
//! Invariant: what is compared is measured in turns, so that a slow minute of the machine hits both.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use gleitzeit::{Handle, Runtime, Settings, Store, providers::echo};

use crate::{
    bench_report::Report,
    commit_cost::CommitCosts,
    database::BenchDatabase,
    figures::{Spread, each, median, percentile, rate},
    options::{BenchArgs, Workload},
    python,
    replay::Shape,
    runner::{self, Measurement},
    settings, sustained, work,
};

/// The figures of one round.
struct Round {
    run: Measurement,
    commits: Option<u64>,
    /// The cost of a commit before and after it.
    costs: CommitCosts,
    /// A plain loop over the same rows.
    plain: Option<Duration>,
}

/// Runs the workload, round by round.
///
/// # Errors
/// When the runtime cannot start, or a workflow does not complete.
pub(crate) async fn measure(args: BenchArgs, settings: &Settings) -> anyhow::Result<Report> {
    let mut database = BenchDatabase::new(settings);
    let store = database.open(settings).await?;
    let (runtime, executed) = start(&args, settings, Arc::clone(&store)).await?;
    let handle = runtime.handle();
    // The start of the provider is not part of the figures.
    if args.workload == Workload::Python {
        runner::run(&handle, work::python()).await?;
    }
    let reference = match args.workload {
        Workload::Python => Some(python::Reference::find(settings).await?),
        _ => None,
    };
    let before = calls(&handle).await?;
    let mut rounds = Vec::new();
    let mut report = Report::blank(&args, settings.storage.url.is_memory());
    let measured = async {
        for _ in 0..args.rounds.get() {
            let mut costs = Box::pin(database.costs()).await?;
            let before = database.commits();
            let run = if let Some(reference) = &reference {
                let (run, figures) = reference.run_workload(&args, &handle).await?;
                report.python = Some(figures);
                run
            } else if args.workload == Workload::Sustained {
                let done =
                    sustained::sustained(&args, &handle, &database, Arc::clone(&store)).await?;
                (report.tenths, report.ratios.last_to_first) = (done.tenths, done.last_to_first);
                Measurement { elapsed: done.elapsed, latencies: done.latencies, sample: None }
            } else {
                run_workload(&args, &handle).await?
            };
            let commits = database.commits().zip(before).map(|(after, before)| after - before);
            costs.add(Box::pin(database.costs()).await?);
            let plain = Box::pin(plain(&args, &handle, &database, &run)).await?;
            rounds.push(Round { run, commits, costs, plain });
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

/// Fills in the figures of rounds.
fn fill(report: &mut Report, args: &BenchArgs, mut rounds: Vec<Round>) {
    let tasks = report.tasks;
    for round in &mut rounds {
        round.run.latencies.sort_unstable();
    }
    let of_rounds =
        |figure: &dyn Fn(&Round) -> Option<f64>| Spread::of(rounds.iter().filter_map(figure));
    let pace = |round: &Round| rate(tasks, round.run.elapsed);
    let p50 = |round: &Round| percentile(&round.run.latencies, 50);
    let bare = |round: &Round| round.costs.medians().map(|cost| cost.bare_commit_ms);
    if let Some(paces) = of_rounds(&|round| Some(pace(round))) {
        report.per_second = paces.median;
        report.per_second_range = [paces.least, paces.greatest];
    }
    report.seconds = median(rounds.iter().map(|round| round.run.elapsed.as_secs_f64()));
    report.p50_ms = median(rounds.iter().map(p50));
    report.p99_ms = median(rounds.iter().map(|it| percentile(&it.run.latencies, 99)));
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
    let mut costs = CommitCosts::default();
    for round in rounds {
        costs.add(round.costs);
    }
    report.price = costs.medians();
}

/// Calls that providers have begun.
async fn calls(handle: &Handle) -> anyhow::Result<u64> {
    Ok(handle.providers().await?.iter().map(|provider| provider.calls_total).sum())
}

/// A runtime with the provider of the workload and nothing else.
async fn start(
    args: &BenchArgs,
    settings: &Settings,
    store: Arc<dyn Store>,
) -> anyhow::Result<(Runtime, Option<Arc<AtomicU64>>)> {
    if args.workload == Workload::Python {
        let builder = settings::builder_for(settings, "python")?;
        return Ok((builder.store(store).start().await?, None));
    }
    let (mut spec, executed) = echo::spec_counted("echo");
    let protocol = work::protocol()?;
    spec.protocols.push(protocol.protocol_id());
    let builder = Runtime::builder(settings.clone()).without_recovery().store(store);
    let builder = builder.without_settings_providers().protocol(protocol).provider(spec);
    let runtime = builder.start().await?;
    Ok((runtime, Some(executed)))
}

/// Runs the workload once.
async fn run_workload(args: &BenchArgs, handle: &Handle) -> anyhow::Result<Measurement> {
    let effect = args.effect;
    let in_flight = if args.workload == Workload::Workflows { args.in_flight } else { 1 };
    match args.workload {
        Workload::BurnDown => runner::one(handle, effect.burn_down(args.tasks)).await,
        Workload::Chain => runner::chain(handle, effect.chain(args.tasks)).await,
        Workload::FanOut => runner::one(handle, effect.fan_out(args.tasks)).await,
        _ => runner::many(handle, args.tasks, in_flight, move || effect.single()).await,
    }
}

/// The rows of a round in a plain loop, if its workload is compared with one.
async fn plain(
    args: &BenchArgs,
    handle: &Handle,
    database: &BenchDatabase,
    run: &Measurement,
) -> anyhow::Result<Option<Duration>> {
    let shape = match args.workload {
        Workload::Workflows => Shape::Many {
            count: args.tasks,
            group: args.in_flight,
            // As the engine does it while many are under way.
            at_once: args.effect == work::CallEffect::Pure,
        },
        Workload::BurnDown => {
            let group = usize::try_from(args.max_concurrent_tasks.get()).unwrap_or(usize::MAX);
            Shape::One { group }
        }
        _ => return Ok(None),
    };
    let Some(sample) = &run.sample else { return Ok(None) };
    let events = handle.events(&sample.id, 0, usize::MAX).await?;
    Box::pin(database.replay(sample, &events, shape)).await
}
