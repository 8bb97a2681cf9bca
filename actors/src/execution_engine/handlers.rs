//! The messages of the engine: each is passed to the core, and what follows is carried out.

use std::sync::Arc;

use actix::prelude::*;
use gleitzeit_domain::{
    engine::{ClaimBudget, Moment, Submission},
    store::{Epoch, StoreError},
};
use tokio::sync::oneshot;

use super::{
    ExecutionEngine, LeaseWaiter,
    claims::{
        GetClaimBudget, GraphsRestored, NeedLease, PollAfter, PollClaims, PollDone, RecoveryEnded,
        Released, ResumeRuns,
    },
    commands::{GetWorkflow, OfferChanged, Submit},
    plan::{DependentsResolved, SubmissionsPlanned},
    unconfirmed::Confirmed,
};
use crate::{
    dependency_resolver::StoredRun,
    pipeline::{
        StillScheduled, TaskWaits, TasksFinished, TasksHeld, TasksStarted, WaitingCountChanged,
    },
    store_writes::{LeaseAnswered, SubmissionsStored, Written},
};

/// Works off what arrived since the last time.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct ProcessBatch;

/// A retry or a limit is due.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct TimerFired;

/// The oldest young start has become long.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct LongStartsDue;

/// It is time to ask about unconfirmed submissions.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct ConfirmDue;

/// It is time to renew the lease.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct RenewLease;

/// The term of the lease is over, unless it was renewed after `since`.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct TermOver {
    pub(super) epoch: Epoch,
    pub(super) since: Moment,
}

/// Passes a message without an answer to the core, then carries out what follows.
macro_rules! pass {
    ($message:ty, |$core:ident, $it:pat_param, $now:ident| $call:expr) => {
        impl Handler<$message> for ExecutionEngine {
            type Result = ();

            fn handle(&mut self, $it: $message, ctx: &mut Self::Context) {
                let $now = self.now();
                let $core = &mut self.core;
                $call;
                self.run_effects(ctx);
            }
        }
    };
}

// ---- intake and writes ----

pass!(ProcessBatch, |core, _, now| core.process(now));
pass!(SubmissionsPlanned, |core, SubmissionsPlanned(answers), now| {
    core.submissions_planned(answers, now);
});
pass!(DependentsResolved, |core, DependentsResolved { asked, settlements }, now| {
    core.dependents_resolved(asked, settlements, now);
});
pass!(Written, |core, Written(outcome), now| core.written(outcome, now));
pass!(Confirmed, |core, Confirmed(confirmations), _now| core.confirmed(confirmations));
pass!(SubmissionsStored, |core, SubmissionsStored(outcomes), now| {
    gleitzeit_failpoint::failpoint!("engine.submit.known");
    core.submissions_stored(outcomes, now);
});
pass!(Submit, |core, submit, _now| {
    let Submit { draft, accepted, settled: ended, span } = submit;
    core.submit(Submission { draft, accepted, ended, span });
    gleitzeit_failpoint::failpoint!("engine.submit.taken");
});

pass!(GetWorkflow, |core, GetWorkflow { id, answer }, _now| core.read_state(&id, answer));

// ---- timers ----

pass!(TimerFired, |core, _, now| core.timer_due(now));
pass!(LongStartsDue, |core, _, now| core.long_starts_due(now));
pass!(ConfirmDue, |core, _, now| core.confirm_due(now));
pass!(RenewLease, |core, _, _now| core.renewal_due());
pass!(TermOver, |core, TermOver { epoch, since }, _now| core.term_over(epoch, since));

// ---- the pipeline ----

pass!(TasksFinished, |core, TasksFinished(ends), _now| core.tasks_finished(ends));
pass!(TasksHeld, |core, TasksHeld(held), now| core.tasks_held(held, now));
pass!(TasksStarted, |core, TasksStarted { starts, saved }, now| {
    core.tasks_started(starts, saved, now);
});
pass!(WaitingCountChanged, |core, WaitingCountChanged { parked, away }, _now| {
    core.waiting_changed(parked, away);
});
pass!(TaskWaits, |core, TaskWaits { task, attempt, reason }, now| {
    core.task_waits(task, attempt, &reason, now);
});

