//! A connection of a host's own to the database of a store.
//!
//! Its settings are those of the store's writer, so that a host's transactions wait for locks and
//! survive a loss of power as the store's do. [`SubmitIn`](super::SubmitIn)
//! takes part in them.

use gleitzeit_domain::store::StoreError;
use sea_orm::DatabaseConnection;

use super::{StoreUrl, location::Location, open::Connector, options::SqlOptions};

/// Opens one connection, which writes. Makes the database and brings its schema up to date as
/// `options` say.
///
/// # Errors
/// As [`SqlStore::connect`](super::SqlStore::connect).
pub async fn connect(
    url: &StoreUrl,
    options: SqlOptions,
) -> Result<DatabaseConnection, StoreError> {
    let location = Location::of(url)?;
    location.check_build()?;
    Connector { location, options }.open().await
}
