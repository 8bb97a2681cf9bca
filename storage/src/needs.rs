//! Forgets the needs that no workflow has any more.
//!
//! Lives beside the [`writer`](super::writer), and is woken when workflows were forgotten. It looks
//! for needs without a workflow on a connection that reads, because that may take a look at every
//! workflow, and has the writer remove them, which looks at the workflows that came since.
//!
//! Another process may take needs for stored that are removed here, and write a workflow that bears
//! their hash. Such a workflow may be claimed by anybody (`leases::fit`), as one whose needs nobody
//! wrote down; so nothing is lost by it but a try.

use std::{sync::Arc, time::Duration};

use gleitzeit_domain::{needs::Needs, store::StoreError};
use sea_orm::{ConnectionTrait, DbErr, Statement};
use tokio::sync::{Notify, mpsc};

use super::{
    encode,
    read::{ReadError, Reader},
    writer::Request,
};

/// Between two looks: needs are few and small.
const PAUSE: Duration = Duration::from_hours(1);

/// Needs that are removed at a time.
const REMOVED_MAX: i64 = 500;

/// Needs without a workflow.
#[derive(Debug)]
pub(super) struct Unused {
    pub(super) hashes: Vec<i64>,
    /// The key of the newest workflow that was looked at.
    newest: i64,
}

/// Stays as long as there is a writer.
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
                let Some(writer) = writer.upgrade() else { return };
                if writer.send(Request::ForgetNeeds(unused)).is_err() {
                    return;
                }
            }
            Err(ReadError(error)) => {
                tracing::warn!(%error, "needs without a workflow were not found");
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn find(reader: &Reader) -> Result<Unused, ReadError> {
    let snapshot = reader.snapshot().await?;
    let backend = snapshot.get_database_backend();
    let newest = "SELECT COALESCE(MAX(key), 0) FROM gleitzeit_workflows";
    let newest = snapshot.query_one_raw(Statement::from_string(backend, newest)).await?;
    let newest = newest.map_or(Ok(0), |row| row.try_get_by_index(0))?;
    let unused = format!(
        "SELECT hash FROM gleitzeit_needs WHERE NOT EXISTS \
         (SELECT 1 FROM gleitzeit_workflows WHERE needs = hash) LIMIT {REMOVED_MAX}"
    );
    let rows = snapshot.query_all_raw(Statement::from_string(backend, unused)).await?;
    let hashes: Result<Vec<i64>, DbErr> = rows.iter().map(|row| row.try_get_by_index(0)).collect();
    let unused = Unused { hashes: hashes?, newest };
    snapshot.commit().await?;
    Ok(unused)
}

/// Removes needs that no workflow has got meanwhile.
pub(super) async fn remove<C: ConnectionTrait>(db: &C, unused: &Unused) -> Result<(), DbErr> {
    for hash in &unused.hashes {
        let delete = "DELETE FROM gleitzeit_needs WHERE hash = $1 AND NOT EXISTS \
                      (SELECT 1 FROM gleitzeit_workflows WHERE key > $2 AND needs = $1)";
        let values = [(*hash).into(), unused.newest.into()];
        let backend = db.get_database_backend();
        db.execute_raw(Statement::from_sql_and_values(backend, delete, values)).await?;
    }
    Ok(())
}

/// The needs of a hash; nothing where nobody wrote them down.
pub(super) async fn of_hash<C: ConnectionTrait>(db: &C, hash: i64) -> Result<Needs, DbErr> {
    let select = "SELECT body FROM gleitzeit_needs WHERE hash = $1";
    let select = Statement::from_sql_and_values(db.get_database_backend(), select, [hash.into()]);
    let Some(row) = db.query_one_raw(select).await? else { return Ok(Needs::default()) };
    let body: String = row.try_get_by_index(0)?;
    Ok(encode::needs_of(&body))
}

/// What was not removed is found again after the next forgetting.
pub(super) fn report(removed: Result<(), StoreError>) {
    if let Err(error) = removed {
        tracing::warn!(%error, "needs without a workflow were not forgotten");
    }
}
