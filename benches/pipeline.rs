//! The cost of a task from its submission to its end, through all actors: the echo provider does no
//! work, and the store is in memory.
//!
//! The shapes show what the cost depends on: one workflow of many tasks, many workflows of one task,
//! tasks behind each other, and one, many, one. Cost per task must not grow with their number.

use std::time::Duration;

use criterion::{
    BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};
use futures_util::future::try_join_all;
use gleitzeit::{
    BlockingRuntime, Runtime, Settings, TaskError, TaskSpec, WorkflowSpec, WorkflowStatus,
    domain::plan::Draft, providers::echo,
};
use serde_json::json;

/// The workflows that have this many tasks together.
type Shape = fn(u64) -> Vec<WorkflowSpec>;

/// Numbers of tasks.
const SIZES: [u64; 4] = [10, 100, 1_000, 10_000];

/// One echo provider, a store in memory, and 1,024 tasks at once.
fn runtime() -> BlockingRuntime {
    let text = "storage.url = \"memory\"\nstorage.memory_history_max = 1\n\
                engine.max_concurrent_tasks = 1024\nmonitoring.interval = 0";
    let settings = Settings::from_toml(text).expect("sound settings");
    let builder = Runtime::builder(settings).without_settings_providers();
    builder.provider(echo::spec("echo")).start_blocking().expect("it starts")
}

fn echo_task(id: impl Into<String>) -> TaskSpec {
    TaskSpec::new(id, "echo/echo").params(json!({ "n": 1 }))
}

fn named(number: u64) -> String {
    format!("t{number}")
}

/// One workflow of independent tasks.
fn burn_down(tasks: u64) -> Vec<WorkflowSpec> {
    let all = (0..tasks).map(|number| echo_task(named(number)));
    vec![all.fold(WorkflowSpec::new("burn-down"), WorkflowSpec::task)]
}

/// Workflows of one task.
fn workflows(tasks: u64) -> Vec<WorkflowSpec> {
    (0..tasks).map(|_| WorkflowSpec::new("single").task(echo_task("only"))).collect()
}

/// One workflow in which each task needs the result of the one before.
fn chain(tasks: u64) -> Vec<WorkflowSpec> {
    let link = |number: u64| match number.checked_sub(1) {
        None => echo_task(named(0)),
        Some(before) => TaskSpec::new(named(number), "echo/echo")
            .params(json!({ "n": format!("${{t{before}.n}}") })),
    };
    vec![(0..tasks).map(link).fold(WorkflowSpec::new("chain"), WorkflowSpec::task)]
}

/// One task, then all the others, then one that needs them all.
fn fan_out(tasks: u64) -> Vec<WorkflowSpec> {
    let wide = tasks.saturating_sub(2);
    let first = WorkflowSpec::new("fan-out").task(echo_task("first"));
    let spread = (0..wide).map(|number| echo_task(named(number)).after("first"));
    let last = (0..wide).fold(echo_task("last"), |last, number| last.after(named(number)));
    vec![spread.fold(first, WorkflowSpec::task).task(last)]
}

/// Runs all of them at once, to their end.
async fn run(runtime: &BlockingRuntime, drafts: Vec<Draft>) -> Result<(), TaskError> {
    let handle = runtime.handle();
    let ended = try_join_all(drafts.into_iter().map(|draft| handle.run_draft(draft))).await?;
    for record in ended {
        assert_eq!(record.status, WorkflowStatus::Completed, "{:?}", record.error);
    }
    Ok(())
}

fn drafts(specs: &[WorkflowSpec]) -> Vec<Draft> {
    specs.iter().map(|spec| Draft::new(spec.clone()).expect("a sound workflow")).collect()
}

fn pipeline(criterion: &mut Criterion) {
    let runtime = runtime();
    let shapes: [(&str, Shape); 4] = [
        ("burn_down", burn_down),
        ("workflows", workflows),
        ("chain", chain),
        ("fan_out", fan_out),
    ];
    for (name, shape) in shapes {
        let mut group = criterion.benchmark_group(format!("pipeline/{name}"));
        group.sampling_mode(SamplingMode::Flat).sample_size(20);
        group.measurement_time(Duration::from_secs(3));
        for tasks in SIZES {
            let specs = shape(tasks);
            group.throughput(Throughput::Elements(tasks));
            group.bench_function(BenchmarkId::from_parameter(tasks), |bencher| {
                bencher.iter_batched(
                    || drafts(&specs),
                    |drafts| runtime.block_on(run(&runtime, drafts)).expect("they run"),
                    criterion::BatchSize::PerIteration,
                );
            });
        }
        group.finish();
    }
    runtime.stop(Duration::from_secs(10));
}

criterion_group!(benches, pipeline);
criterion_main!(benches);
