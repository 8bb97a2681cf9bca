//! One row for each workflow, written at its submission and with each change of its own state.

use sea_orm::{QueryResult, entity::prelude::*};

/// A workflow. Times are microseconds since 1970 (UTC).
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "gleitzeit_workflows")]
pub struct Model {
    /// The order of submission; never used twice.
    #[sea_orm(primary_key)]
    pub key: i64,
    /// The workflow's id, escaped.
    #[sea_orm(unique)]
    pub id: String,
    /// The name for a person, escaped.
    pub name: String,
    /// The name of a `WorkflowStatus`.
    pub status: String,
    /// The time of submission.
    pub created_at: i64,
    /// The start of its first task.
    pub started_at: Option<i64>,
    /// The time at which it settled.
    pub completed_at: Option<i64>,
    /// The number of tasks.
    pub task_count: i64,
    /// The last sequence when this row was written; rows of events may have later ones.
    pub last_sequence: i64,
    /// The lease that owns it, or the ended lease whose successor does; 0 for none.
    pub lease_epoch: i64,
    /// The error, as JSON.
    pub error: Option<String>,
    /// The spec, as JSON; absent if it is large.
    pub spec: Option<String>,
    /// The hash of the blob with the spec.
    pub spec_blob: Option<Vec<u8>>,
    /// The hash of its needs; 0 if none are recorded.
    pub needs: i64,
    /// The lease that expired while it owned the workflow, unless another has released it since; else
    /// 0. No submission sets it.
    pub left_by: i64,
}

impl ActiveModelBehavior for ActiveModel {}

impl Model {
    /// Reads a row whose columns have the order of the fields. The derived way looks each column up
    /// by its name, which costs more than the rest of a large read.
    pub(crate) fn by_position(row: &QueryResult) -> Result<Self, DbErr> {
        Ok(Self {
            key: row.try_get_by_index(0)?,
            id: row.try_get_by_index(1)?,
            name: row.try_get_by_index(2)?,
            status: row.try_get_by_index(3)?,
            created_at: row.try_get_by_index(4)?,
            started_at: row.try_get_by_index(5)?,
            completed_at: row.try_get_by_index(6)?,
            task_count: row.try_get_by_index(7)?,
            last_sequence: row.try_get_by_index(8)?,
            lease_epoch: row.try_get_by_index(9)?,
            error: row.try_get_by_index(10)?,
            spec: row.try_get_by_index(11)?,
            spec_blob: row.try_get_by_index(12)?,
            needs: row.try_get_by_index(13)?,
            left_by: row.try_get_by_index(14)?,
        })
    }
}
