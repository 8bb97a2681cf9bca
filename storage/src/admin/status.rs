//! What is in a database: its schema, how many of what, how large, and who works on it.

use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, Utc};
use gleitzeit_domain::{
    id::WorkflowId,
    store::{Epoch, StoreError},
    workflow::WorkflowStatus,
};
use sea_orm::{DatabaseTransaction, DbErr};
use serde::{Serialize, Serializer};

use super::{Place, number, of_read, product, rows, size};
use crate::{
    StoreUrl,
    encode::{self, time_of},
    leases,
    open::Use,
    read,
};

/// What is in a database.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// Where it is, without the password.
    pub url: String,
    /// `SQLite 3.50.1`, `PostgreSQL 15.2`.
    pub database: String,
    /// Its schema.
    pub schema: SchemaStatus,
    /// What it takes on disk.
    pub size: Size,
    /// What it holds; `None` where its schema is not the one that this program reads.
    pub contents: Option<Contents>,
}

/// The schema of a database, beside the one that this program knows.
#[derive(Debug, Clone, Serialize)]
pub struct SchemaStatus {
    /// The last migration that was applied; `None` in a database that has no tables of gleitzeit.
    pub version: Option<String>,
    /// The migrations of this program that were applied, in order.
    pub applied: Vec<String>,
    /// Those that `migrate`, or the next start of a store, would apply.
    pub pending: Vec<String>,
    /// Those that this program does not know: a newer one made them.
    pub newer: Vec<String>,
}

/// What a database takes on disk, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Size {
    /// On SQLite the file; on PostgreSQL the tables, with their indexes.
    pub bytes: u64,
    /// On SQLite: the log beside the file.
    pub log_bytes: Option<u64>,
    /// On SQLite: pages of the file that hold nothing, and would be given back by `vacuum`.
    pub unused_bytes: Option<u64>,
    /// On PostgreSQL: each table with its indexes.
    pub tables: BTreeMap<String, u64>,
}

/// What a database holds.
#[derive(Debug, Clone, Serialize)]
pub struct Contents {
    /// Workflows by status, every status named.
    pub workflows: BTreeMap<String, u64>,
    /// Tasks of all workflows.
    pub tasks: u64,
    /// Workflows that are not settled and belong to no process: they wait to be claimed.
    pub unowned: u64,
    /// Large payloads that are kept by themselves.
    pub blobs: u64,
    /// Requests to processes that are not answered yet.
    pub requests: u64,
    /// When the workflows that are not settled were submitted.
    pub unsettled: Option<Span>,
    /// When those that are settled did.
    pub settled: Option<Span>,
    /// The leases of processes, the oldest first.
    pub leases: Vec<Holder>,
}

/// From the oldest to the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Span {
    /// The oldest.
    pub oldest: DateTime<Utc>,
    /// The newest.
    pub newest: DateTime<Utc>,
}

/// A process that holds a lease, or did until it died.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Holder {
    /// The lease.
    pub epoch: Epoch,
    /// What the process calls itself.
    pub owner: String,
    /// Its number on the machine that it runs on, where it is told.
    pub process_id: Option<i32>,
    /// False when it has ended, or has not renewed its lease in time: whoever looks for work next
    /// takes over what it owns.
    pub is_alive: bool,
    /// True when it has run out and owns nothing: its process has no work, and renews it when it
    /// has some; or it has ended on another machine, where nobody here sees it.
    pub is_idle: bool,
    /// When the lease runs out unless it is renewed, in seconds; `None` where it lives as long as
    /// its process.
    #[serde(serialize_with = "seconds")]
    pub runs_out_in: Option<Duration>,
    /// Workflows that it owns and that are not settled.
    pub workflows: u64,
}

#[expect(clippy::ref_option, reason = "as serde calls it")]
fn seconds<S: Serializer>(span: &Option<Duration>, out: S) -> Result<S::Ok, S::Error> {
    span.map(|span| span.as_secs_f64()).serialize(out)
}

/// Looks into a database, whatever its schema is; all that it holds as of one moment.
///
/// # Errors
/// [`StoreError::Open`] where there is no such database, [`StoreError::Unavailable`] where it
/// cannot be reached, [`StoreError::Read`].
pub async fn status(url: &StoreUrl) -> Result<Status, StoreError> {
    let place = Place::open(url, Use::Inspect).await?;
    let status = look(&place).await.map_err(of_read);
    place.close().await;
    status
}

