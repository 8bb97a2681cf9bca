//! One row for the events of one workflow in one commit.

use sea_orm::entity::prelude::*;

/// Events that were committed together.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "gleitzeit_events")]
pub struct Model {
    /// The workflow's key.
    #[sea_orm(primary_key, auto_increment = false)]
    pub workflow_key: i64,
    /// The sequence of the first event.
    #[sea_orm(primary_key, auto_increment = false)]
    pub first_sequence: i64,
    /// The number of events; their sequences are consecutive.
    pub event_count: i64,
    /// A JSON array with `[microseconds since 1970, data]` for each.
    pub body: String,
}

impl ActiveModelBehavior for ActiveModel {}
