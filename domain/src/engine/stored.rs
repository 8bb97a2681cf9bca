//! Stored workflows before they run again: read, checked, counted.

use std::sync::Arc;

use serde::Serialize;

use super::{RecoverOptions, ResumeError, StoredWorkflow};
use crate::{
    error::{ErrorCode, TaskError},
    id::WorkflowId,
    needs::Needs,
    plan::{Draft, Replanned},
    problem::Problem,
    store::{Epoch, lease::ClaimedWorkflow},
    task::TaskRecord,
    workflow::{WorkflowRecord, WorkflowSpec, WorkflowStatus},
};

/// A stored workflow, to be planned again.
#[derive(Debug)]
pub struct StoredDraft {
    /// The submission.
    pub draft: Draft,
    /// The methods that it needs, as determined at its submission.
    pub needs: Needs,
    /// The tasks that are settled, by their index.
    pub settled: Vec<bool>,
}

/// Stored workflows as drafts.
#[derive(Debug, Default)]
pub struct StoredDrafts {
    /// The workflows that can be read.
    pub drafts: Vec<StoredDraft>,
    /// The records of the drafts, each with the expired lease that owned it.
    pub records: Vec<(WorkflowRecord, Option<Epoch>)>,
    /// The others, and why.
    pub unreadable: Vec<(WorkflowId, String)>,
}

/// Reads workflows as they are stored.
pub fn read_stored(claimed: Vec<ClaimedWorkflow>) -> StoredDrafts {
    let mut stored = StoredDrafts::default();
    let empty = Arc::new(WorkflowSpec::new(""));
    for ClaimedWorkflow { mut record, needs, left_by } in claimed {
        // Record and draft share one spec: with many workflows, two of each would fill the memory.
        let spec = std::mem::replace(&mut record.spec, Arc::clone(&empty));
        let mut spec = Arc::unwrap_or_clone(spec);
        // The id that was made up at the submission: a new one would make another workflow of it.
        spec.id.get_or_insert_with(|| record.id.clone());
        let why = match Draft::new(spec) {
            Ok(draft) if is_complete(&draft, &record) => {
                record.spec = Arc::clone(&draft.spec);
                let settled = record.tasks.iter().map(|task| task.status.is_settled()).collect();
                stored.drafts.push(StoredDraft { draft, needs, settled });
                stored.records.push((record, left_by));
                continue;
            }
            Ok(_) => "it lacks tasks".to_owned(),
            Err(error) => error.to_string(),
        };
        stored.unreadable.push((record.id, why));
    }
    stored
}

/// True when every task of the spec has its record, at its place.
fn is_complete(draft: &Draft, record: &WorkflowRecord) -> bool {
    let is_at = |(index, task): (u32, &TaskRecord)| task.index == index;
    draft.tasks.len() == record.tasks.len() && (0..).zip(&record.tasks).all(is_at)
}

/// Whether a named workflow is in a state in which it can be recovered.
///
/// # Errors
/// `WORKFLOW_INVALID_STATE`.
pub fn check_settled(record: &WorkflowRecord, options: RecoverOptions) -> Result<(), TaskError> {
    if record.status.is_settled() == options.reopen {
        return Ok(());
    }
    let hint = match record.status {
        _ if options.reopen => "it is running or can be resumed",
        _ if options.hold => "there is nothing to cancel or to resolve",
        WorkflowStatus::Completed => "there is nothing left to run",
        _ => "`gleitzeit retry` runs again what did not complete",
    };
    let already = if options.reopen { "" } else { " already" };
    let message = format!("workflow `{}` is {}{already}; {hint}", record.id, record.status);
    Err(TaskError::new(ErrorCode::WorkflowInvalidState, message))
}

/// The counts of a recovery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Recovered {
    /// Workflows that continue.
    pub workflows: u64,
    /// Tasks of them that are not settled.
    pub tasks: u64,
    /// Stored workflows that could not be read; the log says why.
    pub unreadable: u64,
    /// Workflows that were asked for by name and that another process runs.
    pub held: u64,
    /// Workflows that this process cannot run, and left to others.
    pub unfit: u64,
}

/// How far a recovery is.
#[derive(Debug, Default)]
pub struct RecoveryProgress {
    /// The counts so far.
    pub recovered: Recovered,
    /// Why the last workflow that does not continue here does not.
    pub rejected: Option<ResumeError>,
    /// The first that this process cannot run, and why.
    pub unfit: Option<(WorkflowId, Problem)>,
}

impl RecoveryProgress {
    /// Selects the replanned workflows that can continue here; the others are added to `unfit`.
    pub fn select(
        &mut self,
        plans: Vec<Replanned>,
        records: Vec<(WorkflowRecord, Option<Epoch>)>,
        options: RecoverOptions,
        unfit: &mut Vec<WorkflowId>,
    ) -> Vec<StoredWorkflow> {
        let mut found = Vec::with_capacity(plans.len());
        for (replanned, (record, left_by)) in plans.into_iter().zip(records) {
            let Replanned { plan, mut problems } = replanned;
            let is_fit = problems.is_empty();
            // A command may change a workflow that this process cannot run.
            if is_fit || options.hold {
                found.push(StoredWorkflow { plan: Arc::new(plan), record, left_by, is_fit });
                continue;
            }
            self.recovered.unfit += 1;
            self.unfit.get_or_insert_with(|| (record.id.clone(), problems.swap_remove(0)));
            unfit.push(record.id);
        }
        found
    }

