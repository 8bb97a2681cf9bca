//! Finds contradictions in a database. Writes nothing.
//!
//! It runs the database's own check, then compares the tables with each other, then each workflow
//! with its tasks and events, and the large payloads last. From the second step on it reads one
//! snapshot, while processes work on; on SQLite their log grows until the check ends.

use std::{collections::BTreeMap, fmt};

use futures_util::TryStreamExt as _;
use gleitzeit_domain::store::{StoreError, lease::Command};
use sea_orm::{
    ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, QueryResult, Statement,
    StreamTrait as _,
};
use serde::Serialize;

use super::{OpenDatabase, of_read, rows};
use crate::{
    StoreUrl,
    encode::{self, parse, unescape},
    leases::TO_ALL,
    open::Role,
    read,
    read::assemble::hash_text,
};

mod walk;

/// The subject of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// The database itself: pages, indexes.
    Database,
    /// A workflow's row, its spec, and its status compared with those of its tasks.
    Workflow,
    /// A task's row.
    Task,
    /// Events: numbered 1, 2, 3 … without a gap.
    Event,
    /// Large payloads: present, matching their hash, and referred to.
    Blob,
    /// The owners of workflows.
    Lease,
    /// Requests to processes.
    Request,
}

impl fmt::Display for Rule {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Self::Database => "database",
            Self::Workflow => "workflow",
            Self::Task => "task",
            Self::Event => "event",
            Self::Blob => "blob",
            Self::Lease => "lease",
            Self::Request => "request",
        })
    }
}

/// A contradiction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The subject.
    pub rule: Rule,
    /// The id of the workflow, if it is about one.
    pub workflow: Option<String>,
    /// The description.
    pub detail: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.workflow {
            Some(id) => write!(out, "{}: workflow `{id}`: {}", self.rule, self.detail),
            None => write!(out, "{}: {}", self.rule, self.detail),
        }
    }
}

/// The counts of a check.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Workflows.
    pub workflows: u64,
    /// Rows of tasks; a task as it was submitted has none.
    pub tasks: u64,
    /// Events.
    pub events: u64,
    /// Large payloads.
    pub blobs: u64,
    /// Findings by subject.
    pub findings: BTreeMap<Rule, u64>,
}

impl Checked {
    /// True if there is no finding.
    pub fn is_consistent(&self) -> bool {
        self.findings.is_empty()
    }
}

/// The receiver of findings, and the counts.
struct CheckReport<'a> {
    on_finding: &'a mut (dyn FnMut(Finding) + Send),
    checked: Checked,
}

impl CheckReport<'_> {
    fn find(&mut self, rule: Rule, workflow: Option<&str>, detail: impl Into<String>) {
        *self.checked.findings.entry(rule).or_default() += 1;
        let finding =
            Finding { rule, workflow: workflow.map(str::to_owned), detail: detail.into() };
        (self.on_finding)(finding);
    }
}

/// Checks a whole database; calls `on_finding` with each finding at once.
///
/// # Errors
/// [`StoreError::Open`] if there is no such database or its schema is not this program's,
/// [`StoreError::Unavailable`], [`StoreError::Read`]. Findings are no errors.
pub async fn check(
    url: &StoreUrl,
    on_finding: &mut (dyn FnMut(Finding) + Send),
) -> Result<Checked, StoreError> {
    let database = OpenDatabase::open_current(url, Role::Inspect).await?;
    let mut report = CheckReport { on_finding, checked: Checked::default() };
    let checked = run_checks(&database, &mut report).await;
    database.close().await;
    match checked {
        Ok(()) => Ok(report.checked),
        // A finding, not an error: the caller would otherwise lose the findings of a broken file.
        Err(error) if !report.checked.is_consistent() => {
            report.find(Rule::Database, None, format!("the rest could not be read: {error}"));
            Ok(report.checked)
        }
        Err(error) => Err(of_read(error)),
    }
}

async fn run_checks(database: &OpenDatabase, report: &mut CheckReport<'_>) -> Result<(), DbErr> {
    // Before the snapshot: the check of a large file takes minutes, and an open snapshot keeps
    // SQLite from shortening its log.
    check_database(database, report).await?;
    // One snapshot for all of the rest: a workflow that settles between two queries would look like
    // a contradiction.
    let snapshot = read::snapshot(&database.db).await?;
    strays(&snapshot, report).await?;
    leases(&snapshot, report).await?;
    requests(&snapshot, report).await?;
    walk::workflows(&snapshot, report).await?;
    missing_blobs(&snapshot, report).await?;
    stored_blobs(&snapshot, report).await?;
    snapshot.commit().await
}

