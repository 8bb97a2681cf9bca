//! The statements that move workflows between leases.

use std::{fmt::Write as _, sync::LazyLock};

use gleitzeit_domain::store::Epoch;
use sea_orm::{
    ConnectionTrait, DbErr, EntityTrait as _, IdenStatic as _, Iterable as _, Statement, Value,
};

use super::{OPEN, column, free_table, is_server, statement};
use crate::{
    entity::workflow,
    leases::fit::{Wanted, list},
};

/// Upper limit of the ids in one statement.
const IDS_MAX: usize = 256;

/// Upper limit of the workflows of one claim.
const CLAIM_MAX: usize = 1_000_000;

/// Upper limit of the workflows that one statement frees.
const FREED_AT_ONCE: u64 = 20_000;

/// The workflows of the lease `$1`: those with its epoch, and those with the epoch of a lease whose
/// successor it is.
const OWNED: &str = "(lease_epoch = $1 OR lease_epoch IN \
    (SELECT from_epoch FROM gleitzeit_lease_transfers WHERE to_epoch = $1))";

/// The latter only.
const INHERITED: &str =
    "lease_epoch IN (SELECT from_epoch FROM gleitzeit_lease_transfers WHERE to_epoch = $1)";

/// All columns of a workflow.
static COLUMNS: LazyLock<String> = LazyLock::new(|| {
    let names: Vec<&str> = workflow::Column::iter().map(|column| column.as_str()).collect();
    names.join(", ")
});

