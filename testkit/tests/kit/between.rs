//! A crash between charge and ship: the customer pays once, and gets the parcel.
use gleitzeit::schemars::{self, JsonSchema};
use gleitzeit::service::{CallContext, HandlerError, Service};
use gleitzeit::{WorkflowBuilder, WorkflowSpec};
use gleitzeit_testkit::{Crash, TestKit};
use serde_json::json;

#[derive(serde::Serialize, serde::Deserialize, JsonSchema)]
struct Receipt(String);
async fn charge((): (), call: CallContext) -> Result<Receipt, HandlerError> {
    Ok(Receipt(call.idempotency_key()))
}
fn order() -> WorkflowSpec {
    let wf = WorkflowBuilder::new("order");
    let paid = wf.task("charge", "bank/charge");
    wf.task("ship", "post/ship").input(json!({ "receipt": paid.result() }));
    wf.build()
}
#[test]
fn a_crash_between_charge_and_ship() {
    let mut kit = TestKit::new();
    kit.service(Service::new("bank", "v1.0").method("charge", charge).at_most_once());
    kit.fake("post/ship", |call| Ok(json!(format!("parcel for {}", call.param("receipt")))));
    kit.crash(Crash::after("task:completed charge"));
    let ended = kit.run(order().id("42"));
    assert_eq!(ended.output::<String>().unwrap(), r#"parcel for "42/charge""#);
    kit.assert_crashed();
    kit.assert_calls("bank/charge", 1);
    ended.assert_order(&["task:completed charge", "workflow:recovered", "task:completed ship"]);
}
