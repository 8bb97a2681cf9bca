//! The results of a workflow that asks for files of them: `ID.json` and `ID.md` in its output
//! directory.
//!
//! The runtime writes them when such a workflow has settled, in the process that ran it; the
//! command line writes them, too. A file is written under another name and then renamed, so that no
//! reader sees half a file.

mod document;

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use gleitzeit_domain::{
    error::TaskError, id::WorkflowId, printable, task::TaskRecord, workflow::WorkflowRecord,
};
use serde_json::{Map, Value, json};

use gleitzeit_providers::guarded::is_below;

pub use document::DocumentWriter;

use crate::settings::Settings;

/// The number of bytes at either end of a file that are checked to detect a result.
const ENDS_BYTES: usize = 4096;

/// The paths of the results of a workflow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResultFiles {
    /// The document that `show --json` prints.
    pub json: PathBuf,
    /// The same for a person.
    pub markdown: PathBuf,
}

/// The reason why results are not written.
#[derive(Debug, thiserror::Error)]
pub enum ResultsError {
    /// The settings do not permit the directory that is stored with the workflow.
    #[error(
        "results of workflow `{id}` not written: `{}` is not below `security.place_roots`; add its \
         directory there, or read them with `gleitzeit show {id}`", directory.display()
    )]
    NotPermitted {
        /// The workflow.
        id: WorkflowId,
        /// The directory.
        directory: PathBuf,
    },
    /// A file or directory cannot be made.
    #[error(
        "results not written to `{}`: {source}; `gleitzeit show` has them", path.display()
    )]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

impl ResultFiles {
    /// The files of a workflow; `None` if it has no output directory.
    pub fn of(record: &WorkflowRecord) -> Option<Self> {
        let output = record.spec.file_access.as_ref()?.output.as_ref()?;
        let stem = stem(&record.id);
        let directory = Path::new(output);
        Some(Self {
            json: directory.join(format!("{stem}.json")),
            markdown: directory.join(format!("{stem}.md")),
        })
    }

    /// True when both are there.
    pub fn are_there(&self) -> bool {
        self.json.is_file() && self.markdown.is_file()
    }
}

/// An id as part of a file's name: it leads into no other directory.
fn stem(id: &WorkflowId) -> String {
    let plain = |c: char| if c.is_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' };
    let text: String = id.as_str().chars().map(plain).take(100).collect();
    if text.starts_with('.') { format!("_{text}") } else { text }
}

/// Writes the results of a workflow to its output directory, if it has one.
///
/// # Errors
/// [`ResultsError`].
pub fn write(
    record: &WorkflowRecord,
    settings: &Settings,
) -> Result<Option<ResultFiles>, ResultsError> {
    let Some(files) = ResultFiles::of(record) else { return Ok(None) };
    let directory = files.json.parent().unwrap_or(Path::new("/"));
    if !is_permitted(directory, settings) {
        let (id, directory) = (record.id.clone(), directory.to_owned());
        return Err(ResultsError::NotPermitted { id, directory });
    }
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| ResultsError::Io { path, source }
    };
    fs::create_dir_all(directory).map_err(failed(directory))?;
    let json = serde_json::to_string_pretty(&document(record)).unwrap_or_default() + "\n";
    // Results are words of tasks and models: `cat` of them must not drive a terminal.
    let json = printable::json(&json).into_owned();
    let markdown = printable::block(&markdown(record)).into_owned();
    for (path, text) in [(&files.json, json), (&files.markdown, markdown)] {
        let mut new = path.clone().into_os_string();
        new.push(format!(".{}.new", uuid::Uuid::new_v4().simple()));
        let new = PathBuf::from(new);
        let written = write_private(&new, &text).and_then(|()| fs::rename(&new, path));
        if written.is_err() {
            let _ = fs::remove_file(&new);
        }
        written.map_err(failed(path))?;
    }
    Ok(Some(files))
}

/// Writes a new file that only its owner may read, as the database is that has the same results.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    io::Write::write_all(&mut options.open(path)?, text.as_bytes())
}

