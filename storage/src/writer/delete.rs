//! Deletes single workflows by a person's word, with all that only they refer to.
//!
//! Asked by the [`writer`](super), between groups. What is not settled stays, and so does a
//! workflow that a process has claimed to run it again.

use std::collections::HashMap;

use gleitzeit_domain::{
    id::WorkflowId,
    store::{Deletion, StoreError},
    workflow::WorkflowStatus,
};
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, EntityTrait as _,
    QueryFilter as _, QueryOrder as _, QuerySelect as _, sea_query::LockType,
};

use super::{Writer, prune};
use crate::{encode::escape, entity::workflow, leases::sql, notify};

/// Ids of one statement.
const IDS_MAX: usize = 1_000;

impl Writer {
    /// Deletes what may go, in one transaction.
    pub(super) async fn delete(&mut self, ids: &[WorkflowId]) -> Result<Vec<Deletion>, StoreError> {
        let answers = self.transact_alone(async |db, _| Ok(delete(db, ids).await?)).await?;
        for id in ids {
            self.forget_key(id);
        }
        self.note_removed();
        Ok(answers)
    }
}

async fn delete(db: &DatabaseTransaction, ids: &[WorkflowId]) -> Result<Vec<Deletion>, DbErr> {
    let escaped: Vec<String> = ids.iter().map(|id| escape(id.as_str()).into_owned()).collect();
    let mut found = HashMap::with_capacity(ids.len());
    for some in escaped.chunks(IDS_MAX) {
        for (id, key, status, epoch) in rows(db, some).await? {
            let status = WorkflowStatus::from_name(&status);
            let is_settled = status.is_some_and(WorkflowStatus::is_settled);
            // A lease of a settled workflow is that of a process that is about to run it again.
            let may_go = is_settled && (epoch == 0 || !sql::exists(db, epoch).await?);
            found.insert(id, may_go.then_some(key));
        }
    }
    let keys: Vec<i64> = found.values().copied().flatten().collect();
    if !keys.is_empty() {
        prune::remove(db, keys).await?;
        notify::notify_other_processes(db).await?;
    }
    let answer = |id: &String| match found.get(id) {
        None => Deletion::Unknown,
        Some(None) => Deletion::Unsettled,
        Some(Some(_)) => Deletion::Deleted,
    };
    Ok(escaped.iter().map(answer).collect())
}

/// Id, key, status and lease of a workflow.
type Found = (String, i64, String, i64);

/// In the order of their keys, for two deletions must not wait for each other.
async fn rows<C: ConnectionTrait>(db: &C, ids: &[String]) -> Result<Vec<Found>, DbErr> {
    use workflow::Column;
    let select = workflow::Entity::find()
        .select_only()
        .columns([Column::Id, Column::Key, Column::Status, Column::LeaseEpoch])
        .filter(Column::Id.is_in(ids.iter().map(String::as_str)))
        .order_by_asc(Column::Key);
    let select = match db.get_database_backend() {
        DbBackend::Postgres => select.lock(LockType::Update),
        _ => select,
    };
    select.into_tuple().all(db).await
}
