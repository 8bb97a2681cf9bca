//! What a handle does about workflows that run in other processes, or in none yet.
//!
//! A workflow that no live process runs is taken up here, without running its tasks, changed, and
//! left to whoever claims it. The process that runs one is asked through the store.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use futures_util::StreamExt as _;
use gleitzeit_actors::{
    execution_engine::{Recover, ResolveUnknown},
    protocol_registry::{PlanForOthers, ValidateWorkflows},
};
use gleitzeit_domain::{
    difference::difference,
    error::{ErrorCode, TaskError},
    event::SubscriberCount,
    id::{TaskId, WorkflowId},
    needs::Needs,
    plan::{Draft, Plan},
    problem::{Problem, SubmitError},
    run::Run,
    store::{
        NewWorkflow, Store, Submitted,
        lease::{Ask, Request, Resolution, Standing},
    },
    workflow::WorkflowSpec,
};

use super::{Handle, stopped};

/// How long the process that runs a workflow may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Between two looks whether the process that was asked still runs it.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// Between two looks for the answer, if no notification arrives.
const ANSWER_PAUSE: Duration = Duration::from_millis(250);

impl Handle {
    /// Stores a workflow for whichever process claims it: this one, where it runs what it finds in
    /// the store, or another on the same database. An id that was submitted before gives the first
    /// submission.
    ///
    /// # Errors
    /// [`SubmitError`].
    pub async fn enqueue(&self, spec: WorkflowSpec) -> Result<WorkflowId, SubmitError> {
        let plan = self.plan_for_others(spec).await?;
        self.leave(plan).await
    }

    /// Stores a workflow for whoever claims it.
    async fn leave(&self, plan: Arc<Plan>) -> Result<WorkflowId, SubmitError> {
        let (id, spec) = (plan.id.clone(), Arc::clone(&plan.spec));
        let now = shared_now(&*self.store).await;
        let fates =
            self.store.submit(vec![unowned(plan, now)]).await.map_err(SubmitError::Store)?;
        if fates.contains(&Submitted::Existed) {
            let stored = self.store.workflow(&id).await.map_err(SubmitError::Store)?;
            if let Some(what) = stored.and_then(|stored| difference(&stored.spec, &spec)) {
                return Err(SubmitError::Differs { id, what });
            }
        }
        Ok(id)
    }

    /// Stores a workflow for whichever process knows what it calls, which need not be this one: what
    /// is not known here is told with the answer, and everything else is checked. The workflow stays
    /// free until a process that knows all of its methods claims it.
    ///
    /// # Errors
    /// [`SubmitError`]; what is wrong with methods that are built in, too.
    pub async fn enqueue_for_others(&self, spec: WorkflowSpec) -> Result<Enqueued, SubmitError> {
        let draft = self.draft(spec).await?;
        let plans = self.addresses.registry.send(PlanForOthers(vec![draft])).await;
        let plan = plans.unwrap_or_default().pop().unwrap_or(Err(SubmitError::Stopped));
        let (plan, unknown) = plan?;
        plan.graph()?;
        let needs = plan.needs.clone();
        Ok(Enqueued { id: self.leave(plan).await?, needs, unknown })
    }

