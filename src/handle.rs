//! The handle of a runtime: submit, wait, read, cancel, listen.
//!
//! Every method sends messages to actors or reads the store. The handle has no state but addresses,
//! so it can be cloned and used from any thread and any async runtime. Once the runtime has stopped,
//! every method returns `SYSTEM_SHUTDOWN`.

mod commands;
mod elsewhere;
mod figures;
mod follow;
mod health;
mod providers;
mod retry;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod transaction;

use std::{path::Path, sync::Arc};

use gleitzeit_actors::{
    addresses::ActorAddresses,
    event_bus::{EventFilter, Subscribe, Subscription},
    execution_engine::{CallerSpan, GetWorkflow, Submit, Wait, WaitAnswer},
    follower::Follower,
    protocol_registry::GetCatalog,
};
use gleitzeit_domain::{
    error::{ErrorCode, TaskError},
    event::Event,
    id::WorkflowId,
    plan::{self, Draft, Plan},
    problem::SubmitError,
    store::{ListFilter, Store},
    workflow::{WorkflowRecord, WorkflowSpec, WorkflowSummary},
};
use tokio::sync::oneshot;

pub use elsewhere::Enqueued;
pub(crate) use elsewhere::shared_now;
pub use follow::Follow;
pub use health::{EngineState, Health, StoreState};
pub use retry::RetryError;

use crate::{
    chosen_store::ChosenStore,
    files::{self, FileError},
};

/// Events that may wait for a listener of [`Handle::subscribe`] before some are dropped.
const LISTENER_CAPACITY: usize = 16_384;

/// A handle of a running [`Runtime`](crate::runtime::Runtime).
#[derive(Clone)]
pub struct Handle {
    addresses: ActorAddresses,
    store: Arc<dyn Store>,
    follower: Follower,
    /// The same store, if it takes part in transactions of the host.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    submit_in: Option<Arc<dyn gleitzeit_storage::SubmitIn>>,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Handle").field("store", &self.store.describe()).finish_non_exhaustive()
    }
}

/// The reason why a workflow file is not run.
#[derive(Debug, thiserror::Error)]
pub enum SubmitFileError {
    /// The file cannot be read, or is invalid; the text shows the lines.
    #[error(transparent)]
    File(#[from] FileError),
    /// The workflow is rejected.
    #[error(transparent)]
    Submit(#[from] SubmitError),
}

impl SubmitFileError {
    /// The code of the error table.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::File(error) => error.code(),
            Self::Submit(error) => error.code(),
        }
    }
}

/// A workflow that the runtime would accept.
#[derive(Debug, Clone)]
pub struct CheckedWorkflow {
    /// The tasks with their methods and needs.
    pub plan: Arc<Plan>,
    /// Indices of tasks by level: a level depends on earlier levels only.
    pub levels: Vec<Vec<u32>>,
}

impl CheckedWorkflow {
    /// `(task, dependency)` by index, explicit or implied by a reference, each once.
    pub fn edges(&self) -> Vec<(u32, u32)> {
        let mut edges = self.plan.edges.clone();
        edges.sort_unstable();
        edges.dedup();
        edges
    }
}

fn stopped<E>(_: E) -> TaskError {
    TaskError::new(ErrorCode::SystemShutdown, "the runtime has stopped")
}

impl Handle {
    pub(crate) fn new(addresses: ActorAddresses, store: ChosenStore, follower: Follower) -> Self {
        Self {
            addresses,
            store: store.store,
            follower,
            #[cfg(any(feature = "sqlite", feature = "postgres"))]
            submit_in: store.submit_in,
        }
    }

    /// The addresses of the actors, for a host that sends its own messages.
    pub fn addresses(&self) -> &ActorAddresses {
        &self.addresses
    }

    // ---- workflows ----

