//! The workflow and its inputs as the command line names them: files, standard input, `--input`.
//!
//! An input of `--input` is above one of `--input-file`, which is above the one in the workflow.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use gleitzeit::{
    files::{self, Diagnostics, FILE_BYTES_MAX, FileError, Input, WorkflowFile},
    runtime,
};
use gleitzeit_domain::{
    error::TaskError,
    plan,
    problem::{Problem, SubmitError},
    protocol::catalog::ProtocolCatalog,
    workflow::WorkflowSpec,
};
use serde_json::json;

use super::{
    args::FileAndInputs,
    output::{self, Exit, Failure},
    session::Session,
};

/// Names standard input, as a file.
const STDIN: &str = "-";

/// Messages call standard input so.
const STDIN_NAME: &str = "<stdin>";

/// Reads a workflow file and puts the inputs of the command line over its own.
///
/// # Errors
/// Everything wrong with the file, each with its line and a caret.
pub(crate) fn read(session: &Session, workflow: &FileAndInputs) -> Result<WorkflowFile, Failure> {
    read_by(session, workflow, plan::problems)
}

/// The same for a workflow that another process is to run: it may call what is not known here.
///
/// # Errors
/// As [`read`].
pub(crate) fn read_for_others(
    session: &Session,
    workflow: &FileAndInputs,
) -> Result<WorkflowFile, Failure> {
    read_by(session, workflow, plan::problems_for_others)
}

fn read_by(
    session: &Session,
    workflow: &FileAndInputs,
    problems: impl Fn(&WorkflowSpec, &ProtocolCatalog) -> Vec<Problem>,
) -> Result<WorkflowFile, Failure> {
    let is_stdin = workflow.file == Path::new(STDIN);
    if is_stdin && workflow.input_file.as_deref() == Some(Path::new(STDIN)) {
        return Err(Failure::usage(
            "standard input cannot be both the workflow and its inputs: give one of them as a file",
        ));
    }
    let inputs = inputs(workflow.input_file.as_deref(), &workflow.inputs)?;
    let catalog = runtime::protocols(&session.settings)?;
    let judge = |spec: &WorkflowSpec| {
        let mut spec = spec.clone();
        files::put_inputs(&mut spec, &inputs);
        problems(&spec, &catalog)
    };
    let is_ours = |file: &Path| session.settings.is_guarded(file);
    let read = if is_stdin {
        files::read_bytes(stdin()?, Path::new(STDIN_NAME), Path::new(""), &judge, &is_ours)
    } else {
        files::read_without(&workflow.file, &judge, &is_ours)
    };
    let mut file = read.map_err(unread)?;
    files::put_inputs(&mut file.spec, &inputs);
    Ok(file)
}

/// The inputs of a file, then those of the command line: a later one of a name counts.
///
/// # Errors
/// Everything wrong with the file.
pub(crate) fn inputs(
    file: Option<&Path>,
    named: &[(String, Input)],
) -> Result<Vec<(String, Input)>, Failure> {
    let mut inputs = match file {
        None => Vec::new(),
        Some(file) if file == Path::new(STDIN) => {
            files::read_inputs(stdin()?, Path::new(STDIN_NAME)).map_err(unread)?
        }
        Some(file) => files::read_inputs(bytes(file)?, file).map_err(unread)?,
    };
    inputs.extend_from_slice(named);
    Ok(inputs)
}

/// The failure of a rejected workflow, with its problems at their lines of the file.
pub(crate) fn invalid(file: &WorkflowFile, error: SubmitError) -> Failure {
    let SubmitError::Invalid(problems) = &error else { return error.into() };
    diagnostics_failure(&file.source.diagnostics(problems))
}

/// The failure of an invalid file: for a person with lines and carets, for a program as a list.
pub(crate) fn diagnostics_failure(found: &Diagnostics) -> Failure {
    let messages: Vec<String> = found
        .iter()
        .map(|it| format!("{}:{}:{}: {}", it.file, it.line, it.column, it.message))
        .collect();
    let task_error =
        TaskError::new(found.code(), messages.join("; ")).with_data(json!({ "problems": found }));
    Failure::new(Exit::Usage, task_error).text(found.render(output::errors_are_coloured()))
}

fn unread(error: FileError) -> Failure {
    match error {
        FileError::Invalid(found) => diagnostics_failure(&found),
        other => Failure::usage(other.to_string()),
    }
}

fn stdin() -> Result<Vec<u8>, Failure> {
    limited(io::stdin().lock())
        .map_err(|error| Failure::usage(format!("cannot read standard input: {error}")))
}

fn bytes(file: &Path) -> Result<Vec<u8>, Failure> {
    File::open(file)
        .and_then(limited)
        .map_err(|error| Failure::usage(format!("cannot read `{}`: {error}", file.display())))
}

/// At most the size limit of a file and one byte more, which shows that the file exceeds it.
fn limited(from: impl io::Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
