//! `serve` and `submit`: workflows are stored by one process and run by another.

use std::{process, time::Duration};

use gleitzeit::{Runtime, WaitPolicy};
use gleitzeit_domain::{id::WorkflowId, store::Store, workflow::WorkflowRecord};
use serde_json::json;

use super::{
    Outcome,
    args::{Serve, Submit},
    drive::STOPPING,
    interrupt::Interrupts,
    output::{self, Exit, Failure},
    run::{invalid, read, tell},
    session::{Session, close},
};

/// Between two looks at a workflow that another process runs.
const PAUSE: Duration = Duration::from_millis(100);

/// Runs what the store has and what comes into it, until someone stops it.
pub(crate) async fn serve(session: &Session, Serve { engine: _ }: &Serve) -> Outcome {
    let mut interrupts = listen()?;
    let url = &session.settings.storage.url;
    if url.is_memory() {
        return Err(Failure::usage(
            "a store in memory is seen by no other process; name one with --store".to_owned(),
        ));
    }
    let builder = Runtime::builder(session.settings.clone());
    let runtime = builder.wait_policy(WaitPolicy::Unlimited).start().await?;
    let recovered = runtime.recovered();
    output::note(format_args!(
        "serving {url}; {} unfinished workflows go on; Ctrl-C stops",
        recovered.workflows
    ));
    interrupts.next().await;
    let deadline = session.settings.engine.shutdown_deadline;
    output::note(format_args!(
        "stopping; running tasks have {} s to end; Ctrl-C again stops at once",
        deadline.as_secs()
    ));
    let report = tokio::select! {
        report = runtime.stop(deadline) => report,
        () = interrupts.next() => process::exit(130),
    };
    if session.json {
        output::document(&report);
    } else {
        output::note(format_args!(
            "stopped; {} unfinished workflows are left to others, {} tasks were cut off",
            report.unsettled.len(),
            report.abandoned.len()
        ));
    }
    Ok(Exit::Success)
}

/// Stores a workflow for whoever serves; waits for its end where asked to.
pub(crate) async fn submit(session: &Session, Submit { workflow, id, wait }: Submit) -> Outcome {
    if session.settings.storage.url.is_memory() {
        return Err(Failure::usage(
            "a store in memory is gone with this process; name one with --store".to_owned(),
        ));
    }
    let mut file = read(session, &workflow)?;
    if id.is_some() {
        file.spec.id = id;
    }
    let runtime = session.start_without_providers().await?;
    let submitted = runtime.handle().enqueue(file.spec.clone()).await;
    runtime.stop(STOPPING).await;
    let id = submitted.map_err(|error| invalid(&file, error))?;
    if wait {
        return Ok(tell(session, &await_end(session, &id).await?));
    }
    if session.json {
        output::document(&json!({ "workflow_id": id }));
    } else {
        output::text(id);
    }
    Ok(Exit::Success)
}

/// A workflow that another process runs, once it has settled.
async fn await_end(session: &Session, id: &WorkflowId) -> Result<WorkflowRecord, Failure> {
    let mut interrupts = listen()?;
    let store = session.store_of(id).await?;
    let ended = tokio::select! {
        ended = settled(&*store, session, id) => ended,
        () = interrupts.next() => {
            output::note(format_args!("workflow {id} goes on where it is served"));
            process::exit(130)
        }
    };
    close(store).await?;
    ended
}

async fn settled(
    store: &dyn Store,
    session: &Session,
    id: &WorkflowId,
) -> Result<WorkflowRecord, Failure> {
    loop {
        match store.workflow(id).await? {
            Some(record) if record.status.is_settled() => return Ok(record),
            Some(_) => tokio::time::sleep(PAUSE).await,
            None => return Err(session.no_workflow(id)),
        }
    }
}

fn listen() -> Result<Interrupts, Failure> {
    Interrupts::listen()
        .map_err(|error| Failure::infrastructure(format!("signals cannot be waited for: {error}")))
}
