//! The content of a [`MemoryStore`](super::MemoryStore) under its lock: workflows by age and by id,
//! and the order in which they settled.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque, hash_map},
    sync::Arc,
};

use chrono::{DateTime, Utc};
use gleitzeit_domain::{
    event::Event,
    id::WorkflowId,
    needs::{Needs, Offer},
    store::{
        Amendment, Deletion, Epoch, ListFilter, NewWorkflow, StoreError, Submitted, WorkflowChange,
        lease::{ClaimedOne, ClaimedWorkflow, Release, Standing},
    },
    task::{TaskRecord, TaskStatus},
    workflow::{WorkflowRecord, WorkflowSummary},
};

use super::lease_table::LeaseTable;

/// A workflow with its events.
#[derive(Debug)]
pub(super) struct Entry {
    record: WorkflowRecord,
    /// By sequence.
    events: Vec<Event>,
    /// The number of its settling, while it is settled; see [`Tables::settled`].
    settled: Option<u64>,
    /// The lease that owns it.
    owner: Option<Epoch>,
    /// The offer that a claim must cover.
    needs: Needs,
    /// The lease that expired while it owned the workflow.
    left_by: Option<Epoch>,
}

impl Entry {
    fn claimed(&self) -> ClaimedWorkflow {
        let (record, needs) = (self.record.clone(), self.needs.clone());
        ClaimedWorkflow { record, needs, left_by: self.left_by }
    }
}

/// Workflows by age and by id.
#[derive(Debug)]
pub(super) struct Tables {
    /// By the order of submission.
    by_age: BTreeMap<u64, Entry>,
    /// The age of each.
    ages: HashMap<WorkflowId, u64>,
    /// (number of the settling, age), oldest first. Has stale pairs of workflows that were reopened:
    /// a pair is current while its entry has the same number.
    settled: VecDeque<(u64, u64)>,
    /// Entries that are settled.
    settled_count: usize,
    settled_max: usize,
    next_age: u64,
    next_settling: u64,
    /// The ages of unsettled workflows without an owner.
    free: BTreeSet<u64>,
    pub(super) lease_table: LeaseTable,
}

impl Tables {
    pub(super) fn new(settled_max: usize) -> Self {
        Self {
            by_age: BTreeMap::new(),
            ages: HashMap::new(),
            settled: VecDeque::new(),
            settled_count: 0,
            settled_max,
            next_age: 0,
            next_settling: 0,
            free: BTreeSet::new(),
            lease_table: LeaseTable::default(),
        }
    }

    pub(super) fn add(&mut self, new: NewWorkflow) -> Submitted {
        let NewWorkflow { record, events, epoch, needs } = new;
        let age = self.next_age;
        match self.ages.entry(record.id.clone()) {
            hash_map::Entry::Occupied(_) => return Submitted::Existed,
            hash_map::Entry::Vacant(entry) => entry.insert(age),
        };
        self.next_age += 1;
        // An imported workflow may be settled already: without its place among the settled it would
        // never be dropped.
        let is_settled = record.status.is_settled();
        let entry = Entry { record, events, settled: None, owner: epoch, needs, left_by: None };
        self.by_age.insert(age, entry);
        if is_settled {
            self.settle(age);
        } else if epoch.is_none() {
            self.free.insert(age);
        }
        Submitted::Created
    }

    /// Rejects a change of a task that its workflow does not have.
    pub(super) fn check(&self, change: &WorkflowChange) -> Result<(), StoreError> {
        let Some(entry) = self.entry(&change.id) else { return Ok(()) };
        let count = entry.record.tasks.len();
        match change.tasks.iter().find(|task| task.index as usize >= count) {
            None => Ok(()),
            Some(task) => Err(StoreError::Integrity {
                detail: format!(
                    "workflow `{}` has {count} tasks, and none of index {}",
                    change.id, task.index
                ),
            }),
        }
    }

    /// Applies a change that [`check`](Self::check) has passed. A change of a workflow that was removed
    /// meanwhile is ignored, as is a repeated write.
    pub(super) fn apply(&mut self, change: WorkflowChange) {
        let Some(&age) = self.ages.get(&change.id) else { return };
        let Some(entry) = self.by_age.get_mut(&age) else { return };
        for task in change.tasks {
            let at = task.index as usize;
            entry.record.tasks[at] = task;
        }
        let last = entry.events.last().map_or(0, |event| event.sequence);
        // A write whose answer was lost is repeated: appended again, its events would be there twice.
        let known = change.events.partition_point(|event| event.sequence <= last);
        entry.events.extend(change.events.into_iter().skip(known));
        // `max`: a repeated older write must not set the count back, or two events would share a
        // number.
        entry.record.last_sequence = entry.record.last_sequence.max(change.last_sequence);
        let Some(state) = change.workflow else { return };
        entry.record.status = state.status;
        entry.record.started_at = state.started_at;
        entry.record.completed_at = state.completed_at;
        entry.record.error = state.error;
        match (entry.settled.is_some(), state.status.is_settled()) {
            (false, true) => self.settle(age),
            (true, false) => {
                entry.settled = None;
                self.settled_count -= 1;
                // Opened again under a lease it belongs to that; else any engine may claim it.
                if entry.owner.is_none() {
                    self.free.insert(age);
                }
            }
            _ => {}
        }
    }

