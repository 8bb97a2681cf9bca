//! The statements about leases.
//!
//! Asked by the writer within its transactions. The texts of both databases differ in locks, and in
//! where the time comes from.

use std::{fmt::Write as _, sync::LazyLock, time::Duration};

use gleitzeit_domain::{needs::Needs, store::Epoch};
use sea_orm::{
    ConnectionTrait, DbBackend, DbErr, EntityTrait as _, IdenStatic as _, Iterable as _, Statement,
    Value,
};

use super::fit::{Wanted, list};
use crate::{encode, entity::workflow};

/// What is not settled. Written out, for the index over what is free names the same.
const OPEN: &str = "status IN ('pending', 'running')";

/// The server's time in microseconds.
pub(crate) const SERVER_NOW: &str = "(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::BIGINT";

/// The longest term that is counted: over a hundred years.
const TERM_MAX: Duration = Duration::from_hours(1_000_000);

/// Ids of one statement.
const IDS_MAX: usize = 256;

/// Workflows of one claim.
const CLAIM_MAX: usize = 1_000_000;

/// Workflows that one statement frees.
const FREED_AT_ONCE: u64 = 20_000;

/// What the lease of the first parameter owns: what bears its epoch, and what bears that of a lease
/// whose successor it is.
const OWNED: &str = "(lease_epoch = $1 OR lease_epoch IN (SELECT from_epoch FROM gleitzeit_lease_transfers WHERE to_epoch = $1))";

/// The latter alone.
const INHERITED: &str =
    "lease_epoch IN (SELECT from_epoch FROM gleitzeit_lease_transfers WHERE to_epoch = $1)";

/// All columns of a workflow.
static COLUMNS: LazyLock<String> = LazyLock::new(|| {
    let names: Vec<&str> = workflow::Column::iter().map(|column| column.as_str()).collect();
    names.join(", ")
});

/// A lease as it is stored.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) epoch: Epoch,
    pub(super) process: String,
    /// How long it is good for, in microseconds; `None` where it does not run out.
    pub(super) left: Option<i64>,
    /// When it runs out, by the server's clock; changes with each renewal.
    pub(super) until: Option<i64>,
}

/// What there is, seen at one moment.
#[derive(Debug)]
pub(super) struct LeaseRows {
    pub(super) leases: Vec<Stored>,
    /// True when there is something to claim; known only where there is a lease.
    pub(super) has_free: bool,
    /// Another number whenever other sets of needs are stored.
    pub(super) needs: i64,
}

/// A lease that may be ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dead {
    pub(super) epoch: Epoch,
    /// True when its process is gone; else its time has run out, unless it was renewed meanwhile.
    pub(super) is_gone: bool,
}

/// An epoch as a column; one that is too large names no lease.
pub(super) fn column(epoch: Epoch) -> i64 {
    i64::try_from(epoch.0).unwrap_or(i64::MAX)
}

pub(super) fn epoch_of(column: i64) -> Epoch {
    Epoch(u64::try_from(column).unwrap_or(0))
}

fn micros(term: Duration) -> i64 {
    i64::try_from(term.min(TERM_MAX).as_micros()).unwrap_or(i64::MAX)
}

fn is_server<C: ConnectionTrait>(db: &C) -> bool {
    db.get_database_backend() == DbBackend::Postgres
}

/// The table, to look for what is free there. SQLite would look through all that is not settled, and
/// sort it.
fn free_table<C: ConnectionTrait>(db: &C) -> &'static str {
    if is_server(db) {
        "gleitzeit_workflows"
    } else {
        "gleitzeit_workflows INDEXED BY gleitzeit_workflows_free"
    }
}

/// The same, where not all that is free is wanted: what is not may be much.
fn free_by_needs<C: ConnectionTrait>(db: &C) -> &'static str {
    if is_server(db) {
        "gleitzeit_workflows"
    } else {
        "gleitzeit_workflows INDEXED BY gleitzeit_workflows_free_by_needs"
    }
}

pub(super) fn statement<C: ConnectionTrait, const N: usize>(
    db: &C,
    sql: impl Into<String>,
    values: [Value; N],
) -> Statement {
    Statement::from_sql_and_values(db.get_database_backend(), sql, values)
}

