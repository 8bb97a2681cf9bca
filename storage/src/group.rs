//! Writes a group of calls within one transaction.
//!
//! Asked by the [`writer`](super::writer), which begins and commits; asks the database. A call that
//! cannot be stored is left out and answered for; whatever the database refuses fails the group.
//!
//! Invariant: the group leaves what the calls would have left one by one, in their order.

use std::collections::{HashMap, HashSet};

use gleitzeit_domain::{
    id::WorkflowId,
    store::{StoreError, Submitted, WorkflowChange, lease::ClaimedWorkflow},
    workflow::WorkflowStatus,
};
use sea_orm::{ConnectionTrait, DbBackend, DbErr};

use super::{
    call::{Call, Write},
    encode::{self, unescape},
    insert::{self, Inserted},
    multi_row::{self, Part},
    rows::{self, Rows, Submissions},
    statements::Statements,
};

/// What became of a call within a committed group; a record has no [`Submitted`] to tell.
pub(super) type Answer = Result<Vec<Submitted>, StoreError>;

/// Where a workflow is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) key: i64,
    pub(super) task_count: u32,
}

/// Where the workflows are that were written to of late.
///
/// Only what was committed is in here; a workflow leaves when it settles, for from then on another
/// process may forget it. What is in here belongs to a lease of this store, or this store is the
/// only one that writes to it.
#[derive(Debug, Default)]
pub(super) struct Places {
    by_id: HashMap<WorkflowId, Place>,
    /// The needs that are stored, by hash, unless another process has removed them since.
    needs: HashSet<i64>,
}

/// Up to so many rows, all that a group writes is one message to a file.
const FEW: usize = 4;

/// Beyond this many known places, all are looked up anew: a bound on memory.
const PLACES_MAX: usize = 200_000;

/// Beyond this many known needs, all are written anew.
const NEEDS_MAX: usize = 10_000;

impl Places {
    pub(super) fn forget_all(&mut self) {
        self.by_id = HashMap::new();
    }

    pub(super) fn forget(&mut self, ids: &[WorkflowId]) {
        for id in ids {
            self.by_id.remove(id);
        }
    }

    /// Needs may be removed: what needs them from here on writes them again.
    pub(super) fn forget_needs(&mut self, hashes: &[i64]) {
        for hash in hashes {
            self.needs.remove(hash);
        }
    }

    pub(super) fn learn(&mut self, effects: CommitEffects) {
        // Another process may run what was ours, end it, and forget it.
        if effects.has_lost {
            self.forget_all();
        }
        if self.by_id.len() + effects.found.len() > PLACES_MAX {
            self.forget_all();
        }
        self.by_id.extend(effects.found);
        if self.needs.len() > NEEDS_MAX {
            self.needs.clear();
        }
        self.needs.extend(effects.needs);
        for id in &effects.settled {
            self.by_id.remove(id);
        }
    }
}

/// What [`Places`] learns from a group once it is committed.
#[derive(Debug, Default)]
pub(super) struct CommitEffects {
    found: HashMap<WorkflowId, Place>,
    settled: Vec<WorkflowId>,
    /// Needs that were stored.
    needs: Vec<i64>,
    /// How many workflows are new.
    pub(super) came: u64,
    /// True when a lease was lost.
    pub(super) has_lost: bool,
    /// True when there is something new that nobody owns.
    pub(super) leaves_free: bool,
}

impl CommitEffects {
    /// Where claimed workflows are, by their keys.
    pub(super) fn of_claimed(keys: &[i64], claimed: &[ClaimedWorkflow]) -> Self {
        let place = |(key, ClaimedWorkflow { record, .. }): (&i64, &ClaimedWorkflow)| {
            let task_count = u32::try_from(record.tasks.len()).unwrap_or(u32::MAX);
            (record.id.clone(), Place { key: *key, task_count })
        };
        Self { found: keys.iter().zip(claimed).map(place).collect(), ..Self::default() }
    }
}

/// Writes a group of calls; an answer for each.
pub(super) async fn write<C: ConnectionTrait>(
    db: &C,
    statements: &Statements,
    places: &Places,
    calls: &[&Call],
) -> Result<(Vec<Answer>, CommitEffects), DbErr> {
    let mut group = Group {
        db,
        statements,
        places,
        effects: CommitEffects::default(),
        new_rows: Rows::default(),
        rows: Rows::default(),
    };
    let mut answers: Vec<Answer> = Vec::with_capacity(calls.len());
    answers.resize_with(calls.len(), || Ok(Vec::new()));
    group.submit(calls, &mut answers).await?;
    gleitzeit_failpoint::failpoint!("store.write.workflows");
    group.record(calls, &mut answers).await?;
    gleitzeit_failpoint::failpoint!("store.write.found");
    group.flush().await?;
    Ok((answers, group.effects))
}

