//! `serve` and `submit`: workflows are stored by one process and run by another.

mod endpoint;
mod systemd;

use std::{process, sync::Arc};

use gleitzeit::{Enqueued, Runtime, WaitPolicy};
use gleitzeit_actors::follower::Follower;
use gleitzeit_domain::{id::WorkflowId, store::Store, workflow::WorkflowRecord};
use serde_json::json;
use tokio::signal::unix::SignalKind;

use super::{
    Outcome,
    args::{Serve, Submit},
    finish::print_workflow,
    interrupt::{Interrupts, wait_for},
    output::{self, Exit, Failure},
    run_session::STOPPING,
    session::{Session, close},
    source::{invalid, read_for_others},
    standing::{self, POLL_INTERVAL, Watch},
};
use systemd::Notice;

/// Runs what the store has and what comes into it, until someone stops it.
pub(crate) async fn serve(session: &Session, serve: &Serve) -> Outcome {
    let mut interrupts = Interrupts::listen()?;
    // A server keeps running when the terminal that it was started from is closed.
    let _hangups = wait_for(SignalKind::hangup())?;
    let url = &session.settings.storage.url;
    if url.is_memory() {
        return Err(Failure::usage(
            "a store in memory is seen by no other process; name one with --store".to_owned(),
        ));
    }
    let builder = Runtime::builder(session.settings.clone());
    let runtime = builder.wait_policy(WaitPolicy::Unlimited).start().await?;
    let handle = runtime.handle();
    let server = match serve.health.or(session.settings.server.health) {
        None => None,
        Some(address) => match endpoint::open(address, handle.clone()) {
            Ok(server) => Some(server),
            Err(failure) => {
                runtime.stop(STOPPING).await;
                return Err(failure);
            }
        },
    };
    if let Some(server) = &server {
        output::note(format_args!("health at http://{}/healthz", server.address()));
    }
    output::note(format_args!(
        "serving {url}; {} unfinished workflows go on; Ctrl-C stops",
        runtime.recovered().workflows
    ));
    systemd::notify(Notice::Ready);
    tokio::select! {
        () = interrupts.next() => {}
        never = systemd::watchdog(&handle) => match never {},
        error = runtime.failed() => return Err(error.into()),
    }
    systemd::notify(Notice::Stopping);
    let deadline = session.settings.engine.shutdown_deadline;
    output::note(format_args!(
        "stopping; running tasks have {} s to end; Ctrl-C again stops at once",
        deadline.as_secs()
    ));
    let report = tokio::select! {
        report = runtime.stop(deadline) => report,
        never = systemd::watchdog(&handle) => match never {},
        () = interrupts.next() => process::exit(130),
    };
    // Last, so that a load balancer sees 503 while tasks end.
    if let Some(server) = server {
        server.stop().await;
    }
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

/// Stores a workflow for a process that serves; waits for its end with `--wait`.
pub(crate) async fn submit(session: &Session, Submit { workflow, id, wait }: Submit) -> Outcome {
    if session.settings.storage.url.is_memory() {
        return Err(Failure::usage(
            "a store in memory is gone with this process; name one with --store".to_owned(),
        ));
    }
    let mut file = read_for_others(session, &workflow)?;
    if id.is_some() {
        file.spec.id = id;
    }
    let runtime = session.start_without_providers().await?;
    let submitted = runtime.handle().enqueue_for_others(file.spec.clone()).await;
    runtime.stop(STOPPING).await;
    let Enqueued { id, needs, unknown } = submitted.map_err(|error| invalid(&file, error))?;
    if let Some(problem) = unknown.first() {
        output::note(format_args!(
            "{}; workflow {id} is stored, and waits for a process that knows {needs}",
            problem.message
        ));
    }
    if wait {
        return print_workflow(session, &await_end(session, &id).await?).await;
    }
    if session.json {
        let unknown: Vec<&str> = unknown.iter().map(|it| it.message.as_str()).collect();
        let mut document = json!({ "workflow_id": id });
        if !unknown.is_empty() {
            document["unknown_here"] = json!(unknown);
        }
        output::document(&document);
    } else {
        output::text(id);
    }
    Ok(Exit::Success)
}

/// A workflow that another process runs, once it has settled.
async fn await_end(session: &Session, id: &WorkflowId) -> Result<WorkflowRecord, Failure> {
    let mut interrupts = Interrupts::listen()?;
    let store = session.store_of(id).await?;
    let ended = tokio::select! {
        ended = settled(&store, session, id) => ended,
        () = interrupts.next() => {
            output::note(format_args!("workflow {id} goes on where it is served"));
            process::exit(130)
        }
    };
    close(store).await?;
    ended
}

async fn settled(
    store: &Arc<dyn Store>,
    session: &Session,
    id: &WorkflowId,
) -> Result<WorkflowRecord, Failure> {
    let follower = Follower::new(Arc::clone(store));
    let mut watch = Watch::default();
    loop {
        watch.check(&**store, id).await?;
        if let Some(record) =
            standing::settled_within(POLL_INTERVAL, &follower, session, id).await?
        {
            return Ok(record);
        }
    }
}