/// Stores a lease; its epoch.
pub(super) async fn open<C: ConnectionTrait>(
    db: &C,
    owner: &str,
    process: &str,
    term: Duration,
) -> Result<Epoch, DbErr> {
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

/// A lease is good for another term.
#[derive(Debug, Clone, Copy)]
pub(super) struct Renewed {
    /// True when it was good no more: its process had owned nothing.
    pub(super) had_run_out: bool,
}

/// Moves the end of a lease on a server; `None` when it is gone.
pub(super) async fn renew<C: ConnectionTrait>(
    db: &C,
    epoch: Epoch,
    term: Duration,
) -> Result<Option<Renewed>, DbErr> {
    let update = format!(
        "WITH before AS (SELECT epoch, until <= {SERVER_NOW} AS had_run_out \
         FROM gleitzeit_leases WHERE epoch = $1 FOR NO KEY UPDATE) \
         UPDATE gleitzeit_leases l SET until = {SERVER_NOW} + $2 FROM before \
         WHERE l.epoch = before.epoch RETURNING before.had_run_out"
    );
    let update = statement(db, update, [column(epoch).into(), micros(term).into()]);
    let Some(row) = db.query_one_raw(update).await? else { return Ok(None) };
    let had_run_out: Option<bool> = row.try_get_by_index(0)?;
    Ok(Some(Renewed { had_run_out: had_run_out.unwrap_or(false) }))
}

/// True when a lease owns something that is not settled, or has inherited anything.
pub(super) async fn owns<C: ConnectionTrait>(db: &C, epoch: Epoch) -> Result<bool, DbErr> {
    let select = format!(
        "SELECT 1 WHERE EXISTS (SELECT 1 FROM gleitzeit_lease_transfers WHERE to_epoch = $1) \
         OR EXISTS (SELECT 1 FROM gleitzeit_workflows WHERE lease_epoch = $1 AND {OPEN})"
    );
    Ok(db.query_one_raw(statement(db, select, [column(epoch).into()])).await?.is_some())
}

/// Whether a lease on a server is there; it stays until the transaction ends.
pub(super) async fn keep<C: ConnectionTrait>(db: &C, epoch: Epoch) -> Result<bool, DbErr> {
    let select = "SELECT 1 FROM gleitzeit_leases WHERE epoch = $1 FOR KEY SHARE";
    let row = db.query_one_raw(statement(db, select, [column(epoch).into()])).await?;
    Ok(row.is_some())
}

/// Whether a lease is there.
pub(crate) async fn is_there<C: ConnectionTrait>(db: &C, epoch: i64) -> Result<bool, DbErr> {
    let select = "SELECT 1 FROM gleitzeit_leases WHERE epoch = $1";
    Ok(db.query_one_raw(statement(db, select, [epoch.into()])).await?.is_some())
}

/// Looks at all leases, and for something to claim. Locks nothing.
pub(super) async fn lease_rows<C: ConnectionTrait>(
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

/// All needs that are stored, by their hash.
pub(super) async fn needs<C: ConnectionTrait>(db: &C) -> Result<Vec<(i64, Needs)>, DbErr> {
    let select = "SELECT hash, body FROM gleitzeit_needs";
    let mut all = Vec::new();
    for row in db.query_all_raw(statement(db, select, [])).await? {
        let body: String = row.try_get_by_index(1)?;
        all.push((row.try_get_by_index(0)?, encode::needs_of(&body)));
    }
    Ok(all)
}

/// Hashes that free workflows bear, and for which no needs are stored. Costs a step for each set of
/// needs among what is free, however much that is.
pub(super) async fn unknown_needs<C: ConnectionTrait>(db: &C) -> Result<Vec<i64>, DbErr> {
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

/// Every lease with who holds it, the oldest first. Locks nothing.
pub(super) async fn owners<C: ConnectionTrait>(db: &C) -> Result<Vec<(Stored, String)>, DbErr> {
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

/// A workflow as it stands, by its escaped id: the epoch that it bears or whose successor owns it, 0 where
/// it is free or settled, and what it needs.
pub(super) async fn standing<C: ConnectionTrait>(
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

/// All leases, with who holds each and how many unsettled workflows it owns. Locks nothing.
pub(super) async fn holders<C: ConnectionTrait>(
    db: &C,
) -> Result<Vec<(Stored, String, i64)>, DbErr> {
    let now = if is_server(db) { SERVER_NOW } else { "0" };
    let select = format!(
        "SELECT l.epoch, l.process, l.until - {now}, l.owner, (SELECT COUNT(*) \
         FROM gleitzeit_workflows w WHERE w.{OPEN} AND (w.lease_epoch = l.epoch OR w.lease_epoch \
         IN (SELECT t.from_epoch FROM gleitzeit_lease_transfers t WHERE t.to_epoch = l.epoch))), l.until \
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

/// Ends a lease if it is there; whether it was.
pub(super) async fn close<C: ConnectionTrait>(db: &C, epoch: Epoch) -> Result<bool, DbErr> {
    let delete = "DELETE FROM gleitzeit_leases WHERE epoch = $1";
    let ended = db.execute_raw(statement(db, delete, [column(epoch).into()])).await?;
    Ok(ended.rows_affected() > 0)
}

/// Ends a dead lease; false when it lives on, or a transaction that bears it is under way.
pub(super) async fn end<C: ConnectionTrait>(db: &C, dead: Dead) -> Result<bool, DbErr> {
    if !is_server(db) {
        return close(db, dead.epoch).await;
    }
    let delete = format!(
        "DELETE FROM gleitzeit_leases WHERE epoch IN (SELECT epoch FROM gleitzeit_leases \
         WHERE epoch = $1 AND ($2 OR until <= {SERVER_NOW}) FOR UPDATE SKIP LOCKED)"
    );
    let delete = statement(db, delete, [column(dead.epoch).into(), dead.is_gone.into()]);
    Ok(db.execute_raw(delete).await?.rows_affected() > 0)
}

/// Frees what an ended lease owned; how many workflows. Some at a time: a statement over all of
/// them would take as long as there are many, and the connection is taken for lost by then.
///
/// `is_dead` where it was not given up in order: then what it owned bears its name on. What it had
/// inherited itself bears that of who died first.
pub(super) async fn free<C: ConnectionTrait>(
    db: &C,
    epoch: Epoch,
    is_dead: bool,
) -> Result<u64, DbErr> {
    let left_by = if is_dead {
        "lease_epoch"
    } else {
        "CASE WHEN lease_epoch = $1 THEN 0 ELSE lease_epoch END"
    };
    let update = format!(
        "UPDATE gleitzeit_workflows SET lease_epoch = 0, left_by = {left_by} \
         WHERE key IN (SELECT key FROM gleitzeit_workflows WHERE {OWNED} AND {OPEN} \
         LIMIT {FREED_AT_ONCE})"
    );
    let mut freed = 0;
    loop {
        let update = statement(db, &update, [column(epoch).into()]);
        let some = db.execute_raw(update).await?.rows_affected();
        freed += some;
        if some < FREED_AT_ONCE {
            break;
        }
    }
    let forget = "DELETE FROM gleitzeit_lease_transfers WHERE to_epoch = $1";
    db.execute_raw(statement(db, forget, [column(epoch).into()])).await?;
    Ok(freed)
}

/// Has a lease inherit what an ended one owned, however many workflows that are.
pub(super) async fn inherit<C: ConnectionTrait>(
    db: &C,
    ended: Epoch,
    successor: Epoch,
) -> Result<(), DbErr> {
    let values = || [column(ended).into(), column(successor).into()];
    let pass_on = "UPDATE gleitzeit_lease_transfers SET to_epoch = $2 WHERE to_epoch = $1";
    db.execute_raw(statement(db, pass_on, values())).await?;
    let insert = "INSERT INTO gleitzeit_lease_transfers (from_epoch, to_epoch) VALUES ($1, $2)";
    db.execute_raw(statement(db, insert, values())).await?;
    Ok(())
}

/// The ended leases that a lease has inherited from, by their columns.
pub(super) async fn inherited<C: ConnectionTrait>(
    db: &C,
    successor: Epoch,
) -> Result<Vec<i64>, DbErr> {
    let select =
        "SELECT from_epoch FROM gleitzeit_lease_transfers WHERE to_epoch = $1 ORDER BY from_epoch";
    let rows = db.query_all_raw(statement(db, select, [column(successor).into()])).await?;
    rows.iter().map(|row| row.try_get_by_index(0)).collect()
}

/// The keys of what an ended lease left behind; where it is nothing, its successor forgets it.
pub(super) async fn left_behind<C: ConnectionTrait>(db: &C, ended: i64) -> Result<Vec<i64>, DbErr> {
    let select = format!(
        "SELECT key FROM gleitzeit_workflows WHERE lease_epoch = $1 AND {OPEN} ORDER BY key"
    );
    let rows = db.query_all_raw(statement(db, select, [ended.into()])).await?;
    if rows.is_empty() {
        let forget = "DELETE FROM gleitzeit_lease_transfers WHERE from_epoch = $1";
        db.execute_raw(statement(db, forget, [ended.into()])).await?;
    }
    rows.iter().map(|row| row.try_get_by_index(0)).collect()
}

/// Frees those of the keys that a lease inherited; how many workflows.
pub(super) async fn free_some<C: ConnectionTrait>(
    db: &C,
    epoch: Epoch,
    keys: &[i64],
) -> Result<u64, DbErr> {
    let among = among(db, keys);
    let update = format!(
        "UPDATE gleitzeit_workflows SET lease_epoch = 0, left_by = lease_epoch \
         WHERE {} AND {INHERITED} AND {OPEN}",
        among.condition
    );
    let update = statement(db, update, [column(epoch).into(), among.keys]);
    Ok(db.execute_raw(update).await?.rows_affected())
}

/// Frees what an ended lease left behind and its successor cannot run; how many workflows.
pub(super) async fn free_unfit<C: ConnectionTrait>(
    db: &C,
    ended: i64,
    unfit: &[i64],
) -> Result<u64, DbErr> {
    let update = format!(
        "UPDATE gleitzeit_workflows SET lease_epoch = 0, left_by = lease_epoch \
         WHERE lease_epoch = $1 AND {OPEN} AND needs IN ({})",
        list(unfit)
    );
    Ok(db.execute_raw(statement(db, update, [ended.into()])).await?.rows_affected())
}

/// Frees those of the keys that a lease owns, settled ones too; how many workflows. They are as cut
/// off as before: it has run none of them to no end.
pub(super) async fn release<C: ConnectionTrait>(
    db: &C,
    epoch: Epoch,
    keys: &[i64],
) -> Result<u64, DbErr> {
    let among = among(db, keys);
    let update = format!(
        "UPDATE gleitzeit_workflows SET lease_epoch = 0, \
         left_by = CASE WHEN lease_epoch = $1 THEN left_by ELSE lease_epoch END \
         WHERE {} AND {OWNED}",
        among.condition
    );
    let update = statement(db, update, [column(epoch).into(), among.keys]);
    Ok(db.execute_raw(update).await?.rows_affected())
}

/// The keys of workflows by their escaped ids, in order: whoever frees several locks them alike.
pub(super) async fn keys_of<C: ConnectionTrait>(db: &C, ids: &[String]) -> Result<Vec<i64>, DbErr> {
    let mut keys = Vec::with_capacity(ids.len());
    for some in ids.chunks(IDS_MAX) {
        let places: Vec<String> = (1..=some.len()).map(|number| format!("${number}")).collect();
        let select =
            format!("SELECT key FROM gleitzeit_workflows WHERE id IN ({})", places.join(","));
        let values = some.iter().map(Value::from);
        let select = Statement::from_sql_and_values(db.get_database_backend(), select, values);
        for row in db.query_all_raw(select).await? {
            keys.push(row.try_get_by_index(0)?);
        }
    }
    keys.sort_unstable();
    Ok(keys)
}

/// A condition on the key whose text is the same for any number of keys.
struct Among {
    condition: &'static str,
    keys: Value,
}

/// One of these keys, which are the second parameter.
fn among<C: ConnectionTrait>(db: &C, keys: &[i64]) -> Among {
    let list = keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    if is_server(db) {
        let condition = "key = ANY(CAST(CAST($2 AS TEXT) AS BIGINT[]))";
        Among { condition, keys: format!("{{{list}}}").into() }
    } else {
        let condition = "key IN (SELECT value FROM json_each($2))";
        Among { condition, keys: format!("[{list}]").into() }
    }
}

/// Takes the oldest that are free and wanted.
pub(super) async fn claim<C: ConnectionTrait>(
    db: &C,
    epoch: Epoch,
    limit: usize,
    wanted: &Wanted,
) -> Result<Vec<workflow::Model>, DbErr> {
    let lock = if is_server(db) { " FOR NO KEY UPDATE SKIP LOCKED" } else { "" };
    let limit = limit.min(CLAIM_MAX);
    // The limit stands in the text, so that the server plans for it.
    let mut update = format!(
        "WITH free AS MATERIALIZED (SELECT key FROM {} WHERE lease_epoch = 0 \
         AND {OPEN}{} ORDER BY key LIMIT {limit}{lock}) UPDATE gleitzeit_workflows \
         SET lease_epoch = $1 WHERE key IN (SELECT key FROM free) RETURNING ",
        free_table(db),
        wanted.by_key()
    );
    let _ = write!(update, "{}", *COLUMNS);
    workflows(db, statement(db, update, [column(epoch).into()])).await
}

/// Those of the keys that a lease owns.
pub(super) async fn owned<C: ConnectionTrait>(
    db: &C,
    epoch: Epoch,
    keys: &[i64],
) -> Result<Vec<workflow::Model>, DbErr> {
    read_those(db, epoch, keys, OWNED).await
}

/// Those of the keys that a lease inherited, and has not taken one by one since.
pub(super) async fn still_inherited<C: ConnectionTrait>(
    db: &C,
    epoch: Epoch,
    keys: &[i64],
) -> Result<Vec<workflow::Model>, DbErr> {
    read_those(db, epoch, keys, INHERITED).await
}

async fn read_those<C: ConnectionTrait>(
    db: &C,
    epoch: Epoch,
    keys: &[i64],
    whose: &str,
) -> Result<Vec<workflow::Model>, DbErr> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let among = among(db, keys);
    // By their keys, whatever the planner knows of how many are open: it would look through all of
    // these for each page.
    let columns = &*COLUMNS;
    let select = format!(
        "WITH listed AS MATERIALIZED (SELECT {columns} FROM gleitzeit_workflows WHERE {}) \
         SELECT {columns} FROM listed WHERE {whose} AND {OPEN}",
        among.condition
    );
    workflows(db, statement(db, select, [column(epoch).into(), among.keys])).await
}

/// What a statement answers that names all [`COLUMNS`].
async fn workflows<C: ConnectionTrait>(
    db: &C,
    statement: Statement,
) -> Result<Vec<workflow::Model>, DbErr> {
    let rows = db.query_all_raw(statement).await?;
    let read = rows.iter().filter_map(|row| match workflow::Model::by_place(row) {
        Ok(row) => Some(row),
        // One that is broken keeps nobody from the others.
        Err(error) => {
            let id = row.try_get_by_index::<String>(1).unwrap_or_default();
            tracing::error!(workflow = id, %error, "row of a workflow cannot be read; left out");
            None
        }
    });
    Ok(read.collect())
}

/// Whether a lease owns what bears the epoch of another one, which has ended.
pub(super) async fn is_successor<C: ConnectionTrait>(
    db: &C,
    successor: Epoch,
    ended: i64,
) -> Result<bool, DbErr> {
    let select = "SELECT 1 FROM gleitzeit_lease_transfers WHERE from_epoch = $1 AND to_epoch = $2";
    let select = statement(db, select, [ended.into(), column(successor).into()]);
    Ok(db.query_one_raw(select).await?.is_some())
}

/// One workflow by its escaped id, which nobody else takes or changes until the transaction ends.
pub(super) async fn workflow<C: ConnectionTrait>(
    db: &C,
    id: &str,
) -> Result<Option<workflow::Model>, DbErr> {
    let lock = if is_server(db) { " FOR NO KEY UPDATE" } else { "" };
    let select = format!("SELECT {} FROM gleitzeit_workflows WHERE id = $1{lock}", *COLUMNS);
    let select = statement(db, select, [id.into()]);
    workflow::Entity::find().from_raw_sql(select).one(db).await
}

/// Makes a lease the owner of one workflow.
pub(super) async fn take<C: ConnectionTrait>(db: &C, epoch: Epoch, key: i64) -> Result<(), DbErr> {
    // What was inherited was left by who died.
    let update = "UPDATE gleitzeit_workflows SET lease_epoch = $1, left_by = CASE \
                  WHEN lease_epoch IN (0, $1) THEN left_by ELSE lease_epoch END WHERE key = $2";
    db.execute_raw(statement(db, update, [column(epoch).into(), key.into()])).await?;
    Ok(())
}
