//! The decisions of the engine, which the actor carries out in order.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use super::{Callers, Moment, StopReport, Waiter, unconfirmed::Unconfirmed};
use crate::{
    error::TaskError,
    event::{Event, EventData},
    id::{ProviderId, TaskId, WorkflowId},
    metrics::CallSample,
    plan::Draft,
    problem::SubmitError,
    run::{RunKey, TaskKey},
    store::{Epoch, NewWorkflow, StoreError, WorkflowChange},
    task::{TaskRecord, TaskStatus},
    workflow::{WorkflowRecord, WorkflowSpec},
};

/// Decisions that are still to be carried out, the oldest first.
pub type Effects<C> = VecDeque<Effect<C>>;

/// One thing to do. The order matters: an event is published after the answer of the same write.
#[derive(Debug)]
pub enum Effect<C: Callers> {
    /// Publish the events of workflows.
    Publish(Vec<Event>),
    /// Publish an event that belongs to no workflow.
    PublishSystem(EventData),
    /// Answer a caller.
    Reply(Reply<C>),
    /// Call [`process`](super::Engine::process) after the messages that are queued now.
    Wake,
    /// Ask the registry for plans and the resolver for graphs.
    Plan(Vec<(RunKey, Draft)>),
    /// Store new workflows.
    Submit(Vec<NewWorkflow>),
    /// Start these before they are stored, unless they are stored by now.
    StartEarly(Vec<RunKey>),
    /// A submitted workflow was stored before: compare the two, then answer.
    Existed(Box<Existed<C>>),
    /// Run a stored workflow that belongs to the lease of this engine.
    RunClaimed(WorkflowId),
    /// Store changes.
    Record(Vec<WorkflowChange>),
    /// Store changes after a pause.
    RecordAfter(Duration, Vec<WorkflowChange>),
    /// Dispatch what may run.
    Dispatch,
    /// Ask the resolver what follows from settled tasks.
    Settle(Vec<Settled>),
    /// Ask it what follows from a task that completed, and has failed after all.
    LoseResult(Settled),
    /// Remove graphs from the resolver.
    RemoveGraphs(Vec<RunKey>),
    /// End the calls and waits of tasks, wherever they are on their way.
    EndCalls(Vec<TaskKey>),
    /// Measure calls.
    Measure(Vec<CallSample>),
    /// Call [`timer_due`](super::Engine::timer_due) then, and not before.
    ArmTimer(Duration),
    /// Call [`long_starts_due`](super::Engine::long_starts_due) after this pause.
    ArmLongStarts(Duration),
    /// Call [`pause_over`](super::Engine::pause_over) after this pause.
    ArmPause(RunKey, Duration),
    /// Ask the store for a lease, or to renew this one.
    AskForLease(Option<Epoch>),
    /// Answer those that wait for the lease.
    LeaseKnown(Result<Option<Epoch>, StoreError>),
    /// Call [`renewal_due`](super::Engine::renewal_due) after this pause; `None` disarms.
    ArmRenewal(Option<Duration>),
    /// Until when calls with an effect may begin, and when they must end.
    BoundEffects(LeaseBound),
    /// Open or close the gate for tasks on their way.
    BlockEffects(bool),
    /// Poll for requests of other processes, and for work.
    Poll {
        /// The lease whose requests are read.
        epoch: Option<Epoch>,
        /// True to claim what no process runs.
        claims: bool,
    },
    /// Poll after this pause, or when that was due anyway.
    PollAfter(Duration),
    /// Poll now.
    PollNow,
    /// Return a workflow to the store.
    Release {
        /// The lease that owns it.
        epoch: Epoch,
        /// The workflow.
        id: WorkflowId,
    },
    /// Call [`confirm_due`](super::Engine::confirm_due) after this pause.
    ArmConfirm(Duration),
    /// Find out whether submissions are stored.
    Confirm(Vec<Unconfirmed>),
    /// The engine has stopped.
    Halted(StopReport),
    /// Log a change of state.
    Log(Notice),
    /// A step was taken; only if the engine reports steps.
    Step(Step),
}

/// An answer to a caller.
#[derive(Debug)]
pub enum Reply<C: Callers> {
    /// The change is stored.
    Stored(C::OnStored),
    /// The state; `None` if the caller is to read the store.
    State(C::OnState, Option<Arc<WorkflowRecord>>),
    /// The end.
    End(C::OnEnd, Result<Arc<WorkflowRecord>, TaskError>),
    /// The end is to be read from the store, once it is there.
    EndElsewhere(Waiter<C::OnEnd>, WorkflowId),
    /// Whether a submission was accepted.
    Accepted(C::OnAccepted, Result<WorkflowId, SubmitError>),
}

