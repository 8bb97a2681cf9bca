//! One row for each process that runs workflows.

use sea_orm::entity::prelude::*;

/// A lease.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "gleitzeit_leases")]
pub struct Model {
    /// The number of the lease, and the fencing token of its writes; never used twice.
    #[sea_orm(primary_key)]
    pub epoch: i64,
    /// The name of its process, escaped.
    pub owner: String,
    /// The identity of its process, for others on the same machine; may be empty.
    pub process: String,
    /// The time at which it expires, in microseconds since 1970 (UTC) by the server's clock; absent if
    /// it ends with its process.
    pub until: Option<i64>,
}

impl ActiveModelBehavior for ActiveModel {}
