//! `run`, `resume`, `retry` and `cancel`: workflows are brought to their end, from a file or from
//! the store.

use std::{process, sync::Arc};

use gleitzeit::{RetryError, results::ResultFiles};
use gleitzeit_actors::follower::Follower;
use gleitzeit_domain::{
    difference::difference,
    error::{ErrorCode, TaskError},
    id::WorkflowId,
    problem::SubmitError,
    store::{Store, lease::Resolution},
    task::TaskStatus,
    workflow::{WorkflowRecord, WorkflowSpec, WorkflowStatus},
};
use serde_json::json;

use super::{
    Outcome,
    args::{Cancel, Resolve, Resume, Retry, Run},
    find::{find, refuse_unknown},
    finish::{finish, print_workflow, report_results},
    interrupt::Interrupts,
    output::{self, Exit, Failure},
    report,
    run_session::{RunSession, STOPPING, settled},
    session::{Session, close},
    source::{self, invalid, read},
    standing::{self, POLL_INTERVAL},
    stored::StoredResults,
};

/// Runs a workflow file to its end.
pub(crate) async fn run(mut session: Session, run: Run) -> Outcome {
    let Run { workflow, id, junit, logs } = run;
    session.logs = logs.logs;
    session.junit = junit;
    let mut file = read(&session, &workflow)?;
    if id.is_some() {
        file.spec.id = id;
    }
    if let Some(record) = left_behind(&session, &file.spec).await? {
        return again(&session, record).await;
    }
    let run_session = RunSession::new(&session, session.start_for([&file.spec]).await?).await?;
    match run_session.submit(file.spec.clone(), |error| invalid(&file, error)).await {
        Ok(record) => finish(&session, &record).await,
        // Somebody else submitted the same id in this very moment.
        Err(failure) if failure.error.code == ErrorCode::WorkflowInvalidState => {
            match left_behind(&session, &file.spec).await? {
                Some(record) => again(&session, record).await,
                None => Err(failure),
            }
        }
        Err(failure) => Err(failure),
    }
}

/// A workflow of the same id that an earlier process did not bring to its end, or did.
///
/// # Errors
/// When it is not the same workflow.
async fn left_behind(
    session: &Session,
    spec: &WorkflowSpec,
) -> Result<Option<WorkflowRecord>, Failure> {
    let Some(id) = &spec.id else { return Ok(None) };
    let Some(store) = session.store_to_run().await? else { return Ok(None) };
    let found = store.outline(id).await;
    close(store).await?;
    let found = found?;
    if let Some(what) = found.as_ref().and_then(|it| difference(&it.spec, spec)) {
        return Err(SubmitError::Differs { id: id.clone(), what }.into());
    }
    Ok(found)
}

/// The same id again means the same workflow: a settled one is printed, one that another process
/// runs is awaited, any other is continued.
async fn again(session: &Session, record: WorkflowRecord) -> Outcome {
    let id = &record.id;
    if record.status.is_settled() {
        output::note(format_args!("workflow {id} was run before; this is how it ended"));
        return finish(session, &record).await;
    }
    if is_run_elsewhere(session, id).await? {
        output::note(format_args!("workflow {id} is run by another process; waiting for its end"));
        if let Some(record) = await_other(session, id).await? {
            return finish(session, &record).await;
        }
    }
    let record = find(session, id).await?;
    if record.status.is_settled() {
        return finish(session, &record).await;
    }
    output::note(format_args!("workflow {id} is {} and is continued", record.status));
    continue_one(session, &record).await
}

/// Waits for a workflow that another process runs; `None` where nobody runs it any more.
async fn await_other(
    session: &Session,
    id: &WorkflowId,
) -> Result<Option<WorkflowRecord>, Failure> {
    let mut interrupts = Interrupts::listen()?;
    let store = session.store_of(id).await?;
    let ended = tokio::select! {
        ended = settled_elsewhere(&store, session, id) => ended,
        () = interrupts.next() => {
            output::note(format_args!("workflow {id} goes on in the other process"));
            process::exit(130)
        }
    };
    close(store).await?;
    ended
}

