//! Every example does what it says. Their files are part of this program, so that no test depends
//! on where cargo puts what it builds.

use serde_json::{Value, json};

#[path = "../examples/actix_web_service.rs"]
mod actix_web_service;
#[expect(dead_code, reason = "its `main` is that of the example")]
#[path = "../examples/blocking.rs"]
mod blocking;
#[expect(dead_code, reason = "its `main` is that of the example")]
#[path = "../examples/custom_provider.rs"]
mod custom_provider;
#[expect(dead_code, reason = "its `main` is that of the example")]
#[path = "../examples/embed_in_tokio.rs"]
mod embed_in_tokio;
#[cfg(feature = "sqlite")]
#[expect(dead_code, reason = "its `main` is that of the example")]
#[path = "../examples/submit_in_transaction.rs"]
mod submit_in_transaction;

#[cfg(feature = "typed")]
#[expect(dead_code, reason = "its `main` is that of the example")]
#[path = "../examples/typed_service.rs"]
mod typed_service;

/// The first program that a newcomer writes.
#[test]
fn a_plain_program_runs_a_workflow() {
    assert_eq!(blocking::run().unwrap(), json!({ "text": "Hello, Ada!" }));
}

/// A host with threads of its own uses one runtime from all of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_tokio_program_runs_workflows_beside_its_own_work() {
    let all = embed_in_tokio::ORDERS;
    assert_eq!(embed_in_tokio::run().await.unwrap(), (all, all));
}

/// What an author of providers writes is all that is needed.
#[tokio::test(flavor = "multi_thread")]
async fn a_protocol_a_provider_and_a_strategy_of_ones_own_are_used() {
    let told = custom_provider::run().await.unwrap();
    let told: Vec<(&str, &str)> = told.iter().map(|(city, told)| (*city, told.as_str())).collect();
    assert_eq!(
        told,
        [
            ("Atlantis", "TASK_EXECUTION_FAILED: no station in Atlantis"),
            ("Bremen", "11.5 °C, says station"),
            ("Kyoto", "19.0 °C, says station"),
            // The strategy of the example prefers the almanac, once there is one.
            ("Lima", "14 °C, says almanac"),
        ]
    );
}

/// A service answers while its runtime works, and streams events up to the workflow's end.
#[actix_web::test]
async fn an_actix_web_service_takes_workflows_and_streams_their_events() {
    let answers = actix_web_service::run().await.unwrap();
    let parts = |answer: &str| {
        let (status, body) = answer.split_once('\n').unwrap();
        let lines = body.lines().map(|line| serde_json::from_str(line).unwrap());
        (status.to_owned(), lines.collect::<Vec<Value>>())
    };
    let [accepted, events, state, missing] = &*answers else { panic!("{answers:?}") };

    let (status, body) = parts(accepted);
    assert_eq!(status, "202");
    assert!(body[0]["workflow_id"].is_string(), "{body:?}");

    let (status, events) = parts(events);
    assert_eq!(status, "200");
    let sequences: Vec<u64> = events.iter().map(|it| it["sequence"].as_u64().unwrap()).collect();
    assert_eq!(sequences, (1..=events.len() as u64).collect::<Vec<_>>());
    assert_eq!(events[0]["event_type"], "workflow:submitted");
    assert_eq!(events.last().unwrap()["event_type"], "workflow:completed");

    let (status, state) = parts(state);
    assert_eq!(status, "200");
    assert_eq!(state[0]["status"], "completed");
    assert_eq!(state[0]["tasks"][1]["result"], json!({ "text": "hello, again" }));

    let (status, missing) = parts(missing);
    assert_eq!(status, "404");
    assert_eq!(missing[0]["name"], "WORKFLOW_NOT_FOUND");
}

/// An order and the work for it are there together, or neither is.
#[cfg(feature = "sqlite")]
#[tokio::test(flavor = "multi_thread")]
async fn an_order_and_its_workflow_are_committed_together() {
    let (orders, shipped) = submit_in_transaction::run().await.unwrap();
    assert_eq!((orders, shipped), (1, json!({ "text": "shipped order 1" })));
}

/// Types from the handler to the reader of the results; the service has four methods in 40 lines.
#[cfg(feature = "typed")]
#[tokio::test(flavor = "multi_thread")]
async fn a_service_of_typed_methods_serves_a_workflow() {
    let (bill, parcel) = typed_service::run().await.unwrap();
    let receipt = bill.receipt.unwrap();
    assert!(receipt.ends_with("/charge"), "{receipt}");
    assert_eq!((bill.cents, parcel.code), (8_000, format!("parcel of {receipt}")));
    assert_eq!(include_str!("../examples/shop/mod.rs").lines().count(), 40);
}
