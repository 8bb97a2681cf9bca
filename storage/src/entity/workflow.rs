//! One row a workflow, written at its submission and whenever its own state changes.

use sea_orm::{QueryResult, entity::prelude::*};

/// A workflow. Times are microseconds since 1970 (UTC).
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "gleitzeit_workflows")]
pub struct Model {
    /// The order of submission; never given twice.
    #[sea_orm(primary_key)]
    pub key: i64,
    /// The workflow's id, escaped.
    #[sea_orm(unique)]
    pub id: String,
    /// Its name for a person, escaped.
    pub name: String,
    /// Its status, as `WorkflowStatus` names it.
    pub status: String,
    /// When it was accepted.
    pub created_at: i64,
    /// When its first task began.
    pub started_at: Option<i64>,
    /// When it settled.
    pub completed_at: Option<i64>,
    /// How many tasks it has.
    pub task_count: i64,
    /// The number of the last event known when this row was written; events may say more.
    pub last_sequence: i64,
    /// The lease that owns it, or that has ended and left it to its successor; 0 is nobody.
    pub lease_epoch: i64,
    /// Why it did not complete, as JSON.
    pub error: Option<String>,
    /// What was submitted, as JSON; absent where it is large.
    pub spec: Option<String>,
    /// The hash of the blob with what was submitted.
    pub spec_blob: Option<Vec<u8>>,
    /// The hash of what a process must know to run it; 0 where nobody wrote that down.
    pub needs: i64,
    /// The lease that died while it owned the workflow, where nobody gave it up in order since; else
    /// 0. No submission sets it.
    pub left_by: i64,
}

impl ActiveModelBehavior for ActiveModel {}

impl Model {
    /// A row with all columns in the order of the fields. The derived way looks each of them up by its
    /// name, which is too dear where many rows are read.
    pub(crate) fn by_place(row: &QueryResult) -> Result<Self, DbErr> {
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
