//! Ids as a person writes them: whole, by their beginning, or `@last` for the newest workflow.

use gleitzeit_domain::{
    error::{ErrorCode, TaskError},
    id::WorkflowId,
    printable,
    store::{ListFilter, Store},
};
use serde_json::json;

use super::{
    output::{Exit, Failure},
    session::{Session, close},
};

/// The newest workflow of the store.
pub(crate) const LAST: &str = "@last";

/// A beginning has at least so many characters.
const PREFIX_MIN: usize = 4;

/// Candidates that an error names.
const CANDIDATES_MAX: usize = 10;

/// The id that a text stands for. A text that stands for none comes back as it is: the command reports
/// that there is no such workflow.
///
/// # Errors
/// If several ids begin with it, or the store cannot be read.
pub(crate) async fn resolve(session: &Session, text: &WorkflowId) -> Result<WorkflowId, Failure> {
    if session.settings.storage.url.is_memory() {
        return Ok(text.clone());
    }
    let Some(store) = session.store().await? else { return Ok(text.clone()) };
    let found = lookup(&*store, text).await;
    close(store).await?;
    found?.ok_or_else(|| {
        let message = format!("there is no workflow in {} yet", session.store_location());
        TaskError::new(ErrorCode::WorkflowNotFound, message).into()
    })
}

async fn lookup(store: &dyn Store, text: &WorkflowId) -> Result<Option<WorkflowId>, Failure> {
    let mut ids = store.ids(text.as_str(), CANDIDATES_MAX + 1).await?;
    // The text itself is before all that it is the beginning of.
    if ids.first() == Some(text) {
        return Ok(ids.into_iter().next());
    }
    if text.as_str() == LAST {
        let newest = store.list(ListFilter { limit: 1, ..ListFilter::default() }).await?;
        return Ok(newest.into_iter().next().map(|summary| summary.id));
    }
    if text.as_str().chars().count() < PREFIX_MIN {
        return Ok(Some(text.clone()));
    }
    match ids.len() {
        0 => Ok(Some(text.clone())),
        1 => Ok(ids.pop()),
        _ => Err(ambiguous(text, &ids)),
    }
}

fn ambiguous(text: &WorkflowId, ids: &[WorkflowId]) -> Failure {
    let named = &ids[..ids.len().min(CANDIDATES_MAX)];
    let lines: Vec<String> =
        named.iter().map(|id| format!("\n  {}", printable::line(id.as_str()))).collect();
    let more = if ids.len() > named.len() { "\n  …" } else { "" };
    let message = format!(
        "several workflows have an id that begins with `{text}`; write more of it:{}{more}",
        lines.concat()
    );
    let error = TaskError::new(ErrorCode::InvalidRequest, message)
        .with_data(json!({ "candidates": named }));
    Failure::new(Exit::Usage, error)
}
