//! Claims, takeovers and releases: the calls that move workflows between leases.
//!
//! A claim surveys the leases without a lock, then expires the ended ones and assigns workflows in
//! one transaction. It reads the assigned workflows after the commit: nobody else writes to them
//! from then on.
//!
//! Invariant: the transaction that deletes an ended lease also frees its workflows or names a
//! successor.

mod inheritance;

use std::{collections::HashMap, time::Duration};

use gleitzeit_domain::{
    id::WorkflowId,
    store::{
        Epoch, StoreError,
        lease::{Claimed, ClaimedOne, ClaimedWorkflow, Release},
    },
    workflow::WorkflowStatus,
};
use sea_orm::DatabaseTransaction;

use super::Writer;
use crate::{
    encode,
    entity::workflow,
    fault::{ReadError, RequestError},
    key_cache::CommitEffects,
    leases::{ExpiredLease, LeaseTable, LeaseView, sql},
    notify,
    queue::Reply,
    read::{Loaded, Reader},
};

use inheritance::Inheritance;

/// The result of the transaction of a claim.
#[derive(Debug, Default)]
struct Assigned {
    rows: Vec<workflow::Model>,
    more: bool,
    ask_again_in: Option<Duration>,
    inheritance: Inheritance,
}

impl Writer {
    pub(super) async fn claim(&mut self, epoch: Epoch, limit: usize, reply: Reply<Claimed>) {
        let mut keys = Vec::new();
        let claimed = self.claim_some(epoch, limit, &mut keys).await;
        match &claimed {
            Ok(_) => self.lease_table.confirm_claims(epoch),
            // The commit may have assigned them: the next claim checks, or they would stay assigned
            // to this lease and run nowhere.
            Err(StoreError::Unknown { .. }) => {
                self.lease_table.add_unconfirmed(epoch, keys.clone());
                self.lease_table.recheck_inheritance(epoch);
            }
            Err(StoreError::LeaseLost { .. }) => self.forget_keys(),
            Err(_) => {}
        }
        if let Err(Ok(_)) = reply.send(claimed) {
            // The caller is gone and its lease has the workflows: the next claim returns them again.
            self.lease_table.add_unconfirmed(epoch, keys);
        }
    }

    /// Claims up to `limit` workflows. `keys` receives their keys, also if the outcome of the
    /// commit is unknown.
    async fn claim_some(
        &mut self,
        epoch: Epoch,
        limit: usize,
        keys: &mut Vec<i64>,
    ) -> Result<Claimed, StoreError> {
        if let Some(nothing) = self.lease_table.unchanged_since_last_claim(epoch) {
            return Ok(nothing);
        }
        // Before the survey: a write after this line is seen by the survey or raises the count.
        // Counted after it, a write in between would go unnoticed by every later claim.
        let notifications = self.lease_table.notification_count();
        let (view, has_free) = self.survey(epoch).await?;
        gleitzeit_failpoint::failpoint!("store.claim.looked");
        let is_owed = self.lease_table.has_inheritance(epoch)
            || !self.lease_table.unconfirmed(epoch).is_empty();
        // Without a transaction: an engine without work must not take the write lock of a file.
        if view.expired.is_empty() && !has_free && !is_owed {
            self.lease_table.found_nothing(epoch, notifications, &view);
            return Ok(Claimed { ask_again_in: view.ask_again_in, ..Claimed::default() });
        }
        let Assigned { rows, more, ask_again_in, inheritance } =
            self.assign(epoch, limit, view, keys).await?;
        gleitzeit_failpoint::failpoint!("store.claim.committed");
        let reader = self.reader();
        // After the commit: to read a large page within it would hold the locks that others wait
        // for. A workflow that cannot be read stays assigned; the next owner reports it, too.
        let read =
            self.read(async |db, lease_table| claimed(db, lease_table, &reader, epoch, rows).await);
        let ReadClaim { keys, workflows, .. } = match read.await {
            Ok(read) => read,
            Err(error) => {
                // They are assigned and the caller gets an error: the next claim returns them.
                self.lease_table.add_unconfirmed(epoch, keys.clone());
                self.lease_table.recheck_inheritance(epoch);
                return Err(error);
            }
        };
        gleitzeit_failpoint::failpoint!("store.claim.read");
        self.apply(CommitEffects::of_claimed(&keys, &workflows));
        let Inheritance { listed, page, is_shared } = inheritance;
        self.lease_table.record_inheritance(epoch, listed, page.iter().chain(&keys));
        if is_shared {
            self.lease_table.clear_inheritance(epoch);
        }
        let more = more || self.lease_table.has_inheritance(epoch);
        Ok(Claimed { workflows, more, ask_again_in })
    }

