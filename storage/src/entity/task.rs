//! One row a task that is not as it was submitted: usually written once, with its outcome.

use sea_orm::{QueryResult, entity::prelude::*};

/// What became of a task. Times are microseconds since 1970 (UTC).
///
/// A task without a row waits, as its workflow's spec describes it.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "gleitzeit_tasks")]
pub struct Model {
    /// The workflow's key.
    #[sea_orm(primary_key, auto_increment = false)]
    pub workflow_key: i64,
    /// Its place in the workflow, from 0.
    #[sea_orm(primary_key, auto_increment = false)]
    pub position: i64,
    /// Its id, escaped.
    pub id: String,
    /// Its name for a person, escaped, where that is not the id.
    pub name: Option<String>,
    /// Its status, as `TaskStatus` names it.
    pub status: String,
    /// Attempts begun so far.
    pub attempts: i64,
    /// Who ran the last attempt, escaped.
    pub provider_id: Option<String>,
    /// When the last attempt began.
    pub started_at: Option<i64>,
    /// When it settled.
    pub completed_at: Option<i64>,
    /// When the next attempt is due.
    pub due_at: Option<i64>,
    /// Seconds that the last attempt's call took.
    pub duration: Option<f64>,
    /// Why it failed, as JSON.
    pub error: Option<String>,
    /// What it gave, as JSON; absent where it is large.
    pub result: Option<String>,
    /// The hash of the blob with what it gave.
    pub result_blob: Option<Vec<u8>>,
}

impl ActiveModelBehavior for ActiveModel {}

impl Model {
    /// A row with all columns in the order of the fields. The derived way looks each of them up by its
    /// name, which is too dear where many rows are read.
    pub(crate) fn by_place(row: &QueryResult) -> Result<Self, DbErr> {
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
