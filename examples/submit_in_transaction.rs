//! A service with its own tables beside those of gleitzeit: an order and the workflow that ships it
//! are committed in one transaction, so that there is never one without the other.
//!
//!     cargo run --example submit_in_transaction
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::{error::Error, time::Duration};

use gleitzeit::{
    Handle, Runtime, Settings, TaskSpec, WorkflowId, WorkflowSpec,
    providers::echo,
    sea_orm::{
        ConnectionTrait as _, Database, DatabaseConnection, SqliteTransactionMode, Statement,
        TransactionOptions, TransactionTrait as _,
    },
};
use serde_json::{Value, json};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (orders, shipped) = run().await?;
    println!("{orders} order; {shipped}");
    Ok(())
}

/// The number of orders at the end, and the result of the first one's workflow.
pub(crate) async fn run() -> Result<(i64, Value), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let url = format!("sqlite:{}", folder.path().join("shop.db").display());
    let runtime = Runtime::builder(Settings::from_toml(&format!("storage.url = \"{url}\""))?)
        .without_settings_providers()
        .provider(echo::spec("echo"))
        .start()
        .await?;
    let handle = runtime.handle();
    // The service's own connections to the same file.
    let db = Database::connect(&url).await?;
    db.execute_unprepared("CREATE TABLE orders (id INTEGER PRIMARY KEY, what TEXT)").await?;

    let shipping = order(&db, &handle, 1, "a lamp", true).await?;
    // The card is refused: neither the order nor its workflow is there.
    let refused = order(&db, &handle, 2, "a sofa", false).await?;

    // The runtime claimed it after the commit.
    let mut events = handle.follow(&shipping, 0).await?;
    while events.next().await?.is_some() {}
    let ended = handle.workflow(&shipping).await?.ok_or("it was committed")?;
    let result = ended.tasks[0].result.as_deref().cloned().unwrap_or_default();
    if handle.workflow(&refused).await?.is_some() {
        return Err("it was rolled back".into());
    }

    let count = Statement::from_string(db.get_database_backend(), "SELECT COUNT(*) FROM orders");
    let orders = match db.query_one_raw(count).await? {
        Some(row) => row.try_get_by_index(0)?,
        None => 0,
    };
    db.close().await?;
    runtime.stop(Duration::from_secs(5)).await;
    Ok((orders, result))
}

/// Takes an order, and has it shipped.
async fn order(
    db: &DatabaseConnection,
    handle: &Handle,
    number: u32,
    what: &str,
    is_paid: bool,
) -> Result<WorkflowId, Box<dyn Error>> {
    let options = TransactionOptions {
        sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
        ..TransactionOptions::default()
    };
    let transaction = db.begin_with_options(options).await?;
    let insert = "INSERT INTO orders (id, what) VALUES (?, ?)";
    let insert = Statement::from_sql_and_values(
        db.get_database_backend(),
        insert,
        [number.into(), what.into()],
    );
    transaction.execute_raw(insert).await?;
    let text = format!("shipped order {number}");
    let shipping = WorkflowSpec::new("shipping")
        .id(format!("order-{number}"))
        .task(TaskSpec::new("ship", "echo/echo").params(json!({ "text": text })));
    let id = handle.submit_in(&transaction, shipping).await?;
    if is_paid {
        transaction.commit().await?;
    } else {
        transaction.rollback().await?;
    }
    Ok(id)
}
