//! What a waiting task costs.
//!
//! A file of its own: the test reads the memory of its whole process, so nothing else may run in
//! it.

use std::time::Duration;

use gleitzeit::{
    EventFilter, Runtime, Settings, TaskSpec, WorkflowSpec, providers::echo,
    telemetry::process_memory_mib,
};
use serde_json::json;

const TASKS: u32 = 100_000;

fn many_behind_one() -> WorkflowSpec {
    let first = TaskSpec::new("first", "echo/sleep").params(json!({ "seconds": 3600 }));
    (0..TASKS).fold(WorkflowSpec::new("waiting").task(first), |spec, n| {
        let params = json!({ "text": format!("task {n}") });
        spec.task(TaskSpec::new(format!("t{n}"), "echo/echo").params(params).after("first"))
    })
}

/// A workflow of a hundred thousand tasks fits on a small machine: what waits takes less than
/// 2 KiB a task, its parameters, its record in the store and its events included.
#[test]
fn a_waiting_task_takes_less_than_two_kib() {
    let settings = Settings::from_toml("[storage]\nurl = \"memory\"").unwrap();
    let runtime = Runtime::builder(settings)
        .without_settings_providers()
        .provider(echo::spec("echo"))
        .start_blocking()
        .unwrap();
    let handle = runtime.handle();
    let before = process_memory_mib().expect("this system tells the memory of a process");
    let mut events = runtime.block_on(handle.subscribe(EventFilter::default())).unwrap();
    let id = runtime.submit(many_behind_one()).unwrap();
    // Once the first task has started, every other one waits.
    runtime.block_on(async {
        while let Some(delivery) = events.next().await {
            if let gleitzeit::Delivery::Event(event) = delivery
                && event.data.event_type() == "task:started"
            {
                return;
            }
        }
    });
    drop(events);
    let after = process_memory_mib().unwrap();
    let per_task = (after - before) * 1024.0 * 1024.0 / f64::from(TASKS);
    println!("{per_task:.0} bytes a waiting task");
    assert!(per_task < 2048.0, "{per_task:.0} bytes a waiting task");
    runtime.block_on(handle.cancel(&id, "measured")).unwrap();
    runtime.stop(Duration::from_secs(10));
}
