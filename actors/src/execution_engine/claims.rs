//! The messages between the engine and its own free futures: recoveries, polls, requests.
//!
//! A future holds [`EngineRecipients`] and not the engine's address, so that it does not depend on
//! the engine.

use std::{rc::Rc, time::Duration};

use actix::prelude::*;
use gleitzeit_domain::{
    engine::{ClaimBudget, RecoverOptions, ResumeError, StoredWorkflow},
    graph::Settlement,
    id::WorkflowId,
    problem::SubmitError,
    run::RunKey,
    store::{Epoch, StoreError},
};

use super::commands::{Apply, Recover, Wait};
use crate::dependency_resolver::StoredRun;

/// Asks for the engine's lease; `None` if the store has none.
#[derive(Debug, Message)]
#[rtype(result = "Result<Option<Epoch>, StoreError>")]
pub(super) struct NeedLease;

/// Asks what may be claimed next, beside those tasks that are about to be loaded.
#[derive(Debug, Message)]
#[rtype(result = "Result<ClaimBudget, StoreError>")]
pub(super) struct GetClaimBudget {
    pub(super) besides: u64,
}

/// Registers stored workflows; answered for each, with the graph that is to be restored.
#[derive(Debug, Message)]
#[rtype(result = "Vec<Result<StoredRun, ResumeError>>")]
pub(super) struct ResumeRuns {
    pub(super) found: Vec<StoredWorkflow>,
    /// The lease that they were claimed for.
    pub(super) epoch: Option<Epoch>,
    pub(super) options: RecoverOptions,
    /// When the recovery began that read them.
    pub(super) begun: u64,
}

/// Graphs were restored, or cannot be.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct GraphsRestored {
    pub(super) graphs: Vec<(RunKey, Result<Settlement, SubmitError>)>,
}

/// Sent by a dropped [`RecoveryGuard`].
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct RecoveryEnded;

/// There may be something to claim, or a request to answer.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct PollClaims;

/// A poll has ended.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct PollDone;

/// Everything was claimed that could be; there may be more after this time.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct PollAfter(pub(super) Option<Duration>);

/// The store has a workflow back.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct Released(pub(super) WorkflowId);

/// The engine, as its own futures know it.
#[derive(Debug)]
pub(super) struct EngineRecipients {
    pub(super) lease: Recipient<NeedLease>,
    pub(super) budget: Recipient<GetClaimBudget>,
    pub(super) resume: Recipient<ResumeRuns>,
    pub(super) restored: Recipient<GraphsRestored>,
    pub(super) recovery_ended: Recipient<RecoveryEnded>,
    pub(super) poll: Recipient<PollClaims>,
    pub(super) poll_done: Recipient<PollDone>,
    pub(super) poll_after: Recipient<PollAfter>,
    pub(super) recover: Recipient<Recover>,
    pub(super) apply: Recipient<Apply>,
    pub(super) wait: Recipient<Wait>,
}

impl EngineRecipients {
    pub(super) fn new<E>(engine: &Addr<E>) -> Rc<Self>
    where
        E: Actor<Context = Context<E>>
            + Handler<NeedLease>
            + Handler<GetClaimBudget>
            + Handler<ResumeRuns>
            + Handler<GraphsRestored>
            + Handler<RecoveryEnded>
            + Handler<PollClaims>
            + Handler<PollDone>
            + Handler<PollAfter>
            + Handler<Recover>
            + Handler<Apply>
            + Handler<Wait>,
    {
        Rc::new(Self {
            lease: engine.clone().recipient(),
            budget: engine.clone().recipient(),
            resume: engine.clone().recipient(),
            restored: engine.clone().recipient(),
            recovery_ended: engine.clone().recipient(),
            // One recipient a message: made once, so that a poll allocates none.
            poll: engine.clone().recipient(),
            poll_done: engine.clone().recipient(),
            poll_after: engine.clone().recipient(),
            recover: engine.clone().recipient(),
            apply: engine.clone().recipient(),
            wait: engine.clone().recipient(),
        })
    }
}

/// Counts one recovery as under way while it lives.
pub(super) struct RecoveryGuard {
    engine: Rc<EngineRecipients>,
    /// When it began, as the engine counts.
    pub(super) begun: u64,
}

impl RecoveryGuard {
    pub(super) fn new(engine: Rc<EngineRecipients>, begun: u64) -> Self {
        Self { engine, begun }
    }
}

impl Drop for RecoveryGuard {
    fn drop(&mut self) {
        // On every way out, also a cancelled future: a recovery that never ended would keep the ids of
        // all workflows that settle from then on.
        self.engine.recovery_ended.do_send(RecoveryEnded);
    }
}
