//! Deletes settled workflows in batches, with the rows and blobs that only they refer to.
//!
//! The [`writer`](super) deletes one batch between two groups, so that a submission waits for one
//! batch at most; batches are small if few workflows are submitted.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use gleitzeit_domain::{id::WorkflowId, workflow::WorkflowStatus};
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, DbBackend, DbErr, EntityTrait as _, QueryFilter as _,
    QueryOrder as _, QuerySelect as _, Select,
    sea_query::{LockBehavior, LockType, Query},
};

use crate::{
    encode::unescape,
    entity::{blob, event, request, task, workflow},
};

/// Workflows of one batch, unless more than half of that are added between two batches.
const WORKFLOWS: u64 = 256;

/// Upper limit of the workflows of one batch.
const WORKFLOWS_MAX: u64 = 2_048;

/// Upper limit of the tasks of one batch, unless a single workflow has more.
const TASKS_MAX: i64 = 5_000;

/// Blobs of one statement, which has three parameters for each.
const BLOBS_MAX: usize = 1_000;

/// The key of the advisory lock between the insert of blobs and their deletion on PostgreSQL.
/// SQLite needs none: it has one writer at a time.
const BLOB_LOCK: i64 = 0x676c_6569_7462_6c6f;

/// Keeps other processes from deleting blobs until the transaction ends: a blob that exists, and to
/// which this transaction adds the only reference, is unused for all others until then.
pub(super) async fn keep_blobs<C: ConnectionTrait>(db: &C) -> Result<(), DbErr> {
    lock_blobs(db, "pg_advisory_xact_lock_shared").await
}

async fn lock_blobs<C: ConnectionTrait>(db: &C, lock: &str) -> Result<(), DbErr> {
    if db.get_database_backend() == DbBackend::Postgres {
        db.execute_unprepared(&format!("SELECT {lock}({BLOB_LOCK})")).await?;
    }
    Ok(())
}

/// The result of one batch.
#[derive(Debug, Default)]
pub(super) struct Pruned {
    pub(super) ids: Vec<WorkflowId>,
    /// True if there may be more to delete.
    pub(super) more: bool,
}

/// Deletes one batch of at most `limit` workflows. `added` counts the workflows submitted since the
/// last batch: a batch deletes twice as many, so that the backlog shrinks under load.
pub(super) async fn batch<C: ConnectionTrait>(
    db: &C,
    before: Option<DateTime<Utc>>,
    limit: usize,
    added: u64,
) -> Result<Pruned, DbErr> {
    // At least one batch of the usual size: without new workflows a backlog would otherwise never
    // shrink.
    let wanted = added.saturating_mul(2).clamp(WORKFLOWS, WORKFLOWS_MAX).min(limit as u64);
    let found = match before {
        Some(before) => settled_before(db, before, wanted).await?,
        None => oldest(db, wanted).await?,
    };
    let mut tasks = 0;
    let mut keys = Vec::new();
    let mut pruned = Pruned { ids: Vec::new(), more: found.len() as u64 == wanted };
    for (key, id, task_count) in found {
        // Not for the first one: a workflow above the limit would never be deleted.
        if !keys.is_empty() && i64::saturating_add(tasks, task_count) > TASKS_MAX {
            pruned.more = true;
            break;
        }
        tasks = i64::saturating_add(tasks, task_count);
        keys.push(key);
        pruned.ids.push(WorkflowId::from(unescape(id)));
    }
    if !keys.is_empty() {
        gleitzeit_failpoint::failpoint!("store.prune.found");
        remove(db, keys).await?;
    }
    Ok(pruned)
}

/// (key, id, number of tasks) of a workflow to delete.
type Found = (i64, String, i64);

/// Workflows that settled before a time.
async fn settled_before<C: ConnectionTrait>(
    db: &C,
    before: DateTime<Utc>,
    limit: u64,
) -> Result<Vec<Found>, DbErr> {
    let settled = WorkflowStatus::ALL.into_iter().filter(|status| status.is_settled());
    let found = workflow::Entity::find()
        .select_only()
        .columns([workflow::Column::Key, workflow::Column::Id, workflow::Column::TaskCount])
        .filter(workflow::Column::Status.is_in(settled.map(WorkflowStatus::as_str)))
        .filter(workflow::Column::CompletedAt.lt(before.timestamp_micros()))
        .limit(limit);
    locked(db, found).into_tuple().all(db).await
}

/// The workflows that settled first. One query for each status: the index on status and time then
/// returns them in order, and nothing is sorted.
async fn oldest<C: ConnectionTrait>(db: &C, limit: u64) -> Result<Vec<Found>, DbErr> {
    let mut all: Vec<(i64, i64, String, i64)> = Vec::new();
    for status in WorkflowStatus::ALL.into_iter().filter(|status| status.is_settled()) {
        let found = workflow::Entity::find()
            .select_only()
            .columns([
                workflow::Column::CompletedAt,
                workflow::Column::Key,
                workflow::Column::Id,
                workflow::Column::TaskCount,
            ])
            .filter(workflow::Column::Status.eq(status.as_str()))
            .filter(workflow::Column::CompletedAt.is_not_null())
            .order_by_asc(workflow::Column::CompletedAt)
            .limit(limit);
        all.append(&mut locked(db, found).into_tuple().all(db).await?);
    }
    all.sort_unstable();
    all.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(all.into_iter().map(|(_, key, id, task_count)| (key, id, task_count)).collect())
}

