//! `db export` and `db import`: all workflows to a file, and from one.

use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
};

use gleitzeit::storage::{
    SqlOptions,
    admin::{self, Exported, Finding, ImportError},
};
use gleitzeit_domain::{
    error::{ErrorCode, TaskError},
    id::WorkflowId,
};
use serde_json::json;

use super::{
    super::Outcome,
    Session,
    output::{self, Exit, Failure},
};

/// Bytes that are written or read at a time.
const BUFFER: usize = 1 << 20;

/// Makes a file, or empties the one that is there; a new one only its owner may read, for inputs,
/// prompts and results are nobody else's.
///
/// # Errors
/// What the system says.
fn private_file(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Writes all workflows to a file, which is there when it is whole.
pub(super) async fn export(session: &Session, file: &Path) -> Outcome {
    let exported = if is_standard(file) {
        if session.json {
            return Err(Failure::usage(
                "standard output cannot hold the export and a JSON document; name a file"
                    .to_owned(),
            ));
        }
        let mut out = BufWriter::with_capacity(BUFFER, output::JsonOut::default());
        let exported = write(session, &mut out).await?;
        out.flush().map_err(|error| {
            Failure::infrastructure(format!("cannot write standard output: {error}"))
        })?;
        exported
    } else {
        to_file(session, file).await?
    };
    let Exported { workflows, skipped } = exported;
    if session.json {
        output::document(&exported);
    } else {
        output::note(format_args!("{workflows} workflows written to {}", file.display()));
    }
    if skipped > 0 {
        output::note(format_args!("{skipped} were left out; `gleitzeit db check` reports why"));
    }
    Ok(if skipped == 0 { Exit::Success } else { Exit::Failed })
}

async fn to_file(session: &Session, file: &Path) -> Result<Exported, Failure> {
    if file.exists() {
        return Err(Failure::usage(format!(
            "`{}` is there already; name another file, or remove it",
            file.display()
        )));
    }
    let unfinished = unfinished(file);
    let failed = |error: io::Error| {
        Failure::infrastructure(format!("cannot write `{}`: {error}", unfinished.display()))
    };
    let mut out = BufWriter::with_capacity(BUFFER, private_file(&unfinished).map_err(failed)?);
    let exported = match write(session, &mut out).await {
        Ok(exported) => exported,
        Err(failure) => {
            // The failure is reported; a part of an export is of no use.
            let _ = fs::remove_file(&unfinished);
            return Err(failure);
        }
    };
    let out = out.into_inner().map_err(|error| failed(error.into_error()))?;
    out.sync_all().map_err(failed)?;
    fs::rename(&unfinished, file).map_err(failed)?;
    Ok(exported)
}

async fn write(session: &Session, out: &mut (impl Write + Send)) -> Result<Exported, Failure> {
    let mut on_finding = |finding: Finding| output::note(format_args!("left out: {finding}"));
    Ok(admin::export(&session.settings.storage.url, out, &mut on_finding).await?)
}

/// Where a file is until it is whole.
fn unfinished(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".unfinished");
    PathBuf::from(name)
}

/// Takes in the workflows of a file.
pub(super) async fn import(session: &Session, file: &Path) -> Outcome {
    let storage = &session.settings.storage;
    let options = SqlOptions { max_bytes: None, ..storage.sql_options() };
    let mut skipped = |id: &WorkflowId| {
        output::note(format_args!("workflow {id} is there already; left as it is"));
    };
    let imported = if is_standard(file) {
        let mut lines = BufReader::with_capacity(BUFFER, io::stdin());
        admin::import(&storage.url, options, &mut lines, &mut skipped).await
    } else {
        let opened = File::open(file).map_err(|error| {
            Failure::usage(format!("cannot read `{}`: {error}", file.display()))
        })?;
        let mut lines = BufReader::with_capacity(BUFFER, opened);
        admin::import(&storage.url, options, &mut lines, &mut skipped).await
    };
    let imported = imported.map_err(|error| failure(file, &error))?;
    if session.json {
        output::document(&imported);
    } else {
        output::text(format_args!(
            "{}: {} workflows taken in, {} were there already",
            storage.url, imported.workflows, imported.existed
        ));
    }
    Ok(Exit::Success)
}

fn failure(file: &Path, error: &ImportError) -> Failure {
    let (exit, code, line, before) = match error {
        ImportError::Line { line, before, .. } => {
            (Exit::Usage, ErrorCode::ParseError, line, before)
        }
        ImportError::Store { line, error, before } => {
            (Exit::Infrastructure, error.code(), line, before)
        }
    };
    let task_error = TaskError::new(code, format!("{}: {error}", file.display()));
    Failure::new(exit, task_error.with_data(json!({ "line": line, "imported": before })))
}

fn is_standard(file: &Path) -> bool {
    file == Path::new("-")
}
