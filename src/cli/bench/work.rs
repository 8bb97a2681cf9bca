//! The workflows that the engine is driven with.

use gleitzeit::{TaskSpec, WorkflowSpec};
use serde_json::json;

fn echo_task(id: impl Into<String>) -> TaskSpec {
    TaskSpec::new(id, "echo/echo").params(json!({ "n": 1 }))
}

/// One task.
pub(super) fn single() -> WorkflowSpec {
    WorkflowSpec::new("single").task(echo_task("only"))
}

/// One task of Python code.
pub(super) fn python() -> WorkflowSpec {
    let task = TaskSpec::new("only", "python/execute").params(json!({ "code": "result = 1" }));
    WorkflowSpec::new("python").task(task)
}

/// Tasks that need nothing of each other.
pub(super) fn burn_down(tasks: u64) -> WorkflowSpec {
    (0..tasks).fold(WorkflowSpec::new("burn-down"), |spec, n| spec.task(echo_task(format!("t{n}"))))
}

/// Tasks each behind the one before.
pub(super) fn chain(tasks: u64) -> WorkflowSpec {
    (0..tasks).fold(WorkflowSpec::new("chain"), |spec, n| {
        let task = echo_task(format!("t{n}"));
        spec.task(if n == 0 { task } else { task.after(format!("t{}", n - 1)) })
    })
}

/// One task, `tasks` behind it, and one behind all of those.
pub(super) fn fan_out(tasks: u64) -> WorkflowSpec {
    let spread = (0..tasks)
        .fold(WorkflowSpec::new("fan-out").task(echo_task("first")), |spec, n| {
            spec.task(echo_task(format!("t{n}")).after("first"))
        });
    let last = (0..tasks).fold(echo_task("last"), |last, n| last.after(format!("t{n}")));
    spread.task(last)
}