/// On a server, skips the workflows that another process is writing to or deleting: to wait for its
/// lock would delay every submission here.
fn locked<C: ConnectionTrait>(db: &C, found: Select<workflow::Entity>) -> Select<workflow::Entity> {
    match db.get_database_backend() {
        DbBackend::Postgres => found.lock_with_behavior(LockType::Update, LockBehavior::SkipLocked),
        _ => found,
    }
}

/// Deletes workflows with the rows and blobs that only they refer to.
pub(super) async fn remove<C: ConnectionTrait>(db: &C, keys: Vec<i64>) -> Result<(), DbErr> {
    // Before the rows that refer to them are gone.
    let blobs = blobs_of(db, &keys).await?;
    gleitzeit_failpoint::failpoint!("store.prune.referred");
    event::Entity::delete_many()
        .filter(event::Column::WorkflowKey.is_in(keys.iter().copied()))
        .exec(db)
        .await?;
    gleitzeit_failpoint::failpoint!("store.prune.events");
    task::Entity::delete_many()
        .filter(task::Column::WorkflowKey.is_in(keys.iter().copied()))
        .exec(db)
        .await?;
    request::Entity::delete_many()
        .filter(request::Column::WorkflowKey.is_in(keys.iter().copied()))
        .exec(db)
        .await?;
    gleitzeit_failpoint::failpoint!("store.prune.tasks");
    workflow::Entity::delete_many().filter(workflow::Column::Key.is_in(keys)).exec(db).await?;
    gleitzeit_failpoint::failpoint!("store.prune.workflows");
    if !blobs.is_empty() {
        lock_unused(db).await?;
        gleitzeit_failpoint::failpoint!("store.prune.locked");
    }
    let blobs: Vec<Vec<u8>> = blobs.into_iter().collect();
    // In chunks: SQLite takes 32,766 parameters in a statement.
    for some in blobs.chunks(BLOBS_MAX) {
        remove_unused(db, some).await?;
        gleitzeit_failpoint::failpoint!("store.prune.blobs");
    }
    Ok(())
}

/// Keeps others from writing blobs until the transaction ends: they could refer to one that is about
/// to be deleted.
pub(super) async fn lock_unused<C: ConnectionTrait>(db: &C) -> Result<(), DbErr> {
    if db.get_database_backend() == DbBackend::Postgres {
        // A host may hold the shared lock for as long as its transaction takes. Without the limit,
        // every write queued after this one would wait for that host.
        db.execute_unprepared("SET LOCAL lock_timeout = '1s'").await?;
    }
    lock_blobs(db, "pg_advisory_xact_lock").await
}

/// Deletes the blobs to which nothing refers.
pub(super) async fn remove_unused<C: ConnectionTrait>(
    db: &C,
    blobs: &[Vec<u8>],
) -> Result<(), DbErr> {
    let used_by_task = Query::select()
        .column(task::Column::ResultBlob)
        .from(task::Entity)
        .and_where(task::Column::ResultBlob.is_in(blobs.iter().cloned()))
        .to_owned();
    let used_by_workflow = Query::select()
        .column(workflow::Column::SpecBlob)
        .from(workflow::Entity)
        .and_where(workflow::Column::SpecBlob.is_in(blobs.iter().cloned()))
        .to_owned();
    blob::Entity::delete_many()
        .filter(blob::Column::Hash.is_in(blobs.iter().cloned()))
        .filter(blob::Column::Hash.not_in_subquery(used_by_task))
        .filter(blob::Column::Hash.not_in_subquery(used_by_workflow))
        .exec(db)
        .await?;
    Ok(())
}

/// The hashes of the blobs to which the workflows refer.
async fn blobs_of<C: ConnectionTrait>(db: &C, keys: &[i64]) -> Result<HashSet<Vec<u8>>, DbErr> {
    let specs: Vec<Vec<u8>> = workflow::Entity::find()
        .select_only()
        .column(workflow::Column::SpecBlob)
        .filter(workflow::Column::Key.is_in(keys.iter().copied()))
        .filter(workflow::Column::SpecBlob.is_not_null())
        .into_tuple()
        .all(db)
        .await?;
    let results: Vec<Vec<u8>> = task::Entity::find()
        .select_only()
        .column(task::Column::ResultBlob)
        .distinct()
        .filter(task::Column::WorkflowKey.is_in(keys.iter().copied()))
        .filter(task::Column::ResultBlob.is_not_null())
        .into_tuple()
        .all(db)
        .await?;
    Ok(specs.into_iter().chain(results).collect())
}
