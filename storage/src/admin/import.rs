//! Takes the workflows of an export into a database: see [`line`](super::line).
//!
//! What they were is kept: settled ones are there to be looked at, and the others go on where they
//! stood, once an engine looks for work; what was executing is repeated or not, as after a crash.
//!
//! Invariant: a workflow is taken in whole, in a transaction of its own, or not at all; one that is
//! there already stays as it is. So the same import may be repeated.

use std::{io::BufRead, time::Duration};

use gleitzeit_domain::{
    id::WorkflowId,
    store::{Store as _, StoreError, Submitted},
};
use serde::{Serialize, de::DeserializeOwned};

use super::line::{FORMAT, Header, Line};
use crate::{SqlOptions, SqlStore, StoreUrl};

/// How long the store may take to let go of the database.
const CLOSING: Duration = Duration::from_secs(30);

/// What was taken in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Imported {
    /// Workflows that are there now, and were not before.
    pub workflows: u64,
    /// Those that were there before, and are as they were.
    pub existed: u64,
}

/// Why an import stopped; what was taken in before stays.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A line is not what it should be.
    #[error("line {line} {what}; {} workflows before it are taken in", .before.workflows)]
    Line {
        /// Its number, from 1.
        line: u64,
        /// What is wrong with it.
        what: String,
        /// What was taken in before.
        before: Imported,
    },
    /// The database did not take it.
    #[error("line {line}: {error}; {} workflows before it are taken in", .before.workflows)]
    Store {
        /// The line that was to be stored; 0 before the first one.
        line: u64,
        /// What the store said.
        error: StoreError,
        /// What was taken in before.
        before: Imported,
    },
}

/// Takes in what [`export`](super::export) wrote. `skipped` is told each workflow that is there
/// already. The database is made and migrated where need be.
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
    // Before a database is made for what is no export.
    reader.header()?;
    let store = SqlStore::connect(url, options).await.map_err(|error| reader.refused(error))?;
    let imported = take_in(&store, &mut reader, skipped).await;
    if let Err(error) = store.close(CLOSING).await {
        tracing::warn!(%error, "the database was not closed in order");
    }
    imported.map(|()| reader.done)
}

async fn take_in(
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
        let answers = store.submit(vec![new]).await.map_err(|error| reader.refused(error))?;
        if answers == [Submitted::Existed] {
            reader.done.existed += 1;
            skipped(&id);
        } else {
            reader.done.workflows += 1;
        }
    }
}

/// The lines, one after the other.
struct Lines<'a> {
    input: &'a mut (dyn BufRead + Send),
    /// Of the line that was read last.
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
            // The only line that it knows is this one.
            let told = error.to_string();
            let told = told.rsplit_once(" at line ").map_or(&*told, |(told, _)| told);
            self.wrong(format!("is not as expected at column {}: {told}", error.column()))
        })
    }

    fn header(&mut self) -> Result<(), ImportError> {
        match self.next::<Header>()? {
            Some(header) if header.gleitzeit_export == FORMAT => Ok(()),
            Some(header) => Err(self.wrong(format!(
                "is of format {} (gleitzeit {}), and this program reads format {FORMAT}",
                header.gleitzeit_export, header.program
            ))),
            None => Err(self.wrong("is missing: nothing was given")),
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
            Some(_) => Err(self.wrong("stands behind the last one")),
        }
    }

    fn wrong(&self, what: impl Into<String>) -> ImportError {
        ImportError::Line { line: self.number, what: what.into(), before: self.done }
    }

    fn refused(&self, error: StoreError) -> ImportError {
        ImportError::Store { line: self.number, error, before: self.done }
    }
}
