//! `run --junit FILE`: how each task ended, in the XML that build servers read.
//!
//! The form is that of the Jenkins plug-in: a suite for the workflow, a case for each task. A task that
//! did not run is skipped; one that is not settled is an error.

use std::{fmt::Write as _, fs, path::Path};

use gleitzeit_domain::{
    error::TaskError,
    task::{TaskRecord, TaskStatus},
    workflow::WorkflowRecord,
};

use super::{output::Failure, report::Written};

/// Writes the file.
///
/// # Errors
/// If it cannot be written.
pub(crate) fn write(file: &Path, record: &WorkflowRecord) -> Result<(), Failure> {
    fs::write(file, xml(record)).map_err(|error| {
        Failure::infrastructure(format!(
            "report not written to `{}`: {error}; `gleitzeit show {}` has the results",
            file.display(),
            record.id
        ))
    })
}

fn xml(record: &WorkflowRecord) -> String {
    let count = |wanted: fn(TaskStatus) -> bool| {
        record.tasks.iter().filter(|task| wanted(task.status)).count()
    };
    let counts = format!(
        "tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\" time=\"{:.3}\"",
        record.tasks.len(),
        count(|status| status == TaskStatus::Failed),
        count(|status| !status.is_settled()),
        count(is_skipped),
        seconds(record),
    );
    let name = attribute(&record.name);
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"{name}\" {counts}>\n  \
         <testsuite name=\"{name}\" {counts} timestamp=\"{}\">\n    <properties>\n      <property \
         name=\"workflow_id\" value=\"{}\"/>\n    </properties>\n",
        record.created_at.format("%Y-%m-%dT%H:%M:%S"),
        attribute(record.id.as_str()),
    );
    for task in &record.tasks {
        case(&mut text, &record.name, task);
    }
    text.push_str("  </testsuite>\n</testsuites>\n");
    text
}

const fn is_skipped(status: TaskStatus) -> bool {
    matches!(status, TaskStatus::Skipped | TaskStatus::UpstreamFailed | TaskStatus::Cancelled)
}

/// From the start to the end of the workflow.
fn seconds(record: &WorkflowRecord) -> f64 {
    let span = record.started_at.zip(record.completed_at).map(|(from, to)| to - from);
    span.and_then(|span| span.to_std().ok()).unwrap_or_default().as_secs_f64()
}

fn case(text: &mut String, workflow: &str, task: &TaskRecord) {
    let name = if *task.name == *task.id.as_str() {
        task.id.to_string()
    } else {
        format!("{}: {}", task.id, task.name)
    };
    let _ = write!(
        text,
        "    <testcase name=\"{}\" classname=\"{}\" time=\"{:.3}\"",
        attribute(&name),
        attribute(workflow),
        task.duration.unwrap_or_default()
    );
    let mut inner = String::new();
    match (task.status, &task.error) {
        (TaskStatus::Completed, _) => {}
        (TaskStatus::Failed, Some(error)) => problem(&mut inner, "failure", error),
        (TaskStatus::Failed, None) => inner.push_str("      <failure message=\"failed\"/>\n"),
        (status, error) => {
            let why =
                error.as_ref().map_or_else(|| status.to_string(), |it| it.message.to_string());
            let element = if is_skipped(status) { "skipped" } else { "error" };
            let _ = writeln!(inner, "      <{element} message=\"{}\"/>", attribute(&why));
        }
    }
    let written = Written::of(task);
    for (element, stream) in [("system-out", written.stdout), ("system-err", written.stderr)] {
        if !stream.is_empty() {
            let _ = writeln!(inner, "      <{element}>{}</{element}>", content(stream));
        }
    }
    if inner.is_empty() {
        text.push_str("/>\n");
    } else {
        let _ = writeln!(text, ">\n{inner}    </testcase>");
    }
}

fn problem(text: &mut String, element: &str, error: &TaskError) {
    let _ = writeln!(
        text,
        "      <{element} message=\"{}\" type=\"{}\">{}</{element}>",
        attribute(error.message.lines().next().unwrap_or_default()),
        error.code.name(),
        content(&error.to_string())
    );
}

/// Text between tags.
fn content(text: &str) -> String {
    escape(text, false)
}

/// The value of an attribute, in which a line end would be read as a space.
fn attribute(text: &str) -> String {
    escape(text, true)
}

/// XML 1.0 has no way to write most control characters: they are written as `\u001b`.
fn escape(text: &str, in_attribute: bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            // `]]>` must not stand in text.
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' | '\t' if !in_attribute => escaped.push(c),
            '\n' | '\t' | '\r' => {
                let _ = write!(escaped, "&#{};", u32::from(c));
            }
            '\u{0}'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{fffe}' | '\u{ffff}' => {
                let _ = write!(escaped, "\\u{:04x}", u32::from(c));
            }
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader of XML gets back each character that XML has, and sees the others.
    #[test]
    fn everything_is_escaped_that_xml_does_not_have() {
        assert_eq!(content("a<b>&\"]]>\n\tz"), "a&lt;b&gt;&amp;&quot;]]&gt;\n\tz");
        assert_eq!(attribute("a\nb\t\"\r"), "a&#10;b&#9;&quot;&#13;");
        assert_eq!(
            content("\u{1b}[31m\u{0}\u{ffff}\u{9b}é😀"),
            "\\u001b[31m\\u0000\\uffff\\u009bé😀"
        );
        assert_eq!(content("\r\n"), "&#13;\n");
    }
}
