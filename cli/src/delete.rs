//! `delete`: settled workflows are removed with their tasks, results and events.
//!
//! All of them or none: an id that is unknown, or a workflow that is not settled, refuses the whole
//! command before anything is removed.

use std::collections::BTreeSet;

use clap::Args;
use clap_complete::ArgValueCompleter;
use gleitzeit::runtime;
use gleitzeit_domain::{
    error::{ErrorCode, TaskError},
    id::WorkflowId,
    store::Deletion,
};
use serde_json::json;

use super::{
    Outcome, complete, ids,
    output::{self, Exit, Failure},
    session::{Session, close},
};

/// `gleitzeit delete`.
#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// Ids of settled workflows: whole, at least 4 characters of their beginning, or `@last`.
    #[arg(required = true, add = ArgValueCompleter::new(complete::ids))]
    ids: Vec<WorkflowId>,
}

/// Removes settled workflows.
pub(crate) async fn delete(session: &Session, Delete { ids: given }: Delete) -> Outcome {
    let mut wanted = BTreeSet::new();
    for text in &given {
        wanted.insert(ids::resolve(session, text).await?);
    }
    let wanted: Vec<WorkflowId> = wanted.into_iter().collect();
    // A database that is not there must not be made by this.
    for id in &wanted {
        let store = session.store_of(id).await?;
        let found = store.outline(id).await;
        close(store).await?;
        let record = found?.ok_or_else(|| session.no_workflow(id))?;
        if !record.status.is_settled() {
            return Err(unsettled(id, record.status.as_str()));
        }
    }
    let store = runtime::open_store(&session.settings).await?;
    let answers = store.delete(&wanted).await;
    close(store).await?;
    let (mut deleted, mut refused) = (Vec::new(), None);
    for (id, answer) in wanted.iter().zip(answers?) {
        match answer {
            Deletion::Deleted => deleted.push(id),
            // Somebody else deleted it since, or runs it again.
            Deletion::Unknown => output::note(format_args!("workflow {id} was deleted meanwhile")),
            Deletion::Unsettled => refused = Some(unsettled(id, "about to run again")),
        }
    }
    if session.json {
        output::document(&json!({ "deleted": deleted }));
    } else {
        for id in deleted {
            output::text(format_args!("workflow {id} is deleted"));
        }
    }
    match refused {
        // Standard output holds its one document already.
        Some(failure) if session.json => Ok(failure.print(false)),
        Some(failure) => Err(failure),
        None => Ok(Exit::Success),
    }
}

fn unsettled(id: &WorkflowId, status: &str) -> Failure {
    let message = format!(
        "workflow {id} is {status}, and only settled workflows are deleted; `gleitzeit cancel {id}` \
         stops it first"
    );
    TaskError::new(ErrorCode::WorkflowInvalidState, message).into()
}
