//! What a host talks to: submit, wait, look, cancel, listen.
//!
//! Every question is a message to an actor; the handle holds nothing but addresses, so it can be
//! cloned and used from any thread and any async runtime. Once the runtime has stopped, every
//! question is answered with `SYSTEM_SHUTDOWN`.

mod elsewhere;
mod follow;
mod health;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod transaction;

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use gleitzeit_actors::MailboxError;
use gleitzeit_actors::{
    addresses::ActorAddresses,
    event_bus::{EventFilter, Subscribe, Subscription},
    execution_engine::{
        CallerSpan, Cancel, CancelTask, EngineCounts, GetEngineCounts, GetWorkflow, OfferChanged,
        Recover, Recovered, Reopen, Submit, Wait, WaitAnswer,
    },
    follower::Follower,
    load_balancer::{GetProviders, RegisterProvider, RemoveProvider, RestartProvider},
    monitor::{GetMetrics, GetProfile, GetStats},
    protocol_registry::{GetCapabilities, GetCatalog, RegisterProtocol, ReplaceProtocol},
    provider_supervisor::ProviderStatus,
    resource_manager::{GetResources, ResourceReport},
};
use gleitzeit_domain::{
    error::{ErrorCode, TaskError},
    event::Event,
    id::{ProtocolId, ProviderId, TaskId, WorkflowId},
    metrics::{ExecutionStats, MethodSummary, Metrics},
    plan::{self, Draft, Plan},
    problem::SubmitError,
    protocol::{
        ProtocolSpec,
        catalog::{ProtocolCatalog, RegisterError},
    },
    provider::ProviderSpec,
    store::{ListFilter, Store, lease::Ask},
    workflow::{WorkflowRecord, WorkflowSpec, WorkflowSummary},
};
use tokio::sync::oneshot;

pub use elsewhere::Enqueued;
pub(crate) use elsewhere::shared_now;
use elsewhere::{Reached, is_not_here};
pub use follow::Follow;
pub use health::{EngineState, Health, StoreState};

use crate::files::{self, FileError};

/// Events that may wait for a listener of [`Handle::subscribe`] before some are dropped.
const LISTENER_CAPACITY: usize = 16_384;

/// A handle of a running [`Runtime`](crate::runtime::Runtime).
#[derive(Clone)]
pub struct Handle {
    addresses: ActorAddresses,
    store: Arc<dyn Store>,
    follower: Follower,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Handle").field("store", &self.store.describe()).finish_non_exhaustive()
    }
}

/// Why a workflow file was not run.
#[derive(Debug, thiserror::Error)]
pub enum SubmitFileError {
    /// It cannot be read, or is wrong; the text shows the places.
    #[error(transparent)]
    File(#[from] FileError),
    /// It was not accepted.
    #[error(transparent)]
    Submit(#[from] SubmitError),
}

impl SubmitFileError {
    /// The code of the table.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::File(error) => error.code(),
            Self::Submit(error) => error.code(),
        }
    }
}

/// A workflow that could be submitted.
#[derive(Debug, Clone)]
pub struct CheckedWorkflow {
    /// Its tasks with what they call and need.
    pub plan: Arc<Plan>,
    /// Tasks by level: each level needs only those before it.
    pub levels: Vec<Vec<u32>>,
}

impl CheckedWorkflow {
    /// `(task, depends on)`, explicit and implied by references, each once.
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
    pub(crate) fn new(
        addresses: ActorAddresses,
        store: Arc<dyn Store>,
        follower: Follower,
    ) -> Self {
        Self { addresses, store, follower }
    }

    /// The addresses of the actors, for a host that sends messages of its own.
    pub fn addresses(&self) -> &ActorAddresses {
        &self.addresses
    }

    // ---- workflows ----

    /// Submits a workflow; it is stored when this returns. An id that was submitted before gives
    /// the first submission.
    ///
    /// The spans of its calls are children of the current `tracing` span, which therefore stays
    /// open until the workflow has settled. A process that takes the workflow over has no such span.
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

