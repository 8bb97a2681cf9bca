//! Writes a group of calls within one transaction.
//!
//! The [`writer`](super) begins and commits. A call with a value that cannot be stored is left out
//! and gets the error as its answer; an error of the database fails the whole group.
//!
//! Invariant: the group leaves the rows that its calls would have left one by one, in their order.

use std::collections::{HashMap, HashSet};

use gleitzeit_domain::{
    id::WorkflowId,
    store::{Submitted, WorkflowChange},
    workflow::WorkflowStatus,
};
use sea_orm::{ConnectionTrait, DbBackend, DbErr};

use super::{
    insert::{self, Inserted},
    prune,
};
use crate::{
    encode::{self, unescape},
    key_cache::{CommitEffects, KeyCache, WorkflowKey},
    multi_row::{self, Part},
    queue::Answer,
    rows::{self, Rows, Submissions},
    statements::Statements,
    write_call::{Write, WriteCall},
};

/// Upper limit of the rows that a group sends to SQLite as one message.
const SINGLE_MESSAGE_MAX: usize = 4;

/// Writes a group of calls; returns an answer for each.
pub(crate) async fn write<C: ConnectionTrait>(
    db: &C,
    statements: &Statements,
    key_cache: &KeyCache,
    calls: &[&WriteCall],
) -> Result<(Vec<Answer>, CommitEffects), DbErr> {
    let mut group = Group {
        db,
        statements,
        key_cache,
        effects: CommitEffects::default(),
        new_rows: Rows::default(),
        rows: Rows::default(),
    };
    let mut answers: Vec<Answer> = Vec::with_capacity(calls.len());
    answers.resize_with(calls.len(), || Ok(Vec::new()));
    // Submissions first: a change in the same group finds the key of its new workflow.
    group.submit(calls, &mut answers).await?;
    gleitzeit_failpoint::failpoint!("store.write.workflows");
    group.record(calls, &mut answers).await?;
    gleitzeit_failpoint::failpoint!("store.write.found");
    group.flush().await?;
    Ok((answers, group.effects))
}

/// True if a change was written before, and another lease has run its workflow since.
///
/// The lease of the change exists, and nobody else claims its workflows before they settle. So the
/// workflow settled by this change, whose commit was not confirmed. Written again, the change would
/// settle a second time what was reopened meanwhile.
fn is_overtaken(change: &WorkflowChange, owner: i64, last_sequence: i64) -> bool {
    let Some(epoch) = change.epoch else { return false };
    match u64::try_from(owner) {
        Ok(0) => u64::try_from(last_sequence).is_ok_and(|last| last > change.last_sequence),
        owner => owner != Ok(epoch.0),
    }
}

struct Group<'a, C> {
    db: &'a C,
    statements: &'a Statements,
    key_cache: &'a KeyCache,
    effects: CommitEffects,
    /// The tasks, events and blobs of new workflows.
    new_rows: Rows,
    /// The rows of changes.
    rows: Rows,
}

