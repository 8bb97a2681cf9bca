//! Measures a database: its workflows, and the bytes in use.
//!
//! Bytes in use are those of rows and indexes, not those on disk: SQLite keeps the pages of deleted
//! rows for new ones, and PostgreSQL does until a vacuum.

use sea_orm::{ConnectionTrait, DbBackend, DbErr, Statement};

/// Pages of a PostgreSQL table that an estimate samples; a smaller table is added up.
const SAMPLED: i64 = 2_000;

/// Bytes of a PostgreSQL row and its index entries besides its long columns.
const ROW: i64 = 100;

/// The number of workflows.
pub(super) async fn count<C: ConnectionTrait>(db: &C) -> Result<u64, DbErr> {
    let count = number(db, "SELECT COUNT(*) FROM gleitzeit_workflows").await?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// The bytes of rows and indexes; an estimate for a large table of PostgreSQL.
pub(super) async fn measure<C: ConnectionTrait>(db: &C) -> Result<u64, DbErr> {
    let mut bytes = 0;
    if db.get_database_backend() == DbBackend::Postgres {
        for (table, columns) in COLUMNS {
            bytes += live_bytes(db, table, columns).await?;
        }
    } else {
        // Without free pages: SQLite keeps them for new rows, and deletions would never show.
        let used = "SELECT (c.page_count - f.freelist_count) * s.page_size \
                    FROM pragma_page_count c, pragma_freelist_count f, pragma_page_size s";
        bytes = number(db, used).await?;
    }
    Ok(u64::try_from(bytes).unwrap_or(0))
}

/// The tables that grow, with their columns of any length.
const COLUMNS: [(&str, &[&str]); 4] = [
    ("gleitzeit_workflows", &["spec", "error"]),
    ("gleitzeit_tasks", &["result", "error"]),
    ("gleitzeit_events", &["body"]),
    ("gleitzeit_blobs", &["body"]),
];

/// The bytes of the live rows of a table, from all of its pages or from a random sample.
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
    // In parts of ten thousand: `SYSTEM` takes a percentage, and a whole one would be too coarse
    // for a table of more than 200,000 pages.
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
