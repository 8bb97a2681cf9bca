//! A whole runtime with Python tasks in jails.
#![cfg(all(feature = "python", feature = "cli"))]
#![expect(clippy::unwrap_used, reason = "a test's helpers may panic")]

#[path = "support/whole.rs"]
mod whole;

use std::time::Duration;

use gleitzeit::{
    ErrorCode, ResourceRequirements, Runtime, StartError, TaskSpec, WorkflowSpec, WorkflowStatus,
    providers::python::{self, PythonConfig},
};
use serde_json::json;
use whole::{settings, within};

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

/// A service that is no launcher and names none is told so when it starts its runtime.
#[tokio::test]
async fn a_service_without_a_launcher_is_told_at_its_start() {
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
