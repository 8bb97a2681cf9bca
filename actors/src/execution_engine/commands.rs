//! The messages that a runtime's handle sends to the engine, and their answers.

use std::{sync::Arc, time::Duration};

use actix::prelude::*;
use gleitzeit_domain::{
    command::Command,
    engine::{EngineCounts, LeaseHealth, Recovered, StopReport},
    error::TaskError,
    id::WorkflowId,
    plan::Draft,
    problem::SubmitError,
    workflow::WorkflowRecord,
};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use crate::{peers::Peers, provider_supervisor::CallerSpan};

/// How the engine runs.
#[derive(Debug, Clone)]
pub struct EngineSettings {
    /// Tasks executing at once; at least 1.
    pub max_concurrent_tasks: usize,
    /// Tasks of unsettled workflows; more are rejected with `QUEUE_FULL`.
    pub max_queued_tasks: u64,
    /// Bytes of JSON that the result of a task may have; a longer one fails its task.
    pub max_result_bytes: u64,
    /// Bytes of outcomes that may wait for the store before dispatch pauses.
    pub max_unstored_bytes: u64,
    /// Dispatched tasks that may wait for resources or a provider before dispatch pauses.
    pub max_parked_tasks: usize,
    /// Seeds the jitter of retries.
    pub seed: u64,
    /// Names this process to people who list the leases.
    pub owner: Arc<str>,
    /// How long its lease is good for without being renewed, if the leases of the store expire.
    pub lease_term: Duration,
    /// Claims stored workflows that no live process runs; otherwise it runs what is submitted here.
    pub takes_over: bool,
    /// The longest time between two polls for something to claim.
    pub sweep: Duration,
    /// Receives the end of each workflow that asks for its results in files, after it is stored.
    pub results: Option<mpsc::UnboundedSender<Arc<WorkflowRecord>>>,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self {
            max_concurrent_tasks: 64,
            max_queued_tasks: 1_000_000,
            max_result_bytes: 64 * 1024 * 1024,
            max_unstored_bytes: 64 * 1024 * 1024,
            // Far above the tasks at once: tasks that wait for a busy provider must not stop those
            // of another.
            max_parked_tasks: 1_024,
            seed: 0,
            owner: "gleitzeit".into(),
            // Three renewals fit into a term: one that is lost does not lose the lease.
            lease_term: Duration::from_secs(15),
            takes_over: false,
            // Notifications may be lost: a workflow that is free is found after this at the
            // latest.
            sweep: Duration::from_mins(5),
            results: None,
        }
    }
}

/// The addresses of the other actors; sent before any other message.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Connect(pub Peers);

/// Submits a workflow.
///
/// The answer comes through channels, not as the message's result: thousands of submissions in
/// flight would each cost a task of their own otherwise.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Submit {
    /// The workflow.
    pub draft: Draft,
    /// Receives its id once it is stored, or why it is not.
    pub accepted: Option<oneshot::Sender<Result<WorkflowId, SubmitError>>>,
    /// Receives its end.
    pub settled: Option<oneshot::Sender<WaitAnswer>>,
    /// The span of the caller.
    pub span: CallerSpan,
}

/// The end of a workflow, or why it cannot be waited for.
pub type WaitAnswer = Result<Arc<WorkflowRecord>, TaskError>;

/// Waits for the end of a workflow, here or in the store.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Wait {
    /// The workflow.
    pub id: WorkflowId,
    /// Receives its end.
    pub answer: oneshot::Sender<WaitAnswer>,
    /// True leaves out large results that are stored, as [`Store::outline`](gleitzeit_domain::store::Store::outline) does.
    pub outline: bool,
}

/// Asks for the state of a workflow that runs here; `None` if it does not, or if the store refuses
/// writes: the store then has all that can be shown.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct GetWorkflow {
    /// The workflow.
    pub id: WorkflowId,
    /// Receives its state, once that is stored.
    pub answer: oneshot::Sender<Option<Arc<WorkflowRecord>>>,
}

/// Carries out a command about a workflow; answered once what it changed is stored.
///
/// # Errors
/// `WORKFLOW_NOT_FOUND` when it does not run here; `TASK_NOT_FOUND`; `WORKFLOW_INVALID_STATE` when
/// it is settled, or the outcome of the task is known; `TASK_RESULT_INVALID` when a result is not
/// what the method returns. Those of [`Reopen`] for a retry, and of the balancer for a provider.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), TaskError>")]
pub struct Apply {
    /// The workflow; of no meaning for a command about a provider.
    pub id: WorkflowId,
    /// What is to be done.
    pub command: Command,
}

/// Goes on with stored workflows.
///
/// # Errors
/// Those of the store; for a named workflow `WORKFLOW_NOT_FOUND`, or `WORKFLOW_INVALID_STATE` when
/// it is settled.
#[derive(Debug, Message)]
#[rtype(result = "Result<Recovered, TaskError>")]
pub struct Recover {
    /// This one, or all that are not settled.
    pub id: Option<WorkflowId>,
    /// Loads without running anything, as for a cancellation; no effect in an engine that runs what
    /// no other process runs.
    pub hold: bool,
}

/// Runs again what did not complete in a settled workflow.
///
/// # Errors
/// `WORKFLOW_NOT_FOUND`; `WORKFLOW_INVALID_STATE` when it is not settled or all of it completed.
#[derive(Debug, Message)]
#[rtype(result = "Result<Recovered, TaskError>")]
pub struct Reopen(pub WorkflowId);

/// What this process can run has changed: there may be something to claim that it could not before.
/// Sent after a protocol or a provider was added.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct OfferChanged;

/// Asks whether nothing is queued, under way or being written.
#[derive(Debug, Message)]
#[rtype(result = "bool")]
pub struct IsIdle;

/// Counts everything that the engine keeps; all are 0 once every workflow has settled.
#[derive(Debug, Message)]
#[rtype(result = "EngineCounts")]
pub struct GetEngineCounts;

/// Asks whether the engine works.
#[derive(Debug, Message)]
#[rtype(result = "EngineHealth")]
pub struct GetHealth;

/// The answer to [`GetHealth`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, MessageResponse)]
pub struct EngineHealth {
    /// False once a stop was asked for.
    pub takes_work: bool,
    /// False while the store refuses what is to be written.
    pub is_stored: bool,
    /// The engine's right to run workflows.
    pub lease: LeaseHealth,
}

/// Accepts nothing more, lets executing tasks end within `deadline`, then stops for good.
#[derive(Debug, Message)]
#[rtype(result = "StopReport")]
pub struct Shutdown {
    /// How long executing tasks may take.
    pub deadline: Duration,
}