    /// Checks the shape; where that is wrong, everything else is told with it.
    async fn draft(&self, spec: WorkflowSpec) -> Result<Draft, SubmitError> {
        let (draft, mut problems) = Draft::read(spec);
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
    /// [`SubmitFileError`]; what is wrong with the workflow is told with its places in the file.
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

    /// Submits a workflow and waits for its end.
    ///
    /// # Errors
    /// Those of the submission; how it ended is in the record.
    pub async fn run(&self, spec: WorkflowSpec) -> Result<Arc<WorkflowRecord>, TaskError> {
        let draft = self.draft(spec).await?;
        self.run_draft(draft).await
    }

    /// The same for a workflow whose shape is checked already.
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

    /// Everything wrong with a workflow, without running it.
    ///
    /// # Errors
    /// [`SubmitError::Invalid`] with all of it.
    pub async fn check(&self, spec: WorkflowSpec) -> Result<CheckedWorkflow, SubmitError> {
        let plan = self.plan(spec).await?;
        let levels = plan.graph()?.levels();
        Ok(CheckedWorkflow { plan, levels })
    }

    /// Waits for the end of a workflow.
    ///
    /// # Errors
    /// `WORKFLOW_NOT_FOUND`; `WORKFLOW_INVALID_STATE` when it is stored but does not run here.
    pub async fn wait(&self, id: &WorkflowId) -> WaitAnswer {
        self.wait_for(id, false).await
    }

    /// The same without the large results of tasks, which [`result`](Self::result) reads: all of
    /// them together may be larger than the memory.
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

    /// A workflow as it is now; `None` where there is none of that id.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn workflow(
        &self,
        id: &WorkflowId,
    ) -> Result<Option<Arc<WorkflowRecord>>, TaskError> {
        match self.running(id).await {
            Some(record) => Ok(Some(record)),
            None => Ok(self.store.workflow(id).await?.map(Arc::new)),
        }
    }

    /// A workflow as it is now, without the large results of its tasks: a completed task that has
    /// none here has it in the store ([`TaskRecord::is_result_left_out`]).
    ///
    /// # Errors
    /// Those of the store.
    ///
    /// [`TaskRecord::is_result_left_out`]: gleitzeit_domain::task::TaskRecord::is_result_left_out
    pub async fn outline(&self, id: &WorkflowId) -> Result<Option<Arc<WorkflowRecord>>, TaskError> {
        match self.running(id).await {
            Some(record) => Ok(Some(record)),
            None => Ok(self.store.outline(id).await?.map(Arc::new)),
        }
    }