impl Handler<StillScheduled> for ExecutionEngine {
    type Result = Vec<bool>;

    fn handle(
        &mut self,
        StillScheduled(tasks): StillScheduled,
        _: &mut Self::Context,
    ) -> Vec<bool> {
        self.core.still_scheduled(&tasks)
    }
}

// ---- claims ----

pass!(GraphsRestored, |core, GraphsRestored { graphs }, now| core.graphs_restored(graphs, now));
pass!(RecoveryEnded, |core, _, _now| core.end_recovery());
pass!(PollClaims, |core, _, _now| core.poll());
pass!(PollDone, |core, _, _now| core.poll_ended());
pass!(PollAfter, |core, PollAfter(pause), now| core.poll_after(pause, now));
pass!(OfferChanged, |core, _, _now| core.offer_changed());
pass!(Released, |core, Released(id), _now| core.released(&id));

impl Handler<ResumeRuns> for ExecutionEngine {
    type Result = MessageResult<ResumeRuns>;

    fn handle(&mut self, message: ResumeRuns, ctx: &mut Self::Context) -> Self::Result {
        let ResumeRuns { found, epoch, options, begun } = message;
        let now = self.now();
        let mut resumed = Vec::with_capacity(found.len());
        // All of a page in one message: between two, a cancellation could meet half of it.
        for stored in found {
            // The resolver needs the plan as well, and `resume_run` consumes the rest.
            let plan = Arc::clone(&stored.plan);
            let run = self.core.resume_run(stored, epoch, options, begun, now);
            resumed.push(run.map(|run| {
                let tasks = self.core.task_records(run);
                StoredRun { run, plan, tasks }
            }));
        }
        self.run_effects(ctx);
        MessageResult(resumed)
    }
}

impl Handler<NeedLease> for ExecutionEngine {
    type Result = ResponseFuture<Result<Option<Epoch>, StoreError>>;

    fn handle(&mut self, _: NeedLease, ctx: &mut Self::Context) -> Self::Result {
        let now = self.now();
        if let Some(lease) = self.core.need_lease(now) {
            self.run_effects(ctx);
            return Box::pin(async move { Ok(lease) });
        }
        let (waiting, answered) = oneshot::channel();
        // Before the store is asked: it may answer at once, and this question would wait for ever.
        self.lease_waiters.push(LeaseWaiter::Lease(waiting));
        self.run_effects(ctx);
        Box::pin(async { answered.await.unwrap_or(Err(StoreError::Closed)) })
    }
}

impl Handler<GetClaimBudget> for ExecutionEngine {
    type Result = ResponseFuture<Result<ClaimBudget, StoreError>>;

    fn handle(&mut self, message: GetClaimBudget, ctx: &mut Self::Context) -> Self::Result {
        let GetClaimBudget { besides } = message;
        let now = self.now();
        if let Some(lease) = self.core.need_lease(now) {
            let budget = self.budget(Ok(lease), besides);
            self.run_effects(ctx);
            return Box::pin(async move { budget });
        }
        let (waiting, answered) = oneshot::channel();
        // Decided when the lease is there: the room may have gone by then.
        self.lease_waiters.push(LeaseWaiter::Budget(besides, waiting));
        self.run_effects(ctx);
        Box::pin(async { answered.await.unwrap_or(Err(StoreError::Closed)) })
    }
}

impl Handler<LeaseAnswered> for ExecutionEngine {
    type Result = ();

    fn handle(&mut self, answered: LeaseAnswered, ctx: &mut Self::Context) {
        let LeaseAnswered { answer, since, time } = answered;
        if let Some((now, at)) = time
            && let Some(by) = self.clock.correct(now, at)
        {
            tracing::info!(%by, "clock corrected: this machine's time differs from the store's");
            // What waits for its first commit bears the wrong time; what is stored keeps it.
            self.core.shift_new(by);
        }
        let since = since.saturating_duration_since(self.started_at);
        // After the correction: what is stored with the new lease bears the store's time.
        let now = self.now();
        self.core.lease_answered(answer, since, now);
        self.run_effects(ctx);
    }
}
