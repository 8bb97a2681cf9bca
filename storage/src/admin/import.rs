//! Imports the workflows of an export; for the format see [`export_format`](super::export_format).
//!
//! Every workflow keeps its state. An unsettled one continues when an engine claims it; a task that
//! was executing is repeated or not, as after a crash.
//!
//! Invariant: each workflow is imported in one transaction, and an existing one is not changed. So an
//! import may be repeated.

use std::{io::BufRead, time::Duration};

use gleitzeit_domain::{
    id::WorkflowId,
    store::{Store as _, StoreError, Submitted},
};
use serde::{Serialize, de::DeserializeOwned};

use super::export_format::{FORMAT, Header, Line};
use crate::{SqlOptions, SqlStore, StoreUrl};

/// Limit on closing the store.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(30);

/// The counts of an import.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Imported {
    /// Imported workflows.
    pub workflows: u64,
    /// Workflows that existed, which were not changed.
    pub existed: u64,
}

/// The failure of an import; the workflows before it stay imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A line is invalid.
    #[error("line {line} {what}; {} workflows before it were imported", .before.workflows)]
    Line {
        /// The number of the line, from 1.
        line: u64,
        /// The fault, as the end of a sentence about the line.
        what: String,
        /// The counts before the failure.
        before: Imported,
    },
    /// The store failed.
    #[error("line {line}: {error}; {} workflows before it were imported", .before.workflows)]
    Store {
        /// The number of the line; 0 before the first one.
        line: u64,
        /// The error of the store.
        error: StoreError,
        /// The counts before the failure.
        before: Imported,
    },
}

/// Imports the lines of an [`export`](super::export). Calls `skipped` with the id of each workflow
/// that exists. Creates and migrates the database if needed.
///
/// # Errors
/// [`ImportError`].
pub async fn import(
    url: &StoreUrl,
    options: SqlOptions,
    lines: &mut (dyn BufRead + Send),
    skipped: &mut (dyn FnMut(&WorkflowId) + Send),
) -> Result<Imported, ImportError> {
    let mut reader = Lines { input: lines, number: 0, text: Vec::new(), done: Imported::default() };
    // Before the connection: an input that is no export must not create a database.
    reader.header()?;
    let store = SqlStore::connect(url, options).await.map_err(|error| reader.refused(error))?;
    let imported = import_all(&store, &mut reader, skipped).await;
    // Also after an error: the thread of the store would otherwise outlive this call.
    if let Err(error) = store.close(CLOSE_TIMEOUT).await {
        tracing::warn!(%error, "store close failed after the import");
    }
    imported.map(|()| reader.done)
}

async fn import_all(
    store: &SqlStore,
    reader: &mut Lines<'_>,
    skipped: &mut (dyn FnMut(&WorkflowId) + Send),
) -> Result<(), ImportError> {
    loop {
        let workflow = match reader.next::<Line>()? {
            Some(Line::Workflow(workflow)) => workflow,
            Some(Line::End(last)) => return reader.check_end(last.workflows),
            None => {
                reader.number += 1;
                return Err(reader.wrong("is missing: the export was cut off before its end"));
            }
        };
        let id = workflow.workflow.id.clone();
        let new = workflow.into_new();
        let new = new.map_err(|why| reader.wrong(format!("has workflow `{id}`: {why}")))?;
        // One transaction for each workflow: an error names its line, and the lines before it are
        // stored.
        let answers = store.submit(vec![new]).await.map_err(|error| reader.refused(error))?;
        if answers == [Submitted::Existed] {
            reader.done.existed += 1;
            skipped(&id);
        } else {
            reader.done.workflows += 1;
        }
    }
}

/// The lines of an export, read one by one.
struct Lines<'a> {
    input: &'a mut (dyn BufRead + Send),
    /// The number of the last line that was read.
    number: u64,
    text: Vec<u8>,
    done: Imported,
}

impl Lines<'_> {
    /// The value of the next line; `None` at the end.
    fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ImportError> {
        self.text.clear();
        let read = self.input.read_until(b'\n', &mut self.text);
        let length = read.map_err(|error| self.wrong(format!("cannot be read: {error}")))?;
        if length == 0 {
            return Ok(None);
        }
        self.number += 1;
        let line = self.text.strip_suffix(b"\n").unwrap_or(&self.text);
        serde_json::from_slice(line).map(Some).map_err(|error| {
            // Without its line number, which is always 1: the parser sees this line only.
            let text = error.to_string();
            let text = text.rsplit_once(" at line ").map_or(&*text, |(text, _)| text);
            self.wrong(format!("is invalid at column {}: {text}", error.column()))
        })
    }

    fn header(&mut self) -> Result<(), ImportError> {
        match self.next::<Header>()? {
            Some(header) if (1..=FORMAT).contains(&header.gleitzeit_export) => Ok(()),
            Some(header) => Err(self.wrong(format!(
                "is of format {} (gleitzeit {}), and this program reads formats up to {FORMAT}",
                header.gleitzeit_export, header.program
            ))),
            None => Err(self.wrong("is missing: the input is empty")),
        }
    }

    fn check_end(&mut self, expected: u64) -> Result<(), ImportError> {
        let found = self.done.workflows + self.done.existed;
        if found != expected {
            return Err(self
                .wrong(format!("says that {expected} workflows stand before it, and {found} do")));
        }
        match self.next::<serde_json::Value>()? {
            None => Ok(()),
            Some(_) => Err(self.wrong("follows the last line of the export")),
        }
    }

    fn wrong(&self, what: impl Into<String>) -> ImportError {
        ImportError::Line { line: self.number, what: what.into(), before: self.done }
    }

    fn refused(&self, error: StoreError) -> ImportError {
        ImportError::Store { line: self.number, error, before: self.done }
    }
}
