//! Submissions for other processes, and commands on workflows that run there or nowhere.
//!
//! A workflow that no live process runs is loaded here without running its tasks, changed, and
//! released for the next claim. If a process runs it, the command is stored as a request, and that
//! process answers it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use futures_util::StreamExt as _;
use gleitzeit_actors::{
    execution_engine::{Apply, Recover},
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
        lease::{Command, Request, Resolution, Standing},
    },
    workflow::WorkflowSpec,
};

use super::{Handle, stopped};

/// The longest wait for an answer of the process that runs a workflow.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Between two checks whether another process still runs the workflow.
const OWNER_CHECK: Duration = Duration::from_secs(1);

/// Between two polls for the answer, if no notification arrives.
const ANSWER_POLL: Duration = Duration::from_millis(250);

impl Handle {
    /// Stores a workflow for any process on the same store that claims it; this one claims it if it
    /// runs workflows of the store. If the id was submitted before, the first submission is returned.
    ///
    /// # Errors
    /// [`SubmitError`].
    pub async fn enqueue(&self, spec: WorkflowSpec) -> Result<WorkflowId, SubmitError> {
        let plan = self.plan_for_others(spec).await?;
        self.store_unowned(plan).await
    }

    /// Stores a workflow without an owner.
    async fn store_unowned(&self, plan: Arc<Plan>) -> Result<WorkflowId, SubmitError> {
        let (id, spec) = (plan.id.clone(), Arc::clone(&plan.spec));
        let now = shared_now(&*self.store).await;
        let outcomes =
            self.store.submit(vec![unowned(plan, now)]).await.map_err(SubmitError::Store)?;
        if outcomes.contains(&Submitted::Existed) {
            let stored = self.store.workflow(&id).await.map_err(SubmitError::Store)?;
            if let Some(what) = stored.and_then(|stored| difference(&stored.spec, &spec)) {
                return Err(SubmitError::Differs { id, what });
            }
        }
        Ok(id)
    }

    /// Stores a workflow for any process that knows its methods; this one need not. Methods that are
    /// unknown here are returned, and everything else is checked. The workflow stays free until a
    /// process that knows all of its methods claims it.
    ///
    /// # Errors
    /// [`SubmitError`], also for wrong calls of methods that are built in.
    pub async fn enqueue_for_others(&self, spec: WorkflowSpec) -> Result<Enqueued, SubmitError> {
        let draft = self.draft(spec).await?;
        let plans = self.addresses.registry.send(PlanForOthers(vec![draft])).await;
        let plan = plans.unwrap_or_default().pop().unwrap_or(Err(SubmitError::Stopped));
        let (plan, unknown) = plan?;
        plan.graph()?;
        let needs = plan.needs.clone();
        Ok(Enqueued { id: self.store_unowned(plan).await?, needs, unknown })
    }

    /// The owner of a workflow, and the methods that a process must know to claim it. `None` if no
    /// workflow has the id, or if one process at a time uses the store.
    ///
    /// # Errors
    /// The errors of the store.
    pub async fn standing(&self, id: &WorkflowId) -> Result<Option<Standing>, TaskError> {
        let Some(leases) = self.store.leases() else { return Ok(None) };
        Ok(leases.standings(std::slice::from_ref(id)).await?.pop().flatten())
    }

    /// Plans a workflow: its methods and parameters are checked.
    pub(super) async fn plan(&self, spec: WorkflowSpec) -> Result<Arc<Plan>, SubmitError> {
        self.plan_draft(self.draft(spec).await?).await
    }

