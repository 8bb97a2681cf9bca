//! One row for each request to the process that runs a workflow, until its answer is taken.

use sea_orm::entity::prelude::*;

/// A request.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "gleitzeit_requests")]
pub struct Model {
    /// The order of requests; never used twice.
    #[sea_orm(primary_key)]
    pub key: i64,
    /// The key of the workflow; 0 for a request to every process.
    pub workflow_key: i64,
    /// The command, as JSON.
    pub body: String,
    /// The answer as JSON: null, or the error; absent before there is one.
    pub answer: Option<String>,
    /// The time of the request, in microseconds since 1970 (UTC).
    pub created_at: i64,
}

impl ActiveModelBehavior for ActiveModel {}
