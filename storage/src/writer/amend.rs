//! Changes what a settled workflow was submitted with, for a retry with other inputs.
//!
//! Asked by the [`writer`](super), between groups. The submission and the event that records
//! it are written together. A workflow that is not settled, or that a process has claimed to run it
//! again, is not changed: that process has the old submission in memory.

use gleitzeit_domain::{
    store::{Amendment, StoreError},
    workflow::WorkflowStatus,
};
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, EntityTrait as _,
    QueryFilter as _, QuerySelect as _, Statement, Value, sea_query::LockType,
};

use super::{Writer, prune};
use crate::{
    encode::{self, Blobs, escape},
    entity::workflow,
    leases::sql,
    notify,
};

/// What is written, encoded before the transaction begins.
struct Encoded {
    blobs: Blobs,
    spec: [Value; 2],
    /// `first_sequence, event_count, body`
    event: [Value; 3],
}

impl Writer {
    /// Writes an amendment; false if the workflow is not as it was when the amendment was made.
    pub(super) async fn amend(&mut self, amendment: &Amendment) -> Result<bool, StoreError> {
        let mut blobs = Blobs::default();
        let encoded = Encoded {
            spec: encode::spec(&amendment.spec, &mut blobs)?,
            event: encode::events(std::slice::from_ref(&amendment.event))?,
            blobs,
        };
        let amended =
            self.transact_alone(async |db, _| Ok(amend(db, amendment, &encoded).await?)).await?;
        self.forget_key(&amendment.id);
        Ok(amended)
    }
}

async fn amend(
    db: &DatabaseTransaction,
    amendment: &Amendment,
    encoded: &Encoded,
) -> Result<bool, DbErr> {
    let select =
        workflow::Entity::find().filter(workflow::Column::Id.eq(&*escape(amendment.id.as_str())));
    let select = match db.get_database_backend() {
        DbBackend::Postgres => select.lock(LockType::Update),
        _ => select,
    };
    let Some(row) = select.one(db).await? else { return Ok(false) };
    let is_settled = WorkflowStatus::from_name(&row.status).is_some_and(WorkflowStatus::is_settled);
    let is_next =
        u64::try_from(row.last_sequence).map(|last| last + 1) == Ok(amendment.event.sequence);
    let is_claimed = row.lease_epoch != 0 && sql::exists(db, row.lease_epoch).await?;
    if !is_settled || !is_next || is_claimed {
        return Ok(false);
    }
    let old: Vec<Vec<u8>> = row.spec_blob.into_iter().collect();
    if !old.is_empty() {
        prune::lock_unused(db).await?;
    } else if !encoded.blobs.is_empty() {
        prune::keep_blobs(db).await?;
    }
    for (hash, body) in &encoded.blobs {
        let insert =
            "INSERT INTO gleitzeit_blobs (hash, body) VALUES ($1, $2) ON CONFLICT DO NOTHING";
        execute(db, insert, vec![hash.to_vec().into(), body.as_str().into()]).await?;
    }
    let [spec, spec_blob] = encoded.spec.clone();
    let [first, count, body] = encoded.event.clone();
    let update = "UPDATE gleitzeit_workflows SET spec = $1, spec_blob = $2, last_sequence = $3 \
                  WHERE key = $4";
    execute(db, update, vec![spec, spec_blob, first.clone(), row.key.into()]).await?;
    let insert = "INSERT INTO gleitzeit_events (workflow_key, first_sequence, event_count, body) \
                  VALUES ($1, $2, $3, $4)";
    execute(db, insert, vec![row.key.into(), first, count, body]).await?;
    if !old.is_empty() {
        prune::remove_unused(db, &old).await?;
    }
    notify::notify_other_processes(db).await?;
    Ok(true)
}

async fn execute(db: &DatabaseTransaction, text: &str, values: Vec<Value>) -> Result<(), DbErr> {
    let statement = Statement::from_sql_and_values(db.get_database_backend(), text, values);
    db.execute_raw(statement).await.map(drop)
}
