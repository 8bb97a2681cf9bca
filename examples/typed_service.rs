//! A service of typed methods (`shop/mod.rs`), and a workflow over it whose results are read as
//! types, too.
//!
//!     cargo run --example typed_service
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::{error::Error, time::Duration};

use gleitzeit::{Runtime, Settings, WorkflowBuilder};
use serde_json::json;

#[path = "shop/mod.rs"]
mod shop;

use shop::{Bill, Parcel, shop};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (bill, parcel) = run().await?;
    println!("{} cents, {}", bill.cents, parcel.code);
    Ok(())
}

/// The paid bill of an order, and its parcel.
pub(crate) async fn run() -> Result<(Bill, Parcel), Box<dyn Error>> {
    let settings = Settings::from_toml("[storage]\nurl = \"memory\"")?;
    let runtime =
        Runtime::builder(settings).without_settings_providers().service(shop()).start().await?;

    // A handle of a task gives references to its result, which make the second wait for the first.
    let wf = WorkflowBuilder::new("order");
    let price = wf.task("price", "shop/price").input(json!({ "item": "lamp", "count": 2 }));
    let paid = wf.task("charge", "shop/charge").input(json!({ "cents": price.field("cents") }));
    let paid = paid.returns::<Bill>();
    let ship = wf.task("ship", "shop/ship");
    let parcel = ship.input(json!({ "cents": 0, "receipt": paid.field("receipt") }));
    let track = wf.task("track", "shop/track").input(json!({ "code": parcel.field("code") }));

    let ended = runtime.handle().run(wf.build()).await?;
    // By the handle, by the id of the task, and of the task that no other needs.
    let bill = ended.output_of(&paid)?;
    let parcel = ended.task("ship")?.result::<Parcel>()?;
    println!("{}: {}", track.id(), ended.output::<String>()?);
    runtime.stop(Duration::from_secs(5)).await;
    Ok((bill, parcel))
}
