//! Finds out which change of a write the store refuses, so that the others are stored.
//!
//! A write holds the changes of many workflows, and the change of a workflow the outcomes of many
//! tasks. What is refused is written again in smaller parts, until the part that is refused names one
//! task. What comes before it is stored by then; what comes after it returns to its run, which writes
//! it after the failure of that task.
//!
//! Invariant: the parts of a workflow are written in their order, and none after one that is not
//! stored.

use std::collections::{HashMap, VecDeque};

use crate::{
    id::WorkflowId,
    store::{Epoch, StoreError, WorkflowChange},
};

/// The store's answer to a write.
#[derive(Debug, Default)]
pub struct WriteOutcome {
    /// The changes that were not written, and why; writing them again may succeed.
    pub again: Option<(StoreError, Vec<WorkflowChange>)>,
    /// Workflows of which something can never be stored.
    pub rejected: Vec<RejectedChange>,
}

/// A change that can never be stored.
#[derive(Debug)]
pub struct RejectedChange {
    /// The workflow.
    pub id: WorkflowId,
    /// Why.
    pub error: StoreError,
    /// The changes that are not stored: first the one that is refused, which has one task at most.
    pub left: Vec<WorkflowChange>,
}

/// The meaning of the answer to a whole write.
#[derive(Debug)]
pub enum AfterWrite {
    /// All is known.
    Known(WriteOutcome),
    /// One of the changes is at fault: write each alone.
    Split(SplitWrite),
}

/// Decides by the answer to the write of `changes`.
pub fn after_write(answer: Result<(), StoreError>, changes: Vec<WorkflowChange>) -> AfterWrite {
    match answer {
        Ok(()) => AfterWrite::Known(WriteOutcome::default()),
        Err(error) if is_retryable(&error) => {
            AfterWrite::Known(WriteOutcome { again: Some((error, changes)), rejected: Vec::new() })
        }
        Err(error) => AfterWrite::Split(SplitWrite::new(changes, error)),
    }
}

/// True if the content of a write is at fault, and not the store.
pub(super) const fn is_content_error(error: &StoreError) -> bool {
    matches!(error, StoreError::Refused { .. } | StoreError::Integrity { .. })
}

/// A closed store is no fault of the change: it is kept, and reported with the rest.
fn is_retryable(error: &StoreError) -> bool {
    error.is_transient() || *error == StoreError::Closed
}

/// The reason why a part must wait: one before it is not stored.
#[derive(Debug, Clone, Copy)]
enum After {
    /// The rejected change of this number.
    Rejected(usize),
    /// Another try.
    Again,
}

/// A write that was refused, on its way in parts.
#[derive(Debug)]
pub struct SplitWrite {
    queue: VecDeque<WorkflowChange>,
    /// The answer to the first, if it was alone.
    known: Option<StoreError>,
    outcome: WriteOutcome,
    after: HashMap<WorkflowId, After>,
    lost: Option<Epoch>,
}

impl SplitWrite {
    /// The store refused `changes` together, as `error` says.
    pub fn new(changes: Vec<WorkflowChange>, error: StoreError) -> Self {
        Self {
            // A single change has its answer already: the store is not asked the same twice.
            known: (changes.len() == 1).then_some(error),
            queue: VecDeque::from(changes),
            outcome: WriteOutcome::default(),
            after: HashMap::new(),
            lost: None,
        }
    }

    /// The change to be written next, alone; its answer goes to [`answered`](Self::answered).
    pub fn next_change(&mut self) -> Option<WorkflowChange> {
        while let Some(change) = self.queue.pop_front() {
            match (self.after.get(&change.id), &mut self.outcome.again) {
                (Some(After::Rejected(at)), _) => self.outcome.rejected[*at].left.push(change),
                (Some(After::Again), Some((_, again))) => again.push(change),
                _ => match self.known_answer(&change) {
                    // The store refuses every write of a lost lease: one answer is enough.
                    Some(error) => self.answered(change, Err(error)),
                    None => return Some(change),
                },
            }
        }
        None
    }

    fn known_answer(&mut self, change: &WorkflowChange) -> Option<StoreError> {
        let lost = self.lost.filter(|epoch| change.epoch == Some(*epoch));
        lost.map(|epoch| StoreError::LeaseLost { epoch }).or_else(|| self.known.take())
    }

    /// The store's answer to `change`.
    pub fn answered(&mut self, change: WorkflowChange, answer: Result<(), StoreError>) {
        match answer {
            Ok(()) => {}
            Err(error) if is_retryable(&error) => {
                // Later parts of the same workflow wait with it, or the store would see them out
                // of order.
                self.after.insert(change.id.clone(), After::Again);
                self.outcome.again.get_or_insert_with(|| (error, Vec::new())).1.push(change);
            }
            Err(error) if is_content_error(&error) && change.tasks.len() > 1 => {
                // To the front, so that they stay before later changes of the same workflow.
                for part in change.into_parts().into_iter().rev() {
                    self.queue.push_front(part);
                }
            }
            Err(error) => {
                if let StoreError::LeaseLost { epoch } = error {
                    self.lost = Some(epoch);
                }
                let id = change.id.clone();
                self.after.insert(id.clone(), After::Rejected(self.outcome.rejected.len()));
                self.outcome.rejected.push(RejectedChange { id, error, left: vec![change] });
            }
        }
    }

