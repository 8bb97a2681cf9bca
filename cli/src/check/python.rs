//! Python code of a workflow, judged by the interpreter without being run: its syntax, and the
//! imports and calls that the policy refuses.
//!
//! The interpreter judges in the jail that tasks run in. A file without Python code starts nothing.

use std::{fs, time::Duration};

use gleitzeit_domain::{
    error::ErrorCode,
    problem::Problem,
    protocol::catalog::ProtocolCatalog,
    task::{TaskRecord, TaskStatus},
    workflow::{TaskSpec, WorkflowSpec},
};
use serde_json::{Value, json};

use super::{
    super::{
        output::{self, Failure},
        run_session::STOPPING,
        session::Session,
    },
    known::{find, is_python, text},
};

/// An interpreter that does not start within this is not waited for.
const START_LIMIT: Duration = Duration::from_secs(15);

/// Longer scripts are refused when they run.
const SCRIPT_MAX_BYTES: u64 = 4 << 20;

/// Code to be judged.
struct Code {
    /// Where it stands in the workflow.
    pointer: String,
    /// Its file, where it has one.
    file: Option<String>,
    text: String,
}

/// Everything that the interpreter and the policy refuse.
///
/// # Errors
/// When the settings are wrong. Without an interpreter, a note says so and nothing is found.
pub(super) async fn problems(
    session: &Session,
    spec: &WorkflowSpec,
    catalog: &ProtocolCatalog,
) -> Result<Vec<Problem>, Failure> {
    let codes = codes(spec, catalog);
    if codes.is_empty() {
        return Ok(Vec::new());
    }
    let mut judging = WorkflowSpec::new("check");
    for code in &codes {
        judging.tasks.push(
            TaskSpec::new("", "python/validate").params(json!({ "code": escaped(&code.text) })),
        );
    }
    let mut session = session.in_memory();
    session.settings.engine.provider_wait_timeout = START_LIMIT;
    let judged = match session.start_for([&judging]).await {
        Ok(runtime) => {
            let judged = runtime.handle().run(judging).await;
            runtime.stop(STOPPING).await;
            judged.map_err(|error| error.to_string())
        }
        Err(failure) => Err(failure.error.message.to_string()),
    };
    match judged {
        Ok(record) => Ok(codes.iter().zip(&record.tasks).flat_map(refused).collect()),
        Err(why) => {
            output::note(format_args!("Python code was not checked: {why}"));
            Ok(Vec::new())
        }
    }
}

/// Escapes references: in a script they are Python.
fn escaped(code: &str) -> String {
    gleitzeit_domain::reference::escape(code).into_owned()
}

fn codes(spec: &WorkflowSpec, catalog: &ProtocolCatalog) -> Vec<Code> {
    let mut codes: Vec<Code> = Vec::new();
    for (index, task) in spec.tasks.iter().enumerate().filter(|(_, task)| is_python(task, catalog))
    {
        let pointer = |name: &str| format!("/tasks/{index}/parameters/{name}");
        if let Some(code) = text(task, "code") {
            codes.push(Code { pointer: pointer("code"), file: None, text: code.to_owned() });
        } else if let Some(file) = text(task, "file")
            && !codes.iter().any(|code| code.file.as_deref() == Some(file))
            && let Some(text) = script(spec, file)
        {
            codes.push(Code { pointer: pointer("file"), file: Some(file.to_owned()), text });
        }
    }
    codes
}

/// The text of a script, where it is one; another check reports its other problems.
fn script(spec: &WorkflowSpec, file: &str) -> Option<String> {
    let path = find(spec, file)?;
    let is_fit = fs::metadata(&path).is_ok_and(|it| it.len() <= SCRIPT_MAX_BYTES);
    is_fit.then(|| fs::read_to_string(path).ok()).flatten()
}

fn refused((code, task): (&Code, &TaskRecord)) -> Vec<Problem> {
    let problem = |message: String| {
        let message = match &code.file {
            Some(file) => format!("`{file}`: {message}"),
            None => message,
        };
        Problem::new(ErrorCode::TaskValidationFailed, code.pointer.clone(), message)
    };
    if task.status != TaskStatus::Completed {
        let why = task.error.as_ref().map(ToString::to_string).unwrap_or_default();
        output::note(format_args!("Python code at {} was not checked: {why}", code.pointer));
        return Vec::new();
    }
    let found = task.result.as_deref().and_then(|result| result.get("diagnostics"));
    let found = found.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let to_problem = |diagnostic: &Value| {
        let message = diagnostic["message"].as_str().unwrap_or("it is not valid");
        problem(format!("line {} of the code: {message}", diagnostic["line"]))
    };
    found.iter().map(to_problem).collect()
}
