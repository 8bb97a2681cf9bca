//! Checks each workflow with its tasks and events.
//!
//! The rows are read by the functions of the store. Large results are not loaded; another check
//! covers them.

use std::sync::Arc;

use futures_util::TryStreamExt as _;
use gleitzeit_domain::{
    event::EventData,
    store::{StoreError, audit},
    task::TaskRecord,
    workflow::{WorkflowRecord, WorkflowSpec},
};
use sea_orm::{
    ColumnTrait as _, DatabaseTransaction, DbErr, EntityTrait as _, QueryFilter as _,
    QueryOrder as _,
};
use serde_json::Value;

use super::{super::pages::Pages, CheckReport, Rule, detail_of};
use crate::{
    encode::{self, count_of, parse, unescape},
    entity::{blob, event, task, workflow},
    read::assemble::{hash_text, record_of, task_of},
};

/// A workflow of the current page.
struct Seen {
    key: i64,
    id: String,
    /// The record without the results of its tasks; `None` if it cannot be read.
    record: Option<WorkflowRecord>,
    task_count: i64,
    /// The last sequence by the workflow's own row.
    last_sequence: i64,
    /// The last sequence by its rows of events.
    last_found: i64,
}

/// Checks all workflows.
pub(super) async fn workflows(
    db: &DatabaseTransaction,
    report: &mut CheckReport<'_>,
) -> Result<(), DbErr> {
    let mut pages = Pages::default();
    loop {
        let rows = pages.next(db).await?;
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(()) };
        let range = (first.key, last.key);
        let mut page = Vec::with_capacity(rows.len());
        for row in rows {
            report.checked.workflows += 1;
            page.push(seen(db, row, report).await?);
        }
        tasks(db, range, &mut page, report).await?;
        for it in &page {
            for found in it.record.iter().flat_map(audit::contradictions) {
                report.find(Rule::Workflow, Some(&it.id), found);
            }
        }
        events(db, range, &mut page, report).await?;
    }
}

/// Checks the workflow's own row; its tasks are as they were submitted.
async fn seen(
    db: &DatabaseTransaction,
    row: workflow::Model,
    report: &mut CheckReport<'_>,
) -> Result<Seen, DbErr> {
    let mut seen = Seen {
        key: row.key,
        id: unescape(row.id.clone()),
        record: None,
        task_count: row.task_count,
        last_sequence: row.last_sequence,
        last_found: 0,
    };
    if let Some(json) = spec_of(db, &row, &seen.id, report).await? {
        let record = parse::<WorkflowSpec>(&json).and_then(|spec| {
            let waiting = |(spec, index)| encode::waiting(index, spec);
            let tasks: Vec<TaskRecord> = spec.tasks.iter().zip(0_u32..).map(waiting).collect();
            record_of(row, Arc::new(spec), tasks, count_of(seen.last_sequence)?)
        });
        match record {
            Ok(record) if i64::try_from(record.tasks.len()) != Ok(seen.task_count) => {
                let (stored, found) = (seen.task_count, record.tasks.len());
                let detail = format!("its row has the count {stored}, and its spec {found} tasks");
                report.find(Rule::Workflow, Some(&seen.id), detail);
                seen.record = Some(record);
            }
            Ok(record) => seen.record = Some(record),
            Err(error) => report.find(Rule::Workflow, Some(&seen.id), detail_of(error)),
        }
    }
    Ok(seen)
}

/// The JSON of the spec.
async fn spec_of(
    db: &DatabaseTransaction,
    row: &workflow::Model,
    id: &str,
    report: &mut CheckReport<'_>,
) -> Result<Option<String>, DbErr> {
    match (&row.spec, &row.spec_blob) {
        (Some(json), None) => Ok(Some(json.clone())),
        (None, Some(hash)) => {
            let found = blob::Entity::find_by_id(hash.clone()).one(db).await?;
            if found.is_none() {
                let detail = format!("its spec, blob {}, is missing", hash_text(hash));
                report.find(Rule::Blob, Some(id), detail);
            }
            Ok(found.map(|blob| blob.body))
        }
        (None, None) => {
            report.find(Rule::Workflow, Some(id), "it has no spec");
            Ok(None)
        }
        (Some(json), Some(_)) => {
            report.find(Rule::Workflow, Some(id), "it has its spec twice");
            Ok(Some(json.clone()))
        }
    }
}

