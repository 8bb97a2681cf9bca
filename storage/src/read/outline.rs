//! Reads workflows without their large results, and single results, for a caller whose memory does
//! not hold all results of a workflow together.

use std::sync::Arc;

use gleitzeit_domain::{id::WorkflowId, workflow::WorkflowRecord};
use sea_orm::{
    ConnectionTrait as _, DbBackend, EntityTrait as _, Iterable as _, QuerySelect as _, Select,
    Statement, sea_query::Expr,
};

use super::{
    Answer, Reader,
    assemble::{lacking, naming},
};
use crate::{
    encode::{escape, parse},
    entity::task,
};

/// Upper limit of the characters of a result in an outline.
const OUTLINE_MAX: usize = 1_024;

/// The part of a workflow that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    Whole,
    /// Without large results.
    Outline,
}

impl Reader {
    /// A workflow without its large results.
    pub(crate) async fn outline(&self, id: &WorkflowId) -> Answer<Option<WorkflowRecord>> {
        self.one(id, Extent::Outline).await
    }

    /// The result of one task.
    pub(crate) async fn result(
        &self,
        id: &WorkflowId,
        index: u32,
    ) -> Answer<Option<Arc<serde_json::Value>>> {
        let [first, second] = match self.backend {
            DbBackend::Postgres => ["$1", "$2"],
            _ => ["?", "?"],
        };
        // One statement for row and blob: a deletion between two would look like a lost blob.
        let text = format!(
            "SELECT t.result, t.result_blob, b.body FROM gleitzeit_workflows w \
             JOIN gleitzeit_tasks t ON t.workflow_key = w.key \
             LEFT JOIN gleitzeit_blobs b ON b.hash = t.result_blob \
             WHERE w.id = {first} AND t.position = {second}"
        );
        let values = [escape(id.as_str()).into_owned().into(), i64::from(index).into()];
        let select = Statement::from_sql_and_values(self.backend, text, values);
        let Some(row) = self.db().query_one_raw(select).await? else { return Ok(None) };
        let inline: Option<String> = row.try_get_by_index(0)?;
        let hash: Option<Vec<u8>> = row.try_get_by_index(1)?;
        let body: Option<String> = row.try_get_by_index(2)?;
        // Before the parse: the row holds a second copy of the text.
        drop(row);
        let result = match (inline.or(body), hash) {
            (Some(text), _) => parse(&text).map(|result| Some(Arc::new(result))),
            (None, None) => Ok(None),
            (None, Some(hash)) => Err(lacking(&hash)),
        };
        result.map_err(|error| naming(id.as_str(), error))
    }
}

/// Selects rows of tasks; those of an outline without long results, which the database then does not
/// send.
pub(super) fn tasks_of(extent: Extent) -> Select<task::Entity> {
    let whole = task::Entity::find();
    if extent == Extent::Whole {
        return whole;
    }
    task::Column::iter().fold(whole.select_only(), |select, column| match column {
        task::Column::Result => select
            .expr(Expr::cust(format!("CASE WHEN length(result) <= {OUTLINE_MAX} THEN result END"))),
        column => select.column(column),
    })
}