/// Frees the workflows of an ended lease; returns their number. Several statements: one over all of
/// them could exceed the statement timeout.
///
/// `is_expired` is false for a lease that its process closed. The workflows of an expired one keep
/// its epoch in `left_by`, and inherited ones that of the first lease that expired.
pub(crate) async fn free<C: ConnectionTrait>(
    db: &C,
    epoch: Epoch,
    is_expired: bool,
) -> Result<u64, DbErr> {
    let left_by = if is_expired {
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
    // After the workflows: they are found by these rows.
    let delete = "DELETE FROM gleitzeit_lease_transfers WHERE to_epoch = $1";
    db.execute_raw(statement(db, delete, [column(epoch).into()])).await?;
    Ok(freed)
}

/// Transfers the workflows of an ended lease to a successor, by one row for any number of workflows.
pub(crate) async fn transfer<C: ConnectionTrait>(
    db: &C,
    ended: Epoch,
    successor: Epoch,
) -> Result<(), DbErr> {
    let values = || [column(ended).into(), column(successor).into()];
    // The transfers to the ended lease first: they would otherwise lead to a lease that is gone,
    // and a chain of two is followed by no statement.
    let update = "UPDATE gleitzeit_lease_transfers SET to_epoch = $2 WHERE to_epoch = $1";
    db.execute_raw(statement(db, update, values())).await?;
    let insert = "INSERT INTO gleitzeit_lease_transfers (from_epoch, to_epoch) VALUES ($1, $2)";
    db.execute_raw(statement(db, insert, values())).await?;
    Ok(())
}

/// The ended leases whose successor a lease is, as columns.
pub(crate) async fn transfers_to<C: ConnectionTrait>(
    db: &C,
    successor: Epoch,
) -> Result<Vec<i64>, DbErr> {
    let select =
        "SELECT from_epoch FROM gleitzeit_lease_transfers WHERE to_epoch = $1 ORDER BY from_epoch";
    let rows = db.query_all_raw(statement(db, select, [column(successor).into()])).await?;
    rows.iter().map(|row| row.try_get_by_index(0)).collect()
}

/// The keys of the unsettled workflows of an ended lease; deletes its transfer if there are none.
pub(crate) async fn workflows_of<C: ConnectionTrait>(
    db: &C,
    ended: i64,
) -> Result<Vec<i64>, DbErr> {
    let select = format!(
        "SELECT key FROM gleitzeit_workflows WHERE lease_epoch = $1 AND {OPEN} ORDER BY key"
    );
    let rows = db.query_all_raw(statement(db, select, [ended.into()])).await?;
    if rows.is_empty() {
        let delete = "DELETE FROM gleitzeit_lease_transfers WHERE from_epoch = $1";
        db.execute_raw(statement(db, delete, [ended.into()])).await?;
    }
    rows.iter().map(|row| row.try_get_by_index(0)).collect()
}

/// Frees those of the workflows that a lease inherited; returns their number.
pub(crate) async fn release_workflows<C: ConnectionTrait>(
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

/// Frees the workflows of an ended lease that its successor cannot run; returns their number.
pub(crate) async fn free_unfit<C: ConnectionTrait>(
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

/// Frees those of the workflows that a lease owns, settled ones too; returns their number. `left_by`
/// stays: the lease has run none of them.
pub(crate) async fn release<C: ConnectionTrait>(
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

/// The keys of workflows by their escaped ids, sorted: two releases that lock the same workflows in
/// different orders would deadlock.
pub(crate) async fn keys_of<C: ConnectionTrait>(db: &C, ids: &[String]) -> Result<Vec<i64>, DbErr> {
    let mut keys = Vec::with_capacity(ids.len());
    for some in ids.chunks(IDS_MAX) {
        let parameters: Vec<String> = (1..=some.len()).map(|number| format!("${number}")).collect();
        let select =
            format!("SELECT key FROM gleitzeit_workflows WHERE id IN ({})", parameters.join(","));
        let values = some.iter().map(Value::from);
        let select = Statement::from_sql_and_values(db.get_database_backend(), select, values);
        for row in db.query_all_raw(select).await? {
            keys.push(row.try_get_by_index(0)?);
        }
    }
    keys.sort_unstable();
    Ok(keys)
}

/// A condition on the key, with the same text for any number of keys: the database prepares it
/// once.
struct Among {
    condition: &'static str,
    keys: Value,
}

/// The condition that a key is one of `keys`, which are the parameter `$2`.
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

/// Assigns the oldest free workflows that are wanted to a lease; returns their rows.
pub(crate) async fn claim<C: ConnectionTrait>(
    db: &C,
    epoch: Epoch,
    limit: usize,
    wanted: &Wanted,
) -> Result<Vec<workflow::Model>, DbErr> {
    // SKIP LOCKED: two processes that claim at once get different workflows. Without it the second
    // would wait for the commit of the first, and find its page taken.
    let lock = if is_server(db) { " FOR NO KEY UPDATE SKIP LOCKED" } else { "" };
    let limit = limit.min(CLAIM_MAX);
    // The limit is part of the text: a parameter would leave the server to plan for an unknown
    // number of rows.
    // MATERIALIZED: inlined, the subquery could run again for each row of the update, and lock more
    // rows than the limit.
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

/// The rows of those workflows that a lease owns.
pub(crate) async fn owned<C: ConnectionTrait>(
    db: &C,
    epoch: Epoch,
    keys: &[i64],
) -> Result<Vec<workflow::Model>, DbErr> {
    read_those(db, epoch, keys, OWNED).await
}

/// The rows of those workflows that a lease inherited, and that no claim of one workflow has
/// assigned since.
pub(crate) async fn still_inherited<C: ConnectionTrait>(
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
    // MATERIALIZED: the planner would otherwise find the unsettled workflows of the lease by their
    // index, and read all of them for each page.
    let columns = &*COLUMNS;
    let select = format!(
        "WITH listed AS MATERIALIZED (SELECT {columns} FROM gleitzeit_workflows WHERE {}) \
         SELECT {columns} FROM listed WHERE {whose} AND {OPEN}",
        among.condition
    );
    workflows(db, statement(db, select, [column(epoch).into(), among.keys])).await
}

/// The rows of a statement that returns all [`COLUMNS`].
async fn workflows<C: ConnectionTrait>(
    db: &C,
    statement: Statement,
) -> Result<Vec<workflow::Model>, DbErr> {
    let rows = db.query_all_raw(statement).await?;
    let read = rows.iter().filter_map(|row| match workflow::Model::by_position(row) {
        Ok(row) => Some(row),
        // Not an error: one broken row would block every claim on the database.
        Err(error) => {
            let id = row.try_get_by_index::<String>(1).unwrap_or_default();
            tracing::error!(workflow = id, %error, "row of a workflow cannot be read; left out");
            None
        }
    });
    Ok(read.collect())
}

/// True if a lease is the successor of an ended one.
pub(crate) async fn is_successor<C: ConnectionTrait>(
    db: &C,
    successor: Epoch,
    ended: i64,
) -> Result<bool, DbErr> {
    let select = "SELECT 1 FROM gleitzeit_lease_transfers WHERE from_epoch = $1 AND to_epoch = $2";
    let select = statement(db, select, [ended.into(), column(successor).into()]);
    Ok(db.query_one_raw(select).await?.is_some())
}

/// The row of one workflow by its escaped id; the lock keeps others from assigning or changing it
/// until the transaction ends.
pub(crate) async fn find<C: ConnectionTrait>(
    db: &C,
    id: &str,
) -> Result<Option<workflow::Model>, DbErr> {
    let lock = if is_server(db) { " FOR NO KEY UPDATE" } else { "" };
    let select = format!("SELECT {} FROM gleitzeit_workflows WHERE id = $1{lock}", *COLUMNS);
    let select = statement(db, select, [id.into()]);
    workflow::Entity::find().from_raw_sql(select).one(db).await
}

/// Assigns one workflow to a lease.
pub(crate) async fn assign<C: ConnectionTrait>(
    db: &C,
    epoch: Epoch,
    key: i64,
) -> Result<(), DbErr> {
    // An inherited workflow was left by the lease that expired: without `left_by` its tasks would
    // not count as interrupted.
    let update = "UPDATE gleitzeit_workflows SET lease_epoch = $1, left_by = CASE \
                  WHEN lease_epoch IN (0, $1) THEN left_by ELSE lease_epoch END WHERE key = $2";
    db.execute_raw(statement(db, update, [column(epoch).into(), key.into()])).await?;
    Ok(())
}
