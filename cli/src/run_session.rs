//! Follows workflows to their end: progress on the way, a stop in good order on Ctrl-C.

mod logs;

use std::{
    future::Future,
    pin::Pin,
    process,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future;
use gleitzeit::{
    Delivery, EventFilter, Handle, Runtime, Subscription, actors::execution_engine::WaitAnswer,
};
use gleitzeit_domain::{
    error::{ErrorCode, TaskError},
    id::WorkflowId,
    problem::SubmitError,
    task::TaskStatus,
    workflow::{WorkflowRecord, WorkflowSpec},
};

use tokio::task::JoinHandle;

use super::{
    interrupt::Interrupts,
    output::{self, Exit, Failure},
    progress::{Progress, ProgressMode},
    session::Session,
};
use logs::Logs;

/// A runtime that has nothing more to do stops within this.
pub(crate) const STOPPING: Duration = Duration::from_secs(5);

/// How the workflows ended, each once it has.
type Answers<'a> = Pin<Box<dyn Future<Output = Vec<WaitAnswer>> + 'a>>;

/// A runtime that has stopped by itself says why within this time.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// A runtime on its way through some workflows.
pub(crate) struct RunSession<'s> {
    session: &'s Session,
    runtime: Runtime,
    interrupts: Interrupts,
    /// `None` if nothing is printed from events: without a subscriber they cost nothing.
    events: Option<Subscription>,
}

impl<'s> RunSession<'s> {
    /// Listens before anything is submitted, so that no event is missed.
    ///
    /// # Errors
    /// When signals cannot be waited for.
    pub(crate) async fn new(session: &'s Session, runtime: Runtime) -> Result<Self, Failure> {
        let interrupts = Interrupts::listen()?;
        let events = if session.progress != ProgressMode::Nothing || session.logs {
            Some(runtime.handle().subscribe(tasks_only()).await?)
        } else {
            None
        };
        Ok(Self { session, runtime, interrupts, events })
    }

    /// The way to ask the runtime.
    pub(crate) fn handle(&self) -> Handle {
        self.runtime.handle()
    }

    /// Submits a workflow and follows it. `refused` makes the failure of a rejected one.
    ///
    /// # Errors
    /// What is wrong with it, what the store says, or that someone interrupted.
    pub(crate) async fn submit(
        self,
        spec: WorkflowSpec,
        refused: impl FnOnce(SubmitError) -> Failure,
    ) -> Result<Arc<WorkflowRecord>, Failure> {
        let total = spec.tasks.len();
        let name = spec.name.clone();
        match self.handle().submit(spec).await {
            Ok(id) => {
                // A workflow in memory cannot be named to another command.
                if self.session.progress != ProgressMode::Nothing && self.session.is_kept() {
                    output::note(format_args!("workflow {id} `{name}`, tasks: {total}"));
                }
                self.follow_one(&id, total, 0).await
            }
            Err(error) => {
                self.stop().await;
                Err(refused(error))
            }
        }
    }

    /// Follows one workflow.
    ///
    /// # Errors
    /// As [`follow`](Self::follow).
    pub(crate) async fn follow_one(
        self,
        id: &WorkflowId,
        total: usize,
        settled: usize,
    ) -> Result<Arc<WorkflowRecord>, Failure> {
        let mut records = self.follow(std::slice::from_ref(id), total, settled).await?;
        records.pop().ok_or_else(|| Failure::infrastructure("the workflow has gone"))
    }

    /// Follows workflows that the runtime has; answers them settled, in the same order.
    ///
    /// # Errors
    /// What the store says, or that someone interrupted.
    pub(crate) async fn follow(
        self,
        ids: &[WorkflowId],
        total: usize,
        settled: usize,
    ) -> Result<Vec<Arc<WorkflowRecord>>, Failure> {
        let answers = self.answers(ids, total, settled).await?;
        Ok(answers.into_iter().collect::<Result<_, TaskError>>()?)
    }

    /// The same, without those that do not run here: other processes run them.
    ///
    /// # Errors
    /// As [`follow`](Self::follow).
    pub(crate) async fn follow_those_here(
        self,
        ids: &[WorkflowId],
        total: usize,
        settled: usize,
    ) -> Result<Vec<Arc<WorkflowRecord>>, Failure> {
        let mut answers = self.answers(ids, total, settled).await?;
        let elsewhere = |error: &TaskError| error.code == ErrorCode::WorkflowInvalidState;
        answers.retain(|answer| !answer.as_ref().is_err_and(elsewhere));
        Ok(answers.into_iter().collect::<Result<_, TaskError>>()?)
    }

