//! One row for each process that runs workflows.

use sea_orm::entity::prelude::*;

/// A lease.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "gleitzeit_leases")]
pub struct Model {
    /// Its name, and the fencing token of its writes; never given twice.
    #[sea_orm(primary_key)]
    pub epoch: i64,
    /// Who holds it, escaped.
    pub owner: String,
    /// Which process that is, for others on the same machine; may be empty.
    pub process: String,
    /// Until when it is good, in microseconds since 1970 (UTC) by the server's clock; absent where
    /// it is good as long as its process lives.
    pub until: Option<i64>,
}

impl ActiveModelBehavior for ActiveModel {}