    /// Expires the ended leases, and assigns up to `limit` workflows, in one transaction.
    async fn assign(
        &mut self,
        epoch: Epoch,
        limit: usize,
        view: LeaseView,
        keys: &mut Vec<i64>,
    ) -> Result<Assigned, StoreError> {
        let wanted = self.lease_table.wanted(epoch);
        let mut view = Some(view);
        self.transact_alone(async |db, lease_table| {
            // A retry begins with nothing: the keys of a rolled-back attempt are not assigned.
            keys.clear();
            let view = view.get_or_insert_default();
            // First: the row lock keeps our own lease until the commit. Without it another process
            // could expire it while its workflows are assigned here.
            check(lease_table.keep(db, epoch).await?, epoch)?;
            gleitzeit_failpoint::failpoint!("store.claim.kept");
            let successor = (!view.has_others).then_some(epoch);
            let mut freed = expire_leases(db, view, successor).await?;
            gleitzeit_failpoint::failpoint!("store.claim.ended");
            let (mut inheritance, unfit) =
                Inheritance::list(db, lease_table, epoch, &wanted).await?;
            freed += unfit;
            // The unconfirmed ones first: they are assigned already, and nobody else can run them.
            let mut rows = sql::owned(db, epoch, lease_table.unconfirmed(epoch)).await?;
            if view.has_others {
                freed += inheritance.share(db, lease_table, epoch, &rows).await?;
            } else {
                let page =
                    inheritance.page(lease_table, epoch, limit.saturating_sub(rows.len()), &rows);
                rows.append(&mut sql::still_inherited(db, epoch, &page).await?);
                inheritance.page = page;
            }
            let left = limit.saturating_sub(rows.len());
            let mut fresh =
                if left > 0 { sql::claim(db, epoch, left, &wanted).await? } else { vec![] };
            gleitzeit_failpoint::failpoint!("store.claim.taken");
            let more = fresh.len() == left;
            let left_over = freed > fresh.len() as u64;
            rows.append(&mut fresh);
            let returned = release_unfit(db, lease_table, epoch, &mut rows).await?;
            // Only if something is left for others: a notification for each claim would wake every
            // engine on the database for nothing.
            if left_over || returned > 0 {
                notify::notify_other_processes(db).await?;
            }
            rows.sort_unstable_by_key(|row| row.key);
            keys.extend(rows.iter().map(|row| row.key));
            let ask_again_in = view.ask_again_in;
            Ok(Assigned { rows, more, ask_again_in, inheritance })
        })
        .await
    }

    pub(super) async fn claim_one(
        &mut self,
        epoch: Epoch,
        id: &WorkflowId,
        reopens: bool,
    ) -> Result<ClaimedOne, StoreError> {
        let (mut view, _) = self.survey(epoch).await?;
        gleitzeit_failpoint::failpoint!("store.claim_one.looked");
        let reader = self.reader();
        let id = encode::escape(id.as_str());
        self.transact_alone(async |db, lease_table| {
            check(lease_table.keep(db, epoch).await?, epoch)?;
            // Without a successor: this call takes one workflow, and an engine that claims pages
            // gets the others.
            if expire_leases(db, &mut view, None).await? > 0 {
                notify::notify_other_processes(db).await?;
            }
            let Some(row) = sql::find(db, &id).await? else { return Ok(ClaimedOne::Unknown) };
            let is_open = is_open(&row);
            let is_mine = row.lease_epoch == sql::column(epoch);
            let is_held = !is_mine
                && is_owned(db, &row, is_open).await?
                && !sql::is_successor(db, epoch, row.lease_epoch).await?;
            if is_held && (is_open || reopens) {
                return Ok(ClaimedOne::Held);
            }
            // An inherited workflow, too: while it bears the epoch of the ended lease, the next
            // claim would share it with others although it runs here.
            if !is_mine && (is_open || reopens) {
                sql::assign(db, epoch, row.key).await?;
                gleitzeit_failpoint::failpoint!("store.claim_one.taken");
            }
            if !lease_table.needs.contains(row.needs) {
                lease_table.needs.replace(sql::needs(db).await?);
            }
            let read = claimed(db, lease_table, &reader, epoch, vec![row]).await?.only()?;
            Ok(read.map_or(ClaimedOne::Unknown, |one| ClaimedOne::Taken(Box::new(one))))
        })
        .await
    }

