//! The log of the engine: one line for each change of state.

use gleitzeit_domain::{
    engine::Notice,
    id::WorkflowId,
    task::TaskStatus,
    workflow::{WorkflowRecord, WorkflowStatus},
};

/// Characters of a cause in the log.
const CAUSE_MAX: usize = 300;

/// The log's name for how workflows end, so that a program which reports it itself can leave it out.
const OUTCOMES: &str = "gleitzeit::outcomes";

/// Logs a change of state.
pub(super) fn log(notice: &Notice) {
    match notice {
        Notice::StoredBare(error) => {
            tracing::warn!(%error, "submission stored without the outcomes of its first tasks, which follow");
        }
        Notice::NotStored(workflow, error) => {
            let workflow = workflow.as_ref().map(WorkflowId::as_str);
            tracing::error!(%error, workflow, "submission not stored");
        }
        Notice::OutcomeRefused(workflow, task, error) => {
            tracing::error!(%workflow, %task, %error, "store refuses the outcome of a task; the task fails");
        }
        Notice::Abandoned(workflow, error) => {
            tracing::error!(%workflow, %error, "workflow abandoned: it can no longer be stored");
        }
        Notice::WriteFailed(error, workflows, pause) => {
            tracing::error!(%error, workflows, ?pause, "write of outcomes failed; they are kept and written again");
        }
        Notice::StoreClosed(workflows) => {
            tracing::error!(workflows, "store closed before outcomes were written");
        }
        Notice::NotRestored(error) => tracing::error!(%error, "stored workflow not restored"),
        // An idle engine does not renew: nothing of it was taken over.
        Notice::LeaseLost(epoch, 0) => tracing::debug!(%epoch, "lease lost; it owned nothing"),
        Notice::LeaseLost(epoch, workflows) => {
            tracing::error!(%epoch, workflows, "lease lost; the process that claims its workflows runs them");
        }
        Notice::LeaseFailed(error) => tracing::error!(%error, "lease renewal failed"),
        Notice::CallsEnded(calls) => {
            tracing::warn!(
                calls,
                "lease expired without a renewal; its calls are ended, and begin again after the \
                 next renewal"
            );
        }
        // Under a target of its own, so that the command line can silence what it prints itself.
        Notice::Ended(record) => log_end(record),
    }
}

/// One line for each workflow that ends, so that an operator need not ask for each.
fn log_end(record: &WorkflowRecord) {
    let workflow = record.id.as_str();
    let name = &*record.name;
    match record.status {
        WorkflowStatus::Completed => {
            tracing::info!(target: OUTCOMES, workflow, name, tasks = record.tasks.len(), "workflow completed");
        }
        WorkflowStatus::Cancelled => {
            let reason = record.error.as_ref().map_or("", |error| &*error.message);
            tracing::info!(target: OUTCOMES, workflow, name, reason, "workflow cancelled");
        }
        status => {
            let failed = record.tasks.iter().find(|task| task.status == TaskStatus::Failed);
            let task = failed.map_or("", |task| task.id.as_str());
            let error = failed.and_then(|task| task.error.as_ref()).or(record.error.as_ref());
            let code = error.map_or("", |error| error.code.name());
            let cause = error.map_or("", |error| &*error.message);
            // The message of a task is text from outside: as a debug value it is escaped, and cannot
            // forge a line of the log.
            tracing::warn!(target: OUTCOMES, workflow, name, task, code, cause = ?shortened(cause), "workflow {status}");
        }
    }
}

/// The beginning of a text: a line of a log is no place for a whole traceback.
fn shortened(text: &str) -> &str {
    match text.char_indices().nth(CAUSE_MAX) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}
