//! `batch`: one task for each file of a directory, the results in JSON and Markdown.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use gleitzeit::files::{BatchWork, batch_spec};
use gleitzeit_domain::{id::WorkflowId, task::TaskRecord, workflow::WorkflowRecord};
use serde_json::Value;

use super::{
    Outcome,
    args::Batch,
    drive::Drive,
    output::{self, Failure},
    report,
    run::tell,
    session::Session,
};

/// Runs the batch and writes its results.
pub(crate) async fn batch(mut session: Session, batch: Batch) -> Outcome {
    let directory = absolute(&batch.directory)?;
    session.allow_files(&directory);
    session.show_files(&directory);
    let work = match (batch.prompt, batch.script) {
        (Some(prompt), _) => BatchWork::Prompt { prompt, model: batch.model },
        (None, Some(script)) => {
            let file = absolute(&script)?;
            session.allow_files(file.parent().unwrap_or(Path::new("/")));
            BatchWork::Script { file }
        }
        (None, None) => return Err(Failure::usage("neither --prompt nor --file is given")),
    };
    let mut spec = batch_spec(&directory, &batch.pattern, &work)
        .map_err(|error| Failure::usage(error.to_string()))?;
    spec.max_parallel_tasks = batch.max_parallel;
    let id = WorkflowId::generate();
    spec.id = Some(id.clone());
    // A batch may run for hours; whether its results can be written is known before.
    let files = Files::new(&batch.output, &id)?;
    let drive = Drive::new(&session, session.start_for([&spec]).await?).await?;
    let record = drive.submit(spec, Failure::from).await?;
    files.write(&record)?;
    let exit = tell(&session, &record);
    output::note(format_args!("results: {} and {}", files.json.display(), files.text.display()));
    Ok(exit)
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    path.canonicalize()
        .map_err(|error| Failure::usage(format!("cannot read {}: {error}", path.display())))
}

/// Where the results go.
struct Files {
    json: PathBuf,
    text: PathBuf,
}

impl Files {
    fn new(directory: &Path, id: &WorkflowId) -> Result<Self, Failure> {
        fs::create_dir_all(directory).map_err(|error| {
            Failure::usage(format!("cannot make {}: {error}", directory.display()))
        })?;
        Ok(Self {
            json: directory.join(format!("{id}.json")),
            text: directory.join(format!("{id}.md")),
        })
    }

    fn write(&self, record: &WorkflowRecord) -> Result<(), Failure> {
        let value = report::workflow_json(record);
        let json = serde_json::to_string_pretty(&value).unwrap_or_default() + "\n";
        for (path, text) in [(&self.json, json), (&self.text, markdown(record))] {
            fs::write(path, text).map_err(|error| {
                let path = path.display();
                Failure::infrastructure(format!("cannot write {path}: {error}"))
            })?;
        }
        Ok(())
    }
}

/// The results for a person: a heading and what came out, file by file.
fn markdown(record: &WorkflowRecord) -> String {
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
    let told = result.get("response").or_else(|| result.get("result")).unwrap_or(result);
    match told {
        Value::String(text) => text.trim_end().to_owned(),
        value => {
            let json = serde_json::to_string_pretty(value).unwrap_or_default();
            format!("```json\n{json}\n```")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use chrono::DateTime;
    use gleitzeit_domain::{
        error::TaskError,
        task::TaskStatus,
        workflow::{TaskSpec, WorkflowSpec, WorkflowStatus},
    };
    use serde_json::json;

    use super::*;

    /// A person reads answers and errors file by file, not task ids.
    #[test]
    fn the_markdown_has_a_section_for_each_file() {
        let mut good = TaskRecord::pending(0, "a".into(), "a".into());
        good.result = Some(Arc::new(json!({"response": "A poem.\n"})));
        let mut bad = TaskRecord::pending(1, "b".into(), "b".into());
        bad.status = TaskStatus::Failed;
        bad.error = Some(Arc::new(TaskError::failed("too long")));
        let task = |path: &str| TaskSpec::new("t", "llm/chat").params(json!({"file_path": path}));
        let record = WorkflowRecord {
            id: "w".into(),
            name: "Batch".into(),
            status: WorkflowStatus::Failed,
            created_at: DateTime::UNIX_EPOCH,
            started_at: None,
            completed_at: None,
            error: None,
            last_sequence: 0,
            spec: Arc::new(WorkflowSpec::new("b").task(task("x/1.txt")).task(task("x/2.txt"))),
            tasks: vec![good, bad],
        };
        assert_eq!(
            markdown(&record),
            "# Batch\n\nWorkflow `w`: failed.\n\n## x/1.txt\n\nA poem.\n\n## x/2.txt\n\n\
             **failed**: TASK_EXECUTION_FAILED: too long\n"
        );
    }
}
