//! Says everything in a database that contradicts itself. Writes nothing.
//!
//! First the database's own word, then the tables against each other, then each workflow with its
//! tasks and events, and the large payloads last. From the second on all is seen as of one moment,
//! so that processes may work on meanwhile; on SQLite their log grows until the check is over.

use std::{collections::BTreeMap, fmt};

use futures_util::TryStreamExt as _;
use gleitzeit_domain::store::{StoreError, lease::Command};
use sea_orm::{
    ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, QueryResult, Statement,
    StreamTrait as _,
};
use serde::Serialize;

use super::{Place, of_read, rows};
use crate::{
    StoreUrl,
    assemble::shown,
    encode::{self, parse, unescape},
    leases::TO_ALL,
    open::Use,
    read,
};

mod walk;

/// What a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// The database itself: pages, indexes.
    Database,
    /// A workflow's row, its spec, and its status against those of its tasks.
    Workflow,
    /// A task's row.
    Task,
    /// Events: numbered 1, 2, 3 … without a gap.
    Event,
    /// Large payloads: there, what their hash says, and referred to.
    Blob,
    /// Which process runs what.
    Lease,
    /// What is asked of processes.
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

/// Something that contradicts itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is about.
    pub rule: Rule,
    /// The workflow's id, where it is about one.
    pub workflow: Option<String>,
    /// What was found.
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

/// What was looked through.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Workflows.
    pub workflows: u64,
    /// Rows of tasks: those that are not as they were submitted.
    pub tasks: u64,
    /// Events.
    pub events: u64,
    /// Large payloads.
    pub blobs: u64,
    /// Findings, by what they are about.
    pub findings: BTreeMap<Rule, u64>,
}

impl Checked {
    /// True when nothing was found.
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }
}

/// Where findings go, and what is counted.
struct CheckReport<'a> {
    told: &'a mut (dyn FnMut(Finding) + Send),
    checked: Checked,
}

impl CheckReport<'_> {
    fn find(&mut self, rule: Rule, workflow: Option<&str>, detail: impl Into<String>) {
        *self.checked.findings.entry(rule).or_default() += 1;
        let finding =
            Finding { rule, workflow: workflow.map(str::to_owned), detail: detail.into() };
        (self.told)(finding);
    }
}

/// Looks through all of a database; `told` is given each finding at once.
///
/// # Errors
/// [`StoreError::Open`] where there is no such database or its schema is not this program's,
/// [`StoreError::Unavailable`], [`StoreError::Read`]. Findings are no error.
pub async fn check(
    url: &StoreUrl,
    told: &mut (dyn FnMut(Finding) + Send),
) -> Result<Checked, StoreError> {
    let place = Place::open_current(url, Use::Inspect).await?;
    let mut report = CheckReport { told, checked: Checked::default() };
    let checked = look(&place, &mut report).await;
    place.close().await;
    match checked {
        Ok(()) => Ok(report.checked),
        // A broken file cannot be read to its end: that is a finding, too.
        Err(error) if !report.checked.is_sound() => {
            report.find(Rule::Database, None, format!("the rest could not be read: {error}"));
            Ok(report.checked)
        }
        Err(error) => Err(of_read(error)),
    }
}

async fn look(place: &Place, report: &mut CheckReport<'_>) -> Result<(), DbErr> {
    database(place, report).await?;
    let snapshot = read::snapshot(&place.db).await?;
    strays(&snapshot, report).await?;
    leases(&snapshot, report).await?;
    requests(&snapshot, report).await?;
    walk::workflows(&snapshot, report).await?;
    missing_blobs(&snapshot, report).await?;
    stored_blobs(&snapshot, report).await?;
    snapshot.commit().await
}

/// Indexes without which the store would not work, or walk through whole tables.
const INDEXES: [&str; 5] = [
    "gleitzeit_tasks_blob",
    "gleitzeit_workflows_blob",
    "gleitzeit_workflows_free",
    "gleitzeit_workflows_name",
    "gleitzeit_workflows_status",
];