/// The workflow of the page with this key, from the index `at` on.
fn find<'a>(page: &'a mut [Seen], at: &mut usize, key: i64) -> Option<&'a mut Seen> {
    while page.get(*at).is_some_and(|it| it.key < key) {
        *at += 1;
    }
    page.get_mut(*at).filter(|it| it.key == key)
}

async fn tasks(
    db: &DatabaseTransaction,
    (first, last): (i64, i64),
    page: &mut [Seen],
    report: &mut CheckReport<'_>,
) -> Result<(), DbErr> {
    // A stream: a page may be one workflow with any number of tasks, which would not fit into
    // memory.
    let mut rows = task::Entity::find()
        .filter(task::Column::WorkflowKey.between(first, last))
        // In the order of the page: `find` moves forward only, and would miss a row out of order.
        .order_by_asc(task::Column::WorkflowKey)
        .order_by_asc(task::Column::Position)
        .stream(db)
        .await?;
    let mut at = 0;
    while let Some(row) = rows.try_next().await? {
        report.checked.tasks += 1;
        // Tasks without a workflow are findings of another check.
        let Some(seen) = find(page, &mut at, row.workflow_key) else { continue };
        let (position, count) = (row.position, seen.task_count);
        if !(0..count).contains(&position) {
            let detail = format!("it has {count} tasks, and a row for one at {position}");
            report.find(Rule::Task, Some(&seen.id), detail);
            continue;
        }
        match task_without_result(row) {
            Ok(task) => {
                let record = seen.record.as_mut();
                let slot = record.and_then(|it| it.tasks.get_mut(task.index as usize));
                if let Some(slot) = slot {
                    *slot = task;
                }
            }
            Err(error) => {
                let detail = format!("its task at {position}: {}", detail_of(error));
                report.find(Rule::Task, Some(&seen.id), detail);
                // Without this task the status of the workflow cannot be checked.
                seen.record = None;
            }
        }
    }
    Ok(())
}

/// A task whose result, if it has one, is null.
fn task_without_result(row: task::Model) -> Result<TaskRecord, StoreError> {
    // Parsed and dropped: a result that is no JSON is a finding, and its value is not needed.
    let has_result = match (&row.result, &row.result_blob) {
        (Some(_), Some(_)) => return Err(encode::refused("it has its result twice".into())),
        (Some(json), None) => parse::<Value>(json).map(|_| true)?,
        (None, blob) => blob.is_some(),
    };
    let index = count_of(row.position)?;
    task_of(index, row, has_result.then(Arc::default))
}

async fn events(
    db: &DatabaseTransaction,
    (first, last): (i64, i64),
    page: &mut [Seen],
    report: &mut CheckReport<'_>,
) -> Result<(), DbErr> {
    let mut rows = event::Entity::find()
        .filter(event::Column::WorkflowKey.between(first, last))
        .order_by_asc(event::Column::WorkflowKey)
        .order_by_asc(event::Column::FirstSequence)
        .stream(db)
        .await?;
    let mut at = 0;
    while let Some(row) = rows.try_next().await? {
        let Some(seen) = find(page, &mut at, row.workflow_key) else { continue };
        // Saturating: a broken row may have any number.
        let (expected, begins) = (seen.last_found.saturating_add(1), row.first_sequence);
        if begins != expected {
            let detail = format!("its events continue with {begins} instead of {expected}");
            report.find(Rule::Event, Some(&seen.id), detail);
        }
        match parse::<Vec<(i64, EventData)>>(&row.body) {
            Ok(body) if i64::try_from(body.len()) == Ok(row.event_count) => {}
            Ok(body) => {
                let (stored, found) = (row.event_count, body.len());
                let detail = format!("its row of events from {begins} on has {found} of {stored}");
                report.find(Rule::Event, Some(&seen.id), detail);
            }
            Err(error) => {
                let detail = format!("its events from {begins} on: {}", detail_of(error));
                report.find(Rule::Event, Some(&seen.id), detail);
            }
        }
        let count = u64::try_from(row.event_count).unwrap_or(0);
        report.checked.events = report.checked.events.saturating_add(count);
        // By the count of the row, not by its parsed events: a broken body must not turn every
        // later row into a finding.
        seen.last_found = begins.saturating_add(row.event_count).saturating_sub(1);
    }
    drop(rows);
    for seen in page.iter().filter(|seen| seen.last_sequence > seen.last_found) {
        let (stored, found) = (seen.last_sequence, seen.last_found);
        let detail = format!("its last event is {stored}, and its events end with {found}");
        report.find(Rule::Event, Some(&seen.id), detail);
    }
    Ok(())
}
