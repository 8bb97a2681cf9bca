//! The statements about leases.
//!
//! The writer runs them within its transactions. Both databases differ in locks, and in the source
//! of the time.

mod workflows;

use std::time::Duration;

use gleitzeit_domain::{needs::Needs, store::Epoch};
use sea_orm::{ConnectionTrait, DbBackend, DbErr, Statement, Value};

use super::fit::Wanted;
use crate::{encode, server_clock::SERVER_NOW};

pub(crate) use workflows::{
    assign, claim, find, free, free_unfit, is_successor, keys_of, owned, release,
    release_workflows, still_inherited, transfer, transfers_to, workflows_of,
};

/// Unsettled workflows, in the very words of the partial indexes: in others the planner would not
/// use them.
const OPEN: &str = "status IN ('pending', 'running')";

/// Upper limit of a term, more than a hundred years: the sum with the time must fit in 64 bits.
const TERM_MAX: Duration = Duration::from_hours(1_000_000);

/// A row of a lease.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) epoch: Epoch,
    pub(crate) process: String,
    /// Microseconds until it expires; `None` for a lease that does not expire.
    pub(crate) left: Option<i64>,
    /// The time at which it expires, by the server's clock; each renewal changes it.
    pub(crate) until: Option<i64>,
}

/// The leases of one snapshot.
#[derive(Debug)]
pub(crate) struct LeaseRows {
    pub(crate) leases: Vec<Stored>,
    /// True if a claim would find a workflow; false without a lease.
    pub(crate) has_free: bool,
    /// A number that changes with the set of stored needs.
    pub(crate) needs: i64,
}

/// A lease that may be expired.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ExpiredLease {
    pub(crate) epoch: Epoch,
    /// True if its process is gone; else its term has ended, unless it was renewed meanwhile.
    pub(crate) is_gone: bool,
}

/// The column of an epoch; one above the range of the column names no lease.
pub(crate) fn column(epoch: Epoch) -> i64 {
    i64::try_from(epoch.0).unwrap_or(i64::MAX)
}

pub(crate) fn epoch_of(column: i64) -> Epoch {
    Epoch(u64::try_from(column).unwrap_or(0))
}

fn micros(term: Duration) -> i64 {
    i64::try_from(term.min(TERM_MAX).as_micros()).unwrap_or(i64::MAX)
}

fn is_server<C: ConnectionTrait>(db: &C) -> bool {
    db.get_database_backend() == DbBackend::Postgres
}

/// The table for a search of free workflows. Without the hint SQLite scans all unsettled workflows
/// by another index, and sorts them.
fn free_table<C: ConnectionTrait>(db: &C) -> &'static str {
    if is_server(db) {
        "gleitzeit_workflows"
    } else {
        "gleitzeit_workflows INDEXED BY gleitzeit_workflows_free"
    }
}

/// The same for a search by needs: a scan by key would pass all free workflows with other needs.
fn free_by_needs<C: ConnectionTrait>(db: &C) -> &'static str {
    if is_server(db) {
        "gleitzeit_workflows"
    } else {
        "gleitzeit_workflows INDEXED BY gleitzeit_workflows_free_by_needs"
    }
}

pub(crate) fn statement<C: ConnectionTrait, const N: usize>(
    db: &C,
    sql: impl Into<String>,
    values: [Value; N],
) -> Statement {
    Statement::from_sql_and_values(db.get_database_backend(), sql, values)
}

/// Inserts a lease; returns its epoch.
pub(crate) async fn open<C: ConnectionTrait>(
    db: &C,
    owner: &str,
    process: &str,
    term: Duration,
) -> Result<Epoch, DbErr> {
    // The server's clock: the processes of several machines compare the end with it, and theirs
    // differ.
    let until = if is_server(db) { format!("{SERVER_NOW} + $3") } else { "NULL".into() };
    let insert = format!(
        "INSERT INTO gleitzeit_leases (owner, process, until) VALUES ($1, $2, {until}) \
         RETURNING epoch"
    );
    let owner = crate::encode::text(owner);
    let insert = if is_server(db) {
        statement(db, insert, [owner, process.into(), micros(term).into()])
    } else {
        statement(db, insert, [owner, process.into()])
    };
    let row = db.query_one_raw(insert).await?;
    let row = row.ok_or_else(|| DbErr::RecordNotInserted)?;
    Ok(epoch_of(row.try_get_by_index(0)?))
}

/// The result of a renewal.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Renewed {
    /// True if the term had ended before the renewal: the lease owned nothing.
    pub(crate) had_expired: bool,
}