    /// The outcome of all parts.
    pub fn finish(self) -> WriteOutcome {
        self.outcome
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::task::TaskRecord;

    fn change(id: usize, tasks: &[u32], number: u64) -> WorkflowChange {
        let record =
            |index: &u32| TaskRecord::pending(*index, format!("t{index}").into(), "t".into());
        WorkflowChange {
            id: format!("w{id}").into(),
            workflow: None,
            tasks: tasks.iter().map(record).collect(),
            events: Vec::new(),
            last_sequence: number,
            epoch: Some(Epoch(1)),
        }
    }

    fn refused() -> StoreError {
        StoreError::Refused { detail: "too large".into() }
    }

    /// One task at fault among many workflows is found, and everything before it is stored.
    #[test]
    fn the_task_at_fault_is_found() {
        let changes = vec![change(0, &[1], 1), change(1, &[1, 2, 3], 1), change(2, &[1], 1)];
        let mut split = SplitWrite::new(changes, refused());
        let mut stored = Vec::new();
        while let Some(part) = split.next_change() {
            let is_bad = part.id.as_str() == "w1" && part.tasks.iter().any(|task| task.index == 2);
            if !is_bad {
                stored.extend(part.tasks.iter().map(|task| (part.id.to_string(), task.index)));
            }
            split.answered(part, if is_bad { Err(refused()) } else { Ok(()) });
        }
        let outcome = split.finish();
        let [rejected] = outcome.rejected.as_slice() else { panic!("{outcome:?}") };
        assert_eq!(rejected.left[0].tasks.iter().map(|it| it.index).collect::<Vec<_>>(), [2]);
        let expected = [("w0", 1), ("w1", 1), ("w2", 1)].map(|(id, task)| (id.to_owned(), task));
        assert_eq!(stored, expected);
    }

    /// A lost lease is reported for every workflow, after one question.
    #[test]
    fn a_lost_lease_is_asked_about_once() {
        let changes = (0..9).map(|id| change(id, &[1], 1)).collect();
        let mut split = SplitWrite::new(changes, StoreError::LeaseLost { epoch: Epoch(1) });
        let mut asked = 0;
        while let Some(part) = split.next_change() {
            asked += 1;
            split.answered(part, Err(StoreError::LeaseLost { epoch: Epoch(1) }));
        }
        assert_eq!((asked, split.finish().rejected.len()), (1, 9));
    }

    proptest! {
        /// Whatever the store answers: each part of a workflow is stored, rejected or kept, in order,
        /// and nothing is stored after a part of the same workflow that is not.
        #[test]
        fn nothing_is_stored_after_what_is_not(
            shape in prop::collection::vec((0_usize..4, 1_u32..5), 1..12),
            answers in prop::collection::vec(0_u8..6, 64),
        ) {
            let mut next_task = [0_u32; 4];
            let mut changes = Vec::new();
            for (number, (id, tasks)) in (0_u64..).zip(&shape) {
                let first = next_task[*id];
                next_task[*id] += tasks;
                changes.push(change(*id, &(first..first + tasks).collect::<Vec<_>>(), number));
            }
            let mut split = SplitWrite::new(changes, refused());
            let mut answers = answers.into_iter().cycle();
            let mut stored: HashMap<WorkflowId, Vec<u32>> = HashMap::new();
            while let Some(part) = split.next_change() {
                let answer = match answers.next() {
                    Some(0) => Err(refused()),
                    Some(1) => Err(StoreError::Write { detail: "disk full".into() }),
                    _ => Ok(()),
                };
                if answer.is_ok() {
                    stored.entry(part.id.clone()).or_default().extend(part.tasks.iter().map(|it| it.index));
                }
                split.answered(part, answer);
            }
            let WriteOutcome { again, rejected } = split.finish();
            let again = again.map(|(_, changes)| changes).unwrap_or_default();
            for (at, count) in next_task.into_iter().enumerate() {
                let id: WorkflowId = format!("w{at}").into();
                let left = rejected.iter().filter(|it| it.id == id).flat_map(|it| &it.left);
                let left = left.chain(again.iter().filter(|it| it.id == id));
                let mut all = stored.get(&id).cloned().unwrap_or_default();
                all.extend(left.flat_map(|it| it.tasks.iter().map(|task| task.index)));
                prop_assert_eq!(all, (0..count).collect::<Vec<_>>(), "{}", id);
            }
        }
    }
}
