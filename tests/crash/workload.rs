//! What the processes run: workflows of every shape, over a protocol with a method of each effect.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use gleitzeit::{
    Backoff, Call, Effect, ErrorCode, MethodSpec, OnDependencyFailure, ParameterSpec, ProtocolSpec,
    ProviderSpec, ResourceRequirements, RetryPolicy, TaskError, TaskSpec, WorkflowSpec,
};
use serde_json::{Value, json};

use crate::journal::{self, Line};

/// Larger than what is stored in the row of a task or workflow.
const LARGE: usize = 70_000;

/// `journal/v1.0`: a method of each effect. Each call writes down that it begins and that it ends.
pub(crate) fn protocol() -> ProtocolSpec {
    let method = |name: &str, effect| {
        MethodSpec { effect, ..MethodSpec::new(name) }
            .param("needs", ParameterSpec::any().optional())
            .param("fails", ParameterSpec::integer().optional())
            .param("naps_ms", ParameterSpec::integer().optional())
            .param("size", ParameterSpec::integer().optional())
            .param("stalls", ParameterSpec::string().optional())
            .param("hurries", ParameterSpec::boolean().optional())
    };
    ProtocolSpec::new("journal", "v1.0".parse().unwrap())
        .method(method("pure", Effect::Pure))
        .method(method("idempotent", Effect::Idempotent))
        .method(method("again", Effect::AtLeastOnce))
        .method(method("once", Effect::AtMostOnce))
}

fn number(call: &Call, name: &str) -> u64 {
    call.param(name).and_then(Value::as_u64).unwrap_or_default()
}

/// The provider of process `process`: `fails` attempts fail, a call takes `naps_ms`, and the
/// process named by `stalls` (all, for `*`) does not end it; one that `hurries` does not wait for the
/// disk.
pub(crate) fn provider(folder: PathBuf, process: String) -> ProviderSpec {
    let id = format!("journal-{process}");
    // Fewer than a process runs at once, so that some calls wait for a place.
    let concurrent_max = if process == FIRST { 32 } else { 4 };
    let run = move |call: Call| {
        let (folder, process) = (folder.clone(), process.clone());
        let key = call.idempotency_key();
        let task = format!("{}/{}", call.workflow_id, call.task_id);
        let attempt = call.attempt;
        let at_us = chrono::Utc::now().timestamp_micros();
        let write = match call.param("hurries") {
            Some(Value::Bool(true)) => |folder: &Path, line: &Line| {
                journal::hand_over(folder, line);
            },
            _ => journal::append,
        };
        let begins =
            Line::Begins { process: process.clone(), task: task.clone(), attempt, key, at_us };
        write(&folder, &begins);
        async move {
            let stalls = call.param("stalls").and_then(Value::as_str).unwrap_or_default();
            if stalls == "*" || stalls == process {
                std::future::pending::<()>().await;
            }
            let naps_ms = number(&call, "naps_ms");
            if naps_ms > 0 {
                tokio::time::sleep(Duration::from_millis(naps_ms)).await;
            }
            let well = u64::from(attempt) > number(&call, "fails");
            let ends = Line::Ends { process: process.clone(), task: task.clone(), attempt, well };
            write(&folder, &ends);
            if !well {
                return Err(TaskError::new(ErrorCode::ProviderOverloaded, "not this time"));
            }
            let size = usize::try_from(number(&call, "size")).unwrap();
            Ok(json!({ "by": process, "attempt": attempt, "ballast": "x".repeat(size) }))
        }
    };
    ProviderSpec::from_fn(id, "journal/v1.0", run).unwrap().max_concurrent(concurrent_max)
}

fn task(id: &str, method: &str) -> TaskSpec {
    TaskSpec::new(id, format!("journal/{method}")).retry(RetryPolicy::never())
}

fn taking(id: &str, method: &str, from: &str) -> TaskSpec {
    task(id, method).params(json!({ "needs": format!("${{{from}.result.by}}") }))
}