/// Renews a lease on a server; `None` if it is gone.
pub(crate) async fn renew<C: ConnectionTrait>(
    db: &C,
    epoch: Epoch,
    term: Duration,
) -> Result<Option<Renewed>, DbErr> {
    // One statement: the old end is read under the lock of the row. Read before it, an expiry could
    // come between the two.
    let update = format!(
        "WITH before AS (SELECT epoch, until <= {SERVER_NOW} AS had_expired \
         FROM gleitzeit_leases WHERE epoch = $1 FOR NO KEY UPDATE) \
         UPDATE gleitzeit_leases l SET until = {SERVER_NOW} + $2 FROM before \
         WHERE l.epoch = before.epoch RETURNING before.had_expired"
    );
    let update = statement(db, update, [column(epoch).into(), micros(term).into()]);
    let Some(row) = db.query_one_raw(update).await? else { return Ok(None) };
    let had_expired: Option<bool> = row.try_get_by_index(0)?;
    Ok(Some(Renewed { had_expired: had_expired.unwrap_or(false) }))
}

/// True if a lease owns an unsettled workflow, or has an inheritance.
pub(crate) async fn owns<C: ConnectionTrait>(db: &C, epoch: Epoch) -> Result<bool, DbErr> {
    let select = format!(
        "SELECT 1 WHERE EXISTS (SELECT 1 FROM gleitzeit_lease_transfers WHERE to_epoch = $1) \
         OR EXISTS (SELECT 1 FROM gleitzeit_workflows WHERE lease_epoch = $1 AND {OPEN})"
    );
    Ok(db.query_one_raw(statement(db, select, [column(epoch).into()])).await?.is_some())
}

/// True if a lease on a server exists; the row lock keeps it until the transaction ends.
pub(crate) async fn keep<C: ConnectionTrait>(db: &C, epoch: Epoch) -> Result<bool, DbErr> {
    // KEY SHARE: it blocks the deletion by `expire`, but not a renewal, nor other transactions of
    // the same lease.
    let select = "SELECT 1 FROM gleitzeit_leases WHERE epoch = $1 FOR KEY SHARE";
    let row = db.query_one_raw(statement(db, select, [column(epoch).into()])).await?;
    Ok(row.is_some())
}

/// True if a lease exists.
pub(crate) async fn exists<C: ConnectionTrait>(db: &C, epoch: i64) -> Result<bool, DbErr> {
    let select = "SELECT 1 FROM gleitzeit_leases WHERE epoch = $1";
    Ok(db.query_one_raw(statement(db, select, [epoch.into()])).await?.is_some())
}

/// Reads all leases, and whether a claim would find a workflow. Locks nothing.
pub(crate) async fn lease_rows<C: ConnectionTrait>(
    db: &C,
    wanted: &Wanted,
) -> Result<LeaseRows, DbErr> {
    let now = if is_server(db) { SERVER_NOW } else { "0" };
    let (table, condition) = if wanted.is_all() {
        (free_table(db), String::new())
    } else {
        (free_by_needs(db), wanted.by_needs())
    };
    let select = format!(
        "SELECT epoch, process, until - {now}, CASE WHEN EXISTS (SELECT 1 \
         FROM {table} WHERE lease_epoch = 0 AND {OPEN}{condition}) THEN 1 ELSE 0 END, \
         (SELECT CAST(COALESCE(SUM(hash & 4294967295), 0) + COUNT(*) AS BIGINT) \
         FROM gleitzeit_needs), until \
         FROM gleitzeit_leases ORDER BY epoch"
    );
    // One statement for all of it: a workflow that is freed between two queries would be missed by
    // both.
    let mut lease_rows = LeaseRows { leases: Vec::new(), has_free: false, needs: 0 };
    for row in db.query_all_raw(statement(db, select, [])).await? {
        lease_rows.has_free = row.try_get_by_index::<i32>(3)? != 0;
        lease_rows.needs = row.try_get_by_index(4)?;
        lease_rows.leases.push(Stored {
            epoch: epoch_of(row.try_get_by_index(0)?),
            process: row.try_get_by_index(1)?,
            left: row.try_get_by_index(2)?,
            until: row.try_get_by_index(5)?,
        });
    }
    Ok(lease_rows)
}

/// All stored needs, by hash.
pub(crate) async fn needs<C: ConnectionTrait>(db: &C) -> Result<Vec<(i64, Needs)>, DbErr> {
    let select = "SELECT hash, body FROM gleitzeit_needs";
    let mut all = Vec::new();
    for row in db.query_all_raw(statement(db, select, [])).await? {
        let body: String = row.try_get_by_index(1)?;
        all.push((row.try_get_by_index(0)?, encode::needs_of(&body)));
    }
    Ok(all)
}

/// The hashes of free workflows without stored needs. The recursion takes one index lookup for each
/// different hash, however many workflows are free.
pub(crate) async fn unknown_needs<C: ConnectionTrait>(db: &C) -> Result<Vec<i64>, DbErr> {
    let free = format!("{} WHERE lease_epoch = 0 AND {OPEN}", free_by_needs(db));
    let select = format!(
        "WITH RECURSIVE found(hash) AS (SELECT MIN(needs) FROM {free} \
         UNION ALL SELECT (SELECT MIN(needs) FROM {free} AND needs > found.hash) FROM found \
         WHERE found.hash IS NOT NULL) \
         SELECT hash FROM found WHERE hash <> 0 \
         AND NOT EXISTS (SELECT 1 FROM gleitzeit_needs n WHERE n.hash = found.hash)"
    );
    let rows = db.query_all_raw(statement(db, select, [])).await?;
    rows.iter().map(|row| row.try_get_by_index(0)).collect()
}

