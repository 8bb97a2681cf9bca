//! One row for each task that is not as it was submitted: usually written once, with its outcome.

use sea_orm::{QueryResult, entity::prelude::*};

/// The state of a task. Times are microseconds since 1970 (UTC).
///
/// A task without a row is pending, as the spec of its workflow describes it.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "gleitzeit_tasks")]
pub struct Model {
    /// The workflow's key.
    #[sea_orm(primary_key, auto_increment = false)]
    pub workflow_key: i64,
    /// The index of the task in its workflow, from 0.
    #[sea_orm(primary_key, auto_increment = false)]
    pub position: i64,
    /// The id of the task, escaped.
    pub id: String,
    /// The name for a person, escaped; absent if it is the id.
    pub name: Option<String>,
    /// The name of a `TaskStatus`.
    pub status: String,
    /// Started attempts.
    pub attempts: i64,
    /// The provider of the last attempt, escaped.
    pub provider_id: Option<String>,
    /// The start of the last attempt.
    pub started_at: Option<i64>,
    /// The time at which it settled.
    pub completed_at: Option<i64>,
    /// The time of the next attempt.
    pub due_at: Option<i64>,
    /// The duration of the last attempt's call, in seconds.
    pub duration: Option<f64>,
    /// The error, as JSON.
    pub error: Option<String>,
    /// The result, as JSON; absent if it is large.
    pub result: Option<String>,
    /// The hash of the blob with the result.
    pub result_blob: Option<Vec<u8>>,
}

impl ActiveModelBehavior for ActiveModel {}

impl Model {
    /// Reads a row whose columns have the order of the fields. The derived way looks each column up
    /// by its name, which costs more than the rest of a large read.
    pub(crate) fn by_position(row: &QueryResult) -> Result<Self, DbErr> {
        Ok(Self {
            workflow_key: row.try_get_by_index(0)?,
            position: row.try_get_by_index(1)?,
            id: row.try_get_by_index(2)?,
            name: row.try_get_by_index(3)?,
            status: row.try_get_by_index(4)?,
            attempts: row.try_get_by_index(5)?,
            provider_id: row.try_get_by_index(6)?,
            started_at: row.try_get_by_index(7)?,
            completed_at: row.try_get_by_index(8)?,
            due_at: row.try_get_by_index(9)?,
            duration: row.try_get_by_index(10)?,
            error: row.try_get_by_index(11)?,
            result: row.try_get_by_index(12)?,
            result_blob: row.try_get_by_index(13)?,
        })
    }
}