    /// The stored result of the task at place `index` of a workflow; `None` if there is none.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn result(
        &self,
        id: &WorkflowId,
        index: u32,
    ) -> Result<Option<Arc<serde_json::Value>>, TaskError> {
        Ok(self.store.result(id, index).await?)
    }

    /// A workflow that runs here.
    async fn running(&self, id: &WorkflowId) -> Option<Arc<WorkflowRecord>> {
        let (answer, answered) = oneshot::channel();
        self.addresses.engine.do_send(GetWorkflow { id: id.clone(), answer });
        answered.await.unwrap_or_default()
    }

    /// Workflows by age, the newest first.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn list(&self, filter: ListFilter) -> Result<Vec<WorkflowSummary>, TaskError> {
        Ok(self.store.list(filter).await?)
    }

    /// A workflow's stored events with a sequence above `after`, in order.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn events(
        &self,
        id: &WorkflowId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Event>, TaskError> {
        Ok(self.store.events(id, after, limit).await?)
    }

    /// A workflow's events with a sequence above `after`: those stored, then those to come, up to
    /// its end, none missing and none twice. Those of a workflow that another process runs are read
    /// from the store, once for all who follow it here: after a notification of the store, and at
    /// intervals (100 ms, or 2 s if the store notifies of every commit).
    ///
    /// # Errors
    /// `SYSTEM_SHUTDOWN`; others come with the events.
    pub async fn follow(&self, id: &WorkflowId, after: u64) -> Result<Follow, TaskError> {
        let live = self.subscribe(EventFilter::workflow(id.clone())).await?;
        Ok(Follow::new(self.clone(), id.clone(), after, live))
    }

    /// Listens to events from now on. A listener that falls behind by more than 16,384 events is
    /// told how many it missed; [`follow`](Self::follow) misses none. Whoever names
    /// `engine:started` among the types is told it first, although it was before.
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

    /// Stops a workflow; its running calls end, also where another process runs it. One that is
    /// stored but runs nowhere is stopped too.
    ///
    /// # Errors
    /// `WORKFLOW_NOT_FOUND`; `WORKFLOW_INVALID_STATE` when it is settled, or when the process that
    /// runs it does not answer.
    pub async fn cancel(&self, id: &WorkflowId, reason: &str) -> Result<(), TaskError> {
        let cancel = || Cancel { id: id.clone(), reason: reason.into() };
        let here = self.addresses.engine.send(cancel()).await.map_err(stopped)?;
        if !is_not_here(&here) {
            return here;
        }
        match self.take_or_ask(id, Ask::Cancel { reason: reason.into() }).await? {
            Reached::Asked => Ok(()),
            Reached::Here => self.addresses.engine.send(cancel()).await.map_err(stopped)?,
        }
    }

    /// Stops one task; what depends on it follows its policy. In a workflow that is stored but does
    /// not run anywhere it is stopped too, and nothing of it is run.
    ///
    /// # Errors
    /// `WORKFLOW_NOT_FOUND`, `TASK_NOT_FOUND`; `WORKFLOW_INVALID_STATE` when it is settled, or when
    /// the process that runs it does not answer.
    pub async fn cancel_task(
        &self,
        id: &WorkflowId,
        task: &TaskId,
        reason: &str,
    ) -> Result<(), TaskError> {
        let cancel = || CancelTask { id: id.clone(), task: task.clone(), reason: reason.into() };
        let here = self.addresses.engine.send(cancel()).await.map_err(stopped)?;
        if !is_not_here(&here) {
            return here;
        }
        let ask = Ask::CancelTask { task: task.clone(), reason: reason.into() };
        match self.take_or_ask(id, ask).await? {
            Reached::Asked => Ok(()),
            Reached::Here => self.addresses.engine.send(cancel()).await.map_err(stopped)?,
        }
    }

    /// Goes on with a stored workflow that is not settled, or with all of them; those that another
    /// live process runs are left to it.
    ///
    /// # Errors
    /// `WORKFLOW_NOT_FOUND`; `WORKFLOW_INVALID_STATE` when the one named is settled, or another
    /// process runs it; those of the store.
    pub async fn resume(&self, id: Option<&WorkflowId>) -> Result<Recovered, TaskError> {
        let message = Recover { id: id.cloned(), hold: false };
        let recovered = self.addresses.engine.send(message).await.map_err(stopped)??;
        match id {
            Some(id) if recovered.held > 0 => {
                let message = format!("workflow `{id}` is run by another process");
                Err(TaskError::new(ErrorCode::WorkflowInvalidState, message))
            }
            _ => Ok(recovered),
        }
    }

    /// Runs again what did not complete in a settled workflow.
    ///
    /// # Errors
    /// `WORKFLOW_NOT_FOUND`; `WORKFLOW_INVALID_STATE` when it is not settled or all completed.
    pub async fn retry(&self, id: &WorkflowId) -> Result<Recovered, TaskError> {
        self.addresses.engine.send(Reopen(id.clone())).await.map_err(stopped)?
    }

    // ---- protocols ----

    /// The protocols as they are now.
    ///
    /// # Errors
    /// `SYSTEM_SHUTDOWN`.
    pub async fn protocols(&self) -> Result<Arc<ProtocolCatalog>, TaskError> {
        self.addresses.registry.send(GetCatalog).await.map_err(stopped)
    }

    /// Adds a protocol.
    ///
    /// # Errors
    /// `INVALID_REQUEST` with everything wrong with it, also when another one has its id;
    /// `PROTOCOL_NOT_FOUND` when it extends one that is not there.
    pub async fn register_protocol(&self, spec: ProtocolSpec) -> Result<ProtocolId, TaskError> {
        let answer = self.addresses.registry.send(RegisterProtocol(spec)).await.map_err(stopped)?;
        self.addresses.engine.do_send(OfferChanged);
        answer.map_err(|error| refused(&error))
    }

    /// Puts a protocol in the place of the one with the same id.
    ///
    /// # Errors
    /// `INVALID_REQUEST` with everything wrong with it, also when tasks use the old one and the
    /// new one would not accept what it accepted; `PROTOCOL_NOT_FOUND` when there is no old one.
    pub async fn replace_protocol(&self, spec: ProtocolSpec) -> Result<(), TaskError> {
        let answer = self.addresses.registry.send(ReplaceProtocol(spec)).await.map_err(stopped)?;
        self.addresses.engine.do_send(OfferChanged);
        answer.map_err(|error| refused(&error))
    }

    // ---- providers ----

    /// Adds a provider and starts it.
    ///
    /// # Errors
    /// `PROTOCOL_NOT_FOUND`; `CONFIGURATION_ERROR` when its id is taken or it serves nothing.
    pub async fn register_provider(&self, spec: ProviderSpec) -> Result<(), TaskError> {
        let mut capabilities = spec.capabilities.clone();
        for protocol in &spec.protocols {
            let question = GetCapabilities(protocol.clone());
            capabilities.extend(self.addresses.registry.send(question).await.map_err(stopped)??);
        }
        capabilities.sort_unstable();
        capabilities.dedup();
        let message = RegisterProvider { spec, capabilities };
        let answer = self.addresses.balancer.send(message).await.map_err(stopped)?;
        self.addresses.engine.do_send(OfferChanged);
        answer.map_err(|error| TaskError::new(ErrorCode::ConfigurationError, error.to_string()))
    }

    /// Adds a service: its protocol, unless that is there already, and its provider.
    ///
    /// # Errors
    /// `CONFIGURATION_ERROR` when the service is wrong, or the id of its provider is taken;
    /// `INVALID_REQUEST` when another protocol has its name and version.
    #[cfg(feature = "typed")]
    pub async fn register_service(
        &self,
        service: crate::service::Service,
    ) -> Result<(), TaskError> {
        let wrong = |error: crate::service::ServiceError| {
            TaskError::new(ErrorCode::ConfigurationError, error.to_string())
        };
        let built = service.build().map_err(wrong)?;
        self.register_protocol(built.protocol).await?;
        self.register_provider(built.provider).await
    }

    /// Removes a provider; its calls in flight end within `deadline`.
    ///
    /// # Errors
    /// `PROVIDER_NOT_FOUND`.
    pub async fn remove_provider(
        &self,
        id: &ProviderId,
        deadline: Duration,
    ) -> Result<(), TaskError> {
        let message = RemoveProvider { id: id.clone(), deadline };
        self.addresses.balancer.send(message).await.map_err(stopped)?
    }

    /// Gives a provider a new instance, also one that has failed for good.
    ///
    /// # Errors
    /// `PROVIDER_NOT_FOUND`.
    pub async fn restart_provider(&self, id: &ProviderId) -> Result<(), TaskError> {
        self.addresses.balancer.send(RestartProvider(id.clone())).await.map_err(stopped)?
    }

    /// How every provider is, by id.
    ///
    /// # Errors
    /// `SYSTEM_SHUTDOWN`.
    pub async fn providers(&self) -> Result<Vec<ProviderStatus>, TaskError> {
        self.addresses.balancer.send(GetProviders).await.map_err(stopped)
    }

    // ---- figures ----

    /// Counts since the start.
    ///
    /// # Errors
    /// `SYSTEM_SHUTDOWN`.
    pub async fn stats(&self) -> Result<ExecutionStats, TaskError> {
        self.addresses.engine.send(GetStats).await.map_err(stopped)
    }

    /// What is leased and who waits.
    ///
    /// # Errors
    /// `SYSTEM_SHUTDOWN`.
    pub async fn resources(&self) -> Result<ResourceReport, TaskError> {
        self.addresses.resources.send(GetResources).await.map_err(stopped)
    }

    /// The last measurement at `monitoring.interval`; before the first, and where the interval is 0,
    /// one that is made now.
    ///
    /// # Errors
    /// `SYSTEM_SHUTDOWN`; `INTERNAL_ERROR` when the engine does not answer.
    pub async fn metrics(&self) -> Result<Metrics, TaskError> {
        let measured = self.addresses.monitor.send(GetMetrics).await.map_err(stopped)?;
        measured.ok_or_else(|| {
            TaskError::new(ErrorCode::InternalError, "no measurement: the engine does not answer")
        })
    }

    /// Times and memory of calls, by method.
    ///
    /// # Errors
    /// `SYSTEM_SHUTDOWN`.
    pub async fn profile(&self) -> Result<BTreeMap<String, MethodSummary>, TaskError> {
        self.addresses.monitor.send(GetProfile).await.map_err(stopped)
    }

    /// Everything that the engine holds; all of it is 0 once every workflow has settled.
    ///
    /// # Errors
    /// `SYSTEM_SHUTDOWN`.
    pub async fn engine_counts(&self) -> Result<EngineCounts, TaskError> {
        let answer: Result<_, MailboxError> = self.addresses.engine.send(GetEngineCounts).await;
        answer.map_err(stopped)
    }
}

/// The span that a workflow is submitted in; spans of its calls are children of it.
fn caller() -> CallerSpan {
    let span = tracing::Span::current();
    (!span.is_none()).then(|| Arc::new(span))
}

fn refused(error: &RegisterError) -> TaskError {
    TaskError::new(error.code(), error.to_string())
}
