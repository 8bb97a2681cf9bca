//! The rows of new workflows.

use std::collections::{BTreeMap, HashSet};

use gleitzeit_domain::{
    id::WorkflowId,
    needs::Needs,
    store::{Epoch, NewWorkflow, StoreError},
    workflow::WorkflowRecord,
};
use sea_orm::Value;

use super::{Prepared, Rows, naming};
use crate::{
    encode::{self, Blobs, refused},
    statements::WORKFLOW_COLUMNS,
};

/// The rows of a new workflow whose key is not known yet.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub(crate) task_count: u32,
    rows: Rows,
}

impl Encoded {
    /// The tasks, events and blobs of the workflow, with its key.
    pub(crate) fn with_key(self, key: i64) -> Rows {
        let mut rows = self.rows;
        rows.tasks.iter_mut().for_each(|row| row.set_key(key));
        rows.events.iter_mut().for_each(|row| row.set_key(key));
        rows
    }
}

/// The new workflows of a group, each id once.
#[derive(Debug, Default)]
pub(crate) struct Submissions<'a> {
    /// In the order of the calls.
    pub(crate) new: Vec<(&'a WorkflowId, Encoded)>,
    /// The workflows' own rows, in the same order.
    pub(crate) workflow_rows: Vec<[Value; WORKFLOW_COLUMNS]>,
    /// The needs of the workflows, each once, by hash.
    pub(crate) needs: BTreeMap<i64, &'a Needs>,
    seen: HashSet<&'a WorkflowId>,
}

impl<'a> Submissions<'a> {
    /// Adds all workflows of a call, or none if one of them cannot be stored.
    pub(crate) fn add(
        &mut self,
        workflows: &'a [NewWorkflow],
        prepared: Option<Prepared>,
    ) -> Result<(), StoreError> {
        let encoded = match prepared {
            Some(Prepared::Submit(encoded)) => encoded,
            _ => encode_all(workflows)?,
        };
        for (new, EncodedNew { row, rest, needs }) in workflows.iter().zip(encoded) {
            // The first one of an id wins. With a second row, the insert would skip one of the two,
            // and the tasks of both would be written under one key.
            if self.seen.insert(&new.record.id) {
                if needs != 0 {
                    self.needs.insert(needs, &new.needs);
                }
                self.workflow_rows.push(row);
                self.new.push((&new.record.id, rest));
            }
        }
        Ok(())
    }
}

/// The rows of a new workflow.
#[derive(Debug)]
pub(crate) struct EncodedNew {
    row: [Value; WORKFLOW_COLUMNS],
    rest: Encoded,
    /// The hash of its needs.
    needs: i64,
}

/// Encodes new workflows.
pub(crate) fn encode_all(workflows: &[NewWorkflow]) -> Result<Vec<EncodedNew>, StoreError> {
    // Workflows of one call mostly have the same needs: without the memory each would be hashed.
    let mut last: Option<(&Needs, i64)> = None;
    let mut encoded = Vec::with_capacity(workflows.len());
    for new in workflows {
        let hash = match last {
            Some((needs, hash)) if *needs == new.needs => hash,
            _ => encode::needs_hash(&new.needs),
        };
        last = Some((&new.needs, hash));
        encoded.push(encode_new(new, hash).map_err(|error| naming(&new.record.id, error))?);
    }
    Ok(encoded)
}

fn encode_new(
    NewWorkflow { record, events, epoch, .. }: &NewWorkflow,
    needs: i64,
) -> Result<EncodedNew, StoreError> {
    let mut rows = Rows::default();
    let task_count = u32::try_from(record.tasks.len())
        .map_err(|_| refused(format!("{} tasks are too many", record.tasks.len())))?;
    for (task, index) in record.tasks.iter().zip(0..) {
        // A task at another index would be read back as the task there.
        if task.index != index {
            return Err(refused(format!("task {} stands where task {index} belongs", task.index)));
        }
        let spec = record.spec.tasks.get(index as usize);
        if !spec.is_some_and(|spec| encode::is_waiting(task, index, spec)) {
            rows.add_task(0, task)?;
        }
    }
    rows.add_events(0, events)?;
    let row = workflow_row(record, task_count, *epoch, needs, &mut rows.blobs)?;
    Ok(EncodedNew { row, rest: Encoded { task_count, rows }, needs })
}

fn workflow_row(
    record: &WorkflowRecord,
    task_count: u32,
    epoch: Option<Epoch>,
    needs: i64,
    blobs: &mut Blobs,
) -> Result<[Value; WORKFLOW_COLUMNS], StoreError> {
    let [spec, spec_blob] = encode::spec(&record.spec, blobs)?;
    // A settled workflow has no owner: nothing would ever release it.
    let owner = epoch.filter(|_| !record.status.is_settled());
    Ok([
        encode::text(record.id.as_str()),
        encode::text(&record.name),
        encode::name(record.status.as_str()),
        encode::time(Some(record.created_at)),
        encode::time(record.started_at),
        encode::time(record.completed_at),
        i64::from(task_count).into(),
        encode::count(record.last_sequence)?,
        encode::count(owner.map_or(0, |epoch| epoch.0))?,
        encode::error(record.error.as_ref())?,
        spec,
        spec_blob,
        needs.into(),
    ])
}
