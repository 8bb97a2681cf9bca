//! An axum service that accepts orders and stops in order: on Ctrl-C or SIGTERM it accepts no new
//! request, answers those that it has, lets running tasks end within a deadline, and reports what
//! it cut off. The next start continues that.
//!
//!     cargo run --example axum_service -- 127.0.0.1:8080
//!     curl -d '{"item": "lamp", "count": 2}' -H 'content-type: application/json' 127.0.0.1:8080/orders
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::{error::Error, future::Future, time::Duration};

use axum::{Json, Router, extract::State, http::StatusCode, routing::post};
use gleitzeit::{Handle, Runtime, Settings, StopReport, TaskError, WorkflowBuilder, WorkflowSpec};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::oneshot, time::sleep};

#[path = "shop/mod.rs"]
mod shop;

use shop::{Bill, shop};

/// Running tasks may end within this once the service stops.
const DEADLINE: Duration = Duration::from_secs(20);

/// The workflow of an order.
fn order(order: Value) -> WorkflowSpec {
    let wf = WorkflowBuilder::new("order");
    let price = wf.task("price", "shop/price").input(order);
    wf.task("charge", "shop/charge").input(json!({ "cents": price.field("cents") }));
    wf.build()
}

/// Runs an order to its end, and answers with the bill.
async fn post_order(
    State(handle): State<Handle>,
    Json(body): Json<Value>,
) -> Result<Json<Bill>, (StatusCode, Json<TaskError>)> {
    let refused = |error: TaskError| (StatusCode::UNPROCESSABLE_ENTITY, Json(error));
    let ended = handle.run(order(body)).await.map_err(refused)?;
    ended.output::<Bill>().map(Json).map_err(|error| refused(error.into()))
}

/// Serves until `stop` resolves, then stops in order.
pub(crate) async fn serve(
    listener: TcpListener,
    runtime: Runtime,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<StopReport, Box<dyn Error>> {
    let app = Router::new().route("/orders", post(post_order)).with_state(runtime.handle());
    let (stops, stopping) = oneshot::channel();
    let stop = async move {
        stop.await;
        let _ = stops.send(());
    };
    // First the requests: a handler that waits for its workflow gets its answer.
    tokio::select! {
        served = axum::serve(listener, app).with_graceful_shutdown(stop) => served?,
        // A client that sends half a request is not waited for longer than a task.
        () = async { let _ = stopping.await; sleep(DEADLINE).await } => {}
    }
    // Then the runtime: what still runs was submitted by requests that did not wait for its end.
    let report = runtime.stop(DEADLINE).await;
    Ok(report)
}

pub(crate) async fn start() -> Result<Runtime, Box<dyn Error>> {
    let settings = Settings::from_toml("[storage]\nurl = \"memory\"")?;
    Ok(Runtime::builder(settings).without_settings_providers().service(shop()).start().await?)
}

/// Resolves when a person or a supervisor asks the process to stop.
async fn asked_to_stop() {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .expect("signals can be heard");
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let listener = TcpListener::bind(address).await?;
    println!("http://{}/orders", listener.local_addr()?);
    let report = serve(listener, start().await?, asked_to_stop()).await?;
    println!("stopped; {} workflows are not settled", report.unsettled.len());
    Ok(())
}
