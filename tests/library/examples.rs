//! Every example does what it says. Their files are part of this program, so that no test depends
//! on where cargo puts what it builds.

#![cfg_attr(
    feature = "typed",
    expect(clippy::duplicate_mod, reason = "two examples share a file, as programs of their own")
)]

use std::net::SocketAddr;

use gleitzeit::{ProviderSpec, Runtime};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::oneshot,
};

use crate::support::whole;

#[path = "../../examples/actix_web_service.rs"]
mod actix_web_service;
#[cfg(feature = "typed")]
#[expect(dead_code, reason = "its `main` is that of the example")]
#[path = "../../examples/axum_service.rs"]
mod axum_service;
#[expect(dead_code, reason = "its `main` is that of the example")]
#[path = "../../examples/blocking.rs"]
mod blocking;
#[expect(dead_code, reason = "its `main` is that of the example")]
#[path = "../../examples/custom_provider.rs"]
mod custom_provider;
#[expect(dead_code, reason = "its `main` is that of the example")]
#[path = "../../examples/embed_in_tokio.rs"]
mod embed_in_tokio;
#[cfg(feature = "sqlite")]
#[expect(dead_code, reason = "its `main` is that of the example")]
#[path = "../../examples/submit_in_transaction.rs"]
mod submit_in_transaction;

#[cfg(feature = "typed")]
#[expect(dead_code, reason = "its `main` is that of the example")]
#[path = "../../examples/typed_service.rs"]
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
    let reports = custom_provider::run().await.unwrap();
    let reports: Vec<(&str, &str)> =
        reports.iter().map(|(city, report)| (*city, report.as_str())).collect();
    assert_eq!(
        reports,
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
    assert_eq!(include_str!("../../examples/shop/mod.rs").lines().count(), 40);
}

/// One request of HTTP/1.1, sent; its connection.
async fn send(address: SocketAddr, head: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "{head} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

async fn answer(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    whole::within("the answer", stream.read_to_string(&mut answer)).await.unwrap();
    answer
}

/// Nobody can connect any more.
async fn is_closed(address: SocketAddr) {
    whole::within("the end of the listener", async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Any parameters.
#[cfg(feature = "typed")]
#[derive(serde::Deserialize, gleitzeit::schemars::JsonSchema)]
#[schemars(crate = "gleitzeit::schemars")]
struct Any {
    #[serde(flatten)]
    all: std::collections::HashMap<String, Value>,
}

/// A request that waits for its workflow when the stop comes is answered; nothing is cut off.
#[cfg(feature = "typed")]
#[tokio::test(flavor = "multi_thread")]
async fn an_axum_service_stops_in_order() {
    use std::sync::Arc;

    use gleitzeit::service::{CallContext, HandlerError, Service};
    use tokio::sync::Semaphore;

    let (entered, mut enters) = tokio::sync::mpsc::unbounded_channel();
    let open = Arc::new(Semaphore::new(0));
    let gate = Arc::clone(&open);
    let pass = move |input: Value, _: CallContext| {
        let (entered, gate) = (entered.clone(), Arc::clone(&gate));
        async move {
            entered.send(()).unwrap();
            gate.acquire().await.unwrap().forget();
            Ok::<_, HandlerError>(json!({ "cents": 5, "receipt": null, "was": input }))
        }
    };
    let pass = move |input: Any, call: CallContext| pass(json!(input.all), call);
    let gated = Service::new("shop", "v1.0").method("price", pass.clone()).method("charge", pass);
    let builder = Runtime::builder(whole::settings("")).without_settings_providers();
    let runtime = builder.service(gated).start().await.unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, asked) = oneshot::channel::<()>();
    let until = async move { asked.await.unwrap_or_default() };
    let serving = tokio::spawn(async move {
        axum_service::serve(listener, runtime, until).await.map_err(|error| error.to_string())
    });
    let order = json!({ "item": "lamp", "count": 2 }).to_string();
    let waiting = send(address, "POST /orders", &order).await;
    whole::within("the first task", enters.recv()).await.unwrap();
    stop.send(()).unwrap();
    is_closed(address).await;
    // The second task begins after the stop, and is let through as well.
    open.add_permits(1);
    whole::within("the second task", enters.recv()).await.unwrap();
    open.add_permits(1);
    let answer = answer(waiting).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(answer.ends_with(r#"{"cents":5,"receipt":null}"#), "{answer}");
    let report = whole::within("the stop", serving).await.unwrap().unwrap();
    assert!(report.unsettled.is_empty() && report.stored, "{report:?}");
}

/// The real shop of the example, asked over its socket.
#[cfg(feature = "typed")]
#[tokio::test(flavor = "multi_thread")]
async fn an_axum_service_answers_with_typed_results() {
    let runtime = axum_service::start().await.unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, asked) = oneshot::channel::<()>();
    let until = async move { asked.await.unwrap_or_default() };
    let serving = tokio::spawn(async move {
        axum_service::serve(listener, runtime, until).await.map_err(|error| error.to_string())
    });
    let order = json!({ "item": "lamp", "count": 2 }).to_string();
    let bill = answer(send(address, "POST /orders", &order).await).await;
    assert!(bill.contains(r#"{"cents":8000,"receipt":"#), "{bill}");
    let none = json!({ "item": "lamp", "count": 0 }).to_string();
    let refused = answer(send(address, "POST /orders", &none).await).await;
    assert!(refused.starts_with("HTTP/1.1 422") && refused.contains("minimum of 1"), "{refused}");
    stop.send(()).unwrap();
    whole::within("the stop", serving).await.unwrap().unwrap();
}

/// A stream of events that is open when the stop comes ends with its workflow.
#[actix_web::test]
async fn an_actix_web_service_stops_in_order() {
    let (provider, mut gate): (ProviderSpec, whole::Gate) = whole::gate("gate");
    let builder = whole::echo_builder(whole::settings("")).protocol(whole::gate_protocol());
    let runtime = builder.provider(provider).start().await.unwrap();
    let handle = runtime.handle();
    let (stop, asked) = oneshot::channel::<()>();
    let until = async move { asked.await.unwrap_or_default() };
    let (server, address) = actix_web_service::serve(&runtime, "127.0.0.1:0", until).unwrap();
    let serving = actix_web::rt::spawn(actix_web_service::serve_to_the_end(server, runtime));
    let workflow = gleitzeit::WorkflowSpec::new("w").id("w1").task(whole::gate_task("a"));
    handle.submit(workflow).await.unwrap();
    gate.entered().await;
    let mut events = send(address, "GET /workflows/w1/events", "").await;
    let mut begun = [0; 12];
    whole::within("the stream", events.read_exact(&mut begun)).await.unwrap();
    stop.send(()).unwrap();
    is_closed(address).await;
    gate.let_through(1);
    let rest = answer(events).await;
    assert!(rest.contains("workflow:completed"), "{rest}");
    let report = whole::within("the stop", serving).await.unwrap().unwrap();
    assert!(report.unsettled.is_empty() && report.abandoned.is_empty(), "{report:?}");
    let after = handle.stats().await.unwrap_err();
    assert_eq!(after.code, gleitzeit::ErrorCode::SystemShutdown);
}
