//! Writes every workflow of a database to a stream of lines: see [`line`](super::line).
//!
//! Each workflow is as of one moment. One that an engine runs meanwhile is written as it stands, and
//! goes on in the other database from there if it is imported: whoever moves a database stops its
//! engines first.

use std::io::Write;

use gleitzeit_domain::store::StoreError;
use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _};
use serde::Serialize;

use super::{
    Finding, Place, Rule,
    line::{Count, End, Header, WorkflowLine},
    of_read,
    pages::Pages,
};
use crate::{
    StoreUrl, encode::unescape, entity::workflow, open::Use, read, read::ReadError, read::Reader,
};

/// What was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Exported {
    /// Workflows.
    pub workflows: u64,
    /// Workflows that could not be read, and were left out.
    pub skipped: u64,
}

/// Writes every workflow, one a line. One that cannot be read is told of, and left out.
///
/// # Errors
/// [`StoreError::Open`] where there is no such database or its schema is not this program's,
/// [`StoreError::Unavailable`], [`StoreError::Read`]; [`StoreError::Write`] where `out` takes no
/// more.
pub async fn export(
    url: &StoreUrl,
    out: &mut (dyn Write + Send),
    told: &mut (dyn FnMut(Finding) + Send),
) -> Result<Exported, StoreError> {
    let Place { db, .. } = Place::open_current(url, Use::Inspect).await?;
    let reader = Reader::new(db.clone());
    let exported = write_all(&reader, &db, out, told).await;
    reader.close().await;
    exported.map_err(|ReadError(error)| error)
}

async fn write_all(
    reader: &Reader,
    db: &sea_orm::DatabaseConnection,
    out: &mut (dyn Write + Send),
    told: &mut (dyn FnMut(Finding) + Send),
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
                // It was forgotten meanwhile.
                Ok(None) => {}
                Err((
                    Some(id),
                    ReadError(StoreError::Integrity { detail } | StoreError::Read { detail }),
                )) => {
                    told(Finding { rule: Rule::Workflow, workflow: Some(id), detail });
                    exported.skipped += 1;
                }
                Err((_, error)) => return Err(error),
            }
        }
    }
    write_line(out, &End { end: Count { workflows: exported.workflows } })?;
    out.flush().map_err(|error| cannot_write(&error))?;
    Ok(exported)
}

/// One workflow as of one moment; an error comes with its id, where that is known.
async fn line_of(
    reader: &Reader,
    key: i64,
) -> Result<Option<WorkflowLine>, (Option<String>, ReadError)> {
    let failed = |error: sea_orm::DbErr| (None, ReadError(of_read(error)));
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
