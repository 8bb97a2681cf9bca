//! A fake replaces one method, under the same contract.

use gleitzeit::{
    ErrorCode, Handle, ListFilter, TaskSpec, WorkflowSpec,
    schemars::{self, JsonSchema},
    service::{CallContext, HandlerError, Service},
};
use gleitzeit_testkit::TestKit;
use serde::{Deserialize, Serialize};
use serde_json::json;

#[derive(Deserialize, JsonSchema)]
struct Numbers {
    left: i64,
    right: i64,
}

#[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
struct Sum {
    total: i64,
}

async fn add(input: Numbers, _: CallContext) -> Result<Sum, HandlerError> {
    Ok(Sum { total: input.left + input.right })
}

fn calculator() -> Service {
    let threads = std::num::NonZeroUsize::new(4).unwrap();
    let service = Service::new("calc", "v1.0").method("add", add).pure();
    service.method("double", add).blocking().threads(threads)
}

fn call(id: &str, method: &str) -> TaskSpec {
    TaskSpec::new(id, method).params(json!({ "left": 20, "right": 1 }))
}

/// The service's own code runs, but for what is faked.
#[test]
fn a_service_keeps_the_handlers_that_have_no_fake() {
    let mut kit = TestKit::new();
    kit.service(calculator());
    kit.fake("calc/double", |call| {
        Ok(json!({ "total": call.param("left").as_i64().unwrap() * 2 }))
    });
    let ended = kit.run(
        WorkflowSpec::new("w").task(call("own", "calc/add")).task(call("fake", "calc/double")),
    );
    assert_eq!(ended.task("own").unwrap().result::<Sum>().unwrap(), Sum { total: 21 });
    assert_eq!(ended.task("fake").unwrap().result::<Sum>().unwrap(), Sum { total: 40 });
    let params = kit.calls("calc/add")[0].params.clone();
    assert_eq!(*params, json!({ "left": 20, "right": 1 }));
}

/// A fake that gives what the method never would proves nothing.
#[test]
fn the_result_of_a_fake_is_held_against_the_schema() {
    let mut kit = TestKit::new();
    kit.service(calculator());
    kit.fake("calc/add", |_| Ok(json!({ "totl": 1 })));
    let ended = kit.run(WorkflowSpec::new("w").task(call("a", "calc/add")));
    let error = ended.task("a").unwrap().error.as_deref().unwrap();
    assert_eq!(error.code, ErrorCode::TaskResultInvalid);
}

/// A blocking handler has its thread, and the clock waits for it.
#[test]
fn a_blocking_handler_of_the_service_runs_as_it_is() {
    let mut kit = TestKit::new();
    kit.service(calculator());
    let ended = kit.run(WorkflowSpec::new("w").task(call("a", "calc/double")));
    assert_eq!(ended.output::<Sum>().unwrap(), Sum { total: 21 });
}

/// Whatever a host does with a handle, a test does.
#[test]
fn a_test_talks_to_the_runtime_of_one_life() {
    let mut kit = TestKit::new();
    kit.fake_async("bank/pay", |_| std::future::pending());
    let submit = async |handle: Handle| {
        let workflow = WorkflowSpec::new("w").task(TaskSpec::new("pay", "bank/pay"));
        let id = handle.submit(workflow).await.unwrap();
        handle.cancel(&id, "no longer wanted").await.unwrap();
        handle.wait(&id).await.unwrap().id.clone()
    };
    let id = kit.live(submit).unwrap();
    let ended = kit.ended(&id);
    assert_eq!(ended.error.as_deref().unwrap().code, ErrorCode::WorkflowCancelled);
    // The next life has the same store.
    let listed =
        kit.live(async |handle| handle.list(ListFilter::default()).await.unwrap()).unwrap();
    assert_eq!((listed.len(), kit.lives()), (1, 2));
}
