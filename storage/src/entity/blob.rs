//! One row for each large payload, with any number of references.

use sea_orm::entity::prelude::*;

/// A large payload.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "gleitzeit_blobs")]
pub struct Model {
    /// The BLAKE3 hash of `body`.
    #[sea_orm(primary_key, auto_increment = false)]
    pub hash: Vec<u8>,
    /// JSON.
    pub body: String,
}

impl ActiveModelBehavior for ActiveModel {}