async fn settled_elsewhere(
    store: &Arc<dyn Store>,
    session: &Session,
    id: &WorkflowId,
) -> Result<Option<WorkflowRecord>, Failure> {
    let follower = Follower::new(Arc::clone(store));
    loop {
        let ended = standing::settled_within(POLL_INTERVAL, &follower, session, id).await?;
        if ended.is_some() || !is_run_elsewhere(session, id).await? {
            return Ok(ended);
        }
    }
}

/// True where a live process has the workflow.
async fn is_run_elsewhere(session: &Session, id: &WorkflowId) -> Result<bool, Failure> {
    let url = &session.settings.storage.url;
    if url.is_memory() {
        return Ok(false);
    }
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    {
        let holder = gleitzeit::storage::admin::holder(url, id).await?;
        Ok(holder.is_some_and(|holder| holder.is_alive))
    }
    #[cfg(not(any(feature = "sqlite", feature = "postgres")))]
    {
        let _ = id;
        Ok(false)
    }
}

/// Continues one workflow, or all that are not settled.
pub(crate) async fn resume(mut session: Session, Resume { id, logs }: Resume) -> Outcome {
    session.logs = logs.logs;
    let Some(id) = id else { return resume_all(&session).await };
    let record = find(&session, &id).await?;
    if record.status.is_settled() && ResultFiles::of(&record).is_some_and(|it| !it.are_there()) {
        // It ended, and its process stopped before it wrote them.
        return finish(&session, &record).await;
    }
    refuse_settled(&record, "resume")?;
    continue_one(&session, &record).await
}

/// A workflow that has settled can be neither continued nor cancelled, and nothing in it is unknown.
fn refuse_settled(record: &WorkflowRecord, what: &str) -> Result<(), Failure> {
    let WorkflowRecord { id, status, .. } = record;
    if !status.is_settled() {
        return Ok(());
    }
    let next = if *status == WorkflowStatus::Completed || what == "cancel" {
        String::new()
    } else {
        format!("; `gleitzeit retry {id}` runs again what did not complete")
    };
    let message = format!("workflow {id} is {status}: there is nothing to {what}{next}");
    Err(TaskError::new(ErrorCode::WorkflowInvalidState, message).into())
}

async fn continue_one(session: &Session, record: &WorkflowRecord) -> Outcome {
    let run_session = RunSession::new(session, session.start_for([&*record.spec]).await?).await?;
    if let Err(error) = run_session.handle().resume(Some(&record.id)).await {
        run_session.stop().await;
        return Err(error.into());
    }
    let ended = run_session.follow_one(&record.id, record.tasks.len(), settled(record)).await?;
    finish(session, &ended).await
}

async fn resume_all(session: &Session) -> Outcome {
    let left = match session.store().await? {
        None => Vec::new(),
        Some(store) => {
            let found = store.unsettled().await;
            close(store).await?;
            found?
        }
    };
    if left.is_empty() {
        output::note(format_args!("nothing to resume in {}", session.store_location()));
        if session.json {
            output::document(&json!([]));
        }
        return Ok(Exit::Success);
    }
    let ids: Vec<WorkflowId> = left.iter().map(|record| record.id.clone()).collect();
    let total = left.iter().map(|record| record.tasks.len()).sum();
    let done = left.iter().map(settled).sum();
    let runtime = session.start_for(left.iter().map(|record| &*record.spec)).await?;
    let run_session = RunSession::new(session, runtime).await?;
    if let Err(error) = run_session.handle().resume(None).await {
        run_session.stop().await;
        return Err(error.into());
    }
    let ended = run_session.follow_those_here(&ids, total, done).await?;
    if ended.len() < ids.len() {
        let others = ids.len() - ended.len();
        output::note(format_args!(
            "{others} more are left to other processes; `gleitzeit list` shows what they wait for"
        ));
    }
    let results = StoredResults::of(session, ended.iter().map(|it| &**it)).await?;
    if session.json {
        results.print_list(&ended).await?;
    } else {
        for record in &ended {
            let displayed = results.for_table(record).await?;
            output::painted(&report::workflow_text(&displayed, session.view()));
        }
    }
    results.close().await?;
    for record in &ended {
        report_results(session, record).await?;
    }
    let mut exits = ended.iter().map(|record| Exit::from(record.status));
    Ok(exits.find(|exit| *exit != Exit::Success).unwrap_or(Exit::Success))
}