    /// Submits a workflow, which is stored when this returns. If the id was submitted before, the
    /// first submission is returned.
    ///
    /// The spans of its calls are children of the current `tracing` span, which stays open until the
    /// workflow has settled. A process that takes the workflow over has no such span.
    ///
    /// # Errors
    /// [`SubmitError`].
    pub async fn submit(&self, spec: WorkflowSpec) -> Result<WorkflowId, SubmitError> {
        let draft = self.draft(spec).await?;
        let (accepted, answer) = oneshot::channel();
        self.addresses.engine.do_send(Submit {
            draft,
            accepted: Some(accepted),
            settled: None,
            span: caller(),
        });
        answer.await.unwrap_or(Err(SubmitError::Stopped))
    }

    /// Checks the shape of a spec. If that is invalid, the other problems are returned with it.
    async fn draft(&self, spec: WorkflowSpec) -> Result<Draft, SubmitError> {
        let (draft, mut problems) = Draft::read(spec);
        // The common case needs no catalog, and so no message to the registry.
        if problems.is_empty() {
            return Ok(draft);
        }
        let catalog =
            self.addresses.registry.send(GetCatalog).await.map_err(|_| SubmitError::Stopped)?;
        problems.extend(draft.problems(&catalog));
        Err(SubmitError::Invalid(problems))
    }