    pub(super) async fn release(
        &mut self,
        epoch: Epoch,
        ids: &[WorkflowId],
        why: Release,
    ) -> Result<(), StoreError> {
        let escaped: Vec<String> =
            ids.iter().map(|id| encode::escape(id.as_str()).into_owned()).collect();
        let keys = self
            .transact_alone(async |db, lease_table| {
                check(lease_table.keep(db, epoch).await?, epoch)?;
                let keys = sql::keys_of(db, &escaped).await?;
                sql::release(db, epoch, &keys).await?;
                notify::notify_other_processes(db).await?;
                Ok(keys)
            })
            .await?;
        if why == Release::ForOthers {
            // Or the next claim would take them again, and release them again, without end.
            self.lease_table.refuse(epoch, keys);
        }
        // Another process may delete them from here on: a cached key would then be wrong.
        for id in ids {
            self.forget_key(id);
        }
        Ok(())
    }

    /// Reads which leases have ended, and whether a claim would find a workflow. Changes nothing
    /// and locks nothing.
    async fn survey(&mut self, epoch: Epoch) -> Result<(LeaseView, bool), StoreError> {
        if !self.lease_table.is_timed() {
            check(self.lease_table.has_open(epoch), epoch)?;
        }
        let wanted = self.lease_table.wanted(epoch);
        let mut lease_rows = self.query(async |db| sql::lease_rows(db, &wanted).await).await?;
        if !self.lease_table.needs.are(lease_rows.needs) {
            let all = self.query(async |db| sql::needs(db).await).await?;
            self.lease_table.needs.replace_as(all, lease_rows.needs);
        }
        if !self.lease_table.wanted(epoch).is_all() {
            let unknown = self.query(async |db| sql::unknown_needs(db).await).await?;
            self.lease_table.needs.add_unknown(unknown);
        }
        let now_wanted = self.lease_table.wanted(epoch);
        // Again with the new needs: by the old ones, `has_free` could be false although a free
        // workflow has needs that were unknown a moment ago.
        if now_wanted != wanted {
            lease_rows = self.query(async |db| sql::lease_rows(db, &now_wanted).await).await?;
        }
        check(lease_rows.leases.iter().any(|lease| lease.epoch == epoch), epoch)?;
        for ended in self.lease_table.ended_by_time(&lease_rows, epoch) {
            if !self.query(async |db| sql::owns(db, ended).await).await? {
                self.lease_table.set_idle(&lease_rows, ended);
            }
        }
        let view = self.lease_table.view(&lease_rows, epoch).map_err(|error| StoreError::Read {
            detail: format!("the lock of another process's lease cannot be checked: {error}"),
        })?;
        Ok((view, lease_rows.has_free))
    }
}

/// Expires the ended leases, and frees their workflows unless there is a successor; returns the
/// number of freed workflows.
async fn expire_leases(
    db: &DatabaseTransaction,
    view: &mut LeaseView,
    successor: Option<Epoch>,
) -> Result<u64, RequestError> {
    let mut freed = 0;
    for ExpiredLease { epoch, is_gone } in view.expired.clone() {
        // The statement checks again under a lock: since the survey the lease may have been
        // renewed, or another process may have expired it.
        if !sql::expire(db, ExpiredLease { epoch, is_gone }).await? {
            view.retry_soon();
            continue;
        }
        gleitzeit_failpoint::failpoint!("store.takeover.ended");
        if let Some(successor) = successor {
            sql::transfer(db, epoch, successor).await?;
            gleitzeit_failpoint::failpoint!("store.takeover.inherited");
            tracing::info!(%epoch, is_gone, %successor, "lease of another process inherited");
        } else {
            let some = sql::free(db, epoch, true).await?;
            gleitzeit_failpoint::failpoint!("store.takeover.freed");
            tracing::info!(%epoch, is_gone, workflows = some, "lease of another process expired");
            freed += some;
        }
    }
    Ok(freed)
}

