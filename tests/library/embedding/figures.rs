//! What a host can learn of its runtime: counts, times, leases, measurements.

use std::time::Duration;

use gleitzeit::{
    EngineCounts, EventData, EventFilter, ResourceRequirements, TaskSpec, WorkflowSpec,
};
use serde_json::json;

use crate::support::whole::{
    echo_builder, echo_runtime, echo_task, echo_workflow, gate, gate_protocol, gate_task,
    next_event, settings, within,
};

/// Counts that do not add up help nobody.
#[tokio::test]
async fn stats_count_what_became_of_workflows_and_tasks() {
    let runtime = echo_runtime().await;
    let handle = runtime.handle();
    let fail = TaskSpec::new("f", "echo/fail").params(json!({ "message": "no" }));
    let retried = TaskSpec::new("r", "echo/fail").params(json!({ "times": 1 }));
    let policy = gleitzeit::RetryPolicy {
        max_attempts: 2,
        base_delay: Duration::from_millis(1),
        ..gleitzeit::RetryPolicy::default()
    };
    let workflow = WorkflowSpec::new("w")
        .task(echo_task("a"))
        .task(fail)
        .task(echo_task("after").after("f"))
        .task(retried.retry(policy));
    handle.run(workflow).await.unwrap();
    handle.run(echo_workflow("fine")).await.unwrap();
    let stats = handle.stats().await.unwrap();
    assert_eq!(stats.tasks_processed, 4);
    assert_eq!((stats.tasks_succeeded, stats.tasks_failed), (3, 1));
    assert_eq!(
        (stats.tasks_upstream_failed, stats.tasks_retried, stats.tasks_cancelled),
        (1, 1, 0)
    );
    assert_eq!((stats.workflows_submitted, stats.workflows_active), (2, 0));
    assert_eq!((stats.workflows_completed, stats.workflows_failed), (1, 1));
    assert_eq!((stats.tasks_queued, stats.tasks_in_flight), (0, 0));
    assert!(stats.average_task_duration > 0.0);
    runtime.stop(Duration::ZERO).await;
}

/// The summary of a method is that of its calls, and of no others.
#[tokio::test]
async fn the_profile_reports_each_methods_times() {
    let runtime = echo_runtime().await;
    let handle = runtime.handle();
    let sleep = |id: &str| TaskSpec::new(id, "echo/sleep").params(json!({ "seconds": 0.02 }));
    let workflow = WorkflowSpec::new("w").task(sleep("a")).task(sleep("b")).task(echo_task("c"));
    handle.run(workflow).await.unwrap();
    let profile = handle.profile().await.unwrap();
    assert_eq!(profile.keys().collect::<Vec<_>>(), ["echo/v1.0:echo", "echo/v1.0:sleep"]);
    let sleep = &profile["echo/v1.0:sleep"];
    assert_eq!(sleep.total_executions, 2);
    assert!(sleep.min_execution_time >= 0.02, "{sleep:?}");
    assert!(sleep.min_execution_time <= sleep.avg_execution_time, "{sleep:?}");
    assert!(sleep.avg_execution_time <= sleep.max_execution_time, "{sleep:?}");
    assert!(sleep.p50_execution_time <= sleep.p99_execution_time, "{sleep:?}");
    assert_eq!(profile["echo/v1.0:echo"].total_executions, 1);
    runtime.stop(Duration::ZERO).await;
}

/// `_profiling` is in the result of the task that asked for it, and in no other.
#[tokio::test]
async fn a_result_has_its_profile_on_request_only() {
    let runtime = echo_runtime().await;
    let asked = TaskSpec { profile: true, ..echo_task("asked") };
    let workflow = WorkflowSpec::new("w").task(asked).task(echo_task("not"));
    let ended = runtime.handle().run(workflow).await.unwrap();
    let result = |at: usize| ended.tasks[at].result.as_deref().unwrap();
    assert!(result(0)["_profiling"]["execution_time"].is_f64(), "{}", result(0));
    assert_eq!(result(1), &json!({ "text": "not" }));
    runtime.stop(Duration::ZERO).await;
}

