//! The end of a workflow at the command line: its report, its result files and its `JUnit` file.

use std::borrow::Cow;

use gleitzeit::results::{self, ResultFiles};
use gleitzeit_domain::{task::TaskRecord, workflow::WorkflowRecord};
use serde_json::Map;

use super::{
    Outcome,
    find::find_whole,
    junit,
    output::{self, Failure},
    report,
    session::Session,
    stored::StoredResults,
};

/// Prints a settled workflow, and writes its results if they are not written yet.
///
/// # Errors
/// When the results or the `JUnit` file cannot be written.
pub(crate) async fn finish(session: &Session, record: &WorkflowRecord) -> Outcome {
    let exit = print_workflow(session, record).await?;
    report_results(session, record).await?;
    if let Some(file) = &session.junit {
        junit::write(file, record)?;
    }
    Ok(exit)
}

/// Writes the results if the runtime did not, and reports their files.
///
/// # Errors
/// When they cannot be written.
pub(crate) async fn report_results(
    session: &Session,
    record: &WorkflowRecord,
) -> Result<(), Failure> {
    let Some(files) = ResultFiles::of(record) else { return Ok(()) };
    if !files.are_there() {
        let whole = if record.tasks.iter().any(TaskRecord::is_result_left_out) {
            Cow::Owned(find_whole(session, &record.id).await?)
        } else {
            Cow::Borrowed(record)
        };
        results::write(&whole, &session.settings)
            .map_err(|error| Failure::infrastructure(error.to_string()))?;
    }
    let (json, markdown) = (files.json.display(), files.markdown.display());
    output::note(format_args!("results: {json} and {markdown}"));
    Ok(())
}

/// Prints a workflow; returns the exit status that its status stands for.
///
/// # Errors
/// If the store, which may have its results, cannot be read.
pub(crate) async fn print_workflow(session: &Session, record: &WorkflowRecord) -> Outcome {
    let results = StoredResults::of(session, [record]).await?;
    if session.json {
        results.print_document(record, &Map::new()).await?;
    } else {
        let displayed = results.for_table(record).await?;
        output::painted(&report::workflow_text(&displayed, session.view()));
    }
    results.close().await?;
    Ok(record.status.into())
}
