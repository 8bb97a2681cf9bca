//! `batch`: one task for each file of a directory, the results in JSON and Markdown.
//!
//! The files, the script and the directory of the results are stored with the workflow: a
//! process that resumes it reads the same files and writes to the same directory.

use std::{
    fs,
    path::{Path, PathBuf, absolute},
    sync::Arc,
};

use gleitzeit::files::{BatchWork, batch_spec_without};
use gleitzeit_domain::{file_access::FileAccess, id::WorkflowId};

use super::{
    Outcome, args::Batch, finish::finish, output::Failure, run_session::RunSession,
    session::Session,
};

/// Runs the batch and writes its results.
pub(crate) async fn batch(session: Session, batch: Batch) -> Outcome {
    let directory = real(&batch.directory)?;
    let work = match (batch.prompt, batch.script) {
        (Some(prompt), _) => BatchWork::Prompt { prompt, model: batch.model },
        (None, Some(script)) => BatchWork::Script { file: real(&script)? },
        (None, None) => return Err(Failure::usage("neither --prompt nor --file is given")),
    };
    let settings = &session.settings;
    let is_ours = |file: &Path| settings.is_guarded(file);
    let mut spec = batch_spec_without(&directory, &batch.pattern, &work, &is_ours)
        .map_err(|error| Failure::usage(error.to_string()))?;
    spec.max_parallel_tasks = batch.max_parallel;
    spec.id = Some(WorkflowId::generate());
    let file_access = spec.file_access.get_or_insert_with(|| Arc::new(FileAccess::default()));
    Arc::make_mut(file_access).output = Some(made(&batch.output)?);
    let run_session = RunSession::new(&session, session.start_for([&spec]).await?).await?;
    let record = run_session.submit(spec, Failure::from).await?;
    finish(&session, &record).await
}

fn real(path: &Path) -> Result<PathBuf, Failure> {
    path.canonicalize()
        .map_err(|error| Failure::usage(format!("cannot read {}: {error}", path.display())))
}

/// The directory of the results. A batch may run for hours; whether its results can be written is
/// known before.
fn made(directory: &Path) -> Result<String, Failure> {
    let cannot = |error| Failure::usage(format!("cannot make {}: {error}", directory.display()));
    fs::create_dir_all(directory).map_err(cannot)?;
    text_of(&absolute(directory).and_then(|it| it.canonicalize()).map_err(cannot)?)
}

/// A path as text, which is all that can be stored.
fn text_of(path: &Path) -> Result<String, Failure> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| Failure::usage(format!("the path {} is not UTF-8", path.display())))
}