/// Removes from `rows` the workflows that the process cannot run, and releases them; returns their
/// number. Usually there are none: only workflows with new needs get past the claim's condition.
async fn release_unfit(
    db: &DatabaseTransaction,
    lease_table: &mut LeaseTable,
    epoch: Epoch,
    rows: &mut Vec<workflow::Model>,
) -> Result<u64, RequestError> {
    if rows.iter().any(|row| !lease_table.needs.contains(row.needs)) {
        lease_table.needs.replace(sql::needs(db).await?);
    }
    let is_unfit = |row: &mut workflow::Model| !lease_table.fits(epoch, row.needs);
    let unfit: Vec<i64> = rows.extract_if(.., is_unfit).map(|row| row.key).collect();
    if unfit.is_empty() { Ok(0) } else { Ok(sql::release(db, epoch, &unfit).await?) }
}

/// Reads claimed workflows with their tasks.
async fn claimed(
    db: &DatabaseTransaction,
    lease_table: &LeaseTable,
    reader: &Reader,
    epoch: Epoch,
    rows: Vec<workflow::Model>,
) -> Result<ReadClaim, ReadError> {
    let mine = sql::column(epoch);
    let left_by = |row: &workflow::Model| {
        // An inherited workflow still bears the epoch of the lease that ended.
        let inherited = row.lease_epoch != mine && row.lease_epoch != 0;
        let ended = if inherited { row.lease_epoch } else { row.left_by };
        // Not for a settled one: none of its tasks was executing.
        (ended != 0 && is_open(row)).then(|| sql::epoch_of(ended))
    };
    let beside = rows.iter().map(|row| (row.key, (lease_table.needs.of(row.needs), left_by(row))));
    let mut beside: HashMap<i64, _> = beside.collect();
    let Loaded { records, keys, broken } = reader.load(db, rows).await?;
    let mut read = ReadClaim { broken, ..ReadClaim::default() };
    for (record, key) in records.into_iter().zip(keys) {
        if let Some((needs, left_by)) = beside.remove(&key) {
            read.keys.push(key);
            read.workflows.push(ClaimedWorkflow { record, needs, left_by });
        }
    }
    for (id, error) in &read.broken {
        reader.report(id, error);
    }
    Ok(read)
}

/// The claimed workflows that were read.
#[derive(Debug, Default)]
struct ReadClaim {
    workflows: Vec<ClaimedWorkflow>,
    /// Their keys, in the same order.
    keys: Vec<i64>,
    /// The ids of those that cannot be read, and why.
    broken: Vec<(String, StoreError)>,
}

impl ReadClaim {
    /// The result of a claim of one workflow.
    fn only(mut self) -> Result<Option<ClaimedWorkflow>, StoreError> {
        match self.broken.pop() {
            Some((_, error)) => Err(error),
            None => Ok(self.workflows.pop()),
        }
    }
}

/// True if a lease owns the workflow. The end of a lease frees unsettled workflows only, so a
/// settled one may bear the epoch of a lease that is gone.
async fn is_owned(
    db: &DatabaseTransaction,
    row: &workflow::Model,
    is_open: bool,
) -> Result<bool, RequestError> {
    Ok(row.lease_epoch != 0 && (is_open || sql::exists(db, row.lease_epoch).await?))
}

fn is_open(row: &workflow::Model) -> bool {
    WorkflowStatus::from_name(&row.status).is_some_and(|status| !status.is_settled())
}

fn check(exists: bool, epoch: Epoch) -> Result<(), StoreError> {
    if exists { Ok(()) } else { Err(StoreError::LeaseLost { epoch }) }
}