/// The indexes that the store needs: SQLite rejects a statement whose hint names a missing one, and
/// without the others the store scans whole tables.
const INDEXES: [&str; 5] = [
    "gleitzeit_tasks_blob",
    "gleitzeit_workflows_blob",
    "gleitzeit_workflows_free",
    "gleitzeit_workflows_name",
    "gleitzeit_workflows_status",
];

/// Runs the database's own check, and looks for missing indexes.
async fn check_database(
    database: &OpenDatabase,
    report: &mut CheckReport<'_>,
) -> Result<(), DbErr> {
    let is_file = database.db.get_database_backend() == DbBackend::Sqlite;
    if is_file {
        // At most 100 messages: a file with a broken page may have one for each of its rows.
        match rows(&database.db, "PRAGMA integrity_check(100)", Vec::new()).await {
            Ok(messages) => {
                for row in messages {
                    let text: String = row.try_get_by_index(0)?;
                    if text != "ok" {
                        report.find(Rule::Database, None, text);
                    }
                }
            }
            Err(error) => {
                report.find(Rule::Database, None, error.to_string());
                // Ends the check: queries on such a file fail, or return wrong rows.
                return Err(error);
            }
        }
    }
    let sql = if is_file {
        "SELECT name FROM sqlite_master WHERE type = 'index'"
    } else {
        // Valid ones only: an index whose concurrent creation failed is still listed, and no query
        // uses it.
        "SELECT c.relname::TEXT FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid \
         WHERE i.indisvalid AND pg_table_is_visible(c.oid)"
    };
    let mut present = Vec::new();
    for row in rows(&database.db, sql, Vec::new()).await? {
        present.push(row.try_get_by_index::<String>(0)?);
    }
    for index in INDEXES.iter().filter(|index| !present.iter().any(|name| name == *index)) {
        report.find(Rule::Database, None, format!("the index `{index}` is missing, or not valid"));
    }
    Ok(())
}

/// Runs a statement, and calls `row` with each of its rows.
async fn each(
    db: &DatabaseTransaction,
    sql: &str,
    mut row: impl FnMut(QueryResult) -> Result<(), DbErr>,
) -> Result<(), DbErr> {
    let statement = Statement::from_string(ConnectionTrait::get_database_backend(db), sql);
    let mut found = db.stream_raw(statement).await?;
    // Row by row: all rows of a table would not fit into memory.
    while let Some(next) = found.try_next().await? {
        row(next)?;
    }
    Ok(())
}