    /// Who has a workflow, and what a process must know to take it up; `None` where there is none of
    /// that id, or where the store is used by one process at a time.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn standing(&self, id: &WorkflowId) -> Result<Option<Standing>, TaskError> {
        let Some(leases) = self.store.leases() else { return Ok(None) };
        Ok(leases.standings(std::slice::from_ref(id)).await?.pop().flatten())
    }

    /// A workflow with its methods and parameters checked.
    pub(super) async fn plan(&self, spec: WorkflowSpec) -> Result<Arc<Plan>, SubmitError> {
        self.plan_draft(self.draft(spec).await?).await
    }

    /// The same for one that another process may run.
    pub(super) async fn plan_for_others(
        &self,
        spec: WorkflowSpec,
    ) -> Result<Arc<Plan>, SubmitError> {
        let draft = Draft { runs_elsewhere: true, ..self.draft(spec).await? };
        self.plan_draft(draft).await
    }

    async fn plan_draft(&self, draft: Draft) -> Result<Arc<Plan>, SubmitError> {
        let plans = self.addresses.registry.send(ValidateWorkflows(vec![draft])).await;
        let plan = plans.unwrap_or_default().pop().unwrap_or(Err(SubmitError::Stopped))?;
        // A circle is no mistake of a single task, so the registry lets it pass.
        plan.graph()?;
        Ok(plan)
    }

    /// Ends a task whose outcome is unknown, by a person's word: it began before a crash and must
    /// not run twice, so nobody else can say. What depends on it follows.
    ///
    /// # Errors
    /// `WORKFLOW_NOT_FOUND`, `TASK_NOT_FOUND`; `WORKFLOW_INVALID_STATE` when its outcome is known;
    /// `TASK_RESULT_INVALID` when the result is not what the method returns.
    pub async fn resolve(
        &self,
        id: &WorkflowId,
        task: &TaskId,
        verdict: Resolution,
    ) -> Result<(), TaskError> {
        let resolve =
            || ResolveUnknown { id: id.clone(), task: task.clone(), verdict: verdict.clone() };
        let here = self.addresses.engine.send(resolve()).await.map_err(stopped)?;
        if !is_not_here(&here) {
            return here;
        }
        let ask = Ask::Settle { task: task.clone(), verdict: verdict.clone() };
        match self.take_or_ask(id, ask).await? {
            Reached::Asked => Ok(()),
            Reached::Here => self.addresses.engine.send(resolve()).await.map_err(stopped)?,
        }
    }

    /// Takes up a stored workflow without running its tasks, or has the process that runs it do
    /// what is asked.
    pub(super) async fn take_or_ask(
        &self,
        id: &WorkflowId,
        ask: Ask,
    ) -> Result<Reached, TaskError> {
        gleitzeit_failpoint::failpoint!("handle.elsewhere.before");
        if self.take_up(id).await? {
            return Ok(Reached::Here);
        }
        let Some(leases) = self.store.leases() else { return Ok(Reached::Here) };
        let mut notifications = leases.notifications();
        let key = leases.ask(Request { workflow: id.clone(), ask }).await?;
        gleitzeit_failpoint::failpoint!("handle.request.asked");
        let mut next_look = Instant::now() + LOOK_PAUSE;
        let reached = tokio::time::timeout(ANSWER_LIMIT, async {
            loop {
                if let Some(answer) = leases.take_answer(key).await? {
                    gleitzeit_failpoint::failpoint!("handle.request.answered");
                    return answer.map(|()| Reached::Asked);
                }
                if Instant::now() >= next_look {
                    // Whoever was asked may be dead since, or have let go of it.
                    if self.take_up(id).await? {
                        leases.withdraw(key).await?;
                        return Ok(Reached::Here);
                    }
                    next_look = Instant::now() + LOOK_PAUSE;
                }
                let _ = tokio::time::timeout(ANSWER_PAUSE, notifications.next()).await;
            }
        });
        match reached.await {
            Ok(reached) => reached,
            Err(_) => Err(not_answered(id)),
        }
    }

    /// Takes up a stored workflow without running its tasks; false where another process runs it.
    async fn take_up(&self, id: &WorkflowId) -> Result<bool, TaskError> {
        let hold = Recover { id: Some(id.clone()), hold: true };
        let recovered = self.addresses.engine.send(hold).await.map_err(stopped)??;
        Ok(recovered.held == 0)
    }
}

/// A workflow that was stored for others.
#[derive(Debug, Clone)]
pub struct Enqueued {
    /// Its id.
    pub id: WorkflowId,
    /// What the process that runs it must know.
    pub needs: Needs,
    /// What is not known here; empty where this process could run it.
    pub unknown: Vec<Problem>,
}

/// What a request came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reached {
    /// The workflow is here now, held: the caller does it.
    Here,
    /// The process that runs it has done it.
    Asked,
}

/// True for the answer of an engine that does not have the workflow.
pub(super) fn is_not_here<T>(answer: &Result<T, TaskError>) -> bool {
    answer.as_ref().is_err_and(|error| error.code == ErrorCode::WorkflowNotFound)
}

/// As it is stored before anyone runs it.
pub(crate) fn unowned(plan: Arc<Plan>, now: DateTime<Utc>) -> NewWorkflow {
    Run::new(plan, SubscriberCount::default(), now).take_new()
}

/// The time that whoever runs a workflow goes by: its limit counts from its submission. A server
/// that does not say has the clock of this machine believed.
pub(crate) async fn shared_now(store: &dyn Store) -> DateTime<Utc> {
    store.shared_time().await.ok().flatten().unwrap_or_else(gleitzeit_actors::clock::utc_now)
}

/// The request stays: whoever runs the workflow next reads it, also the same process once it is
/// awake.
fn not_answered(id: &WorkflowId) -> TaskError {
    let message = format!(
        "the process that runs workflow `{id}` did not answer within {} s; the request is stored, \
         and is done as soon as that process answers again, or by the one that takes the workflow \
         over; `gleitzeit show {id}` tells who runs it",
        ANSWER_LIMIT.as_secs()
    );
    TaskError::new(ErrorCode::WorkflowInvalidState, message)
}
