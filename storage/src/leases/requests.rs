//! The statements about requests to the process that runs a workflow.

use gleitzeit_domain::{
    id::WorkflowId,
    store::{StoreError, lease::RequestKey},
};
use sea_orm::ConnectionTrait;

use super::sql::statement;
use crate::{encode, fault::RequestError, machine_clock::machine_now};

/// The key of a request to every process; no workflow has it.
pub(crate) const TO_ALL: i64 = 0;

/// The column of a key; one above the range of the column names no request.
pub(crate) fn column(key: RequestKey) -> i64 {
    i64::try_from(key.0).unwrap_or(i64::MAX)
}

/// Inserts a request about a workflow.
pub(crate) async fn ask<C: ConnectionTrait>(
    db: &C,
    workflow: &WorkflowId,
    body: &str,
) -> Result<RequestKey, RequestError> {
    // From the row of the workflow: a request about a deleted one inserts nothing, and is rejected.
    let insert = "INSERT INTO gleitzeit_requests (workflow_key, body, created_at) \
                  SELECT key, $2, $3 FROM gleitzeit_workflows WHERE id = $1 RETURNING key";
    let values =
        [encode::text(workflow.as_str()), body.into(), machine_now().timestamp_micros().into()];
    let Some(row) = db.query_one_raw(statement(db, insert, values)).await? else {
        let detail = format!("no workflow has the id `{workflow}`");
        return Err(StoreError::Integrity { detail }.into());
    };
    let key: i64 = row.try_get_by_index(0)?;
    Ok(RequestKey(encode::count_of(key)?))
}

/// Inserts a request to every process.
pub(crate) async fn ask_all<C: ConnectionTrait>(
    db: &C,
    body: &str,
) -> Result<RequestKey, RequestError> {
    let insert = "INSERT INTO gleitzeit_requests (workflow_key, body, created_at) \
                  VALUES ($1, $2, $3) RETURNING key";
    let values = [TO_ALL.into(), body.into(), machine_now().timestamp_micros().into()];
    let row = db.query_one_raw(statement(db, insert, values)).await?;
    let row = row.ok_or_else(|| StoreError::Integrity {
        detail: "the database returned no key".to_owned(),
    })?;
    let key: i64 = row.try_get_by_index(0)?;
    Ok(RequestKey(encode::count_of(key)?))
}

/// Stores an answer, unless there is one: a repeated one must not replace the first.
pub(crate) async fn answer<C: ConnectionTrait>(
    db: &C,
    key: RequestKey,
    answer: &str,
) -> Result<(), RequestError> {
    // The first answer wins: its process has carried out the command, and a repeated one finds it
    // done.
    let update = "UPDATE gleitzeit_requests SET answer = $2 WHERE key = $1 AND answer IS NULL";
    db.execute_raw(statement(db, update, [column(key).into(), answer.into()])).await?;
    Ok(())
}

/// Deletes a request.
pub(crate) async fn forget<C: ConnectionTrait>(
    db: &C,
    key: RequestKey,
) -> Result<(), sea_orm::DbErr> {
    let delete = "DELETE FROM gleitzeit_requests WHERE key = $1";
    db.execute_raw(statement(db, delete, [column(key).into()])).await?;
    Ok(())
}
