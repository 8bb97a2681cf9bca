//! One row for each request to the process that runs a workflow, until its answer is taken.

use sea_orm::entity::prelude::*;

/// A request.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "gleitzeit_requests")]
pub struct Model {
    /// The order of asking; never given twice.
    #[sea_orm(primary_key)]
    pub key: i64,
    /// The workflow that it is about.
    pub workflow_key: i64,
    /// What is asked, as JSON.
    pub body: String,
    /// The answer as JSON: null, or the error; absent until it is given.
    pub answer: Option<String>,
    /// When it was asked, in microseconds since 1970 (UTC).
    pub created_at: i64,
}

impl ActiveModelBehavior for ActiveModel {}
