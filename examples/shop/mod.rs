//! A shop: a service of four methods, whose schemas come from its types.
use gleitzeit::schemars::{self, JsonSchema};
use gleitzeit::service::{CallContext, HandlerError, Service};
use serde::{Deserialize, Serialize};

#[derive(Deserialize, JsonSchema)]
pub(crate) struct Order {
    /// The number in the catalogue.
    item: String,
    #[schemars(range(min = 1, max = 100))]
    count: u32,
}
#[derive(Serialize, Deserialize, JsonSchema)]
pub(crate) struct Bill {
    pub(crate) cents: u32,
    pub(crate) receipt: Option<String>,
}
#[derive(Serialize, Deserialize, JsonSchema)]
pub(crate) struct Parcel {
    pub(crate) code: String,
}
async fn price(order: Order, _: CallContext) -> Result<Bill, HandlerError> {
    let cents = if order.item == "lamp" { 4_000 } else { 250 };
    Ok(Bill { cents: cents * order.count, receipt: None })
}
async fn charge(bill: Bill, call: CallContext) -> Result<Bill, HandlerError> {
    Ok(Bill { receipt: Some(call.idempotency_key()), ..bill })
}
async fn ship(bill: Bill, _: CallContext) -> Result<Parcel, HandlerError> {
    let receipt = bill.receipt.ok_or_else(|| HandlerError::new("not paid").terminal())?;
    Ok(Parcel { code: format!("parcel of {receipt}") })
}
async fn track(parcel: Parcel, _: CallContext) -> Result<String, HandlerError> {
    Ok(format!("{} is on its way", parcel.code))
}
pub(crate) fn shop() -> Service {
    let shop = Service::new("shop", "v1.0").method("price", price).pure();
    let shop = shop.method("charge", charge).at_most_once().method("ship", ship).idempotent();
    shop.method("track", track).pure()
}