    fn settle(&mut self, age: u64) {
        let Some(entry) = self.by_age.get_mut(&age) else { return };
        entry.settled = Some(self.next_settling);
        // A settled workflow belongs to no lease: a lease that ends would free it for a claim.
        entry.owner = None;
        self.free.remove(&age);
        self.settled.push_back((self.next_settling, age));
        self.next_settling += 1;
        self.settled_count += 1;
        // Reopened workflows leave stale pairs; without this they would grow with every retry.
        if self.settled.len() > 2 * self.settled_count + 64 {
            let by_age = &self.by_age;
            self.settled.retain(|&(settling, age)| is_current(by_age, settling, age));
        }
    }

    /// Removes the oldest settled workflows above the bound; the caller drops them outside the lock.
    pub(super) fn take_surplus(&mut self) -> Vec<Entry> {
        let mut taken = Vec::new();
        while self.settled_count > self.settled_max {
            let Some((settling, age)) = self.settled.pop_front() else { break };
            if is_current(&self.by_age, settling, age) {
                taken.extend(self.take(age));
            }
        }
        taken
    }

    /// Removes at most `limit` workflows that settled before `before`, the oldest settled first.
    pub(super) fn take_settled_before(
        &mut self,
        before: DateTime<Utc>,
        limit: usize,
    ) -> Vec<Entry> {
        let ages: Vec<u64> = self
            .settled
            .iter()
            .filter(|&&(settling, age)| {
                self.by_age.get(&age).is_some_and(|entry| {
                    entry.settled == Some(settling)
                        && entry.record.completed_at.is_some_and(|at| at < before)
                })
            })
            .map(|&(_, age)| age)
            .take(limit)
            .collect();
        ages.into_iter().filter_map(|age| self.take(age)).collect()
    }

    /// Changes the submission of a settled workflow; false if it is not as the amendment expects.
    pub(super) fn amend(&mut self, Amendment { id, spec, event }: Amendment) -> bool {
        let Some(entry) = self.ages.get(&id).and_then(|age| self.by_age.get_mut(age)) else {
            return false;
        };
        let is_next = entry.record.last_sequence + 1 == event.sequence;
        if entry.settled.is_none() || entry.owner.is_some() || !is_next {
            return false;
        }
        entry.record.spec = spec;
        entry.record.last_sequence = event.sequence;
        entry.events.push(event);
        true
    }

    /// Takes out those of the workflows that are settled and that no lease is about to reopen.
    pub(super) fn delete(&mut self, ids: &[WorkflowId]) -> (Vec<Deletion>, Vec<Entry>) {
        let mut deleted = Vec::new();
        let mut delete = |id: &WorkflowId| {
            let Some(entry) = self.entry(id) else { return Deletion::Unknown };
            if entry.settled.is_none() || entry.owner.is_some() {
                return Deletion::Unsettled;
            }
            let age = self.ages.get(id).copied();
            deleted.extend(age.and_then(|age| self.take(age)));
            Deletion::Deleted
        };
        let answers = ids.iter().map(&mut delete).collect();
        (answers, deleted)
    }

    fn take(&mut self, age: u64) -> Option<Entry> {
        let entry = self.by_age.remove(&age)?;
        self.ages.remove(&entry.record.id);
        self.free.remove(&age);
        self.settled_count -= usize::from(entry.settled.is_some());
        Some(entry)
    }

    #[cfg(test)]
    pub(super) fn settled_len(&self) -> usize {
        self.settled.len()
    }

    fn entry(&self, id: &WorkflowId) -> Option<&Entry> {
        self.by_age.get(self.ages.get(id)?)
    }

    // ---- leases ----

    /// Frees the workflows of a lease that is gone; `is_dead` if it was not closed in order.
    pub(super) fn free(&mut self, epoch: Epoch, is_dead: bool) {
        for (age, entry) in &mut self.by_age {
            if entry.owner == Some(epoch) {
                entry.owner = None;
                // What was under way may have been done: the next owner must know.
                entry.left_by = is_dead.then_some(epoch);
                if entry.settled.is_none() {
                    self.free.insert(*age);
                }
            }
        }
    }