/// True if the directory, as far as it exists, is below a root of the settings.
fn is_permitted(directory: &Path, settings: &Settings) -> bool {
    let existing = directory.ancestors().find_map(|above| above.canonicalize().ok());
    let climbs = directory.components().any(|it| it == std::path::Component::ParentDir);
    directory.is_absolute()
        && !climbs
        && existing.is_some_and(|real| is_below(&real, &settings.security.workflow_file_roots))
}

/// `{"workflow_id","name","status","tasks":{"<id>":{…}}}`, the tasks by id.
pub fn document(record: &WorkflowRecord) -> Value {
    let tasks: Map<String, Value> =
        record.tasks.iter().map(|task| (task.id.to_string(), task_document(task))).collect();
    json!({
        "workflow_id": record.id,
        "name": record.name,
        "status": record.status,
        "tasks": tasks,
    })
}

fn task_document(task: &TaskRecord) -> Value {
    json!({
        "name": task.name,
        "status": task.status,
        "attempts": task.attempts,
        "provider_id": task.provider_id,
        "duration": task.duration,
        "result": task.result,
        "error": task.error.as_deref().map(error_document),
    })
}

/// `{"code","name","message","data"}`.
pub fn error_document(error: &TaskError) -> Value {
    json!({
        "code": error.code.number(),
        "name": error.code.name(),
        "message": error.message,
        "data": error.data,
    })
}

/// The results for a person: a heading and what came out, file by file.
pub fn markdown(record: &WorkflowRecord) -> String {
    let mut text = format!("# {}\n\nWorkflow `{}`: {}.\n", record.name, record.id, record.status);
    for (task, spec) in record.tasks.iter().zip(&record.spec.tasks) {
        let title = file_of(&spec.parameters).unwrap_or(task.name.as_ref());
        let _ = write!(text, "\n## {title}\n\n{}\n", body(task));
    }
    text
}

fn file_of(parameters: &Value) -> Option<&str> {
    ["/file_path", "/image_path", "/context/file_path"]
        .iter()
        .find_map(|pointer| parameters.pointer(pointer))
        .and_then(Value::as_str)
}

fn body(task: &TaskRecord) -> String {
    if let Some(error) = &task.error {
        return format!("**{}**: {error}", task.status);
    }
    let Some(result) = &task.result else { return format!("**{}**", task.status) };
    let value = result.get("response").or_else(|| result.get("result")).unwrap_or(result);
    match value {
        Value::String(text) => text.trim_end().to_owned(),
        value => {
            let json = serde_json::to_string_pretty(value).unwrap_or_default();
            format!("```json\n{json}\n```")
        }
    }
}

/// True for a file that [`write`] made: it is named after its workflow. A batch that used the
/// results of the one before as inputs would grow without end.
pub(crate) fn is_result(path: &Path) -> bool {
    let Some(stem) = path.file_stem().and_then(|stem| stem.to_str()) else { return false };
    let value = match path.extension().and_then(|extension| extension.to_str()) {
        Some("json") => format!("\"workflow_id\": \"{stem}\""),
        Some("md") => format!("Workflow `{stem}`: "),
        _ => return false,
    };
    ends_of(path).is_ok_and(|ends| ends.iter().any(|text| text.contains(&value)))
}