/// The policy of a task that is tried again after `pause`, exactly.
pub(crate) fn after_pause(pause: Duration) -> RetryPolicy {
    RetryPolicy {
        max_attempts: 3,
        backoff: Backoff::Fixed,
        base_delay: pause,
        jitter: false,
        ..RetryPolicy::default()
    }
}

/// The ids of a share: `{share}-{shape}`.
pub(crate) fn id(of: &str, shape: &str) -> String {
    format!("{of}-{shape}")
}

/// A workflow of this id; its shape is the last part of the id.
fn workflow(id: &str, tasks: impl IntoIterator<Item = TaskSpec>) -> WorkflowSpec {
    let name = id.rsplit_once('-').map_or(id, |(_, shape)| shape);
    tasks.into_iter().fold(WorkflowSpec::new(name).id(id), WorkflowSpec::task)
}

/// Shapes that end by themselves.
pub(crate) fn ending(share: &str) -> Vec<WorkflowSpec> {
    let id = |shape| id(share, shape);
    let spread = |n: u32| {
        let id = format!("t{n}");
        task(&id, "again").params(json!({ "naps_ms": n })).after("first")
    };
    let collect = (0..5).fold(task("last", "pure"), |last, n| last.after(format!("t{n}")));
    let core = ResourceRequirements { cpu_cores: Some(1.0), ..ResourceRequirements::default() };
    vec![
        workflow(
            &id("chain"),
            [
                task("t1", "pure"),
                taking("t2", "idempotent", "t1"),
                taking("t3", "again", "t2"),
                taking("t4", "once", "t3"),
                taking("t5", "pure", "t4"),
            ],
        ),
        workflow(
            &id("diamond"),
            [
                task("top", "idempotent"),
                taking("left", "pure", "top"),
                task("right", "once").after("top").params(json!({ "naps_ms": 3 })),
                taking("bottom", "again", "left").after("right"),
            ],
        ),
        workflow(
            &id("fan"),
            std::iter::once(task("first", "again")).chain((0..5).map(spread)).chain([collect]),
        )
        .max_parallel_tasks(4),
        // One of them runs at a time.
        workflow(
            &id("lease"),
            ["a", "b", "c"].map(|id| task(id, "idempotent").resources(core.clone())),
        ),
        workflow(
            &id("retry"),
            [
                task("t1", "again")
                    .params(json!({ "fails": 1 }))
                    .retry(after_pause(Duration::from_millis(20))),
                taking("t2", "pure", "t1"),
            ],
        ),
        workflow(
            &id("broken"),
            [
                task("t1", "idempotent"),
                task("t2", "once").params(json!({ "fails": 9 })).after("t1"),
                task("t3", "pure").after("t2"),
                task("t4", "pure").after("t2").on_dependency_failure(OnDependencyFailure::Run),
                task("t5", "pure").after("t2").on_dependency_failure(OnDependencyFailure::Fail),
            ],
        ),
        workflow(
            &id("limited"),
            [task("t1", "again")
                .params(json!({ "stalls": "*" }))
                .total_timeout(Duration::from_millis(40))],
        ),
        workflow(&id("late"), [task("t1", "again").params(json!({ "stalls": "*" }))])
            .timeout(Duration::from_millis(60)),
        workflow(&id("large"), [task("t1", "pure").params(json!({ "size": LARGE }))])
            .input("ballast", "x".repeat(LARGE)),
    ]
}

/// Shapes that somebody must stop: `cancelled` and `asked` whole, of `part` the task `hold`.
pub(crate) fn endless(share: &str) -> Vec<WorkflowSpec> {
    let hold = || task("hold", "again").params(json!({ "stalls": "*" }));
    let around =
        || [task("before", "pure"), hold().after("before"), task("t3", "once").after("hold")];
    ["cancelled", "part", "asked"].map(|shape| workflow(&id(share, shape), around())).into()
}