/// Whether a change was written before, and its workflow has gone on under another lease since.
///
/// Its own lease is there, and what a lease owns nobody else claims before it settles. So it did
/// settle, by this change, whose commit was not confirmed: to write it again would end a second time
/// what was reopened meanwhile.
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
    places: &'a Places,
    effects: CommitEffects,
    /// What is written beside the rows of new workflows.
    new_rows: Rows,
    /// What is written of changes.
    rows: Rows,
}

impl<C: ConnectionTrait> Group<'_, C> {
    /// Adds the workflows that are not there yet.
    async fn submit(&mut self, calls: &[&Call], answers: &mut [Answer]) -> Result<(), DbErr> {
        let mut submissions = Submissions::default();
        for (call, answer) in calls.iter().zip(&mut *answers) {
            if let Write::Submit(news) = &call.write
                && let Err(refused) = submissions.add(news, call.take_prepared())
            {
                *answer = Err(refused);
            }
        }
        let mut created = self.add_workflows(submissions).await?;
        self.effects.came = created.len() as u64;
        for (call, answer) in calls.iter().zip(answers) {
            let (Write::Submit(news), Ok(told)) = (&call.write, answer) else { continue };
            // The first call that names a created workflow is the one that made it.
            told.extend(news.iter().map(|new| match created.take(&new.record.id) {
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

    /// Inserts what is new; the ids of those that were not there before.
    async fn add_workflows(
        &mut self,
        submissions: Submissions<'_>,
    ) -> Result<HashSet<WorkflowId>, DbErr> {
        self.add_needs(&submissions).await?;
        let made = insert::add(self.db, self.statements, submissions).await?;
        let mut created = HashSet::with_capacity(made.len());
        for Inserted { id, place, rows } in made {
            self.new_rows.append(rows);
            self.effects.found.insert(id.clone(), place);
            created.insert(id.clone());
        }
        Ok(created)
    }

    /// Stores what nobody here has stored yet of what new workflows need.
    async fn add_needs(&mut self, submissions: &Submissions<'_>) -> Result<(), DbErr> {
        let mut values = Vec::new();
        for (hash, needs) in &submissions.needs {
            if !self.places.needs.contains(hash) {
                values.extend([(*hash).into(), encode::needs_body(needs).into()]);
                self.effects.needs.push(*hash);
            }
        }
        for statement in self.statements.add_needs.statements(values) {
            self.db.execute_raw(statement).await?;
        }
        Ok(())
    }

    /// Takes in the changes of workflows that are there.
    async fn record(&mut self, calls: &[&Call], answers: &mut [Answer]) -> Result<(), DbErr> {
        self.find_unknown(calls).await?;
        for (call, answer) in calls.iter().zip(answers) {
            let Write::Record(changes) = &call.write else { continue };
            let place = |id: &WorkflowId| {
                self.effects.found.get(id).or_else(|| self.places.by_id.get(id)).copied()
            };
            match rows::of_call(changes, call.take_prepared(), place) {
                Err(refused) => *answer = Err(refused),
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

    /// Looks up the workflows that nobody here knows the place of.
    async fn find_unknown(&mut self, calls: &[&Call]) -> Result<(), DbErr> {
        let mut unknown: HashMap<&WorkflowId, Vec<&WorkflowChange>> = HashMap::new();
        for call in calls {
            let Write::Record(changes) = &call.write else { continue };
            for change in changes {
                let is_known = self.places.by_id.contains_key(&change.id)
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
                    tracing::warn!(workflow = %id, "repeated change of a workflow that goes on elsewhere passed over");
                    continue;
                }
                let task_count: i64 = row.try_get_by_index(2)?;
                let place = Place {
                    key: row.try_get_by_index(1)?,
                    task_count: u32::try_from(task_count).unwrap_or(u32::MAX),
                };
                let status: String = row.try_get_by_index(3)?;
                if WorkflowStatus::from_name(&status).is_none_or(WorkflowStatus::is_settled) {
                    self.effects.settled.push(id.clone());
                }
                self.effects.found.insert(id, place);
            }
        }
        for id in unknown.into_keys() {
            tracing::warn!(workflow = %id, "change of a workflow that is not there passed over");
        }
        Ok(())
    }

    /// Writes the rows that were gathered.
    async fn flush(&mut self) -> Result<(), DbErr> {
        let mut new = std::mem::take(&mut self.new_rows);
        let rows = std::mem::take(&mut self.rows);
        let is_file = self.db.get_database_backend() == DbBackend::Sqlite;
        if is_file && new.len() + rows.len() > FEW {
            // Apart, for a change writes a row into each table, as a rule: those go together.
            self.flush_rows(new).await?;
            return self.flush_rows(rows).await;
        }
        new.append(rows);
        self.flush_rows(new).await
    }

    async fn flush_rows(&self, rows: Rows) -> Result<(), DbErr> {
        if !rows.blobs.is_empty() {
            super::prune::keep_blobs(self.db).await?;
            gleitzeit_failpoint::failpoint!("store.write.blobs_kept");
        }
        let mut parts = rows.parts(self.statements);
        multi_row::join(self.db.get_database_backend(), &mut parts);
        let [blobs, tasks, events, states, sequences] = parts;
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
