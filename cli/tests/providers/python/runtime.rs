//! A whole runtime with Python tasks in jails.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use crate::support::whole::{settings, within};
use gleitzeit::{
    ErrorCode, ResourceRequirements, RetryPolicy, Runtime, StartError, TaskSpec, TaskStatus,
    WorkflowSpec, WorkflowStatus,
    providers::{
        echo,
        python::{self, PythonConfig},
    },
};
use serde_json::json;

/// One worker, whose jails are built by the program that is built beside the tests.
fn config() -> PythonConfig {
    let launcher = Some(env!("CARGO_BIN_EXE_gleitzeit").into());
    PythonConfig { launcher, max_workers: Some(1), ..PythonConfig::default() }
}

fn code(id: &str, code: &str) -> TaskSpec {
    TaskSpec::new(id, "python/execute").params(json!({ "code": code }))
}

async fn runtime(config: PythonConfig) -> Result<Runtime, StartError> {
    let builder = Runtime::builder(settings("")).without_settings_providers();
    within("the start", builder.provider(python::spec("python", config).unwrap()).start()).await
}

/// The memory that a method takes is learned from its tasks, as the kernel tells it.
#[tokio::test]
async fn the_peak_used_is_learned_per_method() {
    let runtime = runtime(config()).await.unwrap();
    let workflow = WorkflowSpec::new("w")
        .task(code("small", "result = 1"))
        .task(code("large", "x = bytearray(64 << 20)\nresult = len(x)").after("small"));
    let ended = within("the workflow", runtime.handle().run(workflow)).await.unwrap();
    assert_eq!(ended.status, WorkflowStatus::Completed, "{:?}", ended.error);
    let profile = runtime.handle().profile().await.unwrap();
    let execute = &profile["python/v1.0:execute"];
    let (least, most) = (execute.min_memory.unwrap(), execute.max_memory.unwrap());
    assert!(least > 1 << 20 && least < 64 << 20, "{execute:?}");
    assert!(most > 64 << 20 && most < 256 << 20, "{execute:?}");
    runtime.stop(Duration::from_secs(5)).await;
}

/// What a task reserves is what its jail lets it have.
#[tokio::test]
async fn the_memory_reserved_is_the_memory_enforced() {
    let runtime = runtime(config()).await.unwrap();
    let take = "x = bytearray(150 << 20)\nresult = len(x)";
    let with = |id: &str, memory_mb: u64| {
        let mut task = code(id, take);
        task.resources = Some(ResourceRequirements {
            memory_mb: Some(memory_mb),
            ..ResourceRequirements::default()
        });
        WorkflowSpec::new(id).task(task)
    };
    let ended = within("the workflow", runtime.handle().run(with("enough", 300))).await.unwrap();
    assert_eq!(ended.status, WorkflowStatus::Completed, "{:?}", ended.error);
    let ended = within("the workflow", runtime.handle().run(with("little", 100))).await.unwrap();
    let error = ended.tasks[0].error.as_ref().unwrap();
    assert_eq!(error.data.as_deref().unwrap()["status"], "memory_limit", "{error}");
    runtime.stop(Duration::from_secs(5)).await;
}

/// How long echo workflows take, one after another, as long as there are to be `more` than so many:
/// the median, and the 99th of a hundred.
async fn echoes(handle: &gleitzeit::Handle, more: impl Fn(usize) -> bool) -> [Duration; 2] {
    let mut took = Vec::new();
    while more(took.len()) {
        let echo = TaskSpec::new("a", "echo/echo").params(json!({ "n": 1 }));
        let begun = Instant::now();
        let ended = within("an echo", handle.run(WorkflowSpec::new("echo").task(echo))).await;
        took.push(begun.elapsed());
        assert_eq!(ended.unwrap().status, WorkflowStatus::Completed);
    }
    took.sort();
    [took[took.len() / 2], took[took.len() * 99 / 100]]
}

/// Tasks that crash, hang, print without end or eat memory hold up nothing but themselves. What an
/// echo takes meanwhile is printed.
#[tokio::test]
async fn other_work_continues_beside_hostile_tasks() {
    const HOSTILE: [&str; 4] = [
        "import os\nos.abort()",
        "while True: pass",
        "while True: print('x' * 4096)",
        "x = []\nwhile True: x.append(bytearray(1 << 20))",
    ];
    let builder = Runtime::builder(settings("")).without_settings_providers();
    let builder = builder.provider(python::spec("python", config()).unwrap());
    let builder = builder.provider(echo::spec("echo"));
    let runtime = within("the start", builder.start()).await.unwrap();
    let handle = runtime.handle();
    let alone = echoes(&handle, |count| count < 1_000).await;
    let is_over = Cell::new(false);
    let hostile = async {
        let mut ended = 0;
        for round in 0..10 {
            let tasks = HOSTILE.iter().enumerate().map(|(n, text)| {
                let task = code(&format!("t{n}"), text).timeout(Duration::from_millis(200));
                task.retry(RetryPolicy::never())
            });
            let workflow = WorkflowSpec::new(format!("hostile-{round}"));
            let workflow = tasks.fold(workflow, WorkflowSpec::task);
            let record = within("a hostile one", handle.run(workflow)).await.unwrap();
            assert!(record.tasks.iter().all(|task| task.status == TaskStatus::Failed));
            ended += record.tasks.len();
        }
        is_over.set(true);
        ended
    };
    let (ended, beside) = futures_util::join!(hostile, echoes(&handle, |_| !is_over.get()));
    assert_eq!(ended, 10 * HOSTILE.len());
    println!("p50 and p99 of an echo: alone {alone:.2?}, beside hostile tasks {beside:.2?}");
    runtime.stop(Duration::from_secs(5)).await;
}

/// A service that is no launcher and names none is told so when it starts its runtime.
#[tokio::test]
async fn a_missing_launcher_is_reported_at_the_start_of_a_service() {
    let error = runtime(PythonConfig { launcher: None, ..config() }).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::ConfigurationError);
    let text = error.to_string();
    for part in ["`python`", "gleitzeit::sandbox::init()", "`launcher`", "gleitzeit doctor"] {
        assert!(text.contains(part), "no {part}: {text}");
    }
}

/// Stopped, a runtime leaves no jail behind.
#[tokio::test]
async fn a_stopped_runtime_leaves_no_jail() {
    let runtime = runtime(config()).await.unwrap();
    let workflow = WorkflowSpec::new("w").task(code("one", "result = 1"));
    within("the workflow", runtime.handle().run(workflow)).await.unwrap();
    runtime.stop(Duration::from_secs(5)).await;
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let children: Vec<_> = tasks
        .filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("children")).ok())
        .flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .filter(|pid| {
            // Other tests of this program may have jails of their own.
            let line = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            line.contains(") Z ")
        })
        .collect();
    assert!(children.is_empty(), "zombies: {children:?}");
}