/// One that is stored for whoever claims it.
pub(crate) fn enqueued(share: &str) -> WorkflowSpec {
    workflow(
        &id(share, "enqueued"),
        [task("t1", "once"), taking("t2", "again", "t1"), taking("t3", "pure", "t2")],
    )
}

/// Workflows whose ids are made up, so that nobody can submit them again: their first tasks run
/// before they are stored.
pub(crate) fn unnamed() -> Vec<WorkflowSpec> {
    let one = |number: u32| {
        let first = task("t1", "pure").params(json!({ "hurries": true }));
        let spec = WorkflowSpec::new("unnamed").task(first);
        if number.is_multiple_of(3) { spec.task(taking("t2", "once", "t1")) } else { spec }
    };
    (0..UNNAMED).map(one).collect()
}

/// Enough for some to end before their turn at the store comes.
const UNNAMED: u32 = 64;

/// What the first process of a test leaves behind: calls that must not run twice, one that may in
/// the middle of a chain, a task that waits for its second attempt.
pub(crate) fn left_over() -> Vec<WorkflowSpec> {
    let stalls = json!({ "stalls": FIRST });
    let mut left: Vec<WorkflowSpec> = UNCONFIRMED
        .iter()
        .map(|id| {
            let first = task("t1", "once").params(stalls.clone());
            workflow(id, [first, taking("t2", "pure", "t1")])
        })
        .collect();
    left.extend([
        workflow(
            "left-half",
            [
                task("t1", "pure"),
                task("t2", "idempotent").params(stalls).after("t1"),
                taking("t3", "pure", "t2"),
            ],
        ),
        workflow(
            "left-retry",
            [task("t1", "again").params(json!({ "fails": 1 })).retry(after_pause(RETRY_PAUSE))],
        ),
        // It fails for good, and is run again by a person's word.
        workflow("left-settled", [task("t1", "again").params(json!({ "fails": 1 }))]),
    ]);
    left
}

/// Those whose first task must not run twice.
pub(crate) const UNCONFIRMED: [&str; 5] =
    ["left-doubt", "left-word", "left-done", "left-again", "left-failed"];

/// The process that leaves [`left_over`] behind.
pub(crate) const FIRST: &str = "first";

/// Between the two attempts of [`retrying`]: longer than it takes to start another process.
const RETRY_PAUSE: Duration = Duration::from_millis(1_500);

/// Tasks whose second attempt comes later than the process that ran the first.
pub(crate) fn retrying() -> Vec<WorkflowSpec> {
    let one = |number| {
        let first = task("t1", "again").params(json!({ "fails": 1 }));
        workflow(&format!("{number}-retry"), [first.retry(after_pause(RETRY_PAUSE))])
    };
    (0..20).map(one).collect()
}

/// Workflows that are forgotten later on.
pub(crate) fn old() -> Vec<WorkflowSpec> {
    let one = |id| workflow(id, [task("t1", "pure").params(json!({ "size": LARGE }))]);
    vec![one("old-1"), one("old-2")]
}

/// Short, so that takeovers come soon.
pub(crate) const LEASE_SECONDS: f64 = 1.0;

/// In this time a lease is renewed several times.
pub(crate) const RENEWALS: Duration = Duration::from_millis(1_500);

/// Settings of every process of a test.
pub(crate) fn settings(store: &str) -> gleitzeit::Settings {
    let text = format!(
        "storage.url = \"{store}\"\nengine.max_concurrent_tasks = 8\nengine.provider_threads = 1\n\
         resources.cpu_cores = 1\nmonitoring.interval = 0\nstorage.lease_ttl = {LEASE_SECONDS}"
    );
    gleitzeit::Settings::from_toml(&text).unwrap()
}

/// A builder with the protocol and the provider of a process.
pub(crate) fn builder(store: &str, folder: &Path, process: &str) -> gleitzeit::RuntimeBuilder {
    gleitzeit::Runtime::builder(settings(store))
        .without_settings_providers()
        .protocol(protocol())
        .provider(provider(folder.to_owned(), process.to_owned()))
}