/// The lease that owns a workflow; `None` where there is no such workflow, or nobody owns it. Locks
/// nothing, and may be of the past when it is told.
///
/// # Errors
/// As [`status`].
pub async fn holder(url: &StoreUrl, id: &WorkflowId) -> Result<Option<Holder>, StoreError> {
    let place = Place::open(url, Use::Inspect).await?;
    let holder = holder_of(&place, id).await.map_err(of_read);
    place.close().await;
    holder
}

async fn holder_of(place: &Place, id: &WorkflowId) -> Result<Option<Holder>, DbErr> {
    let snapshot = read::snapshot(&place.db).await?;
    let sql = "SELECT COALESCE((SELECT to_epoch FROM gleitzeit_lease_transfers WHERE from_epoch = lease_epoch), \
               lease_epoch) FROM gleitzeit_workflows WHERE id = $1";
    let found = rows(&snapshot, sql, vec![encode::text(id.as_str())]).await?;
    let owner: Option<i64> = found.first().map(|row| row.try_get_by_index(0)).transpose()?;
    let leases = leases::look(&snapshot, &place.location).await?;
    snapshot.commit().await?;
    Ok(leases.into_iter().find(|holder| owner.map(count) == Some(holder.epoch.0)))
}

async fn look(place: &Place) -> Result<Status, DbErr> {
    let schema = gleitzeit_migrations::look(&place.db).await?;
    let contents = if schema.is_current() {
        let snapshot = read::snapshot(&place.db).await?;
        let contents = contents(&snapshot, place).await?;
        snapshot.commit().await?;
        Some(contents)
    } else {
        None
    };
    let applied = schema.steps.iter().filter(|step| step.applied);
    Ok(Status {
        url: place.name.clone(),
        database: product(&place.db).await?,
        size: size(&place.db, &place.location).await?,
        contents,
        schema: SchemaStatus {
            version: schema.version().map(str::to_owned),
            applied: applied.map(|step| step.name.clone()).collect(),
            pending: schema.pending().into_iter().map(str::to_owned).collect(),
            newer: schema.newer,
        },
    })
}

async fn contents(db: &DatabaseTransaction, place: &Place) -> Result<Contents, DbErr> {
    let known = WorkflowStatus::ALL.map(|status| (status.as_str().to_owned(), 0));
    let mut workflows = BTreeMap::from(known);
    let mut tasks = 0;
    let by_status = "SELECT status, COUNT(*), CAST(SUM(task_count) AS BIGINT) \
                     FROM gleitzeit_workflows GROUP BY status";
    for row in rows(db, by_status, Vec::new()).await? {
        workflows.insert(row.try_get_by_index(0)?, count(row.try_get_by_index(1)?));
        tasks += count(row.try_get_by_index(2)?);
    }
    let open = "status IN ('pending', 'running')";
    let ask = async |sql: &str| number(db, sql).await.map(count);
    Ok(Contents {
        workflows,
        tasks,
        unowned: ask(&format!(
            "SELECT COUNT(*) FROM gleitzeit_workflows WHERE lease_epoch = 0 AND {open}"
        ))
        .await?,
        blobs: ask("SELECT COUNT(*) FROM gleitzeit_blobs").await?,
        requests: ask("SELECT COUNT(*) FROM gleitzeit_requests WHERE answer IS NULL").await?,
        unsettled: span(db, "created_at", open).await?,
        settled: span(db, "completed_at", "status NOT IN ('pending', 'running')").await?,
        leases: leases::look(db, &place.location).await?,
    })
}

/// The least and the greatest time in a column of some workflows.
async fn span(db: &DatabaseTransaction, column: &str, of: &str) -> Result<Option<Span>, DbErr> {
    let select = format!("SELECT MIN({column}), MAX({column}) FROM gleitzeit_workflows WHERE {of}");
    let found = rows(db, select, Vec::new()).await?;
    let Some(row) = found.first() else { return Ok(None) };
    let ends: (Option<i64>, Option<i64>) = (row.try_get_by_index(0)?, row.try_get_by_index(1)?);
    // What is no time is for `check` to tell.
    let time = |micros: Option<i64>| micros.and_then(|micros| time_of(micros).ok());
    Ok(time(ends.0).zip(time(ends.1)).map(|(oldest, newest)| Span { oldest, newest }))
}

fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
