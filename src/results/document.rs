//! The document of a workflow, written task by task.
//!
//! Asked by the command line. The bytes are those of [`document`](fn@super::document), pretty-printed.
//!
//! Invariant: one result is held at a time, because all of a workflow's may be larger than the
//! memory.

use std::io::{self, Write};

use gleitzeit_domain::{task::TaskRecord, workflow::WorkflowRecord};
use serde::Serialize;
use serde_json::{Map, Value};

use super::task_document;

/// Writes the document of one workflow in parts: [`begin`](Self::begin), [`task`](Self::task) for
/// each task in order, [`end`](Self::end).
#[derive(Debug)]
pub struct DocumentWriter<'w, W> {
    out: &'w mut W,
    /// The prefix of each line.
    margin: &'static str,
    has_task: bool,
}

impl<'w, W: Write> DocumentWriter<'w, W> {
    /// Writes all that stands before the tasks. `in_list` indents it as an element of a list.
    ///
    /// # Errors
    /// The errors of `out`.
    pub fn begin(out: &'w mut W, record: &WorkflowRecord, in_list: bool) -> io::Result<Self> {
        let margin = if in_list { "  " } else { "" };
        write!(out, "{margin}{{")?;
        let mut writer = Self { out, margin, has_task: false };
        writer.field("", "workflow_id", &record.id)?;
        write!(writer.out, ",")?;
        writer.field("", "name", &record.name)?;
        write!(writer.out, ",")?;
        writer.field("", "status", &record.status)?;
        write!(writer.out, ",\n{margin}  \"tasks\": {{")?;
        Ok(writer)
    }

    /// Writes a task with the result that it has.
    ///
    /// # Errors
    /// The errors of `out`.
    pub fn task(&mut self, task: &TaskRecord) -> io::Result<()> {
        if std::mem::replace(&mut self.has_task, true) {
            write!(self.out, ",")?;
        }
        self.field("  ", task.id.as_str(), &task_document(task))
    }

    /// Writes all that stands after the tasks, `more` fields among it.
    ///
    /// # Errors
    /// The errors of `out`.
    pub fn end(mut self, more: &Map<String, Value>) -> io::Result<()> {
        let margin = self.margin;
        if self.has_task {
            write!(self.out, "\n{margin}  ")?;
        }
        write!(self.out, "}}")?;
        for (name, value) in more {
            write!(self.out, ",")?;
            self.field("", name, value)?;
        }
        write!(self.out, "\n{margin}}}")
    }

    /// A field on a line of its own. A line end within a string is escaped, so that each one in the
    /// text is followed by an indent.
    fn field(&mut self, indent: &str, name: &str, value: &impl Serialize) -> io::Result<()> {
        let before = format!("\n{}  {indent}", self.margin);
        let text = serde_json::to_string_pretty(value)?;
        write!(self.out, "{before}{}: ", serde_json::to_string(name)?)?;
        for (index, line) in text.split('\n').enumerate() {
            if index > 0 {
                self.out.write_all(before.as_bytes())?;
            }
            self.out.write_all(line.as_bytes())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use chrono::DateTime;
    use gleitzeit_domain::workflow::{WorkflowSpec, WorkflowStatus};
    use serde_json::json;

    use super::{super::document, *};

    fn record(results: &[Value]) -> WorkflowRecord {
        let task = |(index, result): (u32, &Value)| {
            let mut task = TaskRecord::pending(index, format!("t\"{index}").into(), "n".into());
            task.result = Some(Arc::new(result.clone()));
            task
        };
        WorkflowRecord {
            id: "w\n".into(),
            name: "W".into(),
            status: WorkflowStatus::Completed,
            created_at: DateTime::UNIX_EPOCH,
            started_at: None,
            completed_at: None,
            error: None,
            last_sequence: 0,
            spec: Arc::new(WorkflowSpec::new("W")),
            tasks: (0..).zip(results).map(task).collect(),
        }
    }

    fn written(record: &WorkflowRecord, in_list: bool, more: &Value) -> String {
        let mut out = Vec::new();
        let mut writer = DocumentWriter::begin(&mut out, record, in_list).unwrap();
        for task in &record.tasks {
            writer.task(task).unwrap();
        }
        writer.end(more.as_object().unwrap()).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// Programs compare what is printed byte by byte, alone, in a list, and with more fields.
    #[test]
    fn the_parts_are_the_document() {
        let results = [json!({"a": [1, {"b": "x\ny"}], "c": {}}), json!(null), json!([])];
        for results in [&results[..], &[]] {
            let record = record(results);
            let mut whole = document(&record);
            let text = serde_json::to_string_pretty(&whole).unwrap();
            assert_eq!(written(&record, false, &json!({})), text);
            let list = serde_json::to_string_pretty(&json!([whole])).unwrap();
            assert_eq!(format!("[\n{}\n]", written(&record, true, &json!({}))), list);
            whole["running"] = json!([{"task": "t"}]);
            let text = serde_json::to_string_pretty(&whole).unwrap();
            assert_eq!(written(&record, false, &json!({"running": [{"task": "t"}]})), text);
        }
    }
}