/// Finds rows of workflows that do not exist.
async fn strays(db: &DatabaseTransaction, report: &mut CheckReport<'_>) -> Result<(), DbErr> {
    for (rule, table, what) in [
        (Rule::Task, "gleitzeit_tasks", "tasks"),
        (Rule::Event, "gleitzeit_events", "rows of events"),
        (Rule::Request, "gleitzeit_requests", "requests"),
    ] {
        let sql = format!(
            // Without the requests to every process: their key is that of no workflow.
            "SELECT s.workflow_key, COUNT(*) FROM {table} s WHERE s.workflow_key <> {TO_ALL} AND \
             NOT EXISTS (SELECT 1 FROM gleitzeit_workflows w WHERE w.key = s.workflow_key) \
             GROUP BY s.workflow_key ORDER BY s.workflow_key"
        );
        each(db, &sql, |row| {
            let (key, count): (i64, i64) = (row.try_get_by_index(0)?, row.try_get_by_index(1)?);
            let detail =
                format!("{count} {what} belong to the workflow of key {key}, which does not exist");
            report.find(rule, None, detail);
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// Finds unsettled workflows whose lease is gone without a successor: no claim would find them. The
/// end of a lease frees its workflows or names a successor, so a transaction was only half applied.
async fn leases(db: &DatabaseTransaction, report: &mut CheckReport<'_>) -> Result<(), DbErr> {
    let sql = "SELECT w.id, w.lease_epoch FROM gleitzeit_workflows w \
               WHERE w.status IN ('pending', 'running') AND w.lease_epoch <> 0 AND NOT EXISTS \
               (SELECT 1 FROM gleitzeit_leases l WHERE l.epoch = w.lease_epoch OR l.epoch IN \
               (SELECT t.to_epoch FROM gleitzeit_lease_transfers t \
               WHERE t.from_epoch = w.lease_epoch)) \
               ORDER BY w.key";
    each(db, sql, |row| {
        let id = unescape(row.try_get_by_index(0)?);
        let epoch: i64 = row.try_get_by_index(1)?;
        let detail = format!(
            "it belongs to the lease {epoch}, which does not exist: nobody will run it; \
             `UPDATE gleitzeit_workflows SET lease_epoch = 0` frees it"
        );
        report.find(Rule::Lease, Some(&id), detail);
        Ok(())
    })
    .await
}

async fn requests(db: &DatabaseTransaction, report: &mut CheckReport<'_>) -> Result<(), DbErr> {
    each(db, "SELECT key, body, answer FROM gleitzeit_requests ORDER BY key", |row| {
        let key: i64 = row.try_get_by_index(0)?;
        let (body, answer): (String, Option<String>) =
            (row.try_get_by_index(1)?, row.try_get_by_index(2)?);
        if let Err(error) = parse::<Command>(&body) {
            report.find(Rule::Request, None, format!("request {key}: {}", detail_of(error)));
        }
        if let Some(Err(error)) = answer.as_deref().map(encode::answer_of) {
            report.find(Rule::Request, None, format!("answer {key}: {}", detail_of(error)));
        }
        Ok(())
    })
    .await
}

/// Finds results whose blob is missing.
async fn missing_blobs(
    db: &DatabaseTransaction,
    report: &mut CheckReport<'_>,
) -> Result<(), DbErr> {
    let sql = "SELECT w.id, t.id, t.result_blob FROM gleitzeit_tasks t \
               JOIN gleitzeit_workflows w ON w.key = t.workflow_key \
               WHERE t.result_blob IS NOT NULL AND NOT EXISTS \
               (SELECT 1 FROM gleitzeit_blobs b WHERE b.hash = t.result_blob)";
    each(db, sql, |row| {
        let (id, task) = (unescape(row.try_get_by_index(0)?), unescape(row.try_get_by_index(1)?));
        let hash: Vec<u8> = row.try_get_by_index(2)?;
        let detail =
            format!("the result of its task `{task}`, blob {}, is missing", hash_text(&hash));
        report.find(Rule::Blob, Some(&id), detail);
        Ok(())
    })
    .await
}

/// Checks each large payload: its hash, its JSON, and that something refers to it.
async fn stored_blobs(db: &DatabaseTransaction, report: &mut CheckReport<'_>) -> Result<(), DbErr> {
    // One query for hash, JSON and use: each payload is read from disk once.
    let sql = "SELECT b.hash, b.body, CASE WHEN EXISTS \
               (SELECT 1 FROM gleitzeit_tasks t WHERE t.result_blob = b.hash) OR EXISTS \
               (SELECT 1 FROM gleitzeit_workflows w WHERE w.spec_blob = b.hash) \
               THEN 1 ELSE 0 END FROM gleitzeit_blobs b";
    each(db, sql, |row| {
        let hash: Vec<u8> = row.try_get_by_index(0)?;
        let body: String = row.try_get_by_index(1)?;
        let is_used = row.try_get_by_index::<i32>(2)? != 0;
        report.checked.blobs += 1;
        for detail in faults(&hash, &body, is_used) {
            report.find(Rule::Blob, None, format!("blob {}: {detail}", hash_text(&hash)));
        }
        Ok(())
    })
    .await
}

/// The faults of a large payload.
fn faults(hash: &[u8], body: &str, is_used: bool) -> Vec<String> {
    let mut faults = Vec::new();
    let actual = blake3::hash(body.as_bytes());
    if actual.as_bytes() != hash {
        faults.push(format!("its {} bytes have the hash {}", body.len(), actual.to_hex()));
    } else if let Err(error) = serde_json::from_str::<serde_json::Value>(body) {
        faults.push(format!("it is no JSON: {error}"));
    }
    if !is_used {
        faults.push("nothing refers to it".into());
    }
    faults
}

/// The detail of a read error, without its kind.
fn detail_of(error: StoreError) -> String {
    match error {
        StoreError::Integrity { detail } => detail,
        other => other.to_string(),
    }
}