/// The beginning and the end of a file.
fn ends_of(path: &Path) -> io::Result<[String; 2]> {
    // Before it is opened, because opening a named pipe would wait for its other end.
    let length = fs::metadata(path).and_then(|it| {
        if it.is_file() { Ok(it.len()) } else { Err(io::ErrorKind::InvalidInput.into()) }
    })?;
    let mut file = File::open(path)?;
    let mut read = |from: u64| -> io::Result<String> {
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(from))?;
        file.by_ref().take(ENDS_BYTES as u64).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    Ok([read(0)?, read(length.saturating_sub(ENDS_BYTES as u64))?])
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use chrono::DateTime;
    use gleitzeit_domain::{
        file_access::FileAccess,
        task::TaskStatus,
        workflow::{TaskSpec, WorkflowSpec, WorkflowStatus},
    };

    use super::*;

    fn record(id: &str, output: Option<&Path>) -> WorkflowRecord {
        let mut good = TaskRecord::pending(0, "a".into(), "a".into());
        good.result = Some(Arc::new(json!({"response": "A poem.\n"})));
        let mut bad = TaskRecord::pending(1, "b".into(), "b".into());
        bad.status = TaskStatus::Failed;
        bad.error = Some(Arc::new(TaskError::failed("too long")));
        let task = |path: &str| TaskSpec::new("t", "llm/chat").params(json!({"file_path": path}));
        let mut spec = WorkflowSpec::new("b").task(task("x/1.txt")).task(task("x/2.txt"));
        let output = output.map(|it| it.display().to_string());
        spec.file_access = Some(Arc::new(FileAccess { output, ..FileAccess::default() }));
        WorkflowRecord {
            id: id.into(),
            name: "Batch".into(),
            status: WorkflowStatus::Failed,
            created_at: DateTime::UNIX_EPOCH,
            started_at: None,
            completed_at: None,
            error: None,
            last_sequence: 0,
            spec: Arc::new(spec),
            tasks: vec![good, bad],
        }
    }

    /// A person reads answers and errors file by file, not task ids.
    #[test]
    fn the_markdown_has_a_section_for_each_file() {
        assert_eq!(
            markdown(&record("w", None)),
            "# Batch\n\nWorkflow `w`: failed.\n\n## x/1.txt\n\nA poem.\n\n## x/2.txt\n\n\
             **failed**: TASK_EXECUTION_FAILED: too long\n"
        );
    }

    /// Results are known again by what they say, not by where they are; another file of that name
    /// is somebody's input.
    #[test]
    fn results_are_written_and_known_again() {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("deep/out");
        let files = write(&record("w-1", Some(&output)), &Settings::default()).unwrap().unwrap();
        assert!(files.are_there() && is_result(&files.json) && is_result(&files.markdown));
        let moved = dir.path().join("w-2.json");
        fs::copy(&files.json, &moved).unwrap();
        assert!(!is_result(&moved));
        assert_eq!(fs::read_dir(&output).unwrap().count(), 2, "nothing else is left there");
    }

    /// An answer of a model is read by its owner only, and drives no terminal that shows it.
    #[cfg(unix)]
    #[test]
    fn results_are_private_and_drive_no_terminal() {
        use std::os::unix::fs::PermissionsExt as _;

        let dir = tempfile::tempdir().unwrap();
        let mut record = record("w", Some(dir.path()));
        record.tasks[0].result = Some(Arc::new(json!({"response": "\u{1b}[2J\u{202e}\u{9b}poem"})));
        let files = write(&record, &Settings::default()).unwrap().unwrap();
        for path in [&files.json, &files.markdown] {
            let text = fs::read_to_string(path).unwrap();
            assert!(text.contains("\\u001b[2J\\u202e\\u009bpoem"), "{text}");
            assert!(!text.contains(['\u{1b}', '\u{202e}', '\u{9b}']), "{text}");
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
        let read: Value = serde_json::from_slice(&fs::read(&files.json).unwrap()).unwrap();
        assert_eq!(read, document(&record));
    }

    /// Neither a stored directory nor an id leads out of what the settings permit.
    #[test]
    fn results_stay_where_the_settings_permit() {
        let dir = tempfile::tempdir().unwrap();
        let open = dir.path().join("open");
        fs::create_dir(&open).unwrap();
        let mut settings = Settings::default();
        settings.security.workflow_file_roots = vec![open.clone()];
        let files = write(&record("../x", Some(&open)), &settings).unwrap().unwrap();
        assert_eq!(files.json.parent(), Some(&*open));
        for output in [dir.path().join("closed"), open.join("../closed"), "relative".into()] {
            let refused = write(&record("w", Some(&output)), &settings).unwrap_err();
            assert!(matches!(refused, ResultsError::NotPermitted { .. }), "{refused}");
        }
    }
}
