//! Results are read as types, and what keeps them from it is reported with its name.

use gleitzeit::{
    ErrorCode, ResultError, TaskSpec, TaskStatus, WorkflowBuilder, WorkflowSpec,
    schemars::{self, JsonSchema},
    service::{CallContext, HandlerError, Service},
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{start, stop};

#[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
struct Sum {
    total: i64,
}

#[derive(Deserialize, JsonSchema)]
struct Numbers {
    left: i64,
    right: i64,
}

fn service() -> Service {
    let add = |input: Numbers, _: CallContext| async move {
        Ok::<_, HandlerError>(Sum { total: input.left + input.right })
    };
    let fail = |(): (), _: CallContext| async { Err::<Sum, _>(HandlerError::new("no").terminal()) };
    Service::new("calc", "v1.0").method("add", add).pure().method("fail", fail)
}

/// The handle of the first task is all that the second one needs to know of it.
#[tokio::test]
async fn a_task_takes_a_field_of_another_by_its_handle() {
    let runtime = start(service()).await;
    let wf = WorkflowBuilder::new("w");
    let a = wf.task("a", "calc/add").input(json!({ "left": 1, "right": 2 })).returns::<Sum>();
    let b = wf.task("b", "calc/add").input(json!({ "left": a.field("total"), "right": 4 }));
    let ended = runtime.handle().run(wf.build()).await.unwrap();
    assert_eq!(ended.output_of(&a).unwrap(), Sum { total: 3 });
    assert_eq!(ended.task("b").unwrap().result::<Sum>().unwrap(), Sum { total: 7 });
    assert_eq!(ended.output::<Sum>().unwrap(), Sum { total: 7 });
    assert_eq!(ended.output_of(&b).unwrap(), json!({ "total": 7 }));
    // A field that the method does not give is refused with the workflow, as one in a text is.
    let wf = WorkflowBuilder::new("w");
    let a = wf.task("a", "calc/add").input(json!({ "left": 1, "right": 2 }));
    let b = wf.task("b", "calc/add").input(json!({ "left": a.field("totl"), "right": 4 }));
    let error = runtime.handle().submit(wf.build()).await.unwrap_err();
    assert!(error.to_string().contains("totl"), "{error}, {b:?}");
    stop(runtime).await;
}

/// Each reason has its own error, with what a person needs to find it.
#[tokio::test]
async fn a_result_that_cannot_be_read_says_why() {
    let runtime = start(service()).await;
    let add = |id: &str| TaskSpec::new(id, "calc/add").params(json!([1, 2]));
    let two = WorkflowSpec::new("w").id("w1").task(add("one").named("first")).task(add("two"));
    let ended = runtime.handle().run(two.task(TaskSpec::new("bad", "calc/fail"))).await.unwrap();
    assert_eq!(ended.task("first").unwrap().id.as_str(), "one", "the name is one, too");

    let error = ended.task("tow").unwrap_err();
    assert_eq!(error.to_string(), "workflow `w1` has no task `tow`; did you mean `two`?");
    assert_eq!(error.code(), ErrorCode::TaskNotFound);
    let error = ended.task("two").unwrap().result::<Vec<u8>>().unwrap_err();
    assert!(error.to_string().starts_with("result of task `two` is not a `alloc::vec::Vec<u8>`: "));
    assert_eq!(error.code(), ErrorCode::TaskResultInvalid);
    let error = ended.task("bad").unwrap().result::<Sum>().unwrap_err();
    let message = "task `bad` has no result: it is failed: TASK_EXECUTION_FAILED: no";
    assert_eq!(
        (error.to_string().as_str(), error.code()),
        (message, ErrorCode::TaskExecutionFailed)
    );
    assert!(matches!(error, ResultError::NotCompleted { status: TaskStatus::Failed, .. }));
    let error = ended.output::<Sum>().unwrap_err();
    assert_eq!(
        error.to_string(),
        "workflow `w1` has 3 final tasks; read the result of one of them by its id"
    );
    stop(runtime).await;
}
