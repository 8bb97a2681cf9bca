//! A multi-threaded tokio program that runs workflows beside its own work: many tasks share one
//! runtime through clones of its handle, and one of them subscribes to events.
//!
//!     cargo run --example embed_in_tokio
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::{error::Error, time::Duration};

use gleitzeit::{
    Delivery, EventFilter, Handle, Runtime, Settings, TaskError, TaskSpec, WorkflowSpec,
    providers::echo,
};
use serde_json::json;
use tokio::task::JoinSet;

/// Workflows that are run.
pub(crate) const ORDERS: usize = 8;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (completed, received) = run().await?;
    println!("{completed} workflows completed; the listener received {received} events");
    Ok(())
}

/// How many workflows completed, and of how many a listener heard.
pub(crate) async fn run() -> Result<(usize, usize), Box<dyn Error>> {
    let settings = Settings::from_toml("[storage]\nurl = \"memory\"")?;
    let runtime = Runtime::builder(settings)
        .without_settings_providers()
        .provider(echo::spec("echo"))
        .start()
        .await?;
    let handle = runtime.handle();

    let mut ends = handle
        .subscribe(EventFilter { types: vec!["workflow:completed".into()], ..Default::default() })
        .await?;
    let listener = tokio::spawn(async move {
        let mut received = 0;
        // The stream ends when the runtime does.
        while let Some(delivery) = ends.next().await {
            received += usize::from(matches!(delivery, Delivery::Event(_)));
        }
        received
    });

    let mut orders = JoinSet::new();
    for number in 0..ORDERS {
        orders.spawn(order(handle.clone(), number));
    }
    let mut completed = 0;
    while let Some(order) = orders.join_next().await {
        order??;
        completed += 1;
    }

    let report = runtime.stop(Duration::from_secs(5)).await;
    if !report.unsettled.is_empty() {
        return Err(format!("not settled: {:?}", report.unsettled).into());
    }
    Ok((completed, listener.await?))
}

/// One workflow, from its submission to its end.
async fn order(handle: Handle, number: usize) -> Result<(), TaskError> {
    let workflow = WorkflowSpec::new(format!("order {number}"))
        .task(TaskSpec::new("check", "echo/echo").params(json!({ "amount": number })))
        .task(TaskSpec::new("catalog", "echo/echo").params(json!({ "amount": "${check.amount}" })))
        .task(
            TaskSpec::new("ship", "echo/sleep").params(json!({ "seconds": 0.01 })).after("catalog"),
        );
    // Once this returns, the workflow is stored: it will be run, whatever happens.
    let id = handle.submit(workflow).await?;
    let ended = handle.wait(&id).await?;
    ended.error.as_deref().map_or(Ok(()), |error| Err(error.clone()))
}