    /// Reads a workflow file and submits it.
    ///
    /// # Errors
    /// [`SubmitFileError`]; problems of the workflow name their lines in the file.
    pub async fn submit_file(&self, path: impl AsRef<Path>) -> Result<WorkflowId, SubmitFileError> {
        let catalog =
            self.addresses.registry.send(GetCatalog).await.map_err(|_| SubmitError::Stopped)?;
        let judge = |spec: &WorkflowSpec| plan::problems(spec, &catalog);
        let file = files::read_and_judge(path.as_ref(), &judge)?;
        match self.submit(file.spec).await {
            Ok(id) => Ok(id),
            Err(SubmitError::Invalid(problems)) => {
                Err(FileError::Invalid(file.source.diagnostics(&problems)).into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Submits a workflow and waits for its end. A workflow that fails is no error: the record has its
    /// status.
    ///
    /// # Errors
    /// The errors of the submission, as a [`TaskError`] with the code of the error table.
    pub async fn run(&self, spec: WorkflowSpec) -> Result<Arc<WorkflowRecord>, TaskError> {
        let draft = self.draft(spec).await?;
        self.run_draft(draft).await
    }

    /// Runs a workflow whose shape is checked already.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_draft(&self, draft: Draft) -> WaitAnswer {
        let (settled, answer) = oneshot::channel();
        self.addresses.engine.do_send(Submit {
            draft,
            accepted: None,
            settled: Some(settled),
            span: caller(),
        });
        answer.await.map_err(stopped)?
    }

    /// Checks a workflow without running it.
    ///
    /// # Errors
    /// [`SubmitError::Invalid`] with all problems.
    pub async fn check(&self, spec: WorkflowSpec) -> Result<CheckedWorkflow, SubmitError> {
        let plan = self.plan(spec).await?;
        let levels = plan.graph()?.levels();
        Ok(CheckedWorkflow { plan, levels })
    }

    /// Waits for the end of a workflow.
    ///
    /// # Errors
    /// `WORKFLOW_NOT_FOUND`; `WORKFLOW_INVALID_STATE` if the workflow is stored, does not run here, and
    /// this runtime claims nothing from the store.
    pub async fn wait(&self, id: &WorkflowId) -> WaitAnswer {
        self.wait_for(id, false).await
    }

    /// Waits as [`wait`](Self::wait), and leaves out the large results of tasks, which
    /// [`result`](Self::result) reads: all of them together may be larger than the memory.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub async fn wait_outline(&self, id: &WorkflowId) -> WaitAnswer {
        self.wait_for(id, true).await
    }

    async fn wait_for(&self, id: &WorkflowId, outline: bool) -> WaitAnswer {
        let (answer, answered) = oneshot::channel();
        self.addresses.engine.do_send(Wait { id: id.clone(), answer, outline });
        answered.await.map_err(stopped)?
    }

    /// The current state of a workflow; `None` if no workflow has the id.
    ///
    /// # Errors
    /// The errors of the store.
    pub async fn workflow(
        &self,
        id: &WorkflowId,
    ) -> Result<Option<Arc<WorkflowRecord>>, TaskError> {
        match self.running(id).await {
            Some(record) => Ok(Some(record)),
            None => Ok(self.store.workflow(id).await?.map(Arc::new)),
        }
    }

    /// The current state of a workflow without the large results of its tasks: a completed task
    /// without a result here has one in the store ([`TaskRecord::is_result_left_out`]).
    ///
    /// # Errors
    /// The errors of the store.
    ///
    /// [`TaskRecord::is_result_left_out`]: gleitzeit_domain::task::TaskRecord::is_result_left_out
    pub async fn outline(&self, id: &WorkflowId) -> Result<Option<Arc<WorkflowRecord>>, TaskError> {
        match self.running(id).await {
            Some(record) => Ok(Some(record)),
            None => Ok(self.store.outline(id).await?.map(Arc::new)),
        }
    }

    /// The stored result of the task with this index in its workflow; `None` if there is none.
    ///
    /// # Errors
    /// The errors of the store.
    pub async fn result(
        &self,
        id: &WorkflowId,
        index: u32,
    ) -> Result<Option<Arc<serde_json::Value>>, TaskError> {
        Ok(self.store.result(id, index).await?)
    }

    /// The state of a workflow that runs in this process.
    async fn running(&self, id: &WorkflowId) -> Option<Arc<WorkflowRecord>> {
        let (answer, answered) = oneshot::channel();
        self.addresses.engine.do_send(GetWorkflow { id: id.clone(), answer });
        answered.await.unwrap_or_default()
    }

    /// Lists workflows, the newest first.
    ///
    /// # Errors
    /// The errors of the store.
    pub async fn list(&self, filter: ListFilter) -> Result<Vec<WorkflowSummary>, TaskError> {
        Ok(self.store.list(filter).await?)
    }

    /// A workflow's stored events with a sequence above `after`, in order, at most `limit`.
    ///
    /// # Errors
    /// The errors of the store.
    pub async fn events(
        &self,
        id: &WorkflowId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Event>, TaskError> {
        Ok(self.store.events(id, after, limit).await?)
    }

    /// Follows a workflow's events with a sequence above `after`: stored ones, then new ones, up to its
    /// end, none missing and none twice. Events of a workflow that another process runs are
    /// read from the store, once for all who follow it here: after a notification of the store, and at
    /// intervals (100 ms, or 2 s if the store notifies of every commit).
    ///
    /// # Errors
    /// `SYSTEM_SHUTDOWN`; [`Follow::next`] returns further ones.
    pub async fn follow(&self, id: &WorkflowId, after: u64) -> Result<Follow, TaskError> {
        let live = self.subscribe(EventFilter::workflow(id.clone())).await?;
        Ok(Follow::new(self.clone(), id.clone(), after, live))
    }

    /// Subscribes to events from now on. A listener that is more than 16,384 events late gets the
    /// number of events that it missed; [`follow`](Self::follow) misses none. A filter with
    /// `engine:started` among its types gets that event first, although it was published before.
    ///
    /// # Errors
    /// `SYSTEM_SHUTDOWN`.
    pub async fn subscribe(&self, filter: EventFilter) -> Result<Subscription, TaskError> {
        self.addresses
            .bus
            .send(Subscribe { filter, capacity: LISTENER_CAPACITY })
            .await
            .map_err(stopped)
    }
}

/// The current span, if there is one: the parent of the spans of a workflow's calls.
fn caller() -> CallerSpan {
    let span = tracing::Span::current();
    (!span.is_none()).then(|| Arc::new(span))
}
