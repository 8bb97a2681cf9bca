//! An outcome that the store refuses for its content fails its own task, and the workflow goes on.
//!
//! A write holds the changes of many workflows, and the change of a workflow the outcomes of many
//! tasks. What is refused is written again in smaller parts, until the part that is refused names one
//! task. What stands before it is stored by then; what stands behind it goes back to its run, which
//! writes it after the failure of that task.
//!
//! Invariant: the parts of a workflow are written in their order, and none behind one that is not
//! stored.

use std::collections::{HashMap, HashSet, VecDeque};

use actix::prelude::*;
use gleitzeit_domain::{
    id::WorkflowId,
    run::{Refused, RunKey, TaskKey},
    store::{Store, StoreError, WorkflowChange},
};

use super::{ActiveRun, ExecutionEngine, settlement::Written};
use crate::dependency_resolver::{Settled, TaskOutcome};

/// Something of a workflow that can never be stored.
#[derive(Debug)]
pub(super) struct Refusal {
    id: WorkflowId,
    error: StoreError,
    /// What is not stored: first the change that is refused, which has one task at most.
    left: Vec<WorkflowChange>,
}

/// What a part must wait for, because one before it is not stored.
#[derive(Debug, Clone, Copy)]
enum Behind {
    /// The refusal of this number.
    Refused(usize),
    /// Another try.
    Again,
}

/// True where the content of a write is at fault, and not the store.
pub(super) const fn is_content(error: &StoreError) -> bool {
    matches!(error, StoreError::Refused { .. } | StoreError::Integrity { .. })
}

/// One of the changes is at fault, as `error` says: each is written alone, and in parts where that
/// must be, so that the others are not held up.
pub(super) async fn write_each(
    store: &dyn Store,
    changes: Vec<WorkflowChange>,
    error: StoreError,
) -> Written {
    let mut known = (changes.len() == 1).then_some(error);
    let mut queue = VecDeque::from(changes);
    let mut written = Written::default();
    let mut behind: HashMap<WorkflowId, Behind> = HashMap::new();
    let mut lost = None;
    while let Some(change) = queue.pop_front() {
        match (behind.get(&change.id), &mut written.again) {
            (Some(Behind::Refused(at)), _) => {
                written.refused[*at].left.push(change);
                continue;
            }
            (Some(Behind::Again), Some((_, again))) => {
                again.push(change);
                continue;
            }
            _ => {}
        }
        let lost_before = lost.filter(|epoch| change.epoch == Some(*epoch));
        let answer = match (lost_before, known.take()) {
            (Some(epoch), _) => Err(StoreError::LeaseLost { epoch }),
            (None, Some(error)) => Err(error),
            (None, None) => store.record(vec![change.clone()]).await,
        };
        match answer {
            Ok(()) => {}
            Err(error) if error.is_transient() || error == StoreError::Closed => {
                behind.insert(change.id.clone(), Behind::Again);
                written.again.get_or_insert_with(|| (error, Vec::new())).1.push(change);
            }
            Err(error) if is_content(&error) && change.tasks.len() > 1 => {
                for part in change.into_parts().into_iter().rev() {
                    queue.push_front(part);
                }
            }
            Err(error) => {
                if let StoreError::LeaseLost { epoch } = error {
                    lost = Some(epoch);
                }
                let id = change.id.clone();
                behind.insert(id.clone(), Behind::Refused(written.refused.len()));
                written.refused.push(Refusal { id, error, left: vec![change] });
            }
        }
    }
    written
}

impl ExecutionEngine {
    /// Something of a workflow can never be stored under its lease, or at all.
    pub(super) fn refused(&mut self, refusal: Refusal, ctx: &mut Context<Self>) {
        let Refusal { id, error, left } = refusal;
        if let StoreError::LeaseLost { epoch } = error {
            self.stats.fenced_writes += 1;
            self.lose(epoch, ctx);
            return;
        }
        let Some(&key) = self.ids.get(&id) else { return };
        if is_content(&error) && self.fail_refused(key, left, &error) {
            return;
        }
        tracing::error!(workflow = %id, %error, "a workflow can no longer be stored; it is given up");
        self.give_up(key, &error.into());
    }

    /// Fails the task whose outcome is refused; false where that does not help.
    fn fail_refused(&mut self, key: RunKey, left: Vec<WorkflowChange>, error: &StoreError) -> bool {
        let (StoreError::Refused { detail } | StoreError::Integrity { detail }) = error else {
            return false;
        };
        let now = self.clock.now();
        let Some(active) = self.runs.get_mut(&key) else { return false };
        let Some((index, became)) = active.run.refuse(left, detail, now) else { return false };
        let task = active.run.task(index);
        tracing::error!(workflow = %active.run.id(), task = %task.id, %error, "the store refuses the outcome of a task; the task fails");
        let outcome = TaskOutcome::from(task);
        self.writer.put_off(key, active);
        if became == Refused::Failed {
            let dependents = dependents_of(active, index);
            self.writer.forget_ready(key, &dependents);
            self.stats.tasks_succeeded = self.stats.tasks_succeeded.saturating_sub(1);
            self.stats.tasks_failed += 1;
            self.follow_lost_result(Settled { task: TaskKey { run: key, index }, outcome });
        }
        self.touch(key);
        true
    }
}

/// The tasks that wait for one.
fn dependents_of(active: &ActiveRun, index: u32) -> HashSet<u32> {
    let edges = active.run.plan().edges.iter();
    edges.filter(|(_, before)| *before == index).map(|(task, _)| *task).collect()
}