/// Measurements come by themselves, as an event and on request.
#[tokio::test]
async fn metrics_are_collected_at_the_interval_of_the_settings() {
    let settings = settings("[monitoring]\ninterval = 0.01");
    let runtime = echo_builder(settings).start().await.unwrap();
    let handle = runtime.handle();
    handle.run(echo_workflow("w")).await.unwrap();
    let types = vec!["metrics:collected".into()];
    let mut listener =
        handle.subscribe(EventFilter { types, ..EventFilter::default() }).await.unwrap();
    let event = next_event(&mut listener).await;
    let EventData::MetricsCollected { metrics } = &event.data else { panic!("{event:?}") };
    assert_eq!((metrics.completed_tasks, metrics.failed_tasks), (1, 0));
    assert_eq!((metrics.active_tasks, metrics.queued_tasks, metrics.active_workflows), (0, 0, 0));
    assert!(metrics.memory_usage_mb > 1.0, "{metrics:?}");
    assert!(metrics.provider_health.contains_key("echo"), "{metrics:?}");
    let last = handle.metrics().await.unwrap();
    assert_eq!(last.completed_tasks, 1);
    runtime.stop(Duration::ZERO).await;
}

/// What is asked for is what is held while the call runs, and nothing is held afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn resources_report_leases_and_waiting_tasks() {
    let (provider, mut gate) = gate("gate");
    let settings = settings("[resources]\ncpu_cores = 2\nmemory_mb = 100");
    let builder = echo_builder(settings).protocol(gate_protocol()).provider(provider);
    let runtime = builder.start().await.unwrap();
    let handle = runtime.handle();
    let need: ResourceRequirements =
        serde_json::from_value(json!({ "cpu_cores": 1.5, "memory_mb": 60 })).unwrap();
    let task = |id: &str| gate_task(id).resources(need.clone());
    let id = handle.submit(WorkflowSpec::new("w").task(task("a")).task(task("b"))).await.unwrap();
    let first = gate.entered().await;
    within("the second to wait", async {
        while handle.resources().await.unwrap().waiting == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let held = handle.resources().await.unwrap();
    assert_eq!(held.taken.cpu_millicores, 1_500);
    assert_eq!(held.total.cpu_millicores, 2_000);
    assert_eq!(held.waiting, 1);
    let busy = handle.engine_counts().await.unwrap();
    assert_eq!((busy.workflows, busy.in_flight), (1, 2), "{busy:?}");
    let stats = handle.stats().await.unwrap();
    assert_eq!(stats.workflows_active, 1);
    gate.let_through(1);
    assert_ne!(gate.entered().await, first);
    gate.let_through(1);
    within("the workflow", handle.wait(&id)).await.unwrap();
    let held = handle.resources().await.unwrap();
    assert_eq!(held.taken, gleitzeit::domain::resources::Resources::default());
    assert_eq!(held.waiting, 0);
    assert_eq!(handle.engine_counts().await.unwrap(), EngineCounts::default());
    runtime.stop(Duration::ZERO).await;
}

/// Whoever asks before the first measurement, or where none is made, is answered all the same.
#[tokio::test]
async fn metrics_are_never_missing() {
    for interval in ["0", "3600"] {
        let settings = settings(&format!("[monitoring]\ninterval = {interval}"));
        let runtime = echo_builder(settings).start().await.unwrap();
        let handle = runtime.handle();
        assert_eq!(handle.metrics().await.unwrap().completed_tasks, 0);
        handle.run(echo_workflow("w")).await.unwrap();
        let metrics = handle.metrics().await.unwrap();
        assert_eq!((metrics.completed_tasks, metrics.active_workflows), (1, 0), "{metrics:?}");
        assert!(metrics.memory_usage_mb > 1.0 && metrics.throughput_per_minute > 0.0);
        assert!(metrics.provider_health.contains_key("echo"), "{metrics:?}");
        runtime.stop(Duration::ZERO).await;
    }
}
