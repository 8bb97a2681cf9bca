//! The failpoints of the engine's decisions: tests end the process at each.

use gleitzeit_domain::engine::Step;
use gleitzeit_failpoint::failpoint;

/// Passes the failpoint of a step.
pub(super) fn pass(step: Step) {
    // One name is passed at one place only: a test that counts passages relies on it.
    match step {
        Step::SubmissionActivated => failpoint!("engine.submit.activated"),
        Step::SubmissionExisted => failpoint!("engine.submit.existed"),
        Step::EarlyBegun => failpoint!("engine.early.begun"),
        Step::EarlyEnded => failpoint!("engine.early.ended"),
        Step::EarlyStored => failpoint!("engine.early.stored"),
        Step::EarlyChanged => failpoint!("engine.early.behind"),
        Step::StartNoted => failpoint!("engine.start.noted"),
        Step::EndKnown => failpoint!("engine.end.known"),
        Step::EndRetries => failpoint!("engine.end.retries"),
        Step::EndsDecided => failpoint!("engine.end.concluded"),
        Step::DependentsApplied => failpoint!("engine.end.applied"),
        Step::WriteAnswered => failpoint!("engine.written.known"),
        Step::WriteConfirmed => failpoint!("engine.written.promises"),
        Step::WritePublished => failpoint!("engine.written.told"),
        Step::WriteForgotten => failpoint!("engine.written.forgotten"),
        Step::TaskQueued => failpoint!("engine.written.queued"),
        Step::ForgetBegun => failpoint!("engine.forget.before"),
        Step::ForgetAnswered => failpoint!("engine.forget.answered"),
        Step::TimerSet => failpoint!("engine.timer.set"),
        Step::TimerFired => failpoint!("engine.timer.rang"),
        Step::RetryDue => failpoint!("engine.timer.retries"),
        Step::TaskLimitDue => failpoint!("engine.timer.task_limit"),
        Step::WorkflowLimitDue => failpoint!("engine.timer.workflow_limit"),
        Step::OutcomeUnknown => failpoint!("engine.recover.in_doubt"),
        Step::RunConcluded => failpoint!("engine.recover.concluded"),
        Step::RetryResumed => failpoint!("engine.recover.timed"),
        Step::Reopened => failpoint!("engine.reopen"),
        Step::LeaseTaken => failpoint!("engine.lease.taken"),
        Step::PollBegun => failpoint!("engine.look.begun"),
        Step::PollEnded => failpoint!("engine.look.ended"),
        Step::StopEnded => failpoint!("engine.stop_run.ended"),
        Step::StopNoted => failpoint!("engine.stop_run.noted"),
        Step::TaskCancelBegun => failpoint!("engine.cancel_task.before"),
        Step::ResolveBegun => failpoint!("engine.word.before"),
        Step::Resolved => failpoint!("engine.word.said"),
        Step::WaitsEnded => failpoint!("engine.shutdown.waits_ended"),
        Step::Halted => failpoint!("engine.shutdown.halted"),
    }
}
