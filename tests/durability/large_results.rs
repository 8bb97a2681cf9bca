//! Large results stay in the store until a host asks for each of them.

use gleitzeit::{
    Runtime, Settings, TaskSpec, WorkflowId, WorkflowRecord, WorkflowSpec, providers::echo,
};
use serde_json::json;

/// A host whose memory is smaller than the results of a workflow waits for its end.
#[actix_rt::test]
async fn an_outline_leaves_large_results_in_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let settings = format!("storage.url = \"sqlite:{}/w.db\"", dir.path().display());
    let builder = Runtime::builder(Settings::from_toml(&settings).unwrap());
    let runtime =
        builder.without_settings_providers().provider(echo::spec("echo")).start().await.unwrap();
    let handle = runtime.handle();
    let large = "x".repeat(200_000);
    let id = WorkflowId::from("w");
    let spec = WorkflowSpec::new("w")
        .id("w")
        .task(TaskSpec::new("a", "echo/echo").params(json!({ "message": large })))
        .task(TaskSpec::new("b", "echo/echo").params(json!({ "message": "small" })).after("a"));
    handle.submit(spec).await.unwrap();

    let lean = |record: &WorkflowRecord| {
        let lean = record.tasks.iter().map(gleitzeit::TaskRecord::is_result_left_out);
        lean.collect::<Vec<_>>()
    };
    let ended = handle.wait_outline(&id).await.unwrap();
    assert!(ended.status.is_settled());
    assert_eq!(lean(&ended), [true, false], "of a workflow that ran here");
    let ended = handle.wait_outline(&id).await.unwrap();
    assert_eq!(lean(&ended), [true, false], "of one that is in the store only");
    assert_eq!(lean(&handle.outline(&id).await.unwrap().unwrap()), [true, false]);
    assert_eq!(*handle.result(&id, 0).await.unwrap().unwrap(), json!({ "message": large }));

    let whole = handle.wait(&id).await.unwrap();
    assert_eq!(lean(&whole), [false, false]);
    assert_eq!(whole.tasks[0].result, handle.result(&id, 0).await.unwrap());
    runtime.stop(std::time::Duration::from_secs(5)).await;
}