/// A submission whose id the store had before.
#[derive(Debug)]
pub struct Existed<C: Callers> {
    /// The id.
    pub id: WorkflowId,
    /// The submission, if the id was chosen by the caller.
    pub spec: Option<Arc<WorkflowSpec>>,
    /// Callers that wait until it is accepted.
    pub accepted: Vec<C::OnAccepted>,
    /// Callers that wait for its end.
    pub ended: Vec<Waiter<C::OnEnd>>,
    /// True if it belongs to this engine's lease, and is to be run here.
    pub is_claimed: bool,
    /// True while it is not known whether a submission of the same id is stored.
    pub is_unconfirmed: bool,
}

/// A task that has settled.
#[derive(Debug)]
pub struct Settled {
    /// The task.
    pub task: TaskKey,
    /// How it ended, for tasks that refer to it.
    pub outcome: TaskOutcome,
}

/// The fields of a settled task that other tasks can refer to.
#[derive(Debug, Clone)]
pub struct TaskOutcome {
    /// The final status.
    pub status: TaskStatus,
    /// The result.
    pub result: Option<Arc<serde_json::Value>>,
    /// Why it failed.
    pub error: Option<Arc<TaskError>>,
    /// Seconds that its call took.
    pub duration: Option<f64>,
    /// The provider that ran it.
    pub provider_id: Option<ProviderId>,
}

impl From<&TaskRecord> for TaskOutcome {
    fn from(task: &TaskRecord) -> Self {
        Self {
            status: task.status,
            result: task.result.clone(),
            // What a skipped task is stored with says why; it is no error for those that ask.
            error: task.error.clone().filter(|_| task.status != TaskStatus::Skipped),
            duration: task.duration,
            provider_id: task.provider_id.clone(),
        }
    }
}

impl TaskOutcome {
    /// The outcome of a task that was decided without a call.
    pub fn decided(
        status: TaskStatus,
        result: Option<Arc<serde_json::Value>>,
        error: Option<Arc<TaskError>>,
    ) -> Self {
        Self { status, result, error, duration: None, provider_id: None }
    }
}

/// Until when calls with an effect may begin, and when they must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseBound {
    /// The store has no leases, or they do not run out.
    Never,
    /// Calls begin before `begin` only; [`term_over`](super::Engine::term_over) is due at `end`.
    Until {
        /// The last moment at which a call may begin; `None` beyond all time.
        begin: Option<Moment>,
        /// The end of the term.
        end: Moment,
        /// The lease.
        epoch: Epoch,
        /// When it was last renewed.
        since: Moment,
    },
    /// There is no lease.
    Now,
}

/// A change of state that is logged.
#[derive(Debug)]
pub enum Notice {
    /// A submission is stored without the outcomes of its first tasks, which follow.
    StoredBare(StoreError),
    /// A submission could not be stored.
    NotStored(Option<WorkflowId>, StoreError),
    /// The store refuses the outcome of a task; the task fails.
    OutcomeRefused(WorkflowId, TaskId, StoreError),
    /// A workflow can no longer be stored, and is abandoned.
    Abandoned(WorkflowId, StoreError),
    /// Changes could not be stored; they are written again after the pause.
    WriteFailed(StoreError, usize, Duration),
    /// The store was closed while so many changes waited for it.
    StoreClosed(usize),
    /// A stored workflow cannot be restored.
    NotRestored(SubmitError),
    /// The lease is gone, and with it so many workflows.
    LeaseLost(Epoch, usize),
    /// The lease could not be taken or renewed.
    LeaseFailed(StoreError),
    /// The lease ran out without a renewal; so many calls are ended.
    CallsEnded(usize),
    /// A workflow has ended.
    Ended(Arc<WorkflowRecord>),
}

/// Steps between which a crash may happen; tests end the process at each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is named after what has just happened")]
pub enum Step {
    SubmissionActivated,
    SubmissionExisted,
    EarlyBegun,
    EarlyEnded,
    EarlyStored,
    EarlyChanged,
    StartNoted,
    EndKnown,
    EndRetries,
    EndsDecided,
    DependentsApplied,
    WriteAnswered,
    WriteConfirmed,
    WritePublished,
    WriteForgotten,
    TaskQueued,
    ForgetBegun,
    ForgetAnswered,
    TimerSet,
    TimerFired,
    RetryDue,
    TaskLimitDue,
    WorkflowLimitDue,
    OutcomeUnknown,
    RunConcluded,
    RetryResumed,
    Reopened,
    LeaseTaken,
    PollBegun,
    PollEnded,
    StopEnded,
    StopNoted,
    TaskCancelBegun,
    ResolveBegun,
    Resolved,
    WaitsEnded,
    Halted,
}
