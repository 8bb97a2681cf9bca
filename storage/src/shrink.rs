//! Keeps a database below a size: above it, the oldest settled workflows are forgotten.
//!
//! Lives beside the [`writer`](super::writer), where the settings name a size. Woken by its commits
//! and by nothing else: while nothing is written, nothing is asked. It measures what is in use,
//! and not what the disk holds: a file keeps the pages of what was forgotten for what comes, and a
//! server does until it has vacuumed.
//!
//! Invariant: what is not settled is never forgotten. Intake waits for one small batch at most.

use std::{sync::Arc, time::Duration};

use gleitzeit_domain::store::StoreError;
use sea_orm::{ConnectionTrait, DbBackend, DbErr, Statement};
use tokio::sync::{Notify, mpsc, oneshot};

use super::{
    read::{ReadError, Reader},
    writer::{Prune, Request},
};

/// Between two looks at a database that is written to.
const PAUSE: Duration = Duration::from_secs(2);

/// Workflows that are forgotten before it is measured again, at most.
const BATCH: u64 = 256;

/// Above the limit, it is brought down to this share of it, so that not every write ends in a batch.
const TARGET: (u64, u64) = (9, 10);

/// Pages of a table of a server that are looked at for an estimate; a smaller one is added up.
const SAMPLED: i64 = 2_000;

/// What a row of a server and its entries in indexes take besides what is in it.
const ROW: i64 = 100;

/// Stays as long as there is a writer.
pub(super) async fn keep_below(
    limit: u64,
    reader: Arc<Reader>,
    writer: mpsc::WeakUnboundedSender<Request>,
    written: Arc<Notify>,
) {
    let mut is_stuck = false;
    loop {
        written.notified().await;
        match shrink(limit, &reader, &writer).await {
            Ok(Outcome::Gone) => return,
            Ok(Outcome::Below) => is_stuck = false,
            Ok(Outcome::Above(bytes)) => {
                if !std::mem::replace(&mut is_stuck, true) {
                    tracing::warn!(
                        bytes,
                        limit,
                        "the database is larger than storage.max_size_mb, and nothing in it is \
                         settled that could be forgotten"
                    );
                }
            }
            Err(error) => tracing::warn!(%error, "the size of the database was not kept"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// What came of a look.
enum Outcome {
    /// It is as small as it has to be.
    Below,
    /// It is not, and there is nothing to forget.
    Above(u64),
    /// The writer is.
    Gone,
}

async fn shrink(
    limit: u64,
    reader: &Reader,
    writer: &mpsc::WeakUnboundedSender<Request>,
) -> Result<Outcome, StoreError> {
    let mut bytes = in_use(reader).await?;
    if bytes <= limit {
        return Ok(Outcome::Below);
    }
    let target = limit / TARGET.1 * TARGET.0;
    let mut count = reader.count().await.map_err(|ReadError(error)| error)?;
    let mut forgotten = 0;
    while bytes > target {
        // As many as are too much, if all of them are alike.
        let too_many = (bytes - target).saturating_mul(count) / bytes;
        let batch = usize::try_from(too_many.clamp(1, BATCH)).unwrap_or(1);
        let (answer, answered) = oneshot::channel();
        let Some(writer) = writer.upgrade() else { return Ok(Outcome::Gone) };
        let prune = Prune { before: None, limit: batch, count: 0, answer };
        if writer.send(Request::Prune(prune)).is_err() {
            return Ok(Outcome::Gone);
        }
        // Or it would keep the writer waiting for more.
        drop(writer);
        let Ok(gone) = answered.await else { return Ok(Outcome::Gone) };
        match gone? {
            0 if bytes > limit => return Ok(Outcome::Above(bytes)),
            0 => break,
            gone => {
                forgotten += gone;
                count = count.saturating_sub(gone as u64);
            }
        }
        bytes = in_use(reader).await?;
    }
    tracing::info!(forgotten, bytes, limit, "forgot the oldest settled workflows for their size");
    Ok(Outcome::Below)
}

async fn in_use(reader: &Reader) -> Result<u64, StoreError> {
    reader.in_use().await.map_err(|ReadError(error)| error)
}

/// How many workflows there are.
pub(super) async fn count<C: ConnectionTrait>(db: &C) -> Result<u64, DbErr> {
    let count = number(db, "SELECT COUNT(*) FROM gleitzeit_workflows").await?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// The bytes that rows and indexes are in. Of a large table of a server it is an estimate.
pub(super) async fn measure<C: ConnectionTrait>(db: &C) -> Result<u64, DbErr> {
    let mut bytes = 0;
    if db.get_database_backend() == DbBackend::Postgres {
        for (table, columns) in COLUMNS {
            bytes += live_bytes(db, table, columns).await?;
        }
    } else {
        let used = "SELECT (c.page_count - f.freelist_count) * s.page_size \
                    FROM pragma_page_count c, pragma_freelist_count f, pragma_page_size s";
        bytes = number(db, used).await?;
    }
    Ok(u64::try_from(bytes).unwrap_or(0))
}

/// The tables that grow, with the columns of theirs that may be long.
const COLUMNS: [(&str, &[&str]); 4] = [
    ("gleitzeit_workflows", &["spec", "error"]),
    ("gleitzeit_tasks", &["result", "error"]),
    ("gleitzeit_events", &["body"]),
    ("gleitzeit_blobs", &["body"]),
];

/// What the rows take that are there, as they are stored: of all pages, or of some picked at random.
async fn live_bytes<C: ConnectionTrait>(
    db: &C,
    table: &str,
    columns: &[&str],
) -> Result<i64, DbErr> {
    let pages =
        format!("SELECT pg_relation_size('{table}') / current_setting('block_size')::BIGINT");
    let pages = number(db, &pages).await?;
    let lengths: Vec<String> =
        columns.iter().map(|column| format!("COALESCE(pg_column_size({column}), 0)")).collect();
    let row = format!("SELECT (COALESCE(SUM({ROW} + {}), 0))::BIGINT", lengths.join(" + "));
    if pages <= SAMPLED {
        return number(db, &format!("{row} FROM {table}")).await;
    }
    // The share in parts of ten thousand, for the text takes a percentage.
    let share = (SAMPLED * 10_000 / pages).max(1);
    let sample = format!("TABLESAMPLE SYSTEM ({}.{:02})", share / 100, share % 100);
    Ok(number(db, &format!("{row} FROM {table} {sample}")).await? * 10_000 / share)
}

async fn number<C: ConnectionTrait>(db: &C, sql: &str) -> Result<i64, DbErr> {
    let statement = Statement::from_string(db.get_database_backend(), sql);
    match db.query_one_raw(statement).await? {
        Some(row) => row.try_get_by_index(0),
        None => Ok(0),
    }
}