/// Runs the failed and cancelled tasks, and those that wait for them, of a workflow again.
pub(crate) async fn retry(mut session: Session, retry: &Retry) -> Outcome {
    let Retry { id, input_file, inputs, logs } = retry;
    session.logs = logs.logs;
    let inputs = source::inputs(input_file.as_deref(), inputs)?;
    let record = find(&session, id).await?;
    if record.status == WorkflowStatus::Completed {
        let message = format!("workflow {id} is completed: there is nothing to retry");
        return Err(TaskError::new(ErrorCode::WorkflowInvalidState, message).into());
    }
    let run_session = RunSession::new(&session, session.start_for([&*record.spec]).await?).await?;
    if let Err(error) = run_session.handle().retry_with_inputs(id, &inputs).await {
        run_session.stop().await;
        return Err(match error {
            RetryError::Submit(error) => error.into(),
            RetryError::Task(error) => error.into(),
        });
    }
    let done = record.tasks.iter().filter(|it| it.status == TaskStatus::Completed).count();
    let ended = run_session.follow_one(id, record.tasks.len(), done).await?;
    finish(&session, &ended).await
}

/// Stops a workflow that no process is running, or one task of it; then it stands in the store as
/// if a running one had been stopped.
pub(crate) async fn cancel(session: &Session, Cancel { id, task, reason }: Cancel) -> Outcome {
    // The store is asked first: a runtime would make one that is not there.
    let record = find(session, &id).await?;
    if let Some(task) = &task {
        refuse_unknown(&record, task)?;
    }
    refuse_settled(&record, "cancel")?;
    let runtime = session.start_without_providers().await?;
    let handle = runtime.handle();
    let cancelled = match &task {
        None => handle.cancel(&id, &reason).await,
        Some(task) => handle.cancel_task(&id, task, &reason).await,
    };
    runtime.stop(STOPPING).await;
    cancelled?;
    print_workflow(session, &find(session, &id).await?).await?;
    Ok(Exit::Success)
}

/// Says what became of a task whose outcome is unknown, wherever its workflow runs.
pub(crate) async fn resolve(session: &Session, resolve: Resolve) -> Outcome {
    let Resolve { id, task, completed, failed, retry: _ } = resolve;
    let record = find(session, &id).await?;
    refuse_unknown(&record, &task)?;
    refuse_settled(&record, "resolve")?;
    let resolution = match (completed, failed) {
        (Some(result), _) => Resolution::Completed { result },
        (None, Some(message)) => Resolution::Failed { message: message.into() },
        (None, None) => Resolution::Retry,
    };
    let runtime = session.start_without_providers().await?;
    let resolved = runtime.handle().resolve(&id, &task, resolution).await;
    runtime.stop(STOPPING).await;
    resolved.map_err(|error| match error.code {
        // The result stood at the command line.
        ErrorCode::TaskResultInvalid => Failure::new(Exit::Usage, error),
        _ => error.into(),
    })?;
    let record = find(session, &id).await?;
    print_workflow(session, &record).await?;
    if !record.status.is_settled() {
        output::note(format_args!(
            "a process that serves goes on with it; else: gleitzeit resume {id}"
        ));
    }
    Ok(Exit::Success)
}