/// All leases with their owners, the oldest first. Locks nothing.
pub(crate) async fn owners<C: ConnectionTrait>(db: &C) -> Result<Vec<(Stored, String)>, DbErr> {
    let now = if is_server(db) { SERVER_NOW } else { "0" };
    let select =
        format!("SELECT epoch, process, until - {now}, owner FROM gleitzeit_leases ORDER BY epoch");
    let mut owners = Vec::new();
    for row in db.query_all_raw(statement(db, select, [])).await? {
        let stored = Stored {
            epoch: epoch_of(row.try_get_by_index(0)?),
            process: row.try_get_by_index(1)?,
            left: row.try_get_by_index(2)?,
            until: None,
        };
        owners.push((stored, row.try_get_by_index(3)?));
    }
    Ok(owners)
}

/// The lease that owns a workflow, by its escaped id, and its needs; the epoch is 0 if the workflow
/// is free or settled.
pub(crate) async fn standing<C: ConnectionTrait>(
    db: &C,
    id: &str,
) -> Result<Option<(Epoch, Needs)>, DbErr> {
    let select = format!(
        "SELECT CASE WHEN {OPEN} THEN COALESCE((SELECT to_epoch FROM gleitzeit_lease_transfers \
         WHERE from_epoch = lease_epoch), lease_epoch) ELSE 0 END, \
         (SELECT body FROM gleitzeit_needs WHERE hash = needs) \
         FROM gleitzeit_workflows WHERE id = $1"
    );
    let Some(row) = db.query_one_raw(statement(db, select, [id.into()])).await? else {
        return Ok(None);
    };
    let needs: Option<String> = row.try_get_by_index(1)?;
    let needs = needs.map(|body| encode::needs_of(&body)).unwrap_or_default();
    Ok(Some((epoch_of(row.try_get_by_index(0)?), needs)))
}

/// All leases with their owners and the numbers of their unsettled workflows. Locks nothing.
pub(crate) async fn holders<C: ConnectionTrait>(
    db: &C,
) -> Result<Vec<(Stored, String, i64)>, DbErr> {
    let now = if is_server(db) { SERVER_NOW } else { "0" };
    let select = format!(
        "SELECT l.epoch, l.process, l.until - {now}, l.owner, (SELECT COUNT(*) \
         FROM gleitzeit_workflows w WHERE w.{OPEN} AND (w.lease_epoch = l.epoch OR w.lease_epoch \
         IN (SELECT t.from_epoch FROM gleitzeit_lease_transfers t \
         WHERE t.to_epoch = l.epoch))), l.until \
         FROM gleitzeit_leases l ORDER BY l.epoch"
    );
    let mut holders = Vec::new();
    for row in db.query_all_raw(statement(db, select, [])).await? {
        let stored = Stored {
            epoch: epoch_of(row.try_get_by_index(0)?),
            process: row.try_get_by_index(1)?,
            left: row.try_get_by_index(2)?,
            until: row.try_get_by_index(5)?,
        };
        holders.push((stored, row.try_get_by_index(3)?, row.try_get_by_index(4)?));
    }
    Ok(holders)
}

/// Deletes a lease; returns false if it did not exist.
pub(crate) async fn close<C: ConnectionTrait>(db: &C, epoch: Epoch) -> Result<bool, DbErr> {
    let delete = "DELETE FROM gleitzeit_leases WHERE epoch = $1";
    let ended = db.execute_raw(statement(db, delete, [column(epoch).into()])).await?;
    Ok(ended.rows_affected() > 0)
}

/// Deletes an expired lease; returns false if it was renewed, or if a transaction with its epoch is
/// running.
pub(crate) async fn expire<C: ConnectionTrait>(
    db: &C,
    expired: ExpiredLease,
) -> Result<bool, DbErr> {
    if !is_server(db) {
        return close(db, expired.epoch).await;
    }
    // SKIP LOCKED: a transaction of the lease holds its row. To wait for it would block this writer
    // behind a process that may have stopped.
    let delete = format!(
        "DELETE FROM gleitzeit_leases WHERE epoch IN (SELECT epoch FROM gleitzeit_leases \
         WHERE epoch = $1 AND ($2 OR until <= {SERVER_NOW}) FOR UPDATE SKIP LOCKED)"
    );
    let delete = statement(db, delete, [column(expired.epoch).into(), expired.is_gone.into()]);
    Ok(db.execute_raw(delete).await?.rows_affected() > 0)
}
