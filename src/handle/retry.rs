//! Settled workflows: a retry with other inputs, deletion.
//!
//! The submission is changed in the store before anything runs again, while the workflow is settled and
//! belongs to nobody; every process that reads it from then on sees the new inputs.

use std::sync::Arc;

use gleitzeit_actors::execution_engine::Recovered;
use gleitzeit_domain::{
    error::{ErrorCode, TaskError},
    event::{Event, EventData},
    id::{TaskId, WorkflowId},
    plan::Plan,
    problem::{SubmitError, push_pointer},
    reference::Root,
    store::{Amendment, Deletion},
    task::TaskStatus,
    workflow::{WorkflowRecord, WorkflowSpec, WorkflowStatus},
};
use serde_json::{Map, Value};

use super::{Handle, shared_now};
use crate::files::{Input, put_inputs};

/// Why a workflow was not run again with other inputs.
#[derive(Debug, thiserror::Error)]
pub enum RetryError {
    /// The workflow with the new inputs would not be accepted.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// The workflow is not there, or not one that can be run again with these inputs.
    #[error(transparent)]
    Task(#[from] TaskError),
}

impl Handle {
    /// Runs again what did not complete in a settled workflow, with other inputs, which are checked as at
    /// a submission. The event `workflow:inputs_changed` records the change.
    ///
    /// # Errors
    /// [`RetryError::Submit`]; those of [`retry`](Self::retry); `WORKFLOW_INVALID_STATE` also when a task
    /// that completed has read an input that would change: its result would be that of another input.
    pub async fn retry_with_inputs(
        &self,
        id: &WorkflowId,
        inputs: &[(String, Input)],
    ) -> Result<Recovered, RetryError> {
        let unknown =
            || refused(ErrorCode::WorkflowNotFound, format!("no workflow has the id `{id}`"));
        let record = self.outline(id).await?.ok_or_else(unknown)?;
        if !record.status.is_settled() || record.status == WorkflowStatus::Completed {
            // It says why not.
            return Ok(self.retry(id).await?);
        }
        let mut spec = WorkflowSpec::clone(&record.spec);
        put_inputs(&mut spec, inputs);
        let changed = changed(&record.spec, &spec);
        if !changed.is_empty() {
            let plan = self.plan(spec.clone()).await?;
            refuse_stale(&record, &plan, &changed)?;
            self.amend(&record, spec, changed).await?;
        }
        Ok(self.retry(id).await?)
    }

    /// Deletes settled workflows with their tasks, results and events; an answer for each id, in order.
    /// Files of results stay.
    ///
    /// # Errors
    /// The errors of the store; then none was deleted, or that is not known: it may be repeated.
    pub async fn delete(&self, ids: &[WorkflowId]) -> Result<Vec<Deletion>, TaskError> {
        Ok(self.store.delete(ids).await?)
    }

    async fn amend(
        &self,
        record: &WorkflowRecord,
        spec: WorkflowSpec,
        inputs: Map<String, Value>,
    ) -> Result<(), TaskError> {
        let id = record.id.clone();
        let event = Event {
            timestamp: shared_now(&*self.store).await,
            workflow_id: Some(id.clone()),
            sequence: record.last_sequence + 1,
            data: EventData::WorkflowInputsChanged { inputs },
        };
        let amendment = Amendment { id: id.clone(), spec: Arc::new(spec), event };
        if self.store.amend(amendment).await? {
            return Ok(());
        }
        let message = format!(
            "workflow `{id}` was retried or deleted by another process meanwhile; check its state and try again"
        );
        Err(refused(ErrorCode::WorkflowInvalidState, message))
    }
}

fn refused(code: ErrorCode, message: String) -> TaskError {
    TaskError::new(code, message)
}

/// The inputs of `new` that are not those of `old`.
fn changed(old: &WorkflowSpec, new: &WorkflowSpec) -> Map<String, Value> {
    let spelled = |spec: &WorkflowSpec, name: &str| -> Vec<(String, String)> {
        let mut pointer = String::new();
        push_pointer(&mut pointer, name);
        let within = format!("{pointer}/");
        let of_input = |at: &str| at == pointer || at.starts_with(&within);
        let all = spec.spellings.iter().filter(|(at, _)| of_input(at));
        all.map(|(at, text)| (at.clone(), text.clone())).collect()
    };
    let is_other = |name: &str, value: &Value| {
        old.inputs.get(name) != Some(value) || spelled(old, name) != spelled(new, name)
    };
    let inputs = new.inputs.iter().filter(|(name, value)| is_other(name, value));
    inputs.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// A task that completed is not run again, so it must not have read what changes.
fn refuse_stale(
    record: &WorkflowRecord,
    plan: &Plan,
    changed: &Map<String, Value>,
) -> Result<(), TaskError> {
    let reads = |index: u32| {
        let task = &plan.tasks[index as usize];
        // By the text of an expression: refused once too often rather than once too seldom.
        let mut sources = record.spec.tasks[index as usize].expressions();
        let by_expression = sources.find_map(|source| {
            let mut names = changed.keys().filter(|_| source.contains("inputs"));
            names.find(|name| source.contains(name.as_str())).cloned()
        });
        let mut inputs = task.template.references().filter(|it| it.root() == Root::Inputs);
        by_expression.or_else(|| {
            inputs.find_map(|reference| match reference.path().next() {
                Some(name) => changed.contains_key(name).then(|| name.to_owned()),
                None => changed.keys().next().cloned(),
            })
        })
    };
    let mut completed = record.tasks.iter().filter(|task| task.status == TaskStatus::Completed);
    let stale: Option<(&TaskId, String)> =
        completed.find_map(|task| Some((&task.id, reads(task.index)?)));
    let Some((task, input)) = stale else { return Ok(()) };
    let message = format!(
        "workflow `{}` is not retried with another `{input}`: task `{task}` completed with the old one \
         and would not run again; submit a new workflow",
        record.id
    );
    Err(refused(ErrorCode::WorkflowInvalidState, message))
}