    /// Claims the oldest free workflows that the offer covers; true if there are more.
    pub(super) fn claim(
        &mut self,
        epoch: Epoch,
        limit: usize,
        offer: &Offer,
    ) -> (Vec<ClaimedWorkflow>, bool) {
        let refused = self.lease_table.refused(epoch, offer);
        let fits = |age: &&u64| {
            let entry = self.by_age.get(*age);
            entry.is_some_and(|entry| offer.covers(&entry.needs)) && !refused.contains(*age)
        };
        // One more than the limit shows whether there are more, without counting the rest.
        let mut ages: Vec<u64> = self.free.iter().filter(fits).take(limit + 1).copied().collect();
        let more = ages.len() > limit;
        ages.truncate(limit);
        let mut claimed = Vec::with_capacity(ages.len());
        for age in ages {
            // Together with the owner: left in the list, the next claim would return it, too.
            self.free.remove(&age);
            let Some(entry) = self.by_age.get_mut(&age) else { continue };
            entry.owner = Some(epoch);
            claimed.push(entry.claimed());
        }
        (claimed, more)
    }

    /// Releases the workflows that a lease owns, settled ones too.
    pub(super) fn release(&mut self, epoch: Epoch, ids: &[WorkflowId], why: Release) {
        for id in ids {
            let Some(&age) = self.ages.get(id) else { continue };
            let Some(entry) = self.by_age.get_mut(&age) else { continue };
            // Also if it is not the owner: the next claim would return the same workflow again.
            if why == Release::ForOthers {
                self.lease_table.refuse(epoch, age);
            }
            if entry.owner != Some(epoch) {
                continue;
            }
            entry.owner = None;
            if entry.settled.is_none() {
                self.free.insert(age);
            }
        }
    }

    /// The owner and the needs of a workflow.
    pub(super) fn standing(&self, id: &WorkflowId) -> Option<Standing> {
        let entry = self.entry(id)?;
        let owner = self.runs_under(id).and_then(|epoch| self.lease_table.owner(epoch));
        Some(Standing { owner, needs: entry.needs.clone() })
    }

    /// Claims one workflow unless another lease owns it; a settled one only to be reopened.
    pub(super) fn claim_one(&mut self, epoch: Epoch, id: &WorkflowId, reopens: bool) -> ClaimedOne {
        let Some(age) = self.ages.get(id) else { return ClaimedOne::Unknown };
        let Some(entry) = self.by_age.get_mut(age) else { return ClaimedOne::Unknown };
        if entry.settled.is_none() || reopens {
            if entry.owner.is_some_and(|owner| owner != epoch) {
                return ClaimedOne::Held;
            }
            entry.owner = Some(epoch);
            self.free.remove(age);
        }
        ClaimedOne::Taken(Box::new(entry.claimed()))
    }

    /// The lease that owns an unsettled workflow.
    pub(super) fn runs_under(&self, id: &WorkflowId) -> Option<Epoch> {
        self.entry(id).filter(|entry| entry.settled.is_none())?.owner
    }

    pub(super) fn contains(&self, id: &WorkflowId) -> bool {
        self.ages.contains_key(id)
    }

    pub(super) fn unsettled(&self) -> Vec<WorkflowRecord> {
        let open = self.by_age.values().filter(|entry| entry.settled.is_none());
        open.map(|entry| entry.record.clone()).collect()
    }

    pub(super) fn workflow(&self, id: &WorkflowId) -> Option<WorkflowRecord> {
        self.entry(id).map(|entry| entry.record.clone())
    }

    pub(super) fn list(&self, filter: &ListFilter) -> Vec<WorkflowSummary> {
        self.by_age
            .values()
            .rev()
            .map(|entry| &entry.record)
            .filter(|record| filter.covers(record.status, &record.name, record.created_at))
            .skip(filter.offset)
            .take(filter.limit)
            .map(summary)
            .collect()
    }

    pub(super) fn events(&self, id: &WorkflowId, after: u64, limit: usize) -> Vec<Event> {
        let Some(entry) = self.entry(id) else { return Vec::new() };
        // Sorted by sequence, so that a follower's page does not cost a scan of all events.
        let from = entry.events.partition_point(|event| event.sequence <= after);
        entry.events[from..].iter().take(limit).cloned().collect()
    }
}

fn is_current(by_age: &BTreeMap<u64, Entry>, settling: u64, age: u64) -> bool {
    by_age.get(&age).is_some_and(|entry| entry.settled == Some(settling))
}

fn summary(record: &WorkflowRecord) -> WorkflowSummary {
    let count = |wanted: fn(&TaskRecord) -> bool| {
        u32::try_from(record.tasks.iter().filter(|task| wanted(task)).count()).unwrap_or(u32::MAX)
    };
    let task_count = count(|_| true);
    let is_settled = record.status.is_settled();
    let settled_count =
        if is_settled { task_count } else { count(|task| task.status.is_settled()) };
    let outcome_unknown_count =
        if is_settled { 0 } else { count(|task| task.status == TaskStatus::OutcomeUnknown) };
    let waits = |task: &TaskRecord| task.waits_for_provider().is_some();
    let waiting_count = if is_settled { 0 } else { count(waits) };
    WorkflowSummary {
        id: record.id.clone(),
        name: Arc::clone(&record.name),
        status: record.status,
        created_at: record.created_at,
        completed_at: record.completed_at,
        task_count,
        settled_count,
        outcome_unknown_count,
        waiting_count,
    }
}