impl<C: ConnectionTrait> Group<'_, C> {
    /// Inserts the workflows that do not exist.
    async fn submit(&mut self, calls: &[&WriteCall], answers: &mut [Answer]) -> Result<(), DbErr> {
        let mut submissions = Submissions::default();
        for (call, answer) in calls.iter().zip(&mut *answers) {
            if let Write::Submit(workflows) = &call.write
                && let Err(rejected) = submissions.add(workflows, call.take_prepared())
            {
                *answer = Err(rejected);
            }
        }
        let mut created = self.add_workflows(submissions).await?;
        self.effects.added = created.len() as u64;
        for (call, answer) in calls.iter().zip(answers) {
            let (Write::Submit(workflows), Ok(answer)) = (&call.write, answer) else { continue };
            // `take` answers `Created` once: a second call of the same id in this group gets
            // `Existed`, as it would if it came alone.
            answer.extend(workflows.iter().map(|new| match created.take(&new.record.id) {
                Some(_) => {
                    self.effects.leaves_free |=
                        new.epoch.is_none() && !new.record.status.is_settled();
                    Submitted::Created
                }
                None => Submitted::Existed,
            }));
        }
        Ok(())
    }

    /// Inserts new workflows; returns the ids of those that did not exist.
    async fn add_workflows(
        &mut self,
        submissions: Submissions<'_>,
    ) -> Result<HashSet<WorkflowId>, DbErr> {
        // Needs first in every group: on PostgreSQL two processes that insert the same needs and
        // the same id in opposite orders would deadlock.
        self.add_needs(&submissions).await?;
        let inserted = insert::add(self.db, self.statements, submissions).await?;
        let mut created = HashSet::with_capacity(inserted.len());
        for Inserted { id, key, rows } in inserted {
            self.new_rows.append(rows);
            self.effects.found.insert(id.clone(), key);
            created.insert(id.clone());
        }
        Ok(created)
    }

    /// Stores the needs of new workflows, without those that the cache knows as stored.
    async fn add_needs(&mut self, submissions: &Submissions<'_>) -> Result<(), DbErr> {
        let mut values = Vec::new();
        for (hash, needs) in &submissions.needs {
            if !self.key_cache.has_needs(*hash) {
                values.extend([(*hash).into(), encode::needs_body(needs).into()]);
                self.effects.needs.push(*hash);
            }
        }
        for statement in self.statements.add_needs.statements(values) {
            self.db.execute_raw(statement).await?;
        }
        Ok(())
    }

    /// Encodes the changes of workflows that exist.
    async fn record(&mut self, calls: &[&WriteCall], answers: &mut [Answer]) -> Result<(), DbErr> {
        self.find_unknown(calls).await?;
        for (call, answer) in calls.iter().zip(answers) {
            let Write::Record(changes) = &call.write else { continue };
            let find = |id: &WorkflowId| {
                self.effects.found.get(id).copied().or_else(|| self.key_cache.get(id))
            };
            match rows::of_call(changes, call.take_prepared(), find) {
                Err(rejected) => *answer = Err(rejected),
                Ok(rows) => {
                    self.rows.append(rows);
                    let settled = changes.iter().filter(|change| {
                        change.workflow.as_ref().is_some_and(|state| state.status.is_settled())
                    });
                    self.effects.settled.extend(settled.map(|change| change.id.clone()));
                }
            }
        }
        Ok(())
    }

    /// Looks up the keys that are not in the cache.
    async fn find_unknown(&mut self, calls: &[&WriteCall]) -> Result<(), DbErr> {
        let mut unknown: HashMap<&WorkflowId, Vec<&WorkflowChange>> = HashMap::new();
        for call in calls {
            let Write::Record(changes) = &call.write else { continue };
            for change in changes {
                let is_known = self.key_cache.get(&change.id).is_some()
                    || self.effects.found.contains_key(&change.id);
                if !is_known {
                    unknown.entry(&change.id).or_default().push(change);
                }
            }
        }
        let ids = unknown.keys().map(|id| encode::text(id.as_str())).collect();
        for statement in self.statements.find_workflows.statements(ids) {
            for row in self.db.query_all_raw(statement).await? {
                let id = WorkflowId::from(unescape(row.try_get_by_index(0)?));
                let changes = unknown.remove(&id).unwrap_or_default();
                let (owner, last) = (row.try_get_by_index(4)?, row.try_get_by_index(5)?);
                if changes.iter().any(|change| is_overtaken(change, owner, last)) {
                    tracing::warn!(workflow = %id, "repeated change of a workflow that runs elsewhere skipped");
                    continue;
                }
                let task_count: i64 = row.try_get_by_index(2)?;
                let found = WorkflowKey {
                    key: row.try_get_by_index(1)?,
                    task_count: u32::try_from(task_count).unwrap_or(u32::MAX),
                };
                let status: String = row.try_get_by_index(3)?;
                if WorkflowStatus::from_name(&status).is_none_or(WorkflowStatus::is_settled) {
                    self.effects.settled.push(id.clone());
                }
                self.effects.found.insert(id, found);
            }
        }
        for id in unknown.into_keys() {
            tracing::warn!(workflow = %id, "change of a deleted workflow skipped");
        }
        Ok(())
    }

    /// Writes the collected rows.
    async fn flush(&mut self) -> Result<(), DbErr> {
        let mut new = std::mem::take(&mut self.new_rows);
        let rows = std::mem::take(&mut self.rows);
        let is_file = self.db.get_database_backend() == DbBackend::Sqlite;
        if is_file && new.len() + rows.len() > SINGLE_MESSAGE_MAX {
            // Apart: a change usually writes one row into each table, so its statements join into
            // one message. Mixed with submissions, the numbers of rows would differ, and no two
            // statements would join.
            self.flush_rows(new).await?;
            return self.flush_rows(rows).await;
        }
        new.append(rows);
        self.flush_rows(new).await
    }

    async fn flush_rows(&self, rows: Rows) -> Result<(), DbErr> {
        if !rows.blobs.is_empty() {
            // Before the insert: a blob that exists already is not written, and a deletion in
            // another process could remove it before this transaction commits its reference.
            prune::keep_blobs(self.db).await?;
            gleitzeit_failpoint::failpoint!("store.write.blobs_kept");
        }
        let mut parts = rows.parts(self.statements);
        multi_row::join(self.db.get_database_backend(), &mut parts);
        let [blobs, tasks, events, states, sequences] = parts;
        // Always in this order: two processes that lock rows of the same tables in another order
        // would deadlock.
        gleitzeit_failpoint::failpoint!("store.write.rows");
        self.run(blobs).await?;
        gleitzeit_failpoint::failpoint!("store.write.blobs");
        self.run(tasks).await?;
        gleitzeit_failpoint::failpoint!("store.write.tasks");
        self.run(events).await?;
        gleitzeit_failpoint::failpoint!("store.write.events");
        self.run(states).await?;
        gleitzeit_failpoint::failpoint!("store.write.states");
        self.run(sequences).await
    }

    async fn run(&self, part: Part) -> Result<(), DbErr> {
        for statement in part.statements {
            self.db.execute_raw(statement).await?;
        }
        Ok(())
    }
}
