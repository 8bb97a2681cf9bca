//! A plain program without an async runtime: it starts gleitzeit, runs a workflow and stops.
//!
//!     cargo run --example blocking
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::{error::Error, time::Duration};

use gleitzeit::{Runtime, Settings, TaskSpec, WorkflowSpec, providers::echo};
use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn Error>> {
    println!("{}", run()?);
    Ok(())
}

/// The result of the workflow's last task.
pub(crate) fn run() -> Result<Value, Box<dyn Error>> {
    // Nothing is written to disk: the store is in memory.
    let settings = Settings::from_toml("[storage]\nurl = \"memory\"")?;
    let runtime = Runtime::builder(settings)
        .without_settings_providers()
        .provider(echo::spec("echo"))
        .start_blocking()?;

    // Two tasks that may run at once, and one that needs both: it refers to their results.
    let workflow = WorkflowSpec::new("address")
        .input("name", "Ada")
        .task(TaskSpec::new("greeting", "echo/echo").params(json!({ "text": "Hello" })))
        .task(TaskSpec::new("name", "echo/echo").params(json!({ "text": "${inputs.name}" })))
        .task(
            TaskSpec::new("letter", "echo/echo")
                .params(json!({ "text": "${greeting.text}, ${name.text}!" })),
        );
    let ended = runtime.run(workflow)?;
    let result = ended.tasks[2].result.as_deref().cloned();

    // What still runs may end within five seconds; here nothing does.
    runtime.stop(Duration::from_secs(5));
    result.ok_or_else(|| format!("the workflow is {}", ended.status).into())
}