/// What the database says of itself.
async fn database(place: &Place, report: &mut CheckReport<'_>) -> Result<(), DbErr> {
    let is_file = place.db.get_database_backend() == DbBackend::Sqlite;
    if is_file {
        match rows(&place.db, "PRAGMA integrity_check(100)", Vec::new()).await {
            Ok(said) => {
                for row in said {
                    let text: String = row.try_get_by_index(0)?;
                    if text != "ok" {
                        report.find(Rule::Database, None, text);
                    }
                }
            }
            Err(error) => {
                report.find(Rule::Database, None, error.to_string());
                return Err(error);
            }
        }
    }
    let sql = if is_file {
        "SELECT name FROM sqlite_master WHERE type = 'index'"
    } else {
        "SELECT c.relname::TEXT FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid \
         WHERE i.indisvalid AND pg_table_is_visible(c.oid)"
    };
    let mut there = Vec::new();
    for row in rows(&place.db, sql, Vec::new()).await? {
        there.push(row.try_get_by_index::<String>(0)?);
    }
    for index in INDEXES.iter().filter(|index| !there.iter().any(|name| name == *index)) {
        report.find(Rule::Database, None, format!("the index `{index}` is missing, or not valid"));
    }
    Ok(())
}

/// Runs a statement, and hands over its rows one by one.
async fn each(
    db: &DatabaseTransaction,
    sql: &str,
    mut row: impl FnMut(QueryResult) -> Result<(), DbErr>,
) -> Result<(), DbErr> {
    let statement = Statement::from_string(ConnectionTrait::get_database_backend(db), sql);
    let mut found = db.stream_raw(statement).await?;
    while let Some(next) = found.try_next().await? {
        row(next)?;
    }
    Ok(())
}

/// What belongs to a workflow that is not there.
async fn strays(db: &DatabaseTransaction, report: &mut CheckReport<'_>) -> Result<(), DbErr> {
    for (rule, table, what) in [
        (Rule::Task, "gleitzeit_tasks", "tasks"),
        (Rule::Event, "gleitzeit_events", "rows of events"),
        (Rule::Request, "gleitzeit_requests", "requests"),
    ] {
        let sql = format!(
            "SELECT s.workflow_key, COUNT(*) FROM {table} s WHERE s.workflow_key <> {TO_ALL} AND \
             NOT EXISTS (SELECT 1 FROM gleitzeit_workflows w WHERE w.key = s.workflow_key) \
             GROUP BY s.workflow_key ORDER BY s.workflow_key"
        );
        each(db, &sql, |row| {
            let (key, count): (i64, i64) = (row.try_get_by_index(0)?, row.try_get_by_index(1)?);
            let detail =
                format!("{count} {what} belong to the workflow of key {key}, which is not there");
            report.find(rule, None, detail);
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// A workflow that belongs to a lease that is gone, and has no successor, is claimed by nobody: to end a
/// lease frees what it owns or names a successor, and here neither has happened.
async fn leases(db: &DatabaseTransaction, report: &mut CheckReport<'_>) -> Result<(), DbErr> {
    let sql = "SELECT w.id, w.lease_epoch FROM gleitzeit_workflows w \
               WHERE w.status IN ('pending', 'running') AND w.lease_epoch <> 0 AND NOT EXISTS \
               (SELECT 1 FROM gleitzeit_leases l WHERE l.epoch = w.lease_epoch OR l.epoch IN \
               (SELECT t.to_epoch FROM gleitzeit_lease_transfers t WHERE t.from_epoch = w.lease_epoch)) \
               ORDER BY w.key";
    each(db, sql, |row| {
        let id = unescape(row.try_get_by_index(0)?);
        let epoch: i64 = row.try_get_by_index(1)?;
        let detail = format!(
            "it belongs to the lease {epoch}, which is not there: nobody will run it; \
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

/// Results that are kept by a hash, and are not there.
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
            format!("the result of its task `{task}`, blob {}, is not there", shown(&hash));
        report.find(Rule::Blob, Some(&id), detail);
        Ok(())
    })
    .await
}

/// Each large payload: what its hash says, JSON, and of use to someone.
async fn stored_blobs(db: &DatabaseTransaction, report: &mut CheckReport<'_>) -> Result<(), DbErr> {
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
            report.find(Rule::Blob, None, format!("blob {}: {detail}", shown(&hash)));
        }
        Ok(())
    })
    .await
}

/// Everything wrong with a large payload.
fn faults(hash: &[u8], body: &str, is_used: bool) -> Vec<String> {
    let mut faults = Vec::new();
    let is = blake3::hash(body.as_bytes());
    if is.as_bytes() != hash {
        faults.push(format!("its {} bytes have the hash {}", body.len(), is.to_hex()));
    } else if let Err(error) = serde_json::from_str::<serde_json::Value>(body) {
        faults.push(format!("it is no JSON: {error}"));
    }
    if !is_used {
        faults.push("nothing refers to it".into());
    }
    faults
}

/// What an error of reading says, without its kind.
fn detail_of(error: StoreError) -> String {
    match error {
        StoreError::Integrity { detail } => detail,
        other => other.to_string(),
    }
}
