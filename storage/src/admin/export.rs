//! Exports every workflow of a database as lines; for the format see [`export_format`](super::export_format).
//!
//! Each workflow is read from one snapshot. A workflow that an engine runs meanwhile is exported in
//! its current state, and would also run from there after an import: stop the engines before a
//! move.

use std::io::Write;

use gleitzeit_domain::store::StoreError;
use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _};
use serde::Serialize;

use super::{
    Finding, OpenDatabase, Rule,
    export_format::{Count, End, Header, WorkflowLine},
    of_read,
    pages::Pages,
};
use crate::{
    StoreUrl,
    encode::unescape,
    entity::workflow,
    fault::ReadError,
    open::Role,
    read::{self, Reader},
};

/// The counts of an export.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Exported {
    /// Workflows.
    pub workflows: u64,
    /// Broken workflows, which were left out.
    pub skipped: u64,
}

/// Exports every workflow as a line. Calls `on_finding` for a broken one, and leaves it out.
///
/// # Errors
/// [`StoreError::Open`] if there is no such database or its schema is not this program's,
/// [`StoreError::Unavailable`], [`StoreError::Read`]; [`StoreError::Write`] if `out` fails.
pub async fn export(
    url: &StoreUrl,
    out: &mut (dyn Write + Send),
    on_finding: &mut (dyn FnMut(Finding) + Send),
) -> Result<Exported, StoreError> {
    let OpenDatabase { db, .. } = OpenDatabase::open_current(url, Role::Inspect).await?;
    // Without a statement timeout: a large workflow may take longer to read than a statement may.
    let reader = Reader::new(db.clone());
    let exported = write_all(&reader, &db, out, on_finding).await;
    reader.close().await;
    exported.map_err(|ReadError(error)| error)
}

async fn write_all(
    reader: &Reader,
    db: &sea_orm::DatabaseConnection,
    out: &mut (dyn Write + Send),
    on_finding: &mut (dyn FnMut(Finding) + Send),
) -> Result<Exported, ReadError> {
    let mut exported = Exported::default();
    write_line(out, &Header::now())?;
    let mut pages = Pages::default();
    loop {
        let keys: Vec<i64> = pages.next(db).await?.into_iter().map(|row| row.key).collect();
        if keys.is_empty() {
            break;
        }
        for key in keys {
            match line_of(reader, key).await {
                Ok(Some(line)) => {
                    write_line(out, &line)?;
                    exported.workflows += 1;
                }
                // Deleted since the page was read.
                Ok(None) => {}
                Err((
                    Some(id),
                    ReadError(StoreError::Integrity { detail } | StoreError::Read { detail }),
                )) => {
                    on_finding(Finding { rule: Rule::Workflow, workflow: Some(id), detail });
                    exported.skipped += 1;
                }
                Err((_, error)) => return Err(error),
            }
        }
    }
    write_line(out, &End { end: Count { workflows: exported.workflows } })?;
    // Before the count is returned: the error of a buffered writer would otherwise be lost.
    out.flush().map_err(|error| cannot_write(&error))?;
    Ok(exported)
}

/// One workflow from one snapshot; an error comes with its id, if that is known.
async fn line_of(
    reader: &Reader,
    key: i64,
) -> Result<Option<WorkflowLine>, (Option<String>, ReadError)> {
    let failed = |error: sea_orm::DbErr| (None, ReadError(of_read(error)));
    // A snapshot for each workflow, not one for all: a long one would keep the log of SQLite from
    // being shortened, and rows of PostgreSQL from a vacuum.
    let snapshot = reader.snapshot().await.map_err(failed)?;
    let row = workflow::Entity::find()
        .filter(workflow::Column::Key.eq(key))
        .one(&snapshot)
        .await
        .map_err(failed)?;
    let Some(row) = row else { return Ok(None) };
    let id = unescape(row.id.clone());
    let hash = row.needs;
    let line = async {
        let needs = crate::needs::of_hash(&snapshot, hash).await?;
        let loaded = reader.load(&snapshot, vec![row]).await?;
        let Some(record) = loaded.only()? else { return Ok(None) };
        let events = read::events_of(&snapshot, &record.id, key, 0, usize::MAX).await?;
        let line = WorkflowLine::new(record, events, &needs);
        line.map(Some).map_err(|detail| ReadError(StoreError::Integrity { detail }))
    };
    let line = line.await.map_err(|error| (Some(id), error))?;
    snapshot.commit().await.map_err(failed)?;
    Ok(line)
}

fn write_line(out: &mut dyn Write, line: &impl Serialize) -> Result<(), ReadError> {
    let written = serde_json::to_writer(&mut *out, line).map_err(std::io::Error::from);
    Ok(written.and_then(|()| out.write_all(b"\n")).map_err(|error| cannot_write(&error))?)
}

fn cannot_write(error: &std::io::Error) -> StoreError {
    StoreError::Write { detail: format!("the export cannot be written: {error}") }
}
