//! Results that are read from the store one at a time, when they are printed.
//!
//! Used by every command that prints a workflow. Records come without their large results
//! ([`Store::outline`]), because all of them together may be larger than the memory.

use std::{
    borrow::Cow,
    io::{BufWriter, Write},
    sync::Arc,
};

use gleitzeit::results::DocumentWriter;
use gleitzeit_domain::{
    error::{ErrorCode, TaskError},
    id::WorkflowId,
    store::Store,
    task::TaskRecord,
    workflow::WorkflowRecord,
};
use serde_json::{Map, Value};

use super::{
    output::{Failure, JsonOut},
    report,
    session::{Session, close},
};

/// Bytes that are collected before they are written.
const BUFFER: usize = 64 * 1024;

/// The way to results that were left out of records.
pub(crate) struct StoredResults {
    /// `None` if no result was left out.
    store: Option<Arc<dyn Store>>,
}

impl StoredResults {
    /// Opens the store if one of the records lacks a result.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(crate) async fn of<'r>(
        session: &Session,
        records: impl IntoIterator<Item = &'r WorkflowRecord>,
    ) -> Result<Self, Failure> {
        let mut tasks = records.into_iter().flat_map(|record| &record.tasks);
        let store =
            if tasks.any(TaskRecord::is_result_left_out) { session.store().await? } else { None };
        Ok(Self { store })
    }

    /// The task with its result.
    ///
    /// # Errors
    /// Those of the store; `WORKFLOW_NOT_FOUND` if the result was removed meanwhile.
    pub(crate) async fn with_result<'t>(
        &self,
        id: &WorkflowId,
        task: &'t TaskRecord,
    ) -> Result<Cow<'t, TaskRecord>, Failure> {
        if !task.is_result_left_out() {
            return Ok(Cow::Borrowed(task));
        }
        let result = match &self.store {
            Some(store) => store.result(id, task.index).await?,
            None => None,
        };
        let Some(result) = result else {
            let message = format!(
                "the result of task `{}` of workflow `{id}` is not stored any more: the workflow \
                 was removed or retried meanwhile",
                task.id
            );
            return Err(TaskError::new(ErrorCode::WorkflowNotFound, message).into());
        };
        Ok(Cow::Owned(TaskRecord { result: Some(result), ..task.clone() }))
    }

    /// The record with as much of its results as a table shows.
    ///
    /// # Errors
    /// As [`with_result`](Self::with_result).
    pub(crate) async fn for_table<'r>(
        &self,
        record: &'r WorkflowRecord,
    ) -> Result<Cow<'r, WorkflowRecord>, Failure> {
        if self.store.is_none() || !report::shows_results(record) {
            return Ok(Cow::Borrowed(record));
        }
        let mut displayed = record.clone();
        for task in &mut displayed.tasks {
            let whole = match self.with_result(&record.id, task).await? {
                Cow::Owned(whole) => whole,
                Cow::Borrowed(_) => continue,
            };
            let essence = whole.result.as_deref().map(report::essence);
            task.result = essence.map(|essence| Arc::new(essence.into()));
        }
        Ok(Cow::Owned(displayed))
    }

    /// Writes one JSON document, of one workflow with `more` fields.
    ///
    /// # Errors
    /// As [`with_result`](Self::with_result). Standard output remembers its own.
    pub(crate) async fn print_document(
        &self,
        record: &WorkflowRecord,
        more: &Map<String, Value>,
    ) -> Result<(), Failure> {
        let mut out = BufWriter::with_capacity(BUFFER, JsonOut::default());
        self.write(&mut out, record, false, more).await?;
        let _ = out.write_all(b"\n").and_then(|()| out.flush());
        Ok(())
    }

    /// Writes one JSON document, a list of workflows.
    ///
    /// # Errors
    /// As [`with_result`](Self::with_result). Standard output remembers its own.
    pub(crate) async fn print_list(&self, records: &[Arc<WorkflowRecord>]) -> Result<(), Failure> {
        let mut out = BufWriter::with_capacity(BUFFER, JsonOut::default());
        let _ = out.write_all(b"[");
        for (index, record) in records.iter().enumerate() {
            let _ = out.write_all(if index == 0 { b"\n" } else { b",\n" });
            self.write(&mut out, record, true, &Map::new()).await?;
        }
        let end = if records.is_empty() { "]\n" } else { "\n]\n" };
        let _ = out.write_all(end.as_bytes()).and_then(|()| out.flush());
        Ok(())
    }

    async fn write(
        &self,
        out: &mut impl Write,
        record: &WorkflowRecord,
        in_list: bool,
        more: &Map<String, Value>,
    ) -> Result<(), Failure> {
        let Ok(mut writer) = DocumentWriter::begin(out, record, in_list) else { return Ok(()) };
        for task in &record.tasks {
            let task = self.with_result(&record.id, task).await?;
            if writer.task(&task).is_err() {
                return Ok(());
            }
        }
        let _ = writer.end(more);
        Ok(())
    }

    /// Lets go of the store.
    ///
    /// # Errors
    /// Those of closing.
    pub(crate) async fn close(self) -> Result<(), Failure> {
        match self.store {
            Some(store) => close(store).await,
            None => Ok(()),
        }
    }
}
