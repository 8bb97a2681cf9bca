//! The status of a database: its schema, its contents, its size, and the leases on it.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use gleitzeit_domain::{id::WorkflowId, store::StoreError, workflow::WorkflowStatus};
use sea_orm::{DatabaseTransaction, DbErr};
use serde::Serialize;

use super::{Holder, OpenDatabase, number, of_read, product, rows, size};
use crate::{
    StoreUrl,
    encode::{self, time_of},
    leases,
    open::Role,
    read,
};

/// The status of a database.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// The URL without the password.
    pub url: String,
    /// `SQLite 3.50.1`, `PostgreSQL 15.2`.
    pub database: String,
    /// Its schema.
    pub schema: SchemaStatus,
    /// Its size on disk.
    pub size: Size,
    /// Its contents; `None` if its schema is not the one of this program.
    pub contents: Option<Contents>,
}

/// The schema of a database, compared with that of this program.
#[derive(Debug, Clone, Serialize)]
pub struct SchemaStatus {
    /// The last applied migration; `None` in a database without tables of gleitzeit.
    pub version: Option<String>,
    /// The applied migrations of this program, in order.
    pub applied: Vec<String>,
    /// The migrations that `migrate`, or the next start of a store, would apply.
    pub pending: Vec<String>,
    /// Applied migrations of a newer program.
    pub newer: Vec<String>,
}

/// The size of a database on disk, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Size {
    /// On SQLite the file; on PostgreSQL the tables, with their indexes.
    pub bytes: u64,
    /// On SQLite: the log beside the file.
    pub log_bytes: Option<u64>,
    /// On SQLite: unused pages of the file, which `vacuum` would remove.
    pub unused_bytes: Option<u64>,
    /// On PostgreSQL: each table with its indexes.
    pub tables: BTreeMap<String, u64>,
}

/// The contents of a database.
#[derive(Debug, Clone, Serialize)]
pub struct Contents {
    /// Workflows by status; every status has an entry.
    pub workflows: BTreeMap<String, u64>,
    /// Tasks of all workflows.
    pub tasks: u64,
    /// Unsettled workflows without a lease: they wait for a claim.
    pub unowned: u64,
    /// Large payloads.
    pub blobs: u64,
    /// Unanswered requests to processes.
    pub requests: u64,
    /// The times of submission of the unsettled workflows.
    pub unsettled: Option<Span>,
    /// The times at which the settled workflows settled.
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

/// Reads the status of a database with any schema; its contents from one snapshot.
///
/// # Errors
/// [`StoreError::Open`] if there is no such database, [`StoreError::Unavailable`] if it cannot be
/// reached, [`StoreError::Read`].
pub async fn status(url: &StoreUrl) -> Result<Status, StoreError> {
    let database = OpenDatabase::open(url, Role::Inspect).await?;
    let status = collect(&database).await.map_err(of_read);
    database.close().await;
    status
}

/// The lease that owns a workflow; `None` if there is no such workflow, or it has no owner. Locks
/// nothing: the answer may be outdated when the caller gets it.
///
/// # Errors
/// As [`status`].
pub async fn holder(url: &StoreUrl, id: &WorkflowId) -> Result<Option<Holder>, StoreError> {
    let database = OpenDatabase::open(url, Role::Inspect).await?;
    let holder = holder_of(&database, id).await.map_err(of_read);
    database.close().await;
    holder
}

async fn holder_of(database: &OpenDatabase, id: &WorkflowId) -> Result<Option<Holder>, DbErr> {
    let snapshot = read::snapshot(&database.db).await?;
    let sql = "SELECT COALESCE((SELECT to_epoch FROM gleitzeit_lease_transfers \
               WHERE from_epoch = lease_epoch), lease_epoch) FROM gleitzeit_workflows WHERE id = $1";
    let found = rows(&snapshot, sql, vec![encode::text(id.as_str())]).await?;
    let owner: Option<i64> = found.first().map(|row| row.try_get_by_index(0)).transpose()?;
    let leases = leases::holders(&snapshot, &database.location).await?;
    snapshot.commit().await?;
    Ok(leases.into_iter().find(|holder| owner.map(count) == Some(holder.epoch.0)))
}

async fn collect(database: &OpenDatabase) -> Result<Status, DbErr> {
    let schema = crate::migrate::inspect(&database.db).await?;
    // Only with a current schema: the queries name columns that an older one lacks.
    let contents = if schema.is_current() {
        let snapshot = read::snapshot(&database.db).await?;
        let contents = contents(&snapshot, database).await?;
        snapshot.commit().await?;
        Some(contents)
    } else {
        None
    };
    let applied = schema.steps.iter().filter(|step| step.applied);
    Ok(Status {
        url: database.name.clone(),
        database: product(&database.db).await?,
        size: size(&database.db, &database.location).await?,
        contents,
        schema: SchemaStatus {
            version: schema.version().map(str::to_owned),
            applied: applied.map(|step| step.name.clone()).collect(),
            pending: schema.pending().into_iter().map(str::to_owned).collect(),
            newer: schema.newer,
        },
    })
}

async fn contents(db: &DatabaseTransaction, database: &OpenDatabase) -> Result<Contents, DbErr> {
    let known = WorkflowStatus::ALL.map(|status| (status.as_str().to_owned(), 0));
    let mut workflows = BTreeMap::from(known);
    let mut tasks = 0;
    // CAST: PostgreSQL sums integers as NUMERIC, which is not decoded as an integer.
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
        leases: leases::holders(db, &database.location).await?,
    })
}

/// The least and the greatest time in a column of some workflows.
async fn span(db: &DatabaseTransaction, column: &str, of: &str) -> Result<Option<Span>, DbErr> {
    let select = format!("SELECT MIN({column}), MAX({column}) FROM gleitzeit_workflows WHERE {of}");
    let found = rows(db, select, Vec::new()).await?;
    let Some(row) = found.first() else { return Ok(None) };
    let ends: (Option<i64>, Option<i64>) = (row.try_get_by_index(0)?, row.try_get_by_index(1)?);
    // An invalid time is a finding of `check`, not an error here.
    let time = |micros: Option<i64>| micros.and_then(|micros| time_of(micros).ok());
    Ok(time(ends.0).zip(time(ends.1)).map(|(oldest, newest)| Span { oldest, newest }))
}

fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