    async fn answers(
        mut self,
        ids: &[WorkflowId],
        total: usize,
        settled: usize,
    ) -> Result<Vec<WaitAnswer>, Failure> {
        let session = self.session;
        let mut progress = Progress::new(self.session.progress, total, settled);
        let mut logs = Logs::new(self.session.logs);
        let handle = self.handle();
        let mut all: Answers<'_> =
            Box::pin(future::join_all(ids.iter().map(|id| handle.wait_outline(id))));
        let ended = loop {
            tokio::select! {
                records = &mut all => break Some(records),
                delivery = next(&mut self.events) => match delivery {
                    Delivery::Event(event) => {
                        progress.event(&event);
                        logs.event(&event);
                    }
                    Delivery::Lagged { .. } => progress.set_settled(count(&handle, ids).await),
                },
                () = logs.due() => logs.print(&handle, &progress).await,
                () = self.interrupts.next() => break None,
            }
        };
        let records = match ended {
            Some(records) => {
                let has_stopped = |answer: &WaitAnswer| matches!(answer, Err(it) if it.code == ErrorCode::SystemShutdown);
                if records.iter().any(has_stopped)
                    && let Ok(why) = tokio::time::timeout(LAST_WORDS, self.runtime.failed()).await
                {
                    return Err(why.into());
                }
                self.stop_meanwhile();
                records
            }
            None => self.interrupted(ids, all, &progress).await?,
        };
        for record in records.iter().flatten() {
            progress.rest(record);
        }
        let ended = records.iter().flatten().map(|record| &**record);
        logs.print_rest(session, ended, &progress).await?;
        drop(progress);
        Ok(records)
    }

    /// Lets running tasks end, unless a second signal comes. Answers what has ended by then, if
    /// that is all of it.
    ///
    /// # Errors
    /// That someone interrupted, and how to continue; that outcomes could not be stored.
    async fn interrupted(
        self,
        ids: &[WorkflowId],
        all: Answers<'_>,
        progress: &Progress,
    ) -> Result<Vec<WaitAnswer>, Failure> {
        let Self { session, runtime, mut interrupts, .. } = self;
        let deadline = session.settings.engine.shutdown_deadline;
        progress.say(&format!(
            "stopping; running tasks have {} s to end; press Ctrl-C again to stop at once",
            deadline.as_secs()
        ));
        // Asked on during the stop: the last task may end in time, and its workflow with it.
        let (report, answers) = tokio::select! {
            both = future::join(runtime.stop(deadline), all) => both,
            () = interrupts.next() => process::exit(130),
        };
        let open: Vec<WorkflowId> = ids
            .iter()
            .zip(&answers)
            .filter(|(_, answer)| matches!(answer, Err(error) if error.code == ErrorCode::SystemShutdown))
            .map(|(id, _)| id.clone())
            .collect();
        if open.is_empty() {
            return Ok(answers);
        }
        if session.is_kept() && !report.stored {
            return Err(Failure::infrastructure(
                "interrupted, and the last outcomes could not be stored: the tasks that ended last \
                 run again when their workflow is continued",
            ));
        }
        Err(if session.is_kept() { interruption(&open) } else { gone() })
    }

    /// Stops a runtime that has nothing more to do.
    pub(crate) async fn stop(self) {
        self.runtime.stop(STOPPING).await;
    }

    /// The same while the result is printed: nobody waits for providers to end who waits for a
    /// result. [`stopped`] waits for it.
    fn stop_meanwhile(self) {
        let runtime = self.runtime;
        let stop = tokio::spawn(async move { drop(runtime.stop(STOPPING).await) });
        STOPS.lock().unwrap_or_else(PoisonError::into_inner).push(stop);
    }
}

/// Runtimes that stop while their results are printed.
static STOPS: Mutex<Vec<JoinHandle<()>>> = Mutex::new(Vec::new());

/// Waits until every runtime of this process has stopped; the last thing before it ends.
pub(crate) async fn stopped() {
    let stops = std::mem::take(&mut *STOPS.lock().unwrap_or_else(PoisonError::into_inner));
    for stop in stops {
        // The panic hook has reported a panic there.
        let _ = stop.await;
    }
}

fn tasks_only() -> EventFilter {
    EventFilter { workflow_id: None, types: vec!["task:*".to_owned()] }
}

/// The next delivery; never returns without a subscription or after its end.
async fn next(events: &mut Option<Subscription>) -> Delivery {
    if let Some(listening) = events
        && let Some(delivery) = listening.next().await
    {
        return delivery;
    }
    *events = None;
    future::pending().await
}

/// Tasks of the workflows that are settled now.
async fn count(handle: &Handle, ids: &[WorkflowId]) -> usize {
    let mut sum = 0;
    for id in ids {
        if let Ok(Some(record)) = handle.outline(id).await {
            sum += settled(&record);
        }
    }
    sum
}

/// Someone interrupted what is kept nowhere.
fn gone() -> Failure {
    Failure::new(Exit::Interrupted, TaskError::new(ErrorCode::SystemShutdown, "interrupted"))
}

fn interruption(ids: &[WorkflowId]) -> Failure {
    let message = match ids {
        [id] => format!("interrupted; continue with: gleitzeit resume {id}"),
        _ => "interrupted; continue with: gleitzeit resume".to_owned(),
    };
    let ids: Vec<&str> = ids.iter().map(WorkflowId::as_str).collect();
    let error = TaskError::new(ErrorCode::SystemShutdown, message)
        .with_data(serde_json::json!({ "workflow_ids": ids }));
    Failure::new(Exit::Interrupted, error)
}

/// Tasks of a workflow that are settled.
pub(crate) fn settled(record: &WorkflowRecord) -> usize {
    record
        .tasks
        .iter()
        .map(|task| task.status)
        .filter(|status| TaskStatus::is_settled(*status))
        .count()
}