    /// Plans a workflow that another process may run.
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
        // The registry checks each task by itself, and a circle is a mistake of none of them. Stored
        // unchecked, the workflow would be rejected by every process that claims it.
        plan.graph()?;
        Ok(plan)
    }

    /// Resolves a task whose outcome is unknown: it began before a crash and must not run twice, so
    /// only a person can decide. Its dependents follow.
    ///
    /// # Errors
    /// `WORKFLOW_NOT_FOUND`, `TASK_NOT_FOUND`; `WORKFLOW_INVALID_STATE` if the outcome is known;
    /// `TASK_RESULT_INVALID` if the result does not fit the method.
    pub async fn resolve(
        &self,
        id: &WorkflowId,
        task: &TaskId,
        resolution: Resolution,
    ) -> Result<(), TaskError> {
        self.apply(id, Command::Resolve { task: task.clone(), resolution }).await
    }

    /// Carries out a command about a workflow: here, or in the process that runs it.
    pub(super) async fn apply(&self, id: &WorkflowId, command: Command) -> Result<(), TaskError> {
        let apply = || Apply { id: id.clone(), command: command.clone() };
        let here = self.addresses.engine.send(apply()).await.map_err(stopped)?;
        if !is_not_here(&here) {
            return here;
        }
        match self.take_or_ask(id, command.clone()).await? {
            Reached::Asked => Ok(()),
            // Loaded by now, and paused: the same command finds it here.
            Reached::Here => self.addresses.engine.send(apply()).await.map_err(stopped)?,
        }
    }

    /// Loads a stored workflow without running its tasks, or lets the process that runs it do what is
    /// asked.
    pub(super) async fn take_or_ask(
        &self,
        id: &WorkflowId,
        command: Command,
    ) -> Result<Reached, TaskError> {
        gleitzeit_failpoint::failpoint!("handle.elsewhere.before");
        if self.take_up(id).await? {
            return Ok(Reached::Here);
        }
        let Some(leases) = self.store.leases() else { return Ok(Reached::Here) };
        // Before the request is stored: the answer may be there before this is polled first.
        let mut notifications = leases.notifications();
        let key = leases.ask(Request { workflow: id.clone(), command }).await?;
        gleitzeit_failpoint::failpoint!("handle.request.asked");
        let mut next_check = Instant::now() + OWNER_CHECK;
        let reached = tokio::time::timeout(ANSWER_LIMIT, async {
            loop {
                if let Some(answer) = leases.take_answer(key).await? {
                    gleitzeit_failpoint::failpoint!("handle.request.answered");
                    return answer.map(|()| Reached::Asked);
                }
                if Instant::now() >= next_check {
                    // The process may have died or released the workflow since: its request would
                    // wait for an answer that no one gives.
                    if self.take_up(id).await? {
                        leases.withdraw(key).await?;
                        return Ok(Reached::Here);
                    }
                    next_check = Instant::now() + OWNER_CHECK;
                }
                let _ = tokio::time::timeout(ANSWER_POLL, notifications.next()).await;
            }
        });
        match reached.await {
            Ok(reached) => reached,
            Err(_) => Err(not_answered(id)),
        }
    }

    /// Loads a stored workflow without running its tasks; false if another process runs it.
    async fn take_up(&self, id: &WorkflowId) -> Result<bool, TaskError> {
        let hold = Recover { id: Some(id.clone()), hold: true };
        let recovered = self.addresses.engine.send(hold).await.map_err(stopped)??;
        Ok(recovered.held == 0)
    }
}

/// A workflow that is stored for another process.
#[derive(Debug, Clone)]
pub struct Enqueued {
    /// The id of the workflow.
    pub id: WorkflowId,
    /// The methods that a process must know to run it.
    pub needs: Needs,
    /// The methods that are unknown here; empty if this process could run it.
    pub unknown: Vec<Problem>,
}

/// The result of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reached {
    /// The workflow is loaded here and paused: the caller sends the command.
    Here,
    /// The process that runs it has done it.
    Asked,
}

/// True for the answer of an engine that does not run the workflow.
pub(super) fn is_not_here<T>(answer: &Result<T, TaskError>) -> bool {
    answer.as_ref().is_err_and(|error| error.code == ErrorCode::WorkflowNotFound)
}

/// A new workflow without an owner.
pub(crate) fn unowned(plan: Arc<Plan>, now: DateTime<Utc>) -> NewWorkflow {
    Run::new(plan, SubscriberCount::default(), now).take_new()
}

/// The store's time, which all processes on it share: a workflow's time limit counts from its
/// submission, in whichever process. If the store does not answer, the time of this machine.
pub(crate) async fn shared_now(store: &dyn Store) -> DateTime<Utc> {
    store.shared_time().await.ok().flatten().unwrap_or_else(gleitzeit_actors::clock::utc_now)
}

/// The request stays stored: the next process that runs the workflow reads it, also the same one once
/// it answers again.
fn not_answered(id: &WorkflowId) -> TaskError {
    let message = format!(
        "the process that runs workflow `{id}` did not answer within {} s; the request is stored, \
         and is done as soon as that process answers again, or by the one that takes the workflow \
         over; `gleitzeit show {id}` names the process",
        ANSWER_LIMIT.as_secs()
    );
    TaskError::new(ErrorCode::WorkflowInvalidState, message)
}