    /// Counts the graph of a resumed run with so many open tasks.
    pub fn count(&mut self, is_restored: bool, open_tasks: u64) {
        if is_restored {
            self.recovered.workflows += 1;
            self.recovered.tasks += open_tasks;
        } else {
            self.recovered.unreadable += 1;
        }
    }

    /// The result of the recovery of one workflow.
    ///
    /// # Errors
    /// Why this process cannot run it.
    pub fn of_one(self, id: &WorkflowId) -> Result<(Recovered, Option<ResumeError>), TaskError> {
        let Some((_, why)) = self.unfit else { return Ok((self.recovered, self.rejected)) };
        let message = format!(
            "workflow `{id}` cannot be run by this process: {}; it is left as it was, for a \
             process that can",
            why.message
        );
        Err(TaskError::new(why.code, message))
    }
}

/// The result of a retry.
///
/// # Errors
/// `WORKFLOW_INVALID_STATE`, or `PERSISTENCE_INTEGRITY_ERROR` if it cannot be read.
pub fn reopened(
    id: &WorkflowId,
    (recovered, rejected): (Recovered, Option<ResumeError>),
) -> Result<Recovered, TaskError> {
    let invalid = |why: &str| {
        let message = format!("workflow `{id}` cannot be run again: {why}");
        Err(TaskError::new(ErrorCode::WorkflowInvalidState, message))
    };
    match (recovered, rejected) {
        (_, Some(why)) => invalid(&why.to_string()),
        (Recovered { held: 1, .. }, None) => invalid("another process runs it now"),
        (Recovered { workflows: 0, .. }, None) => {
            let message = format!("workflow `{id}` cannot be read; the log says why");
            Err(TaskError::new(ErrorCode::PersistenceIntegrityError, message))
        }
        (recovered, None) => Ok(recovered),
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::workflow::TaskSpec;

    fn claimed(id: &str, tasks: u32) -> ClaimedWorkflow {
        let spec = WorkflowSpec::new("w").task(TaskSpec::new("a", "test/run"));
        let task = |index| TaskRecord::pending(index, "a".into(), "a".into());
        let record = WorkflowRecord {
            id: id.into(),
            name: "w".into(),
            status: WorkflowStatus::Pending,
            created_at: DateTime::UNIX_EPOCH,
            started_at: None,
            completed_at: None,
            error: None,
            last_sequence: 1,
            spec: Arc::new(spec),
            tasks: (0..tasks).map(task).collect(),
        };
        ClaimedWorkflow { record, needs: Needs::default(), left_by: None }
    }

    /// One damaged workflow must not keep the others from going on.
    #[test]
    fn a_workflow_without_its_tasks_is_unreadable_alone() {
        let stored = read_stored(vec![claimed("a", 1), claimed("b", 0), claimed("c", 1)]);
        let ids: Vec<&str> = stored.records.iter().map(|(it, _)| it.id.as_str()).collect();
        assert_eq!(ids, ["a", "c"]);
        assert_eq!(stored.unreadable, [("b".into(), "it lacks tasks".to_owned())]);
        let [draft, _] = stored.drafts.as_slice() else { panic!("{stored:?}") };
        assert_eq!((draft.draft.id.as_str(), draft.settled.as_slice()), ("a", &[false][..]));
        assert!(Arc::ptr_eq(&draft.draft.spec, &stored.records[0].0.spec), "held twice");
    }

    /// A settled workflow is reopened, and one that is not is resumed; never the other way round.
    #[test]
    fn only_settled_workflows_are_reopened() {
        let mut record = claimed("a", 1).record;
        let reopen = RecoverOptions { reopen: true, hold: false };
        let resume = RecoverOptions::default();
        assert!(check_settled(&record, resume).is_ok());
        let error = check_settled(&record, reopen).unwrap_err();
        assert_eq!(error.message, "workflow `a` is pending; it is running or can be resumed");
        record.status = WorkflowStatus::Failed;
        assert!(check_settled(&record, reopen).is_ok());
        let error = check_settled(&record, resume).unwrap_err();
        assert!(error.message.contains("is failed already; `gleitzeit retry`"), "{error}");
    }

    /// Each reason for which a retry does nothing is reported as an error.
    #[test]
    fn a_retry_that_does_nothing_is_an_error() {
        let id: WorkflowId = "a".into();
        let one = Recovered { workflows: 1, ..Recovered::default() };
        assert_eq!(reopened(&id, (one, None)), Ok(one));
        let code = |recovered, why| reopened(&id, (recovered, why)).unwrap_err().code;
        let none = Recovered::default();
        let held = Recovered { held: 1, ..none };
        assert_eq!(code(one, Some(ResumeError::Complete)), ErrorCode::WorkflowInvalidState);
        assert_eq!(code(held, None), ErrorCode::WorkflowInvalidState);
        assert_eq!(code(none, None), ErrorCode::PersistenceIntegrityError);
    }
}
