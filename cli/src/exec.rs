//! `exec`: Python code as one task, with the engine and the provider that workflows have.

use std::{io, path::Path, time::Duration};

use gleitzeit_domain::{
    error::{ErrorCode, TaskError},
    task::{TaskRecord, TaskStatus},
    workflow::{TaskSpec, WorkflowSpec},
};
use serde_json::{Map, Value, json};

use super::{
    Outcome,
    args::Exec,
    output::{self, Exit, Failure},
    run_session::RunSession,
    session::Session,
};

/// The one task.
const TASK: &str = "exec";

/// Runs Python code; nothing of it is kept.
pub(crate) async fn exec(session: &Session, exec: Exec) -> Outcome {
    let mut session = session.in_memory();
    let mut parameters = Map::new();
    match (&exec.code, &exec.file) {
        (Some(code), _) => set(&mut parameters, "code", code.as_str()),
        (None, Some(file)) if file == Path::new("-") => {
            let code = io::read_to_string(io::stdin())
                .map_err(|error| Failure::usage(format!("cannot read standard input: {error}")))?;
            set(&mut parameters, "code", code);
        }
        (None, Some(file)) => {
            let file = file.canonicalize().map_err(|error| {
                Failure::usage(format!("cannot read {}: {error}", file.display()))
            })?;
            // Named at the command line, so it may be read wherever it is.
            session.allow_files(file.parent().unwrap_or(Path::new("/")));
            let name = file.to_str().ok_or_else(|| {
                Failure::usage(format!("the path {} is not UTF-8", file.display()))
            })?;
            set(&mut parameters, "file", name);
        }
        (None, None) => return Err(Failure::usage("no code and no file")),
    }
    if let Some(context) = exec.context {
        set(&mut parameters, "context", context);
    }
    let mut task = TaskSpec::new(TASK, "python/execute");
    if let Some(seconds) = exec.timeout {
        // The method's own limit counts whole seconds; the task's is exact.
        #[expect(
            clippy::cast_possible_truncation,
            reason = "`as` saturates, and 3600 is the most"
        )]
        set(&mut parameters, "timeout", (seconds.ceil() as i64).clamp(1, 3600));
        task = task.timeout(Duration::from_secs_f64(seconds));
    }
    let spec = WorkflowSpec::new(TASK).task(task.params(parameters));
    let run_session = RunSession::new(&session, session.start_for([&spec]).await?).await?;
    let record = run_session.submit(spec, Failure::from).await?;
    match record.tasks.first() {
        Some(task) => Ok(print_task(&session, task)),
        None => Err(Failure::infrastructure("the task has gone")),
    }
}

fn set(parameters: &mut Map<String, Value>, name: &str, value: impl Into<Value>) {
    parameters.insert(name.to_owned(), value.into());
}

/// Prints what the code wrote and what it gave, or why it failed.
fn print_task(session: &Session, task: &TaskRecord) -> Exit {
    let exit = if task.status == TaskStatus::Completed { Exit::Success } else { Exit::Failed };
    let unknown = TaskError::new(ErrorCode::InternalError, "the task has no result and no error");
    match (&task.result, &task.error) {
        (Some(result), _) if session.json => output::document(result),
        (Some(result), _) => {
            written(result);
            show_value(result);
        }
        (None, error) => {
            let error = error.as_deref().unwrap_or(&unknown);
            if session.json {
                output::document(&output::error_json(error));
            } else {
                written(error.data.as_deref().unwrap_or(&json!({})));
                output::note(format_args!("error: {error}"));
            }
        }
    }
    exit
}

/// What the code wrote, to where it would have written it.
fn written(outcome: &Value) {
    let stream = |name: &str| outcome.get(name).and_then(Value::as_str).unwrap_or_default();
    output::raw(stream("stdout"));
    let errors = stream("stderr");
    if !errors.is_empty() {
        output::note(errors.trim_end());
    }
}

/// The value that the code left. Without one, its value is what it wrote, printed already.
fn show_value(result: &Value) {
    match (result.get("result"), result.get("stdout")) {
        (Some(value), stdout) if Some(value) != stdout => match value {
            Value::Null => {}
            Value::String(text) => output::text(text),
            value => output::document(value),
        },
        _ => {}
    }
}
