//! Deletes the needs without a workflow.
//!
//! Runs beside the [`writer`](super::writer), after workflows were deleted. It finds needs without a
//! workflow on a reading connection, because that may scan all workflows; the writer deletes them
//! after a check of the workflows added since.
//!
//! Another process may cache needs as stored that are deleted here, and then submit a workflow with
//! their hash. Every process may claim such a workflow (`leases::fit`), like one without recorded
//! needs; a process that cannot run it releases it.

use std::{sync::Arc, time::Duration};

use gleitzeit_domain::{needs::Needs, store::StoreError};
use sea_orm::{ConnectionTrait, DbErr, Statement};
use tokio::sync::{Notify, mpsc};

use super::{
    encode,
    fault::ReadError,
    queue::{Request, UnusedNeeds},
    read::Reader,
};

/// The pause between two searches: needs are few and small.
const PAUSE: Duration = Duration::from_hours(1);

/// Upper limit of the needs deleted at a time.
const REMOVED_MAX: i64 = 500;

/// Runs until the writer ends.
pub(super) async fn keep_used(
    reader: Arc<Reader>,
    writer: mpsc::WeakUnboundedSender<Request>,
    pruned: Arc<Notify>,
) {
    loop {
        pruned.notified().await;
        match find(&reader).await {
            Ok(unused) if unused.hashes.is_empty() => {}
            Ok(unused) => {
                // A weak sender: a strong one would keep the writer running after the store was
                // dropped.
                let Some(writer) = writer.upgrade() else { return };
                if writer.send(Request::DeleteNeeds(unused)).is_err() {
                    return;
                }
            }
            Err(ReadError(error)) => {
                tracing::warn!(%error, "search for unused needs failed");
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn find(reader: &Reader) -> Result<UnusedNeeds, ReadError> {
    let snapshot = reader.snapshot().await?;
    let backend = snapshot.get_database_backend();
    // In the same snapshot as the needs: the deletion checks the workflows after this one, and a
    // gap between the two would hide a workflow from both.
    let newest = "SELECT COALESCE(MAX(key), 0) FROM gleitzeit_workflows";
    let newest = snapshot.query_one_raw(Statement::from_string(backend, newest)).await?;
    let newest = newest.map_or(Ok(0), |row| row.try_get_by_index(0))?;
    let unused = format!(
        "SELECT hash FROM gleitzeit_needs WHERE NOT EXISTS \
         (SELECT 1 FROM gleitzeit_workflows WHERE needs = hash) LIMIT {REMOVED_MAX}"
    );
    let rows = snapshot.query_all_raw(Statement::from_string(backend, unused)).await?;
    let hashes: Result<Vec<i64>, DbErr> = rows.iter().map(|row| row.try_get_by_index(0)).collect();
    let unused = UnusedNeeds { hashes: hashes?, newest };
    snapshot.commit().await?;
    Ok(unused)
}

/// Deletes the needs that no newer workflow has.
pub(super) async fn remove<C: ConnectionTrait>(db: &C, unused: &UnusedNeeds) -> Result<(), DbErr> {
    for hash in &unused.hashes {
        let delete = "DELETE FROM gleitzeit_needs WHERE hash = $1 AND NOT EXISTS \
                      (SELECT 1 FROM gleitzeit_workflows WHERE key > $2 AND needs = $1)";
        let values = [(*hash).into(), unused.newest.into()];
        let backend = db.get_database_backend();
        db.execute_raw(Statement::from_sql_and_values(backend, delete, values)).await?;
    }
    Ok(())
}

/// The needs of a hash; empty if none are stored.
pub(super) async fn of_hash<C: ConnectionTrait>(db: &C, hash: i64) -> Result<Needs, DbErr> {
    let select = "SELECT body FROM gleitzeit_needs WHERE hash = $1";
    let select = Statement::from_sql_and_values(db.get_database_backend(), select, [hash.into()]);
    let Some(row) = db.query_one_raw(select).await? else { return Ok(Needs::default()) };
    let body: String = row.try_get_by_index(0)?;
    Ok(encode::needs_of(&body))
}

/// Logs a failed deletion; the next search finds the same needs again.
pub(super) fn report(removed: Result<(), StoreError>) {
    if let Err(error) = removed {
        tracing::warn!(%error, "deletion of unused needs failed");
    }
}
